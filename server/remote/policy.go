package remote

import (
	"context"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// policyTimeout is how long a policy server may think about an event: whoever sends it
// waits.
const policyTimeout = 10 * time.Second

// maxPolicyAnswer bounds a policy server's signatures, in bytes.
const maxPolicyAnswer = 16 << 10

// SignByPolicy asks a policy server to sign an event and returns its signatures by the
// IDs of their keys. They are not checked: what they must verify with is in the room.
// For an event of a user of ours it is tried although it is backing off: the user waits.
// Errors are those of [Network.Do].
//
// Spec: SS askPolicyServerToSign: "Only the Policy Server's signature is returned."
func (n *Network) SignByPolicy(ctx context.Context, server matrix.ServerName, ev *matrix.Event) (map[string]string, error) {
	var answer map[string]map[string]string
	err := n.Do(ctx, server, Request{
		Method:  http.MethodPost,
		Path:    "/_matrix/policy/v1/sign",
		Body:    jsontext.Value(ev.JSON()),
		Timeout: policyTimeout, MaxBytes: maxPolicyAnswer,
		Insist: ev.Sender.Server() == n.server,
	}, &answer)
	if err != nil {
		return nil, err
	}
	return answer[string(server)], nil
}
