package store

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// openStates opens a store for tests of states.
func openStates(tb testing.TB) *Store {
	tb.Helper()
	return reopenStates(tb, tb.TempDir())
}

// reopenStates opens the data in dir; it is closed when the test ends, if not
// before.
func reopenStates(tb testing.TB, dir string) *Store {
	tb.Helper()
	s, err := Open(dir, "test.example", Options{NoSync: true})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// stateModel is a room's states as plain maps, beside the store that is tested.
type stateModel struct {
	t      *testing.T
	s      *Store
	room   RoomNum
	random *rand.Rand
	slots  []Slot
	events EventNum // the last event number
	ids    []SnapshotID
	states map[SnapshotID]map[Slot]EventNum
}

func newStateModel(t *testing.T, seed uint64, slots []Slot) *stateModel {
	m := &stateModel{
		t: t, s: openStates(t), room: 3, slots: slots,
		random: rand.New(rand.NewPCG(seed, 1)),
		ids:    []SnapshotID{0},
		states: map[SnapshotID]map[Slot]EventNum{0: {}},
	}
	var counter stateCounters
	counter.next = 1
	for _, slot := range slots {
		counter.slots[slot.part()] = max(counter.slots[slot.part()], slot.ordinal()+1)
	}
	m.update(func(tx *Tx) error { return tx.putStateCounter(m.room, counter) })
	return m
}

// denseSlots are members and others with the first ordinals.
func denseSlots(others, members uint32) (slots []Slot) {
	for ordinal := range others {
		slots = append(slots, slotAt(othersPart, ordinal))
	}
	for ordinal := range members {
		slots = append(slots, slotAt(membersPart, ordinal))
	}
	return slots
}

// sparseSlots lie at the borders of the levels of a tree.
func sparseSlots() (slots []Slot) {
	for level := range uint32(maxLevel + 1) {
		for part := range parts {
			for _, d := range []uint32{1, 2, 17} {
				slots = append(slots, slotAt(part, 1<<(fanBits*level)-min(d, 1<<(fanBits*level))), slotAt(part, 1<<(fanBits*level)+d))
			}
		}
	}
	slots = append(slots, slotAt(othersPart, maxOrdinal), slotAt(membersPart, maxOrdinal))
	slices.Sort(slots)
	return slices.Compact(slots)
}

func (m *stateModel) update(fn func(*Tx) error) {
	m.t.Helper()
	if err := m.s.Update(m.t.Context(), fn); err != nil {
		m.t.Fatal(err)
	}
}

func (m *stateModel) view(fn func(*Tx) error) {
	m.t.Helper()
	if err := m.s.View(fn); err != nil {
		m.t.Fatal(err)
	}
}

// pick returns a snapshot, mostly a recent one.
func (m *stateModel) pick() SnapshotID {
	if m.random.IntN(4) > 0 {
		return m.ids[len(m.ids)-1-m.random.IntN(min(3, len(m.ids)))]
	}
	return m.ids[m.random.IntN(len(m.ids))]
}

// changes makes n random changes: new events, some removals, some that change
// nothing, some to the same slot.
func (m *stateModel) changes(from map[Slot]EventNum, n int) (changes []StateChange) {
	for range n {
		slot := m.slots[m.random.IntN(len(m.slots))]
		m.events += EventNum(1 + m.random.IntN(50))
		c := StateChange{slot, m.events}
		switch m.random.IntN(8) {
		case 0:
			c.Event = 0
		case 1:
			c.Event = from[slot]
		}
		changes = append(changes, c)
	}
	return changes
}

// expect notes what a snapshot must hold.
func (m *stateModel) expect(id, from SnapshotID, changes []StateChange) {
	m.t.Helper()
	state := maps.Clone(m.states[from])
	for _, c := range changes {
		state[c.Slot] = c.Event
		if c.Event == 0 {
			delete(state, c.Slot)
		}
	}
	if known, ok := m.states[id]; ok && !maps.Equal(known, state) {
		m.t.Fatalf("snapshot %d stands for two states", id)
	}
	if m.states[id] = state; id != from {
		m.ids = append(m.ids, id)
	}
}

// derive makes one random snapshot.
func (m *stateModel) derive() {
	m.t.Helper()
	from := m.pick()
	n := 1
	switch m.random.IntN(20) {
	case 0:
		n = 1 + m.random.IntN(300)
	case 1, 2:
		n = 1 + m.random.IntN(12)
	}
	changes := m.changes(m.states[from], n)
	var id SnapshotID
	m.update(func(tx *Tx) (err error) {
		id, err = tx.Derive(m.room, from, changes...)
		return err
	})
	m.expect(id, from, changes)
}

// grow makes one snapshot in several writes.
func (m *stateModel) grow() {
	m.t.Helper()
	from := m.pick()
	var id SnapshotID
	m.update(func(tx *Tx) (err error) {
		id, err = tx.NewSnapshot(m.room, from)
		return err
	})
	var all []StateChange
	for range m.random.IntN(8) {
		changes := m.changes(m.states[from], m.random.IntN(200))
		all = append(all, changes...)
		m.update(func(tx *Tx) error { return tx.GrowSnapshot(m.room, id, changes...) })
		m.derive() // others go on in between
	}
	m.update(func(tx *Tx) error { return tx.SealSnapshot(m.room, id) })
	m.expect(id, from, all)
}

// checkState reads a snapshot in each way there is.
func (m *stateModel) checkState(tx *Tx, id SnapshotID) {
	m.t.Helper()
	want := m.states[id]
	for _, slot := range m.slots[:min(len(m.slots), 100)] {
		if got, err := tx.StateAt(m.room, id, slot); err != nil || got != want[slot] {
			m.t.Fatalf("snapshot %d, slot %d: event %d, want %d; %v", id, slot, got, want[slot], err)
		}
	}
	for _, part := range []StatePart{StateOthers, StateMembers, StateAll} {
		got, last := map[Slot]EventNum{}, Slot(0)
		err := tx.WalkState(m.room, id, part, func(slot Slot, event EventNum) (bool, error) {
			if len(got) > 0 && !inOrder(last, slot) {
				return false, fmt.Errorf("slot %d after %d", slot, last)
			}
			got[slot], last = event, slot
			return true, nil
		})
		wanted := maps.Clone(want)
		maps.DeleteFunc(wanted, func(slot Slot, _ EventNum) bool { return part>>slot.part()&1 == 0 })
		if err != nil || !maps.Equal(got, wanted) {
			m.t.Fatalf("walk of part %d of snapshot %d: %v, want %v; %v", part, id, got, wanted, err)
		}
	}
}

// inOrder says whether a walk comes to a before b.
func inOrder(a, b Slot) bool {
	if a.part() != b.part() {
		return a.part() < b.part()
	}
	return a.ordinal() < b.ordinal()
}

// checkDiff compares two snapshots, and walks one from a slot in the middle.
func (m *stateModel) checkDiff(tx *Tx, a, b SnapshotID) {
	m.t.Helper()
	type pair struct{ a, b EventNum }
	want := map[Slot]pair{}
	for _, slot := range m.slots {
		if p := (pair{m.states[a][slot], m.states[b][slot]}); p.a != p.b {
			want[slot] = p
		}
	}
	got, last := map[Slot]pair{}, Slot(0)
	err := tx.DiffSnapshots(m.room, a, b, func(slot Slot, inA, inB EventNum) (bool, error) {
		if len(got) > 0 && !inOrder(last, slot) {
			return false, fmt.Errorf("slot %d after %d", slot, last)
		}
		got[slot], last = pair{inA, inB}, slot
		return true, nil
	})
	if err != nil || !maps.Equal(got, want) {
		m.t.Fatalf("snapshots %d and %d differ in %v, want %v; %v", a, b, got, want, err)
	}
	from, seen := m.slots[m.random.IntN(len(m.slots))], 0
	err = tx.WalkStateFrom(m.room, a, StateAll, from, func(slot Slot, event EventNum) (bool, error) {
		if inOrder(slot, from) || m.states[a][slot] != event {
			return false, fmt.Errorf("slot %d with event %d", slot, event)
		}
		seen++
		return true, nil
	})
	for slot := range m.states[a] {
		if !inOrder(slot, from) {
			seen--
		}
	}
	if err != nil || seen != 0 {
		m.t.Fatalf("walk of snapshot %d from slot %d: %d too many; %v", a, from, seen, err)
	}
}

// checkAll compares snapshots and model, and holds the records to their rules.
func (m *stateModel) checkAll() {
	m.t.Helper()
	m.view(func(tx *Tx) error {
		for range 30 {
			a, b := m.pick(), m.pick()
			m.checkState(tx, a)
			m.checkDiff(tx, a, b)
		}
		return nil
	})
	m.checkRecords()
}

func (m *stateModel) checkRecords() {
	m.t.Helper()
	m.view(func(tx *Tx) error {
		c := &checker{Tx: tx, ctx: m.t.Context(), report: func(fault string) { m.t.Error(fault) }}
		counter, err := tx.stateCounter(m.room)
		if err != nil {
			return err
		}
		return c.checkRecords(m.room, counter, func(num EventNum) bool { return num != 0 && num <= m.events })
	})
}
