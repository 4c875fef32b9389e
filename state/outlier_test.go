package state

import (
	"context"
	"fmt"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// What was fetched as part of a state becomes an event of the timeline when it
// comes as one, and states still know it.
func TestOutliersComeToTheTimeline(t *testing.T) {
	for _, version := range []string{"1", "11", "12"} {
		t.Run(version, func(t *testing.T) {
			from, to, events, shared := startRoom(t, version, 4)
			room := last(events).Room
			to.ground(from, last(events))
			outliers := 0
			for _, ev := range events[shared:] {
				if from.find(ev.ID) != nil && to.has(ev.ID) && to.event(ev.ID).Outlier {
					outliers++
				}
			}
			if outliers < 3 {
				t.Fatalf("%d outliers", outliers)
			}
			verdicts, err := to.rooms.AcceptAll(context.Background(), events)
			to.must(err)
			for i, verdict := range verdicts {
				want := Accepted
				if i < shared || i == len(events)-1 {
					want = Known
				}
				if verdict != want && verdict != SoftFailed { // by the current state bob has left
					t.Errorf("event %d (%s): verdict %d, want %d", i, events[i].Type, verdict, want)
				}
				if ev := to.event(events[i].ID); ev.Outlier || verdict == Accepted && (ev.Num.Aside() || ev.Before == 0) {
					t.Errorf("event %d (%s) is %+v", i, events[i].Type, ev)
				}
			}
			sameState(t, "current", to.current(room), from.current(room))
			merge := to.build(room, events[len(events)-1:], 100, matrix.Draft{Sender: alice, Type: "m.x", Content: []byte(`{}`)})
			if got := to.accept(merge); got != Accepted {
				t.Errorf("an event behind all: verdict %d", got)
			}
			sameState(t, "before an event behind all", to.stateBefore(merge.ID), from.current(room))
		})
	}
}

// has says whether an event is here in any form.
func (h *house) has(id matrix.EventID) (has bool) {
	h.must(h.store.View(func(tx *store.Tx) error {
		_, _, has = tx.EventByID(id)
		return nil
	}))
	return has
}

// Cited events that are not here are fetched with what they cite themselves, and
// decide about the event that cites them.
func TestCitedEventsAreFetched(t *testing.T) {
	from, to, events, shared := startRoom(t, "11", 1)
	room, tip := last(events).Room, events[shared-1:shared]
	key := string(carol)
	join := from.build(room, tip, 50, matrix.Draft{Sender: carol, Type: "m.room.member", StateKey: &key, Content: []byte(`{"membership":"join"}`)})
	from.accept(join)
	// By the state before it, which the other server confirms, carol is not there, whatever
	// it cites.
	early := from.cite(from.build(room, tip, 51, matrix.Draft{Sender: carol, Type: "m.x", Content: []byte(`{}`)}), join)
	from.accept(early)
	if got := to.acceptFrom(from, early); got[0] != Rejected || from.states != 1 || from.gaps > 0 {
		t.Errorf("verdict %d by %d states and %d gaps", got, from.states, from.gaps)
	}
	if ev := to.event(join.ID); !ev.Outlier || ev.Rejected {
		t.Errorf("the cited event is %+v", ev)
	}
	if ev := to.event(early.ID); ev.Outlier || !ev.Rejected {
		t.Errorf("the event that cites it is %+v", ev)
	}
	// And what cites a rejected event is not worth a gap.
	bad := from.cite(from.build(room, events[len(events)-1:], 52, matrix.Draft{Sender: carol, Type: "m.x", Content: []byte(`{}`)}), early)
	if got := to.acceptFrom(from, bad); got[0] != Rejected || from.states != 1 || from.gaps > 0 {
		t.Errorf("verdict %d by %d states and %d gaps", got, from.states, from.gaps)
	}
	if got := to.acceptFrom(from, bad); got[0] != Rejected {
		t.Errorf("the second time: verdict %d", got)
	}
	// The outlier is the room's next event; the check finds it in the state.
	if got := to.acceptFrom(from, join); got[0] != Accepted || to.current(room)[auth.Key{Type: "m.room.member", StateKey: key}] != join.ID {
		t.Errorf("the cited event: verdict %d", got)
	}
}

// cite builds an event again with another one among what it cites, in the place of
// one of that type and key.
func (h *house) cite(ev, cited *matrix.Event) *matrix.Event {
	h.Helper()
	placing := matrix.Placing{Prev: ev.PrevEvents, Depth: ev.Depth}
	for _, id := range ev.AuthEvents {
		if old := h.event(id); cited.StateKey == nil || !old.Is(cited.Type, *cited.StateKey) {
			placing.Auth = append(placing.Auth, id)
		}
	}
	placing.Auth = append(placing.Auth, cited.ID)
	draft := matrix.Draft{Room: ev.Room, Sender: ev.Sender, Type: ev.Type, StateKey: ev.StateKey, Content: ev.Content, OriginServerTS: ev.OriginServerTS}
	again, err := draft.Build(ev.Version, placing, "home.example", h.rooms.Key())
	h.must(err)
	return again
}

// An outlier that was redacted before it came to the timeline relates to nothing, as
// one that was redacted afterwards.
func TestRedactedOutlierRelatesToNothing(t *testing.T) {
	for _, version := range []string{"10", "12"} {
		from, to, events, shared := startRoom(t, version, 1)
		room, tip := last(events).Room, events[shared-1:shared]
		reply := matrix.Draft{Sender: bob, Type: "m.room.message", Content: fmt.Appendf(nil,
			`{"m.relates_to":{"rel_type":"m.thread","event_id":%q}}`, events[0].ID)}
		child := to.build(room, tip, 50, reply)
		from.lies[child.ID] = child
		cites := to.cite(to.build(room, tip, 51, matrix.Draft{Sender: bob, Type: "m.x", Content: []byte(`{}`)}), child)
		to.acceptFrom(from, cites)
		if ev := to.event(child.ID); !ev.Outlier || ev.Rejected {
			t.Fatalf("the outlier is %+v", ev)
		}
		_, err := to.rooms.Redact(context.Background(), room, alice, child.ID, []byte(`{}`), store.TxnID{})
		to.must(err)
		if got := to.acceptFrom(from, child); got[0] != Accepted {
			t.Errorf("verdict %d", got)
		}
		to.must(to.store.View(func(tx *store.Tx) error {
			num := tx.RoomNum(room)
			if thread, err := tx.Thread(num, events[0].ID); err != nil || thread.Replies != 0 {
				t.Errorf("version %s: thread %+v, %v", version, thread, err)
			}
			return tx.Relations(num, events[0].ID, store.Place{}, func(rel store.Relation) (bool, error) {
				t.Errorf("version %s: relation %+v", version, rel)
				return true, nil
			})
		}))
	}
}

// An outlier that the state before it forbids may stand in states already: it is
// shown to nobody from then on, and not rejected.
func TestOutlierThatIsForbidden(t *testing.T) {
	from, to, events, shared := startRoom(t, "11", 1)
	room := last(events).Room
	from.must(from.change(room, alice, bob, matrix.Ban))
	ban := last(from.all(room))
	// By what it cites bob is still there.
	topic := matrix.Draft{Sender: bob, Type: "m.room.member", StateKey: ptr(string(bob)), Content: []byte(`{"membership":"join"}`)}
	late := to.build(room, []*matrix.Event{ban}, 90, topic)
	from.accept(late)
	cites := to.cite(to.build(room, events[shared-1:shared], 91, matrix.Draft{Sender: bob, Type: "m.x", Content: []byte(`{}`)}), late)
	to.acceptFrom(from, cites)
	if ev := to.event(late.ID); !ev.Outlier || ev.Rejected {
		t.Fatalf("the outlier is %+v", ev)
	}
	if to.sees(alice, late.ID) {
		t.Error("alice sees an event of which it is not known where it stands")
	}
	got := to.acceptFrom(from, ban, late)
	if got[1] != SoftFailed {
		t.Errorf("verdicts %d", got)
	}
	if ev := to.event(late.ID); ev.Outlier || ev.Rejected || !ev.SoftFailed || ev.Before == 0 {
		t.Errorf("it has become %+v", ev)
	}
}
