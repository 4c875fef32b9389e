package state

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

const (
	away = matrix.ServerName("away.example")
	zoe  = matrix.UserID("@zoe:away.example")
)

// awayKey signs for the other server, and as its policy server.
var awayKey = matrix.SigningKey{ID: "ed25519:away", Private: ed25519.NewKeyFromSeed([]byte(strings.Repeat("a", 32)))}

// signAway makes of a template the event that the other server sends.
func (h *house) signAway(t Template, change func(members map[string]jsontext.Value)) *matrix.Event {
	h.Helper()
	var members map[string]jsontext.Value
	h.must(json.Unmarshal(t.Event.JSON(), &members))
	for _, key := range []string{"hashes", "signatures"} {
		delete(members, key)
	}
	if change != nil {
		change(members)
	}
	pdu, err := matrix.HashAndSign(t.Version, encode(members), away, awayKey)
	h.must(err)
	ev, err := matrix.Parse(t.Version, pdu)
	h.must(err)
	return ev
}

func anyVersion(string) bool { return true }

// template is a template that is given.
func (h *house) template(room matrix.RoomID, user matrix.UserID, to matrix.Membership) Template {
	h.Helper()
	made, err := h.rooms.Template(room, user, to, anyVersion)
	h.must(err)
	return made
}

// admit brings a user of the other server in or out.
func (h *house) admit(room matrix.RoomID, user matrix.UserID, to matrix.Membership) *store.StoredEvent {
	h.Helper()
	ev, err := h.rooms.Vouch(h.signAway(h.template(room, user, to), nil))
	h.must(err)
	stored, err := h.rooms.Admit(context.Background(), ev, Source{})
	h.must(err)
	return stored
}

// In every version users of another server join and leave; what they send that way is
// for this server to send on, once.
func TestAdmit(t *testing.T) {
	for _, v := range matrix.Versions() {
		t.Run(v.ID, func(t *testing.T) {
			h := newHouse(t)
			room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: v.ID})
			join := h.signAway(h.template(room, zoe, matrix.Join), nil)
			h.send(room, alice, "m.room.message", `{"body":"between the two requests"}`)
			stored, err := h.rooms.Admit(context.Background(), join, Source{})
			h.must(err)
			if !stored.Relay || stored.Num.Aside() {
				t.Errorf("the join is stored as %+v", stored)
			}
			again, err := h.rooms.Admit(context.Background(), join, Source{})
			if err != nil || again.Num != stored.Num {
				t.Errorf("the join a second time: %v", err)
			}
			h.wantOutside(room, zoe, matrix.Join)
			if left := h.admit(room, zoe, matrix.Leave); !left.Relay {
				t.Error("the leave is not sent on")
			}
			h.wantOutside(room, zoe, matrix.Leave)
			if own := h.event(h.send(room, alice, "m.room.message", `{"body":"own"}`)); own.Relay {
				t.Error("an event of our own has the mark of others'")
			}
		})
	}
}

// Who may not come in gets no template, and gets not in with that of another.
func TestAdmitRefuses(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic})
	h.must(h.change(room, alice, zoe, matrix.Ban))
	template := func(room matrix.RoomID, to matrix.Membership) error {
		_, err := h.rooms.Template(room, zoe, to, anyVersion)
		return err
	}
	h.wantReason("a template for a banned user", template(room, matrix.Join), auth.JoinBanned)
	h.wantReason("a template to leave", template(room, matrix.Leave), auth.LeaveNotIn)
	h.wantReason("a template of a room of others", template("!elsewhere:away.example", matrix.Join), ErrUnknownRoom)
	_, err := h.rooms.Template(room, "@eve:away.example", matrix.Join, func(v string) bool { return v == "1" })
	var incompatible *IncompatibleError
	if !errors.As(err, &incompatible) || incompatible.Version.ID != "12" {
		t.Errorf("a template of a version that is not supported: %v", err)
	}
	forged := h.signAway(h.template(room, "@eve:away.example", matrix.Join), func(members map[string]jsontext.Value) {
		members["sender"], members["state_key"] = quote(string(zoe)), quote(string(zoe))
	})
	_, err = h.rooms.Admit(context.Background(), forged, Source{})
	h.wantReason("a banned user with the template of another", err, ErrForbidden)
	h.wantOutside(room, zoe, matrix.Ban)

	h.must(h.rooms.Leave(context.Background(), room, alice, ""))
	_, err = h.rooms.Template(room, "@eve:away.example", matrix.Join, anyVersion)
	h.wantReason("a room that everybody here has left", err, ErrUnknownRoom)
}

// A restricted room lets in who is in one of the rooms that it names, as far as that
// is known here and somebody here may let people in.
func TestAdmitToRestricted(t *testing.T) {
	h := newHouse(t)
	lobby := h.create(Creation{Creator: alice, Preset: PresetPublic})
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: "10"})
	rule := func(allow string) {
		t.Helper()
		_, err := h.set(room, alice, "m.room.join_rules", "", `{"join_rule":"restricted","allow":[`+allow+`]}`)
		h.must(err)
	}
	of := func(room matrix.RoomID) string {
		return `{"type":"m.room_membership","room_id":"` + string(room) + `"}`
	}
	refused := func(what string, want error) {
		t.Helper()
		_, err := h.rooms.Template(room, zoe, matrix.Join, anyVersion)
		h.wantReason(what, err, want)
	}
	rule("")
	refused("no condition", ErrForbidden)
	rule(of("!elsewhere:away.example"))
	refused("a room that is not here", ErrUnableToAuthoriseJoin)
	rule(of("!elsewhere:away.example") + "," + of(lobby))
	refused("a room that the user is not in", ErrForbidden)

	h.admit(lobby, zoe, matrix.Join)
	join := h.signAway(h.template(room, zoe, matrix.Join), nil)
	if member, err := join.Member(); err != nil || member.AuthorisedVia != alice {
		t.Errorf("authorised by %q: %v", member.AuthorisedVia, err)
	}
	vouched, err := h.rooms.Vouch(join)
	h.must(err)
	if vouched.VerifySignature("home.example", "ed25519:test", h.rooms.Key().Private.Public().(ed25519.PublicKey)) != nil {
		t.Error("who authorises has not signed")
	}
	h.admit(lobby, zoe, matrix.Leave)
	_, err = h.rooms.Vouch(join)
	h.wantReason("a signature for who has left", err, ErrForbidden)
	h.admit(lobby, zoe, matrix.Join)

	_, err = h.set(room, alice, "m.room.power_levels", "", `{"invite":100,"users":{"`+string(alice)+`":50}}`)
	h.must(err)
	refused("nobody who may invite", ErrUnableToGrantJoin)
}

// A join is answered with few members where none are wanted: those that a room with
// no name is named after.
func TestWithoutMembers(t *testing.T) {
	h := newHouse(t)
	for _, name := range []string{"", "Kitchen"} {
		room := h.create(Creation{Creator: alice, Preset: PresetPublic, Name: name})
		h.must(h.join(room, bob))
		join := h.admit(room, zoe, matrix.Join)
		var members []string
		h.must(h.store.View(func(tx *store.Tx) error {
			nums, err := WithoutMembers(tx, join)
			if err != nil {
				return err
			}
			for _, num := range nums {
				ev, err := tx.Event(join.RoomNum, num)
				if err != nil {
					return err
				}
				if ev.Type == "m.room.member" {
					members = append(members, *ev.StateKey)
				}
			}
			return nil
		}))
		want := string(alice) + " " + string(bob)
		if name != "" {
			want = ""
		}
		if got := strings.Join(members, " "); got != want {
			t.Errorf("the room %q: members %s, want %s", name, got, want)
		}
	}
}

// wantOutside holds what a user of the other server is in a room's state.
func (h *house) wantOutside(room matrix.RoomID, user matrix.UserID, want matrix.Membership) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) error {
		rm, err := h.rooms.open(tx, room)
		if err != nil {
			return err
		}
		is, err := rm.membership(user)
		if is != want {
			h.Errorf("%s is %q, want %q", user, is, want)
		}
		return err
	}))
}

// newest is the last event of a room's timeline.
func (h *house) newest(room matrix.RoomID) *matrix.Event {
	h.Helper()
	all := h.all(room)
	return all[len(all)-1]
}

// policyContent is the content of m.room.policy for the other server.
func policyContent() string {
	return `{"via":"` + string(away) + `","public_keys":{"ed25519":"` +
		base64.RawStdEncoding.EncodeToString(awayKey.Private.Public().(ed25519.PublicKey)) + `"}}`
}
