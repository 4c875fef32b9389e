package state

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"hearth/state/matrix"
	"hearth/store"
)

// Who joins by a state event of his own needs the same right as by /join: naming
// somebody who could have let him in is not enough.
func TestRestrictedJoinAsState(t *testing.T) {
	h := newHouse(t)
	club := h.create(Creation{Creator: alice, Preset: PresetPublic})
	rule := fmt.Sprintf(`{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":%q}]}`, club)
	room := h.create(Creation{Creator: alice, Preset: PresetPrivate, Initial: []InitialEvent{{Type: "m.room.join_rules", Content: []byte(rule)}}})
	content := fmt.Sprintf(`{"membership":"join","join_authorised_via_users_server":%q}`, alice)
	join := func() error {
		_, err := h.set(room, bob, "m.room.member", string(bob), content)
		return err
	}
	if err := join(); !errors.Is(err, ErrForbidden) {
		t.Errorf("join from outside the club: %v", err)
	}
	h.must(h.join(club, bob))
	h.must(join())
	h.must(h.rooms.Leave(context.Background(), club, bob, ""))
	_, err := h.set(room, bob, "m.room.member", string(bob), fmt.Sprintf(`{"membership":"join","displayname":"b","join_authorised_via_users_server":%q}`, alice))
	h.must(err) // who is in stays in
	_, err = h.set(room, bob, "m.room.member", string(bob), `{"membership":"join","displayname":"Bob","join_authorised_via_users_server":"unused"}`)
	h.must(err) // who lets him in is the server's to say
	h.must(h.join(club, carol))
	_, err = h.set(room, carol, "m.room.member", string(carol), `{"membership":"\u006aoin","join_authorised_via_users_server":7}`)
	h.must(err)
	h.must(h.rooms.Leave(context.Background(), room, carol, ""))
	h.must(h.change(room, alice, carol, matrix.Invite))
	_, err = h.set(room, carol, "m.room.member", string(carol), `{"membership":"join"}`)
	h.must(err)
}

// However an invite is spelled and wherever it stands, it is held to what holds
// for invites.
func TestInviteInDisguise(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPrivate})
	h.must(h.store.Update(context.Background(), func(tx *store.Tx) error {
		num, err := tx.PutUserNum(bob)
		if err != nil {
			return err
		}
		return tx.PutAccountData(num, store.AccountData{Type: "m.invite_permission_config", Content: []byte(`{"default_action":"block"}`)})
	}))
	const escaped = `{"membership":"\u0069nvite"}`
	if _, err := h.set(room, alice, "m.room.member", string(bob), escaped); !errors.Is(err, ErrInviteBlocked) {
		t.Errorf("an invite with an escape: %v", err)
	}
	if _, err := h.set(room, alice, "m.room.member", "nobody", `{"membership":"invite"}`); !errors.Is(err, ErrBadEvent) {
		t.Errorf("an invite of what is no user: %v", err)
	}
	for user, want := range map[matrix.UserID]error{bob: ErrInviteBlocked, "@eve:elsewhere.example": ErrForbidden} {
		initial := []InitialEvent{{Type: "m.room.member", StateKey: string(user), Content: []byte(`{"membership":"invite"}`)}}
		if _, err := h.rooms.Create(context.Background(), Creation{Creator: alice, Preset: PresetPrivate, Initial: initial}); !errors.Is(err, want) {
			t.Errorf("an invite of %s in initial_state: %v", user, err)
		}
	}
}

// A redaction is sent as one, so that it is held to who may redact what.
func TestRedactionAsState(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, PowerOverride: []byte(`{"state_default":0}`)})
	h.must(h.join(room, bob))
	target := h.send(room, alice, "m.room.message", `{"body":"stays"}`)
	content := fmt.Sprintf(`{"redacts":%q}`, target)
	if _, err := h.set(room, bob, "m.room.redaction", "", content); !errors.Is(err, ErrForbidden) {
		t.Errorf("a redaction as state: %v", err)
	}
	draft := matrix.Draft{Room: room, Sender: bob, Type: "m.room.redaction", Content: []byte(content)}
	if _, err := h.rooms.Send(context.Background(), store.TxnID{}, draft); !errors.Is(err, ErrForbidden) {
		t.Errorf("a redaction as a message: %v", err)
	}
	if h.event(target).RedactedBy != 0 {
		t.Error("bob has redacted what alice sent")
	}
}

// What was rejected or soft-failed is shown to nobody.
func TestSetAsideIsNotSeen(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: "11"})
	h.must(h.join(room, bob))
	base := h.all(room)
	message := matrix.Draft{Sender: bob, Type: "m.room.message", Content: []byte(`{"body":"late"}`)}
	late := h.build(room, base[len(base)-1:], 50, message)
	h.must(h.change(room, alice, bob, matrix.Ban))
	rejected := h.build(room, h.all(room)[len(base):], 50, message)
	for ev, want := range map[*matrix.Event]Verdict{late: SoftFailed, rejected: Rejected} {
		if got := h.accept(ev); got != want {
			t.Errorf("verdict %d, want %d", got, want)
		}
		stored := h.event(ev.ID)
		h.must(h.store.View(func(tx *store.Tx) error {
			viewer, err := NewViewer(tx, stored.RoomNum, alice)
			if err != nil {
				return err
			}
			if sees, err := viewer.Sees(stored); sees || err != nil {
				t.Errorf("alice sees an event of verdict %d: %v", want, err)
			}
			return nil
		}))
	}
}

// Reactions to one event are counted: each costs the next one a read in the write.
func TestManyReactions(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic})
	target := h.send(room, alice, "m.room.message", `{"body":"x"}`)
	react := func(n int) error {
		content := fmt.Appendf(nil, `{"m.relates_to":{"rel_type":"m.annotation","event_id":%q,"key":"%d"}}`, target, n)
		draft := matrix.Draft{Room: room, Sender: alice, Type: "m.reaction", Content: content}
		_, err := h.rooms.Send(context.Background(), store.TxnID{}, draft)
		return err
	}
	for n := range maxAnnotations {
		h.must(react(n))
	}
	if err := react(maxAnnotations); !errors.Is(err, ErrForbidden) {
		t.Errorf("one reaction more: %v", err)
	}
	if err := react(7); !errors.Is(err, ErrDuplicateAnnotation) {
		t.Errorf("an old reaction again: %v", err)
	}
}
