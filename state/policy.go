package state

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// policyKeyID is the key with which policy servers sign: "The Key ID for the ed25519
// key in m.room.policy is always ed25519:policy_server."
const policyKeyID = "ed25519:policy_server"

// ErrPolicy: a room's policy server cannot be asked about an event, or its signature
// is none. That it refuses, or does not answer, is the error of the asking, which then
// wraps ErrPolicyAnswer.
var ErrPolicy = errors.New("the room's policy server does not recommend the event")

// ErrPolicyAnswer is wrapped by what a policy server that was asked says instead of
// signing: "that error SHOULD be provided to the client verbatim".
//
// Spec: SS Validating Policy Server signatures.
var ErrPolicyAnswer = errors.New("the room's policy server does not sign the event")

// A policy is the policy server that a room uses. Spec: SS Policy Servers.
type policy struct {
	server matrix.ServerName
	key    ed25519.PublicKey
}

// policyFor returns the policy server that an event needs the signature of, by a
// state of its room; nil for none. A room uses one if m.room.policy says whole who it
// is, and "the server name denoted by [...] via has at least one joined user in the
// room in current state". This server is none: a room that names it uses none, as
// nobody could send there any more.
//
// Spec: SS Determining if a Policy Server is enabled in a room.
func policyFor(tx *store.Tx, room store.RoomNum, at store.SnapshotID, ev *matrix.Event, us matrix.ServerName) (*policy, error) {
	if ev.Is("m.room.policy", "") {
		return nil, nil // "the Policy Server is not asked to sign" them
	}
	said, err := EventAt(tx, room, at, "m.room.policy", "")
	if said == nil || err != nil {
		return nil, err
	}
	p := readPolicy(said.Content)
	if p == nil || p.server == us || !tx.ServerInRoom(room, tx.ServerNum(p.server)) {
		return nil, nil
	}
	return p, nil
}

// readPolicy reads the content of m.room.policy: "A string value for via. An object
// value for public_keys containing at least a string value for ed25519." It returns
// nil where that is not there.
func readPolicy(content jsontext.Value) *policy {
	var said struct {
		Via  jsontext.Value            `json:"via"`
		Keys map[string]jsontext.Value `json:"public_keys"`
	}
	var via, key string
	if json.Unmarshal(content, &said) != nil || json.Unmarshal(said.Via, &via) != nil ||
		json.Unmarshal(said.Keys["ed25519"], &key) != nil {
		return nil
	}
	server, err := matrix.ParseServerName(via)
	if err != nil {
		return nil
	}
	public, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(key, "="))
	if err != nil || len(public) != ed25519.PublicKeySize {
		public = nil // nothing can be signed by it
	}
	return &policy{server: server, key: public}
}

// signed says whether the policy server has signed an event.
func (p *policy) signed(ev *matrix.Event) bool {
	return len(p.key) > 0 && ev.VerifySignature(p.server, policyKeyID, p.key) == nil
}

// askPolicy gets the signature of the policy server on an event. The error is that of
// the asking, or ErrPolicy.
//
// Spec: SS Asking for a Policy Server signature on an event.
func (r *Rooms) askPolicy(ctx context.Context, p *policy, ev *matrix.Event) (*matrix.Event, error) {
	if r.outside.Sign == nil {
		return nil, refuse(ErrPolicy, "This room has the policy server %s, which cannot be asked", p.server)
	}
	signatures, err := r.outside.Sign(ctx, p.server, ev)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrPolicyAnswer, p.server, err)
	}
	signed, err := ev.WithSignatures(p.server, map[string]string{policyKeyID: signatures[policyKeyID]})
	if err != nil {
		return nil, err
	}
	if !p.signed(signed) {
		return nil, refuse(ErrPolicy, "The policy server %s gives a signature that is none", p.server)
	}
	return signed, nil
}

// ErrUnsigned is wrapped where an event from elsewhere lacks the signature of the room's
// policy server, which was not asked.
var ErrUnsigned = errors.New("the room's policy server has not signed the event")

// unsigned is the error of an event from elsewhere that has passed all other checks
// and lacks the signature of the room's policy server.
type unsigned struct {
	event  *matrix.Event
	policy *policy
}

// Error names the event and the server.
func (u *unsigned) Error() string {
	return fmt.Sprintf("%s lacks the signature of the policy server %s", u.event.ID, u.policy.server)
}

// Unwrap returns ErrUnsigned.
func (u *unsigned) Unwrap() error { return ErrUnsigned }

// recommended is the last of the checks on an event from elsewhere: "Is validated by
// the Policy Server, if the room is using a Policy Server, otherwise it is soft
// failed."
//
// Spec: SS Checks performed on receipt of a PDU, step 7; Validating Policy Server
// signatures.
func (a *acceptance) recommended(current store.SnapshotID) (verdict Verdict, err error) {
	err = a.view(func(tx *store.Tx) error {
		p, err := policyFor(tx, a.num, current, a.ev, a.rooms.server)
		switch {
		case err != nil:
			return err
		case p == nil || p.signed(a.ev):
			verdict = Accepted
		case a.how.declined == a.ev.ID:
			verdict = SoftFailed
		default:
			return &unsigned{event: a.ev, policy: p}
		}
		return nil
	})
	return verdict, err
}

// review asks for the signature that an event lacks, while nothing is held. It
// returns the event to try again with, and its ID as declined where the policy server
// does not sign it. ok is false for errors about something else.
func (r *Rooms) review(ctx context.Context, err error) (ev *matrix.Event, declined matrix.EventID, ok bool) {
	lacks, ok := errors.AsType[*unsigned](err)
	if !ok || ctx.Err() != nil {
		return nil, "", false
	}
	signed, err := r.askPolicy(ctx, lacks.policy, lacks.event)
	if ctx.Err() != nil {
		return nil, "", false // it may sign next time
	}
	if err != nil {
		return lacks.event, lacks.event.ID, true
	}
	return signed, "", true
}
