package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// Of an event whose server does not say what it stands on, nothing more is asked. The
// room goes on with the next event, below which it comes again.
func TestEventWithoutGround(t *testing.T) {
	for _, version := range []string{"1", "11", "12"} {
		t.Run(version, func(t *testing.T) {
			from, to, events, shared := startRoom(t, version, 3)
			room := last(events).Room
			from.gap = 0
			before := to.head(room)
			verdicts, err := to.rooms.AcceptFrom(context.Background(), events[len(events)-1:], from.source())
			var lacks *MissingError
			if !errors.As(err, &lacks) || lacks.Event != last(events).ID || errors.Is(err, ErrFetch) || len(verdicts) > 0 {
				t.Errorf("verdicts %d, %v", verdicts, err)
			}
			if from.gaps != 1 || from.states > 0 || len(from.asked) > 0 {
				t.Errorf("%d gaps, %d states, asked for %v", from.gaps, from.states, from.asked)
			}
			if after := to.head(room); after.Current != before.Current || after.Latest != before.Latest {
				t.Errorf("the head was %+v and is %+v", before, after)
			}
			next := from.find(from.send(room, carol, "m.room.message", `{"body":"next"}`))
			from.gap = 1
			if got := to.acceptFrom(from, next); got[0] != Accepted {
				t.Errorf("the next: verdict %d", got)
			}
			sameState(t, "current", to.current(room), from.current(room))
			if n := len(to.timeline(room)); n != shared+3 {
				t.Errorf("%d events in the timeline, want %d", n, shared+3)
			}
		})
	}
}

// What an event of the gap stands on is fetched with the state before it; where that is
// more than states are asked for, or does not come, it is the state before the event of
// the gap.
func TestGroundOfAnEvent(t *testing.T) {
	for _, tc := range []struct {
		name   string
		sides  int // on which the event of the gap stands
		hidden bool
		asked  int // of those
		states int
	}{
		{"one", 1, false, 1, 1},
		{"as many as states are asked for", maxGapStates, false, maxGapStates, maxGapStates},
		{"too many", maxGapStates + 1, false, 0, 1},
		{"one that does not come", 1, true, 1, 1},
	} {
		for _, version := range []string{"1", "12"} {
			t.Run(tc.name+"/"+version, func(t *testing.T) {
				h := newHouse(t)
				from, to := &peer{house: h, gap: 1}, newHouse(t)
				room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: version})
				base := h.all(room)
				_, err := to.rooms.AcceptAll(context.Background(), base)
				to.must(err)
				forked := forkedRoom{id: room, events: base}
				graft := func(prev []*matrix.Event, typ, key string) *matrix.Event {
					draft := matrix.Draft{Sender: alice, Type: typ, Content: fmt.Appendf(nil, `{"n":%d}`, len(forked.events))}
					if key != "" {
						draft.StateKey = &key
					}
					h.graftOn(&forked, prev, draft)
					return last(forked.events)
				}
				var sides []*matrix.Event
				for n := range tc.sides {
					below := graft(base[len(base)-1:], "m.x", fmt.Sprint(n))
					sides = append(sides, graft([]*matrix.Event{below}, "m.x", fmt.Sprint("side", n)))
				}
				top := graft([]*matrix.Event{graft(sides, "m.room.message", "")}, "m.room.message", "")
				source, asked := from.source(), 0
				source.Events = func(ctx context.Context, room matrix.RoomID, ids []matrix.EventID, take func(*matrix.Event) error) error {
					if slices.ContainsFunc(sides, func(ev *matrix.Event) bool { return ev.ID == ids[0] }) && from.states == 0 {
						if asked += len(ids); tc.hidden {
							return nil
						}
					}
					return from.events(ctx, room, ids, take)
				}
				if tc.hidden { // the state must do without what does not come
					from.state = func(ids []matrix.EventID) []matrix.EventID {
						return slices.DeleteFunc(ids, func(id matrix.EventID) bool { return id == sides[0].ID })
					}
				}
				verdicts, err := to.rooms.AcceptFrom(context.Background(), []*matrix.Event{top}, source)
				to.must(err)
				if !slices.Equal(verdicts, []Verdict{Accepted}) || asked != tc.asked || from.states != tc.states {
					t.Errorf("verdicts %d, asked for %d events and %d states", verdicts, asked, from.states)
				}
				want := h.stateBefore(top.ID)
				if tc.hidden {
					delete(want, auth.Key{Type: "m.x", StateKey: "side0"})
				}
				sameState(t, "before", to.stateBefore(top.ID), want)
			})
		}
	}
}

// A state whose auth chain has a hole is not believed, nor is any event that stands on
// it taken: what cites what nobody has is in no state.
func TestHoleInTheChain(t *testing.T) {
	for _, version := range []string{"1", "10", "12"} {
		t.Run(version, func(t *testing.T) {
			from, to, events, _ := startRoom(t, version, 0)
			from.gap = 1
			room := last(events).Room
			var names []matrix.EventID
			for _, name := range []string{"A", "B", "C", "D", "E"} {
				id, err := from.set(room, carol, "m.room.member", string(carol), fmt.Sprintf(`{"membership":"join","displayname":%q}`, name))
				from.must(err)
				names = append(names, id)
			}
			for range 2 {
				from.send(room, carol, "m.room.message", `{}`)
			}
			end := from.find(from.send(room, carol, "m.room.message", `{"body":"end"}`))
			before := to.head(room)
			source, askedB := from.source(), 0
			source.Events = func(ctx context.Context, room matrix.RoomID, ids []matrix.EventID, take func(*matrix.Event) error) error {
				n := len(ids)
				ids = slices.DeleteFunc(ids, func(id matrix.EventID) bool { return id == names[1] })
				askedB += n - len(ids)
				return from.events(ctx, room, ids, take)
			}
			verdicts, err := to.rooms.AcceptFrom(context.Background(), []*matrix.Event{end}, source)
			var lacks *MissingError
			if !errors.As(err, &lacks) || errors.Is(err, ErrFetch) || len(verdicts) > 0 || askedB != 1 || from.states != 1 {
				t.Errorf("verdicts %d, %v; %d states, the hole asked for %d times", verdicts, err, from.states, askedB)
			}
			if after := to.head(room); after.Current != before.Current || after.Latest != before.Latest {
				t.Errorf("the head was %+v and is %+v", before, after)
			}
			for i, id := range names[1:] {
				if to.has(id) {
					t.Errorf("name %d behind the hole is here", i+1)
				}
			}
			if got := to.acceptFrom(from, end); got[0] != Accepted {
				t.Errorf("without the hole: verdict %d", got)
			}
			sameState(t, "current", to.current(room), from.current(room))
		})
	}
}
