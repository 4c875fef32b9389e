package state

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// identity is an identity server with a key, and the room's offer of its key.
var identity = matrix.SigningKey{ID: "ed25519:0", Private: ed25519.NewKeyFromSeed([]byte(strings.Repeat("i", 32)))}

func offer(key matrix.SigningKey) string {
	public := base64.RawStdEncoding.EncodeToString(key.Private.Public().(ed25519.PublicKey))
	return fmt.Sprintf(`{"display_name":"b...@e...","key_validity_url":"https://id.example/valid","public_key":%q,"public_keys":[{"public_key":%q}]}`, public, public)
}

// proof is what an identity server says of whose an address is.
func (h *house) proof(key matrix.SigningKey, user matrix.UserID, token string) jsontext.Value {
	h.Helper()
	signed, err := matrix.SignJSON(fmt.Appendf(nil, `{"mxid":%q,"sender":%q,"token":%q}`, user, alice, token), "id.example", key)
	h.must(err)
	return signed
}

// redeem joins a user by a proof, or without one.
func (h *house) redeem(room matrix.RoomID, user matrix.UserID, proof jsontext.Value) error {
	join := Join{Room: room, User: user}
	if proof != nil {
		join.Proof = &ThirdPartyProof{Room: room, Sender: alice, User: user, Signed: proof}
	}
	return h.rooms.Join(context.Background(), join)
}

// An invite by address in every version: it is redeemed by who the identity server
// says, once as often as it stands in the room, and by nobody else. What is refused
// leaves nothing behind.
func TestThirdPartyInvite(t *testing.T) {
	other := matrix.SigningKey{ID: "ed25519:0", Private: ed25519.NewKeyFromSeed([]byte(strings.Repeat("o", 32)))}
	for _, v := range matrix.Versions() {
		t.Run(v.ID, func(t *testing.T) {
			h := newHouse(t)
			room := h.create(Creation{Creator: alice, Preset: PresetPrivate, Version: v.ID})
			set := func(token, content string) {
				t.Helper()
				_, err := h.set(room, alice, "m.room.third_party_invite", token, content)
				h.must(err)
			}
			set("token", offer(identity))
			before := h.store.Position()
			for _, tt := range []struct {
				what  string
				proof jsontext.Value
				want  error
			}{
				{"no proof", nil, auth.JoinRefused},
				{"a proof by another", h.proof(other, bob, "token"), auth.ThirdPartyBadSignature},
				{"a proof for another", h.proof(identity, carol, "token"), auth.ThirdPartyOtherUser},
				{"a proof of another invite", h.proof(identity, bob, "tokens"), ErrForbidden},
				{"an unsigned proof", fmt.Appendf(nil, `{"mxid":%q,"token":"token"}`, bob), auth.ThirdPartyBadSignature},
				{"a proof without a user", []byte(`{"token":"token"}`), auth.ThirdPartyNoToken},
				{"a proof without a token", fmt.Appendf(nil, `{"mxid":%q}`, bob), ErrForbidden},
				{"a proof of no form", []byte(`"token"`), ErrBadEvent},
				{"an empty proof", []byte(`{}`), ErrForbidden},
			} {
				h.wantReason(tt.what, h.redeem(room, bob, tt.proof), tt.want)
			}
			if h.store.Position() != before {
				t.Error("a refused proof left something behind")
			}

			h.must(h.store.Update(context.Background(), func(tx *store.Tx) error { // who brings a proof wants the invite
				num, err := tx.PutUserNum(bob)
				if err != nil {
					return err
				}
				return tx.PutAccountData(num, store.AccountData{Type: "m.invite_permission_config", Content: []byte(`{"default_action":"block"}`)})
			}))
			h.must(h.redeem(room, bob, h.proof(identity, bob, "token")))
			h.wantMember(room, bob, matrix.Join)
			events := h.all(room)
			invite, join := events[len(events)-2], memberOf(h, events[len(events)-1])
			content := string(memberOf(h, invite).ThirdPartyInvite)
			if invite.Sender != alice || *invite.StateKey != string(bob) || h.field(content, "display_name") != `"b...@e..."` || h.field(content, "signed", "token") != `"token"` {
				t.Errorf("the invite is by %s: %s", invite.Sender, invite.Content)
			}
			if join.Membership != matrix.Join || join.ThirdPartyInvite != nil {
				t.Errorf("the join says %s", events[len(events)-1].Content)
			}

			h.must(h.change(room, alice, bob, matrix.Ban))
			h.wantReason("a proof of who is banned", h.redeem(room, bob, h.proof(identity, bob, "token")), auth.ThirdPartyBanned)
			set("token", `{}`)
			h.wantReason("a proof for a revoked invite", h.redeem(room, carol, h.proof(identity, carol, "token")), auth.ThirdPartyBadSignature)
			set("second", offer(identity))
			h.must(h.rooms.Leave(context.Background(), room, alice, ""))
			h.must(h.redeem(room, carol, h.proof(identity, carol, "second"))) // though the inviter has left
			h.wantMember(room, carol, matrix.Join)
		})
	}
}

// An invite by address that a user of another server sent is redeemed here, in that
// user's name and without that server: "the server which actually sends the event may
// be a different server" (SS Validating hashes and signatures on received events).
func TestThirdPartyInviteFromAfar(t *testing.T) {
	const mallory = matrix.UserID("@mallory:far.example")
	for _, v := range matrix.Versions() {
		if v.EventIDs == matrix.EventIDGiven {
			continue // these tests build no events that cite others by hash
		}
		h := newHouse(t)
		room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: v.ID, PowerOverride: []byte(`{"invite":0}`)})
		take := func(typ, key, content string) {
			t.Helper()
			last := h.all(room)
			ev := h.build(room, last[len(last)-1:], last[len(last)-1].Depth+1,
				matrix.Draft{Sender: mallory, Type: typ, StateKey: &key, Content: []byte(content)})
			if verdict := h.accept(ev); verdict != Accepted {
				t.Fatalf("version %s: %s is %v", v.ID, typ, verdict)
			}
		}
		take("m.room.member", string(mallory), `{"membership":"join"}`)
		take("m.room.third_party_invite", "token", offer(identity))
		_, err := h.set(room, alice, "m.room.join_rules", "", `{"join_rule":"invite"}`)
		h.must(err)
		h.wantReason("a join without a proof", h.join(room, bob), auth.JoinRefused)
		h.must(h.redeem(room, bob, h.proof(identity, bob, "token")))
		events := h.all(room)
		invite := events[len(events)-2]
		if invite.Sender != mallory || len(invite.RequiredSigners()) != 0 {
			t.Errorf("version %s: the invite is by %s and needs %v", v.ID, invite.Sender, invite.RequiredSigners())
		}
		signers, err := invite.Signatures()
		h.must(err)
		if len(signers["home.example"]) == 0 {
			t.Errorf("version %s: the invite is signed by %v", v.ID, signers)
		}
	}
}

// A proof is an invite under every rule that takes one: nobody need vouch.
func TestThirdPartyInviteToRestrictedRoom(t *testing.T) {
	for _, v := range matrix.Versions() {
		if !v.RestrictedJoins {
			continue
		}
		h := newHouse(t)
		room := h.ruled(v.ID, club("restricted"))
		_, err := h.set(room, alice, "m.room.third_party_invite", "token", offer(identity))
		h.must(err)
		h.must(h.redeem(room, bob, h.proof(identity, bob, "token")))
		if via := h.via(room, bob); via != "" {
			t.Errorf("version %s: bob was let in by %s", v.ID, via)
		}
	}
}

// Only who may invite invites by address.
func TestThirdPartyInviteLevel(t *testing.T) {
	h := newHouse(t)
	for _, v := range matrix.Versions() {
		room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: v.ID, PowerOverride: []byte(`{"invite":50}`)})
		h.must(h.join(room, bob))
		_, err := h.set(room, bob, "m.room.third_party_invite", "token", offer(identity))
		h.wantReason("version "+v.ID, err, auth.ThirdPartyInviteLevel)
		_, err = h.set(room, alice, "m.room.third_party_invite", "token", offer(identity))
		h.wantReason("version "+v.ID, err, nil)
	}
}

// Whoever makes an invite of a proof asks the identity server whether its key still
// holds, where the room says where to ask; one that holds is enough.
func TestThirdPartyKeyHolds(t *testing.T) {
	public := base64.RawStdEncoding.EncodeToString(identity.Private.Public().(ed25519.PublicKey))
	key := func(url string) string { return fmt.Sprintf(`{"key_validity_url":%q,"public_key":%q}`, url, public) }
	for _, tt := range []struct {
		what, offer string
		off         bool
		asked       string
		want        error
	}{
		{"good", key("good"), false, "good", nil},
		{"revoked", key("revoked"), false, "revoked", ErrForbidden},
		{"away", key("away"), false, "away", ErrForbidden},
		{"one of two is good", `{"public_keys":[` + key("revoked") + `,` + key("good") + `]}`, false, "revoked good", nil},
		{"revoked and away", `{"public_keys":[` + key("revoked") + `,` + key("away") + `]}`, false, "revoked away", ErrForbidden},
		{"too many", `{"public_keys":[` + key("1") + `,` + key("2") + `,` + key("3") + `,` + key("good") + `]}`, false, "1 2 3", ErrForbidden},
		{"the same, again and again", `{"public_keys":[` + strings.Repeat(key("revoked")+`,`, 9) + key("good") + `]}`, false, "revoked good", nil},
		{"one that needs no asking", `{"public_keys":[` + key("away") + `,` + fmt.Sprintf(`{"public_key":%q}`, public) + `]}`, false, "", nil},
		{"nobody can be asked", key("good"), true, "", ErrForbidden},
	} {
		h := newHouse(t)
		var asked []string
		if !tt.off {
			h.rooms.SetOutside(Outside{KeyHolds: func(_ context.Context, url, key string) (bool, error) {
				if asked = append(asked, url); key != public {
					t.Errorf("asked about the key %s", key)
				}
				if url == "away" {
					return false, errors.New("nobody there")
				}
				return url == "good", nil
			}})
		}
		room := h.create(Creation{Creator: alice, Preset: PresetPrivate, Version: "11"})
		_, err := h.set(room, alice, "m.room.third_party_invite", "token", tt.offer)
		h.must(err)
		if err := h.redeem(room, bob, h.proof(identity, bob, "token")); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", tt.what, err, tt.want)
		}
		if got := strings.Join(asked, " "); got != strings.TrimSpace(tt.asked) {
			t.Errorf("%s: asked %s", tt.what, got)
		}
		if tt.want != nil {
			h.wantReason("the join that follows", h.join(room, bob), auth.JoinRefused)
			continue
		}
		h.must(h.rooms.Leave(context.Background(), room, bob, ""))
		_, err = h.rooms.ChangeMembership(context.Background(), MembershipChange{Room: room, Sender: alice, Target: bob, Membership: matrix.Invite})
		h.must(err)
		n := len(asked)
		if h.must(h.redeem(room, bob, h.proof(identity, bob, "token"))); len(asked) != n {
			t.Errorf("%s: who is invited is asked about", tt.what)
		}
	}
}
