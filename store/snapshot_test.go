package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"hearth/state/matrix"
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
	if id == from && len(m.ids) > 0 {
		m.states[id] = state
		return
	}
	m.states[id] = state
	m.ids = append(m.ids, id)
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

// Whatever the history, a snapshot reads as the map that had the same changes.
func TestSnapshotsAgreeWithMaps(t *testing.T) {
	for name, slots := range map[string][]Slot{
		"household": denseSlots(12, 5),
		"middling":  denseSlots(40, 700),
		"big":       denseSlots(300, 5000),
		"sparse":    sparseSlots(),
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(3) {
				m := newStateModel(t, seed, slots)
				for range 5 {
					for range 60 {
						m.derive()
					}
					m.grow()
					m.checkAll()
				}
			}
		})
	}
}

// What is committed is there after the store was closed and opened.
func TestSnapshotsSurviveReopening(t *testing.T) {
	m := newStateModel(t, 9, denseSlots(30, 400))
	for range 200 {
		m.derive()
	}
	dir := m.s.Dir()
	if err := m.s.Close(); err != nil {
		t.Fatal(err)
	}
	m.s = reopenStates(t, dir)
	m.checkAll()
	for range 50 {
		m.derive()
	}
	m.checkAll()
}

// A change that changes nothing makes no snapshot.
func TestDeriveNothing(t *testing.T) {
	m := newStateModel(t, 1, denseSlots(3, 3))
	set := []StateChange{{0, 5}, {1, 6}}
	m.update(func(tx *Tx) error {
		a, err := tx.Derive(m.room, 0, set...)
		if err != nil || a == 0 {
			return fmt.Errorf("derived %d: %w", a, err)
		}
		for _, same := range [][]StateChange{nil, set, {{2, 0}}, {{0, 9}, {0, 5}}} {
			if b, err := tx.Derive(m.room, a, same...); err != nil || b != a {
				return fmt.Errorf("%v made %d of %d: %w", same, b, a, err)
			}
		}
		if b, err := tx.Derive(m.room, 0, StateChange{1, 0}); err != nil || b != 0 {
			return fmt.Errorf("nothing taken from nothing made %d: %w", b, err)
		}
		return nil
	})
}

// A snapshot that grows cannot be built upon, and one that is sealed cannot
// grow; a snapshot that is not there is not found.
func TestSnapshotSeals(t *testing.T) {
	m := newStateModel(t, 1, denseSlots(3, 3))
	m.update(func(tx *Tx) error {
		sealed, err := tx.Derive(m.room, 0, StateChange{1, 4})
		if err != nil {
			return err
		}
		growing, err := tx.NewSnapshot(m.room, sealed)
		if err != nil {
			return err
		}
		change := StateChange{0, 5}
		_, derived := tx.Derive(m.room, growing, change)
		_, copied := tx.NewSnapshot(m.room, growing)
		_, unknown := tx.StateAt(m.room, 99, 0)
		_, elsewhere := tx.Derive(m.room+1, sealed, change)
		for _, c := range []struct {
			deed      string
			got, want error
		}{
			{"derive from growing", derived, ErrUnsealed},
			{"copy growing", copied, ErrUnsealed},
			{"grow sealed", tx.GrowSnapshot(m.room, sealed, change), ErrSealed},
			{"grow the empty state", tx.GrowSnapshot(m.room, 0, change), ErrSealed},
			{"seal the empty state", tx.SealSnapshot(m.room, 0), nil},
			{"read unknown", unknown, ErrNotFound},
			{"derive in another room", elsewhere, ErrNotFound},
			{"walk unknown", tx.WalkState(m.room, 99, StateAll, nil), ErrNotFound},
			{"diff unknown", tx.DiffSnapshots(m.room, sealed, 99, nil), ErrNotFound},
		} {
			if !errors.Is(c.got, c.want) {
				t.Errorf("%s: %v, want %v", c.deed, c.got, c.want)
			}
		}
		return nil
	})
}

// fn's false or error ends a walk and a comparison at once.
func TestWalkStops(t *testing.T) {
	m := newStateModel(t, 1, denseSlots(50, 50))
	stop := errors.New("stop")
	for range 80 {
		m.derive()
	}
	for _, want := range []error{nil, stop} {
		m.view(func(tx *Tx) error {
			for at := range len(m.states[m.ids[len(m.ids)-1]]) {
				calls := 0
				err := tx.WalkState(m.room, m.ids[len(m.ids)-1], StateAll, func(Slot, EventNum) (bool, error) {
					calls++
					if calls <= at {
						return true, nil
					}
					return false, want
				})
				if calls != at+1 || !errors.Is(err, want) {
					t.Fatalf("%d calls of %d, error %v", calls, at+1, err)
				}
			}
			return nil
		})
	}
}

// Slots are dense, apart for members, and each pair has its own whatever bytes
// its strings hold.
func TestSlots(t *testing.T) {
	s := openStates(t)
	pairs := [][2]string{
		{"m.room.member", "@a:x"}, {"m.room.create", ""}, {"m.room.member", "@b:x"}, {"m.room.name", ""},
		{"a", "b\x00c"}, {"a\x00b", "c"}, {"ab", "c"}, {"a", "bc"}, {"", ""}, {"", "m.room.member"}, {"m.room.member", ""},
	}
	want := []Slot{1, 0, 3, 2, 4, 6, 8, 10, 12, 14, 5}
	var room RoomNum
	for range 2 {
		err := s.Update(t.Context(), func(tx *Tx) (err error) {
			if room, err = tx.PutRoomNum(matrix.RoomID("!r:x")); err != nil {
				return err
			}
			for i, p := range pairs {
				if got, err := tx.PutSlot(room, p[0], p[1]); err != nil || got != want[i] {
					return fmt.Errorf("slot of %q: %d, want %d: %w", p, got, want[i], err)
				}
				if got, ok := tx.Slot(room, p[0], p[1]); !ok || got != want[i] {
					return fmt.Errorf("slot of %q: %d, want %d", p, got, want[i])
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	err := s.View(func(tx *Tx) error {
		for _, p := range [][2]string{{"m.room.member", "@c:x"}, {"m.room.name", "x"}, {"a", "b"}} {
			if slot, ok := tx.Slot(room, p[0], p[1]); ok {
				t.Errorf("%q has the slot %d", p, slot)
			}
		}
		if _, ok := tx.Slot(room+1, "m.room.name", ""); ok {
			t.Error("a slot is found in another room")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context(), func(fault string) { t.Error(fault) }); err != nil {
		t.Fatal(err)
	}
}
