package store

import (
	"strings"
	"testing"

	"hearth/state/matrix"
)

// Each way in which slots and snapshots can be damaged is reported.
func TestCheckFindsDamagedStates(t *testing.T) {
	const lost EventNum = 1 << 30
	leaf := node{values: [fanOut]uint64{1: 5}}
	orphan := node{level: 1, values: [fanOut]uint64{2: 900}}
	wide := node{values: [fanOut]uint64{15: 5}}
	for _, d := range []struct {
		name   string
		damage func(tx *Tx, room RoomNum) error
		want   string
	}{
		{"nothing", func(*Tx, RoomNum) error { return nil }, ""},
		{"counter", func(tx *Tx, room RoomNum) error {
			return tx.put(bucketState, keyOf(uint32(room), stateCounter), []byte{1})
		}, "state counter"},
		{"slot lost", func(tx *Tx, room RoomNum) error {
			return tx.delete(bucketState, slotKey(room, 0, "t", "1"))
		}, "1 slots of kind 0, counted 2"},
		{"slot twice", func(tx *Tx, room RoomNum) error {
			return tx.put(bucketState, slotKey(room, 0, "t", "1"), []byte{0})
		}, "given twice"},
		{"slot too high", func(tx *Tx, room RoomNum) error {
			return tx.put(bucketState, slotKey(room, 0, "t", "1"), []byte{2})
		}, "ordinal 2 of 2"},
		{"member unknown", func(tx *Tx, room RoomNum) error {
			user := tx.UserNum("@a:x")
			if err := tx.delete(bucketState, slotKey(room, user, memberType, "")); err != nil {
				return err
			}
			return tx.put(bucketState, slotKey(room, 99, memberType, ""), []byte{0})
		}, "unknown user"},
		{"event lost", putRecord(1, (&snapshot{overlay: overlay{{{0, lost}}}}).encode(1)), "holds event"},
		{"ordinal not given", putRecord(1, (&snapshot{overlay: overlay{{{2, 0}}}}).encode(1)), "has the ordinal 2"},
		{"order", putRecord(1, []byte{recordSnapshot, 0, 0, 2, 0, 5, 1, 0, 0, 0}), "snapshot 1"},
		{"base lost", putRecord(2, (&snapshot{base: 1, own: overlay{{{0, 0}}}}).encode(2)), "snapshot 1 of room"},
		{"root lost", putRecord(1, (&snapshot{roots: [parts]nodeRef{{num: 900}}}).encode(1)), "state node 900"},
		{"record beyond the counter", putRecord(70, (&snapshot{}).encode(70)), "state record 70"},
		{"node", putRecord(1, []byte{0}), "state node 1"},
		{"node's event lost", putRecord(1, (&node{values: [fanOut]uint64{1: uint64(lost)}}).encode()), "holds event"},
		{"child lost", putRecord(1, orphan.encode()), "child of state node 1"},
		{"kind", putRecord(1, []byte{0x77}), "snapshot 1"},
		{"key", func(tx *Tx, room RoomNum) error {
			return tx.put(bucketState, keyOf(uint32(room), stateRecord), leaf.encode())
		}, "0 bytes behind"},
		{"tree too wide", func(tx *Tx, room RoomNum) error {
			if err := putRecord(1, wide.encode())(tx, room); err != nil {
				return err
			}
			return putRecord(2, (&snapshot{roots: [parts]nodeRef{{num: 1}}}).encode(2))(tx, room)
		}, "has the ordinal 15"},
	} {
		t.Run(d.name, func(t *testing.T) {
			if faults := faultsAfter(t, d.damage); d.want == "" && faults != "" || !strings.Contains(faults, d.want) {
				t.Errorf("reported %q, want %q", faults, d.want)
			}
		})
	}
}

// putRecord puts a state record in place.
func putRecord(num uint64, v []byte) func(*Tx, RoomNum) error {
	return func(tx *Tx, room RoomNum) error { return tx.put(bucketState, recordKey(room, num), v) }
}

// faultsAfter damages a room with three slots and no snapshots, whose events
// are those below 100, and returns what is reported of it.
func faultsAfter(t *testing.T, damage func(*Tx, RoomNum) error) string {
	t.Helper()
	s := openStates(t)
	err := s.Update(t.Context(), func(tx *Tx) error {
		room, err := tx.PutRoomNum(matrix.RoomID("!r:x"))
		if err != nil {
			return err
		}
		for _, p := range [][2]string{{"t", "0"}, {"t", "1"}, {memberType, "@a:x"}} {
			if _, err := tx.PutSlot(room, p[0], p[1]); err != nil {
				return err
			}
		}
		counter, err := tx.stateCounter(room)
		if err != nil {
			return err
		}
		counter.next = 10
		if err := tx.putStateCounter(room, counter); err != nil {
			return err
		}
		return damage(tx, room)
	})
	if err != nil {
		t.Fatal(err)
	}
	var faults strings.Builder
	err = s.View(func(tx *Tx) error {
		c := &checker{Tx: tx, ctx: t.Context(), report: func(fault string) { faults.WriteString(fault + "\n") }}
		if err := checkSlots(c); err != nil {
			return err
		}
		return c.eachStateRoom(func(room RoomNum, counter stateCounters) error {
			return c.checkRecords(room, counter, func(num EventNum) bool { return num < 100 })
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return faults.String()
}
