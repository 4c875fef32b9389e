package store

import (
	"errors"
	"fmt"
	"testing"

	"hearth/state/matrix"
)

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
