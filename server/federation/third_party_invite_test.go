package federation

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// identity is the key of an identity server.
var identity = matrix.SigningKey{ID: "ed25519:0", Private: ed25519.NewKeyFromSeed([]byte(strings.Repeat("i", 32)))}

// offered is a room in which somebody is invited by address, under a token.
func (l *lobby) offered(token string) matrix.RoomID {
	l.Helper()
	room := l.create(state.Creation{Version: "11"})
	public := base64.RawStdEncoding.EncodeToString(identity.Private.Public().(ed25519.PublicKey))
	_, err := l.rooms.Send(context.Background(), store.TxnID{}, matrix.Draft{
		Room: room, Sender: bob, Type: "m.room.third_party_invite", StateKey: &token,
		Content: fmt.Appendf(nil, `{"display_name":"a...@p...","key_validity_url":"https://id.test","public_key":%q,"public_keys":[{"public_key":%q}]}`, public, public),
	})
	l.must(err)
	return room
}

// proof is what the identity server says of whose the address is.
func (l *lobby) proof(user matrix.UserID, token string) jsontext.Value {
	l.Helper()
	signed, err := matrix.SignJSON(fmt.Appendf(nil, `{"mxid":%q,"token":%q}`, user, token), "id.test", identity)
	l.must(err)
	return signed
}

func (l *lobby) is(room matrix.RoomID, user matrix.UserID) (is matrix.Membership) {
	l.Helper()
	l.must(l.store.View(func(tx *store.Tx) error {
		ev, err := state.Current(tx, room, "m.room.member", string(user))
		if ev == nil || err != nil {
			return err
		}
		member, err := ev.Member()
		is = member.Membership
		return err
	}))
	return is
}

// A proof makes an invite of who the address belongs to, once that user's server has
// signed it, and of nobody else.
func TestExchangeThirdPartyInvite(t *testing.T) {
	l := newLobby(t)
	asked := 0
	l.rooms.SetOutside(state.Outside{Invite: func(context.Context, *matrix.Event, []*matrix.Event) (map[string]string, error) {
		asked++
		return map[string]string{"ed25519:test": "AAAA"}, nil
	}})
	room := l.offered("token")
	body := func(user matrix.UserID, proof jsontext.Value) string {
		return fmt.Sprintf(`{"type":"m.room.member","room_id":%q,"sender":%q,"state_key":%q,"content":{"membership":"invite","third_party_invite":{"display_name":"a","signed":%s}}}`, room, bob, user, proof)
	}
	for _, tt := range []struct {
		what, body string
		code       int
	}{
		{"for another", body("@eve:peer.test", l.proof(alice, "token")), 403},
		{"of another token", body(alice, l.proof(alice, "tokens")), 403},
		{"that nobody signed", body(alice, jsontext.Value(`{"mxid":"@alice:peer.test","token":"token"}`)), 403},
		{"that is none", body(alice, jsontext.Value(`7`)), 400},
		{"in another room", strings.Replace(body(alice, l.proof(alice, "token")), string(room), "!other", 1), 400},
		{"that is no invite", strings.Replace(body(alice, l.proof(alice, "token")), `"invite"`, `"join"`, 1), 400},
	} {
		if code, answer := l.ask((*Server).exchangeThirdPartyInvite, peer, []string{string(room)}, "", tt.body); code != tt.code {
			t.Errorf("a proof %s: %d %s, want %d", tt.what, code, answer, tt.code)
		}
	}
	if l.is(room, alice) != "" || asked > 0 {
		t.Fatalf("she is %q, and her server was asked %d times", l.is(room, alice), asked)
	}
	for range 2 {
		code, answer := l.ask((*Server).exchangeThirdPartyInvite, peer, []string{string(room)}, "", body(alice, l.proof(alice, "token")))
		if code != 200 || l.is(room, alice) != matrix.Invite || asked != 1 {
			t.Errorf("%d %s: she is %q, and her server was asked %d times", code, answer, l.is(room, alice), asked)
		}
	}
}

// An identity server tells of the invites that waited for an address.
func TestOnBind(t *testing.T) {
	l := newLobby(t)
	carol := matrix.UserID("@carol:here.test")
	l.must(l.store.Update(t.Context(), func(tx *store.Tx) error {
		_, err := tx.CreateOpenAccount(carol, store.Account{})
		return err
	}))
	room, other := l.offered("token"), l.offered("token")
	body := fmt.Sprintf(`{"medium":"email","address":"c@x","mxid":%q,"invites":[
		{"room_id":%q,"sender":%q,"signed":%s},
		{"room_id":%q,"sender":%q,"signed":%s}]}`,
		carol, other, bob, l.proof("@eve:peer.test", "token"), room, bob, l.proof(carol, "token"))
	code, answer := l.ask((*Server).onBindThirdPartyIdentifier, "", nil, "", body)
	if code != 200 || l.is(room, carol) != matrix.Invite || l.is(other, carol) != "" {
		t.Errorf("%d %s: she is %q and %q", code, answer, l.is(room, carol), l.is(other, carol))
	}
	if code, _ := l.ask((*Server).onBindThirdPartyIdentifier, "", nil, "", `{"mxid":"@nobody:here.test"}`); code != 404 {
		t.Errorf("for nobody: %d", code)
	}
}
