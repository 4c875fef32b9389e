package state

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"hearth/state/matrix"
	"hearth/store"
)

var chainRooms = flag.Int("state.chains", 100, "random rooms in which auth chains are compared with the whole")

// What the index and the walks say of auth chains must be what whole states and
// whole chains say.
func TestAuthChainsAgreeWithWholeStates(t *testing.T) {
	found := make(map[string]int)
	for seed := range uint64(*chainRooms) {
		version := []string{"2", "6", "11", "12"}[seed%4]
		t.Run(fmt.Sprintf("%s/%d", version, seed), func(t *testing.T) {
			h := newHouse(t)
			whole := newWholeRoom(h, growForks(h, version, seed, 30))
			rnd := rand.New(rand.NewPCG(seed, 3))
			for n := range 20 {
				whole.compare(rnd, n%2 == 0, found)
			}
		})
	}
	t.Logf("%v", found)
	if found["difference"] == 0 || found["shared"] == 0 || found["subgraph"] == 0 {
		t.Errorf("the rooms put nothing to the test: %v", found)
	}
}

// wholeRoom is a room's events with all that they cite.
type wholeRoom struct {
	*house
	room   store.RoomNum
	events map[matrix.EventID]*store.StoredEvent
	order  []matrix.EventID // oldest first
	own    *matrix.Event    // an event that is not stored
}

func newWholeRoom(h *house, f forkedRoom) *wholeRoom {
	h.Helper()
	w := &wholeRoom{house: h, events: make(map[matrix.EventID]*store.StoredEvent)}
	for _, ev := range f.events {
		w.events[ev.ID] = h.event(ev.ID)
		w.order = append(w.order, ev.ID)
		w.room = w.events[ev.ID].RoomNum
	}
	topic := matrix.Draft{Sender: alice, Type: "m.room.topic", StateKey: new(string), Content: []byte(`{"topic":"own"}`)}
	if f.events[0].Version.EventIDs != matrix.EventIDGiven {
		w.own = h.build(f.id, f.events[len(f.events)-1:], 99, topic)
		w.events[w.own.ID] = &store.StoredEvent{Event: w.own, Num: ownNum}
	}
	return w
}

// compare makes some states, of forks or of anything, and asks for what tells
// them apart.
func (w *wholeRoom) compare(rnd *rand.Rand, anything bool, found map[string]int) {
	w.Helper()
	var m resolution
	m.bounds, m.cache, m.room, m.version = wideBounds, new(eventCache), w.room, w.events[w.order[0]].Version
	w.must(w.store.Update(context.Background(), func(tx *store.Tx) (err error) {
		m.snapshots = nil
		for range 2 + rnd.IntN(3) {
			snap, err := w.someState(tx, rnd, anything)
			if err != nil {
				return err
			}
			m.snapshots = append(m.snapshots, snap)
		}
		if w.own != nil && rnd.IntN(3) == 0 {
			m.own = w.own
			m.ownSlot, err = tx.PutSlot(w.room, w.own.Type, *w.own.StateKey)
		}
		return err
	}))
	w.must(w.store.View(func(tx *store.Tx) error {
		m.tx = tx
		if _, err := m.resolve(); err != nil { // it finds the conflict
			return err
		}
		if len(m.conflicted) == 0 {
			return nil
		}
		states, ends := w.states(&m)
		difference, err := m.authDifference()
		if err != nil {
			return err
		}
		want, shared := w.difference(states, ends)
		w.same("difference", difference, want)
		subgraph, err := m.subgraph(slices.Collect(maps.Keys(ends)))
		if err != nil {
			return err
		}
		w.same("subgraph", subgraph, w.subgraph(ends))
		found["difference"] += len(difference)
		found["shared"] += shared
		found["subgraph"] += len(subgraph) - len(ends)
		return nil
	}))
}

// someState is the state behind a random event, or one with any event in each
// slot.
func (w *wholeRoom) someState(tx *store.Tx, rnd *rand.Rand, anything bool) (store.SnapshotID, error) {
	if !anything {
		return stateBehind(tx, w.room, w.events[w.order[rnd.IntN(len(w.order))]].Num)
	}
	create := w.events[w.order[0]]
	changes := []store.StateChange{{Slot: create.Slot, Event: create.Num}}
	for _, id := range w.order[1:] {
		if ev := w.events[id]; ev.HasSlot && !ev.Rejected && rnd.IntN(2) == 0 {
			changes = append(changes, store.StateChange{Slot: ev.Slot, Event: ev.Num})
		}
	}
	return tx.Derive(w.room, 0, changes...)
}

// states reads the whole states, and the events in slots where they differ.
func (w *wholeRoom) states(m *resolution) (states []map[store.Slot]matrix.EventID, ends map[matrix.EventID]bool) {
	w.Helper()
	ends = make(map[matrix.EventID]bool)
	for i := range m.snapshots {
		state := make(map[store.Slot]matrix.EventID)
		w.must(m.tx.WalkState(w.room, m.snapshots[i], store.StateAll, func(slot store.Slot, num store.EventNum) (bool, error) {
			id, err := m.tx.EventID(w.room, num)
			state[slot] = id
			return true, err
		}))
		if i == 0 && m.own != nil {
			state[m.ownSlot] = m.own.ID
		}
		states = append(states, state)
	}
	for _, a := range states {
		for _, b := range states {
			for slot, id := range a {
				if b[slot] != id {
					ends[id] = true
				}
			}
		}
	}
	for _, a := range states { // a place that the first and the last agree on may differ between
		for slot, id := range a {
			if m.conflicted[slot] {
				ends[id] = true
			}
		}
	}
	return states, ends
}

// chain is all that an event cites, directly or not.
func (w *wholeRoom) chain(id matrix.EventID, into map[matrix.EventID]bool) {
	for _, cited := range w.events[id].AuthEvents {
		if !into[cited] {
			into[cited] = true
			w.chain(cited, into)
		}
	}
}

// difference is the auth difference of whole states, and how many events the
// chains of conflicted events alone would have added to it.
func (w *wholeRoom) difference(states []map[store.Slot]matrix.EventID, ends map[matrix.EventID]bool) (want map[matrix.EventID]bool, shared int) {
	count := func(only func(matrix.EventID) bool) map[matrix.EventID]bool {
		counts := make(map[matrix.EventID]int)
		for _, state := range states {
			chain := make(map[matrix.EventID]bool)
			for _, id := range state {
				if only(id) {
					w.chain(id, chain)
				}
			}
			for id := range chain {
				counts[id]++
			}
		}
		some := make(map[matrix.EventID]bool)
		for id, n := range counts {
			if n < len(states) {
				some[id] = true
			}
		}
		return some
	}
	want = count(func(matrix.EventID) bool { return true })
	for id := range count(func(id matrix.EventID) bool { return ends[id] }) {
		if !want[id] {
			shared++
		}
	}
	return want, shared
}

// subgraph is the events that are ends, or lead to an end from another.
func (w *wholeRoom) subgraph(ends map[matrix.EventID]bool) map[matrix.EventID]bool {
	below := make(map[matrix.EventID]bool)
	for id := range ends {
		w.chain(id, below)
	}
	want := maps.Clone(ends)
	for id := range below {
		chain := make(map[matrix.EventID]bool)
		w.chain(id, chain)
		for end := range ends {
			if chain[end] {
				want[id] = true
			}
		}
	}
	return want
}

func (w *wholeRoom) same(what string, got []matrix.EventID, want map[matrix.EventID]bool) {
	w.Helper()
	rest := maps.Clone(want)
	for _, id := range got {
		if !rest[id] {
			w.Errorf("%s: %s (%s) too much or twice", what, id, w.events[id].Type)
		}
		delete(rest, id)
	}
	for id := range rest {
		w.Errorf("%s: %s (%s) is missing", what, id, w.events[id].Type)
	}
}

// More than a resolution may look at is refused, not looked at.
func TestTangledForksAreRefused(t *testing.T) {
	const most = 10
	d := newDescent(most)
	for n := range store.EventNum(most + 1) {
		d.add(n+1, 0)
	}
	if _, _, err := d.next(); !errors.Is(err, ErrTangled) {
		t.Errorf("an open walk of %d events: %v", most+1, err)
	}
}
