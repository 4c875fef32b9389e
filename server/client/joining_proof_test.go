package client

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
)

// What a client shows as a proof of an invite by address is for the user, and whole.
func TestJoinProof(t *testing.T) {
	const whole = `{"sender":"@alice:far.test","mxid":"@bob:here.test","token":"t","signatures":{"id.test":{"ed25519:0":"AA"}}}`
	for _, tt := range []struct {
		what, signed string
		status       int
		none         bool
	}{
		{"whole", whole, 0, false},
		{"absent", ``, 0, true},
		{"null", `null`, 0, true},
		{"of another", strings.Replace(whole, "@bob", "@carol", 1), 403, true},
		{"without a sender", strings.Replace(whole, `"sender"`, `"x"`, 1), 400, true},
		{"of no sender", strings.Replace(whole, "@alice:", "alice", 1), 400, true},
		{"without a user", strings.Replace(whole, `"mxid"`, `"x"`, 1), 403, true},
		{"without a token", strings.Replace(whole, `"token"`, `"x"`, 1), 400, true},
		{"without signatures", strings.Replace(whole, `"signatures"`, `"x"`, 1), 400, true},
		{"of other types", strings.Replace(whole, `"t"`, `7`, 1), 400, true},
	} {
		proof, err := joinRequest{Signed: jsontext.Value(tt.signed)}.proof("!room", "@bob:here.test")
		status := 0
		if err != nil {
			status = api.AsError(err).Status
		}
		if status != tt.status || (proof == nil) != tt.none {
			t.Errorf("a proof %s: %+v, %v", tt.what, proof, err)
		}
		if proof != nil && (proof.Sender != "@alice:far.test" || proof.User != "@bob:here.test" || string(proof.Signed) != tt.signed) {
			t.Errorf("a proof %s: %+v", tt.what, proof)
		}
	}
}
