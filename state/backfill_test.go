package state

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"hearth/state/matrix"
	"hearth/store"
)

// ancestors is what the other server answers to a backfill.
func (p *peer) ancestors(at matrix.EventID, limit int) (events []*matrix.Event) {
	p.Helper()
	p.must(p.store.View(func(tx *store.Tx) error {
		room, _, _ := tx.EventByID(at)
		found, err := Ancestors(tx, room, []matrix.EventID{at}, limit)
		for _, ev := range found {
			events = append(events, ev.Event)
		}
		return err
	}))
	return events
}

// past returns all of a room's past, oldest first.
func (h *house) past(room matrix.RoomID) (events []*store.StoredEvent) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) error {
		return tx.Past(tx.RoomNum(room), store.Place{}, func(_ store.Place, ev *store.StoredEvent) (bool, error) {
			events = append(events, ev)
			return true, nil
		})
	}))
	return events
}

// gap returns the newest event of the past before which something is missing.
func (h *house) gap(room matrix.RoomID) (at matrix.EventID) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) error {
		return tx.PastBack(tx.RoomNum(room), store.TimelinePlace(tx.Position()+1), func(_ store.Place, ev *store.StoredEvent) (bool, error) {
			gap, err := HasGap(tx, ev)
			if gap {
				at = ev.ID
			}
			return !gap, err
		})
	}))
	return at
}

// fill backfills until nothing is missing, a page at a time.
func (h *house) fill(p *peer, room matrix.RoomID, page int) {
	h.Helper()
	for rounds := 0; ; rounds++ {
		at := h.gap(room)
		if at == "" {
			return
		}
		taken, err := h.rooms.Backfill(context.Background(), at, p.ancestors(at, page), p.source())
		if err != nil || taken == 0 || rounds > 100 {
			h.Fatalf("round %d at %s: %d events taken, %v", rounds, at, taken, err)
		}
	}
}

// wantPast holds the past to be that of the other server: each event once, behind what it
// stands on, with the same state before it.
func (h *house) wantPast(p *peer, room matrix.RoomID, events []*matrix.Event) {
	h.Helper()
	place := make(map[matrix.EventID]int)
	for i, ev := range h.past(room) {
		if place[ev.ID] != 0 {
			h.Errorf("%s comes twice", ev.ID)
		}
		place[ev.ID] = i + 1
		for _, id := range ev.PrevEvents {
			if theirs := p.event(id); place[id] == 0 && !theirs.Num.Aside() {
				h.Errorf("%s comes before %s, on which it stands", ev.ID, id)
			}
		}
		sameState(h.T, "before "+string(ev.ID), h.stateBefore(ev.ID), p.stateBefore(ev.ID))
	}
	for _, ev := range events {
		if place[ev.ID] == 0 && !p.event(ev.ID).Num.Aside() {
			h.Errorf("%s (%s) is missing", ev.ID, ev.Type)
		}
	}
}

// A gap that a state has bridged is filled with the events that were in it, wherever
// the pages end, and nothing of the present moves.
func TestBackfill(t *testing.T) {
	for _, version := range []string{"2", "6", "11", "12"} {
		for _, page := range []int{1, 2, 3, 7, 100} {
			t.Run(fmt.Sprintf("%s/%d", version, page), func(t *testing.T) {
				from, to, events, _ := startRoom(t, version, 5)
				room := last(events).Room
				to.ground(from, last(events))
				head, timeline := to.head(room), to.timeline(room)
				to.fill(from, room, page+1) // the event itself is given too
				to.wantPast(from, room, events)
				if now := to.head(room); now.Current != head.Current || !slices.Equal(now.Extremities, head.Extremities) || now.Joined != head.Joined {
					t.Errorf("the room moved from %+v to %+v", head, now)
				}
				if now := to.timeline(room); !slices.Equal(now, timeline) {
					t.Errorf("the timeline is %s, was %s", now, timeline)
				}
			})
		}
	}
}

// Whatever depths servers write, an event comes behind what it stands on.
func TestBackfillOfLyingDepths(t *testing.T) {
	from, to := &peer{house: newHouse(t), lies: make(map[matrix.EventID]*matrix.Event)}, newHouse(t)
	room := from.create(Creation{Creator: alice, Preset: PresetPublic, Version: "11"})
	events := from.all(room)
	shared := len(events)
	for i, depth := range []int64{1 << 50, 3, 1 << 40, 0, 1, 1<<53 - 1, 1<<53 - 1, 1<<53 - 1, 9} {
		ev := from.build(room, events[len(events)-1:], depth, matrix.Draft{Sender: alice, Type: "m.room.message", Content: fmt.Appendf(nil, `{"body":"%d"}`, i)})
		if verdict := from.accept(ev); verdict != Accepted {
			t.Fatalf("verdict %d", verdict)
		}
		events = append(events, ev)
	}
	_, err := to.rooms.AcceptAll(context.Background(), events[:shared])
	to.must(err)
	to.ground(from, last(events))
	to.fill(from, room, 3)
	to.wantPast(from, room, events)
	if past := to.past(room); len(past) != len(events) {
		t.Errorf("%d events, want %d", len(past), len(events))
	}
}

// What a row of members and messages changed is told by the row.
func TestBackfillAsksForNoState(t *testing.T) {
	from, to := &peer{house: newHouse(t), lies: make(map[matrix.EventID]*matrix.Event)}, newHouse(t)
	room := from.create(Creation{Creator: alice, Preset: PresetPublic, Version: "11"})
	from.must(from.join(room, bob))
	shared := len(from.all(room))
	for i := range 10 {
		_, err := from.set(room, bob, "m.room.member", string(bob), fmt.Sprintf(`{"membership":"join","displayname":"%d"}`, i))
		from.must(err)
		_, err = from.set(room, alice, "m.room.power_levels", "", powerLevels0("11", i, i))
		from.must(err)
		from.send(room, bob, "m.room.message", `{"body":"x"}`)
	}
	events := from.all(room)
	_, err := to.rooms.AcceptAll(context.Background(), events[:shared])
	to.must(err)
	to.ground(from, last(events))
	from.states = 0
	to.fill(from, room, 5)
	to.wantPast(from, room, events)
	if from.states != 0 {
		t.Errorf("%d states were asked for", from.states)
	}
}

// Forks are history as any other.
func TestBackfillOfForks(t *testing.T) {
	all, came := 0, 0
	for seed := range uint64(12) {
		version := []string{"2", "11", "12"}[seed%3]
		t.Run(fmt.Sprintf("%s/%d", version, seed), func(t *testing.T) {
			from := &peer{house: newHouse(t), lies: make(map[matrix.EventID]*matrix.Event)}
			f := growForks(from.house, version, seed, 50)
			to := newHouse(t)
			_, err := to.rooms.AcceptAll(context.Background(), f.events[:8])
			to.must(err)
			to.ground(from, last(f.events))
			rnd := rand.New(rand.NewPCG(seed, 1))
			for rounds := 0; rounds < 60; rounds++ {
				at := to.gap(f.id)
				if at == "" {
					break
				}
				_, err := to.rooms.Backfill(context.Background(), at, from.ancestors(at, 3+rnd.IntN(40)), from.source())
				if err != nil && !resolvable(err) {
					t.Fatal(err)
				}
			}
			place := make(map[matrix.EventID]bool)
			for _, ev := range to.past(f.id) {
				place[ev.ID] = true
				if from.event(ev.ID).Rejected && !ev.Rejected {
					t.Errorf("%s was rejected", ev.ID)
				}
			}
			accepted := 0
			for _, ev := range f.events {
				if !from.event(ev.ID).Rejected {
					accepted++
				}
			}
			t.Logf("%d of %d events", len(place), accepted)
			all, came = all+accepted, came+len(place)
		})
	}
	// What only a rejected event stands on is not found, as nobody gives that one away.
	if came < all/2 {
		t.Errorf("%d of %d events", came, all)
	}
}

// An event from far back stands before what is known, and the gap above it is filled
// later.
func TestRecall(t *testing.T) {
	from, to, events, shared := startRoom(t, "12", 5)
	room := last(events).Room
	to.ground(from, last(events))
	to.must(to.rooms.Recall(context.Background(), last(events).ID, events[shared+4], from.source()))
	to.must(to.rooms.Recall(context.Background(), last(events).ID, events[shared+4], from.source())) // once more is nothing
	past := to.past(room)
	if n := len(past); n != shared+2 || past[n-2].ID != events[shared+4].ID {
		t.Fatalf("%d events, the last but one is %s", n, past[n-2].ID)
	}
	to.fill(from, room, 4)
	to.wantPast(from, room, events)
}

// What an answer has beyond what was asked for is left out: events of other rooms, such
// as nothing stands on, and circles.
func TestBackfillTakesWhatItNeeds(t *testing.T) {
	from, to, events, shared := startRoom(t, "1", 3)
	to.ground(from, last(events))
	other := from.create(Creation{Creator: alice, Preset: PresetPublic, Version: "1"})
	stray := to.forge(last(events).Room, "$stray:home.example", []string{"$circle:home.example"}, nil, string(alice))
	circle := to.forge(last(events).Room, "$circle:home.example", []string{"$stray:home.example"}, nil, string(alice))
	answer := append(from.all(other), stray, circle)
	taken, err := to.rooms.Backfill(context.Background(), last(events).ID, answer, from.source())
	if taken != 0 || err != nil {
		t.Errorf("%d taken, %v", taken, err)
	}
	if n := len(to.past(last(events).Room)); n != shared+1 {
		t.Errorf("%d events in the past, want %d", n, shared+1)
	}
	if _, err := to.rooms.Backfill(context.Background(), "$nothing:home.example", answer, from.source()); !errors.Is(err, ErrUnknownEvent) {
		t.Errorf("before an event that is not here: %v", err)
	}
}

// A redaction and a relation count although they are history.
func TestBackfilledRedactionsAndRelations(t *testing.T) {
	from, to := &peer{house: newHouse(t), lies: make(map[matrix.EventID]*matrix.Event)}, newHouse(t)
	room := from.create(Creation{Creator: alice, Preset: PresetPublic, Version: "12"})
	from.must(from.join(room, bob))
	shared := len(from.all(room))
	target := from.send(room, bob, "m.room.message", `{"body":"gone"}`)
	thread := from.send(room, bob, "m.room.message", `{"body":"kept"}`)
	reply := from.send(room, alice, "m.room.message", fmt.Sprintf(`{"body":"re","m.relates_to":{"rel_type":"m.thread","event_id":%q}}`, thread))
	_, err := from.rooms.Redact(context.Background(), room, alice, target, []byte(`{}`), store.TxnID{})
	from.must(err)
	from.send(room, bob, "m.room.message", `{"body":"last"}`)
	events := from.all(room)
	_, err = to.rooms.AcceptAll(context.Background(), events[:shared])
	to.must(err)
	to.ground(from, last(events))
	to.fill(from, room, 3)
	if ev := to.event(target); ev.RedactedBy == 0 {
		t.Errorf("the message is not redacted: %s", ev.JSON())
	}
	replies := 0
	to.must(to.store.View(func(tx *store.Tx) error {
		return tx.Relations(tx.RoomNum(room), thread, store.Place{}, func(rel store.Relation) (bool, error) {
			if ev, err := tx.Event(tx.RoomNum(room), rel.Child); err != nil || ev.ID != reply {
				t.Errorf("another reply, %v", err)
			}
			replies++
			return true, nil
		})
	}))
	if replies != 1 {
		t.Errorf("%d replies", replies)
	}
}
