package state

import (
	"context"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// memberElsewhere is a member event of a room of the other server.
func (h *house) memberElsewhere(sender, user matrix.UserID, to matrix.Membership) *matrix.Event {
	h.Helper()
	v, _ := matrix.VersionByID("11")
	key := string(user)
	ev, err := matrix.Draft{
		Room: "!elsewhere:away.example", Sender: sender, Type: "m.room.member", StateKey: &key,
		Content: encode(memberContent{Membership: to}), OriginServerTS: h.rooms.now().UnixMilli(),
	}.Build(v, matrix.Placing{Depth: 7, Prev: []matrix.EventID{"$prev"}}, away, awayKey)
	h.must(err)
	return ev
}

func (h *house) account(user matrix.UserID) {
	h.Helper()
	h.must(h.store.Update(context.Background(), func(tx *store.Tx) error {
		_, err := tx.CreateOpenAccount(user, store.Account{Created: h.rooms.now()})
		return err
	}))
}

func (h *house) local(user matrix.UserID, room matrix.RoomID) (m store.LocalMembership) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) (err error) {
		m, _, err = tx.LocalMembership(tx.UserNum(user), tx.RoomNum(room))
		return err
	}))
	return m
}

// An invite to a room of another server stands until its sender takes it back.
func TestInviteFromElsewhere(t *testing.T) {
	h := newHouse(t)
	h.account(alice)
	invite := h.memberElsewhere(zoe, alice, matrix.Invite)
	stripped := jsontext.Value(`[` + string(StrippedForm(invite)) + `]`)
	receive := func(ev *matrix.Event) error { return h.rooms.ReceiveInvite(context.Background(), ev, stripped) }
	revoke := func(ev *matrix.Event) bool {
		t.Helper()
		revoked, err := h.rooms.RevokeInvite(context.Background(), ev)
		h.must(err)
		return revoked
	}
	h.wantReason("an invite for nobody", receive(h.memberElsewhere(zoe, bob, matrix.Invite)), ErrUnknownUser)
	h.must(receive(invite))
	h.must(receive(invite)) // a second time, which is no news
	m := h.local(alice, invite.Room)
	own, err := m.Own()
	if err != nil || m.Membership != matrix.Invite || string(m.Stripped) != string(stripped) || own.ID != invite.ID {
		t.Fatalf("invited: %+v, %v", m, err)
	}
	h.must(receive(invite))
	if again := h.local(alice, invite.Room); again.Position != m.Position {
		t.Error("the same invite is news")
	}
	h.must(h.store.View(func(tx *store.Tx) error {
		v, ok, err := InvitedVersion(tx, invite.Room)
		if !ok || v != invite.Version {
			t.Errorf("the room's version is %v", v)
		}
		inviter, err2 := Inviter(tx, m)
		if inviter != zoe || err2 != nil {
			t.Errorf("invited by %q: %v", inviter, err2)
		}
		return err
	}))
	for what, ev := range map[string]*matrix.Event{
		"a leave by another":  h.memberElsewhere("@eve:away.example", alice, matrix.Leave),
		"a leave of another":  h.memberElsewhere(zoe, bob, matrix.Leave),
		"another invite":      h.memberElsewhere(zoe, alice, matrix.Invite),
		"a leave of her own":  h.memberElsewhere(alice, alice, matrix.Leave),
		"a leave of a sender": h.memberElsewhere(zoe, zoe, matrix.Leave),
	} {
		if revoke(ev) {
			t.Errorf("%s revokes an invite", what)
		}
	}
	leave := h.memberElsewhere(zoe, alice, matrix.Leave)
	if !revoke(leave) || revoke(leave) {
		t.Error("the invite is not revoked once")
	}
	if m := h.local(alice, invite.Room); m.Membership != matrix.Leave || string(m.PDU) != string(leave.JSON()) || m.Stripped != nil {
		t.Errorf("revoked: %+v", m)
	}
	h.must(receive(h.memberElsewhere(zoe, alice, matrix.Invite)))
	if h.local(alice, invite.Room).Membership != matrix.Invite {
		t.Error("an invite after a revoked one does not stand")
	}
}

// A knock at a room of another server is refused by who cites it, and by nobody else.
func TestKnockRefusedElsewhere(t *testing.T) {
	h := newHouse(t)
	h.account(alice)
	knock := h.memberElsewhere(alice, alice, matrix.Knock)
	h.must(h.store.Update(context.Background(), func(tx *store.Tx) error {
		room, err := tx.PutRoomNum(knock.Room)
		h.must(err)
		return tx.PutLocalMembership(tx.UserNum(alice), store.LocalMembership{
			Room: room, Membership: matrix.Knock, PDU: knock.JSON(), Version: knock.Version.ID,
		})
	}))
	kick := func(cited ...matrix.EventID) *matrix.Event {
		t.Helper()
		key := string(alice)
		ev, err := matrix.Draft{
			Room: knock.Room, Sender: zoe, Type: "m.room.member", StateKey: &key, Content: []byte(`{"membership":"leave"}`),
		}.Build(knock.Version, matrix.Placing{Depth: 8, Prev: []matrix.EventID{knock.ID}, Auth: cited}, away, awayKey)
		h.must(err)
		return ev
	}
	for _, c := range []struct {
		ev   *matrix.Event
		ends bool
	}{{kick("$create", "$levels"), false}, {kick("$create", knock.ID), true}, {kick("$other", knock.ID), false}} {
		ended, err := h.rooms.RevokeInvite(context.Background(), c.ev)
		h.must(err)
		if ended != c.ends {
			t.Errorf("a kick that cites %s ends the knock: %t", c.ev.AuthEvents, ended)
		}
	}
	if m := h.local(alice, knock.Room); m.Membership != matrix.Leave {
		t.Errorf("the room is %q to her", m.Membership)
	}
}

// In a room that this server is in the invite comes as all events do.
func TestInviteToKnownRoom(t *testing.T) {
	h := newHouse(t)
	h.account(bob)
	room := h.create(Creation{Creator: alice, Version: "11"})
	key := string(bob)
	invite := h.build(room, []*matrix.Event{h.newest(room)}, 100, matrix.Draft{Sender: zoe, Type: "m.room.member", StateKey: &key, Content: []byte(`{"membership":"invite"}`)})
	h.must(h.rooms.ReceiveInvite(context.Background(), invite, nil))
	if m := h.local(bob, room); m.Membership != "" {
		t.Errorf("the room is %q to him", m.Membership)
	}
	h.must(h.rooms.Leave(context.Background(), room, alice, ""))
	h.must(h.rooms.ReceiveInvite(context.Background(), invite, jsontext.Value(`[]`)))
	if m := h.local(bob, room); m.Membership != matrix.Invite {
		t.Errorf("once everybody here has left the room is %q to him", m.Membership)
	}
}
