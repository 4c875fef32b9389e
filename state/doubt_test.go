package state

import (
	"context"
	"errors"
	"slices"
	"testing"

	"hearth/state/matrix"
)

// Who is in a room is found out by what he sends, where the state that came here lacks
// him: of such an event the other server is asked for the state before it.
func TestDoubtedEvent(t *testing.T) {
	for _, version := range []string{"1", "2", "11", "12"} {
		for _, tc := range []struct {
			name  string
			state func([]matrix.EventID) []matrix.EventID // that the other server gives
			want  Verdict
		}{
			{"the other server has the state", nil, Accepted},
			{"it gives none", func([]matrix.EventID) []matrix.EventID { return nil }, Rejected},
		} {
			t.Run(version+"/"+tc.name, func(t *testing.T) {
				h := newHouse(t)
				from, to := &peer{house: h, gap: 1}, newHouse(t)
				room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: version})
				_, err := to.rooms.AcceptAll(context.Background(), h.all(room))
				to.must(err)
				h.must(h.join(room, bob))
				join := last(h.all(room)).ID
				for range 3 {
					h.send(room, alice, "m.room.message", `{}`)
				}
				from.state = func(ids []matrix.EventID) []matrix.EventID {
					return slices.DeleteFunc(ids, func(id matrix.EventID) bool { return id == join })
				}
				to.acceptFrom(from, last(h.all(room)))
				from.state = tc.state

				h.send(room, bob, "m.room.message", `{}`)
				doubted := last(h.all(room))
				if _, err := to.rooms.AcceptUndoubted(context.Background(), []*matrix.Event{doubted}); !errors.Is(err, ErrDoubted) && !errors.As(err, new(*MissingError)) {
					t.Errorf("alone: %v", err)
				}
				if got := to.acceptFrom(from, doubted); !slices.Equal(got, []Verdict{tc.want}) {
					t.Errorf("verdicts %d, want %d", got, tc.want)
				}
				if tc.want == Accepted {
					sameState(t, "current", to.current(room), from.current(room))
				}
				to.must(to.store.Check(context.Background(), func(fault string) { t.Error(fault) }))
			})
		}
	}
}

// A ban is not doubted away: the state of another server is resolved with ours.
func TestDoubtIsNoWayAroundABan(t *testing.T) {
	for _, version := range []string{"1", "2", "11", "12"} {
		t.Run(version, func(t *testing.T) {
			h := newHouse(t)
			from, to := &peer{house: h, gap: 1}, newHouse(t)
			room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: version})
			h.must(h.join(room, bob))
			join := last(h.all(room))
			draft := matrix.Draft{Sender: bob, Type: "m.room.message", Content: []byte(`{}`)}
			fair := h.build(room, []*matrix.Event{join}, join.Depth+1, draft)
			_, err := h.rooms.ChangeMembership(context.Background(), MembershipChange{Room: room, Sender: alice, Target: bob, Membership: matrix.Ban})
			h.must(err)
			ban := last(h.all(room))
			_, err = to.rooms.AcceptAll(context.Background(), h.all(room))
			to.must(err)
			draft.Room = room
			placing := matrix.Placing{Prev: []matrix.EventID{ban.ID}, Auth: fair.AuthEvents, Depth: ban.Depth + 1}
			evil, err := draft.Build(ban.Version, placing, "home.example", h.rooms.Key())
			h.must(err)
			before := to.current(room)
			source := from.source()
			source.StateIDs = func(_ context.Context, _ matrix.RoomID, _ matrix.EventID, take func(matrix.EventID) error) error {
				from.states++
				for key, id := range before {
					if key.StateKey == string(bob) {
						id = join.ID
					}
					if err := take(id); err != nil {
						return err
					}
				}
				return nil
			}
			got, err := to.rooms.AcceptFrom(context.Background(), []*matrix.Event{evil}, source)
			to.must(err)
			if !slices.Equal(got, []Verdict{Rejected}) || from.states != 1 {
				t.Errorf("verdicts %d by %d states", got, from.states)
			}
			sameState(t, "current", to.current(room), before)
		})
	}
}

// A state is taken without the members whose events cannot be checked, and what only
// they let in, but not without anything else.
func TestKeylessMembers(t *testing.T) {
	for _, version := range []string{"1", "11", "12"} {
		for _, tc := range []struct {
			name string
			lost string // the type of an event that does not come
			want Verdict
		}{
			{"members", "m.room.member", Accepted},
			{"levels", "m.room.power_levels", 0},
		} {
			t.Run(version+"/"+tc.name, func(t *testing.T) {
				h := newHouse(t)
				from, to := &peer{house: h, gap: 1}, newHouse(t)
				room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: version})
				_, err := to.rooms.AcceptAll(context.Background(), h.all(room))
				to.must(err)
				h.must(h.join(room, bob))
				join := last(h.all(room))
				h.set(room, alice, "m.room.power_levels", "", `{"users_default":1}`)
				levels := last(h.all(room))
				for range 3 {
					h.send(room, alice, "m.room.message", `{}`)
				}
				source := from.source()
				ask := source.Events
				source.Events = func(ctx context.Context, room matrix.RoomID, ids []matrix.EventID, take func(*matrix.Event) error) error {
					lost := []matrix.EventID{join.ID}
					if tc.lost == levels.Type {
						lost = append(lost, levels.ID)
					}
					came := slices.DeleteFunc(slices.Clone(ids), func(id matrix.EventID) bool { return slices.Contains(lost, id) })
					if err := ask(ctx, room, came, take); err != nil || !slices.Contains(ids, join.ID) {
						return err
					}
					return &KeylessError{Events: []*matrix.Event{join}}
				}
				got, err := to.rooms.AcceptFrom(context.Background(), []*matrix.Event{last(h.all(room))}, source)
				if tc.want == 0 {
					if err == nil {
						t.Errorf("verdicts %d", got)
					}
				} else if err != nil || got[0] != tc.want {
					t.Errorf("verdicts %d, %v", got, err)
				}
				to.must(to.store.Check(context.Background(), func(fault string) { t.Error(fault) }))
			})
		}
	}
}
