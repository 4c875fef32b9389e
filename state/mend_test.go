package state

import (
	"context"
	"errors"
	"slices"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// What a join left out gets the place in the state that nothing has taken since, if the
// rules allow it.
func TestMend(t *testing.T) {
	for _, version := range []string{"1", "2", "11", "12"} {
		for _, tc := range []struct {
			name  string
			state bool                             // it was part of the state
			since func(h *house, id matrix.RoomID) // what happens here before it comes
			want  bool                             // it is in the state then
		}{
			{"of the state", true, nil, true},
			{"cited by it", false, nil, false},
			{"the room was closed since", true, func(h *house, id matrix.RoomID) {
				_, err := h.set(id, alice, "m.room.join_rules", "", `{"join_rule":"invite"}`)
				h.must(err)
			}, true},
			{"banned since", true, func(h *house, id matrix.RoomID) {
				_, err := h.rooms.ChangeMembership(context.Background(), MembershipChange{Room: id, Sender: alice, Target: bob, Membership: matrix.Ban})
				h.must(err)
			}, false},
		} {
			t.Run(version+"/"+tc.name, func(t *testing.T) {
				h, to := newHouse(t), newHouse(t)
				room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: version})
				_, err := to.rooms.AcceptAll(context.Background(), h.all(room))
				to.must(err)
				h.must(h.join(room, bob))
				join := last(h.all(room))
				if tc.since != nil {
					tc.since(to, room)
				}
				to.must(to.rooms.Mend(context.Background(), join, tc.state))
				to.must(to.rooms.Mend(context.Background(), join, tc.state)) // and again
				if got := to.current(room)[auth.Key{Type: "m.room.member", StateKey: string(bob)}] == join.ID; got != tc.want {
					t.Errorf("it is in the state: %v", got)
				}
				to.must(to.store.View(func(tx *store.Tx) error {
					_, head, err := Head(tx, room)
					if want := map[bool]uint64{false: 1, true: 2}[tc.want]; head.Joined != want {
						t.Errorf("%d have joined", head.Joined)
					}
					return err
				}))
				to.fork(room, alice)
				if got := to.current(room)[auth.Key{Type: "m.room.member", StateKey: string(bob)}] == join.ID; got != tc.want {
					t.Errorf("after a fork it is in the state: %v", got)
				}
				to.send(room, alice, "m.room.message", `{}`) // the state stays so
				if got := to.current(room)[auth.Key{Type: "m.room.member", StateKey: string(bob)}] == join.ID; got != tc.want {
					t.Errorf("later it is in the state: %v", got)
				}
				to.must(to.store.Check(context.Background(), func(fault string) { t.Error(fault) }))
			})
		}
	}
}

// fork has an event accepted that stands on what was before the join of the one that is
// left out, beside the newest.
func (h *house) fork(room matrix.RoomID, sender matrix.UserID) {
	h.Helper()
	events := h.all(room)
	f := forkedRoom{id: room, events: events}
	old := slices.IndexFunc(events, func(ev *matrix.Event) bool { return ev.Type == "m.room.history_visibility" })
	h.graftOn(&f, events[old:old+1], matrix.Draft{Sender: sender, Type: "m.room.message", Content: []byte(`{"body":"late"}`)})
}

// Of two events of one member that which cites the other has replaced it, whoever has left
// or lost power since; an event that is disowned is gone, also where the room forks.
func TestMendOfWhatWasReplaced(t *testing.T) {
	h, to := newHouse(t), newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: "11"})
	begin := len(h.all(room))
	h.must(h.join(room, bob))
	_, err := h.rooms.ChangeMembership(context.Background(), MembershipChange{Room: room, Sender: alice, Target: bob, Membership: matrix.Ban})
	h.must(err)
	h.must(h.rooms.Leave(context.Background(), room, alice, ""))
	events := h.all(room)
	join, ban := events[begin], events[begin+1]
	_, err = to.rooms.AcceptAll(context.Background(), events)
	to.must(err)
	key := auth.Key{Type: "m.room.member", StateKey: string(bob)}
	to.must(to.rooms.Mend(context.Background(), join, true))
	if got := to.current(room)[key]; got != ban.ID {
		t.Errorf("what was replaced has come back: %s", got)
	}

	other := newHouse(t)
	_, err = other.rooms.AcceptAll(context.Background(), events[:begin+1])
	other.must(err)
	unchecked := *ban
	unchecked.Unchecked = true
	other.must(other.rooms.Mend(context.Background(), &unchecked, true))
	if got := other.current(room)[key]; got != ban.ID {
		t.Errorf("what replaces has no place: %s", got)
	}
	sound := func(what string) {
		t.Helper()
		other.must(other.store.Check(context.Background(), func(fault string) { t.Errorf("%s: %s", what, fault) }))
	}
	for range 2 {
		other.must(other.rooms.Disown(context.Background(), room, ban.ID))
	}
	other.must(other.rooms.Disown(context.Background(), room, "$unknown"))
	if got := other.current(room)[key]; got == ban.ID {
		t.Error("what was disowned is in the state")
	}
	sound("disowned")
	other.must(other.rooms.Mend(context.Background(), &unchecked, true))
	if got := other.current(room)[key]; got == ban.ID {
		t.Error("what was disowned comes back unchecked")
	}
	other.must(other.rooms.Mend(context.Background(), ban, true))
	if got := other.current(room)[key]; got != ban.ID {
		t.Errorf("what was disowned has come as it should, and has no place: %s", got)
	}
	other.must(other.rooms.Disown(context.Background(), room, ban.ID))
	if got := other.current(room)[key]; got != ban.ID {
		t.Errorf("what was checked is disowned: %s", got)
	}
	sound("checked")

	third := newHouse(t)
	_, err = third.rooms.AcceptAll(context.Background(), events[:begin+1])
	third.must(err)
	third.must(third.rooms.Mend(context.Background(), &unchecked, true))
	third.must(third.rooms.Disown(context.Background(), room, ban.ID))
	third.fork(room, alice)
	if got := third.current(room)[key]; got == ban.ID {
		t.Error("what was disowned is in the state where the room forks")
	}
	third.must(third.store.Check(context.Background(), func(fault string) { t.Error(fault) }))
}

// What cites what is not here is not taken.
func TestMendLacking(t *testing.T) {
	h, to := newHouse(t), newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: "11"})
	_, err := to.rooms.AcceptAll(context.Background(), h.all(room))
	to.must(err)
	h.must(h.join(room, bob))
	h.must(h.rooms.Leave(context.Background(), room, bob, ""))
	var missing *MissingError
	if err := to.rooms.Mend(context.Background(), last(h.all(room)), true); !errors.As(err, &missing) {
		t.Errorf("mended: %v", err)
	}
}
