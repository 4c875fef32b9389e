package store

import (
	"errors"
	"testing"
)

// reachable returns the records that snapshots are made of, the plain way.
func (m *stateModel) reachable(ids []SnapshotID) map[uint64]bool {
	m.t.Helper()
	found := map[uint64]bool{}
	m.view(func(tx *Tx) error {
		r := tx.stateReader(m.room)
		var visit func(nodeRef)
		visit = func(at nodeRef) {
			found[at.num] = true
			n, err := r.node(at)
			if err != nil {
				m.t.Fatal(err)
			}
			for i, v := range n.values {
				if v != 0 && n.level > 0 {
					visit(n.child(i))
				}
			}
		}
		for _, id := range ids {
			s, err := r.snapshot(id)
			if err != nil {
				return err
			}
			found[uint64(id)], found[s.base] = true, true
			for _, root := range s.roots {
				if root.num != 0 {
					visit(root)
				}
			}
		}
		return nil
	})
	delete(found, 0)
	return found
}

// records returns the numbers of the room's records.
func (m *stateModel) records() map[uint64]bool {
	m.t.Helper()
	found := map[uint64]bool{}
	m.view(func(tx *Tx) error {
		return tx.scan(bucketState, keyOf(uint32(m.room), stateRecord), nil, func(rest, _ []byte) (bool, error) {
			num, err := readRecordNum(rest)
			found[num] = true
			return true, err
		})
	})
	return found
}

// collect keeps some of the model's snapshots and collects the others.
func (m *stateModel) collect() {
	m.t.Helper()
	kept := []SnapshotID{0}
	for _, id := range m.ids[1:] {
		if m.random.IntN(10) == 0 {
			kept = append(kept, id)
		} else {
			delete(m.states, id)
		}
	}
	m.ids = kept
	before := len(m.records())
	m.random.Shuffle(len(kept), func(i, j int) { kept[i], kept[j] = kept[j], kept[i] })
	removed, err := m.s.CollectSnapshots(m.t.Context(), m.room, func(_ *Tx, use func(SnapshotID) error) error {
		for _, id := range kept {
			if err := errors.Join(use(id), use(kept[0])); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	left, want := m.records(), m.reachable(kept)
	if before-removed != len(left) {
		m.t.Errorf("%d of %d removed, %d left", removed, before, len(left))
	}
	for num := range left {
		if !want[num] {
			m.t.Errorf("record %d is left, which nothing needs", num)
		}
	}
	m.ids[0], m.ids[indexOf(m.ids, 0)] = 0, m.ids[0]
	m.checkAll()
}

func indexOf(ids []SnapshotID, id SnapshotID) int {
	for i := range ids {
		if ids[i] == id {
			return i
		}
	}
	return -1
}

// A collection leaves exactly what the named snapshots are made of, and life
// goes on from them.
func TestCollectSnapshots(t *testing.T) {
	for name, slots := range map[string][]Slot{
		"household": denseSlots(12, 5),
		"big":       denseSlots(300, 3000),
		"sparse":    sparseSlots(),
	} {
		t.Run(name, func(t *testing.T) {
			m := newStateModel(t, 5, slots)
			for range 4 {
				for range 150 {
					m.derive()
				}
				m.grow()
				m.collect()
			}
		})
	}
}

// A room that was never heard of, and one of which nothing is needed.
func TestCollectAll(t *testing.T) {
	m := newStateModel(t, 5, denseSlots(10, 2000))
	none := func(*Tx, func(SnapshotID) error) error { return nil }
	if n, err := m.s.CollectSnapshots(t.Context(), m.room+1, none); n != 0 || err != nil {
		t.Fatalf("%d removed: %v", n, err)
	}
	m.grow()
	for range 100 {
		m.derive()
	}
	if n, err := m.s.CollectSnapshots(t.Context(), m.room, none); n == 0 || err != nil {
		t.Fatalf("%d removed: %v", n, err)
	}
	if left := m.records(); len(left) > 0 {
		t.Errorf("%d records are left", len(left))
	}
}

// A name for what is not there stops a collection before it removes anything.
func TestCollectUnknown(t *testing.T) {
	m := newStateModel(t, 5, denseSlots(10, 20))
	for range 10 {
		m.derive()
	}
	before := len(m.records())
	n, err := m.s.CollectSnapshots(t.Context(), m.room, func(_ *Tx, use func(SnapshotID) error) error { return use(1 << 30) })
	if n != 0 || !errors.Is(err, ErrNotFound) || len(m.records()) != before {
		t.Errorf("%d removed of %d: %v", n, before, err)
	}
}

// Several windows of numbers mark what one does.
func TestMarkWindows(t *testing.T) {
	m := newStateModel(t, 6, denseSlots(100, 2000))
	for range 300 {
		m.derive()
	}
	want := m.reachable(m.ids)
	m.view(func(tx *Tx) error {
		counter, err := tx.stateCounter(m.room)
		if err != nil {
			return err
		}
		const window = 100
		for first := uint64(1); first < counter.next; first += window {
			mk := tx.newMarker(m.room, first, min(first+window, counter.next))
			for _, id := range m.ids {
				if err := mk.markSnapshot(id); err != nil {
					return err
				}
			}
			for num := mk.first; num < mk.end; num++ {
				if mk.marked(num) != want[num] {
					t.Errorf("record %d: marked %v, needed %v", num, mk.marked(num), want[num])
				}
			}
		}
		return nil
	})
}
