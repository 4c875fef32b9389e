package store

import "testing"

// The promises about costs, in a room of 20,000 members: at most 400 bytes on
// disk for a change, a handful of records read for a look-up, a comparison
// that does not depend on the size of the room, and 1 MiB of heap.
func TestSnapshotCosts(t *testing.T) {
	const changes = 5_000
	r := newBigRoom(t, 20_000)
	start := r.used(t)
	r.change(t, changes)
	if perChange := (r.used(t) - start) / changes; perChange > 400 {
		t.Errorf("%d bytes on disk for a change", perChange)
	}
	const heap = 1 << 20
	if n := allocated(func() { r.change(t, 1) }); n > heap {
		t.Errorf("a change allocates %d bytes", n)
	}
	if n := r.join(t, 1000, 1); n > heap {
		t.Errorf("a thousand members allocate %d bytes", n)
	}
	r.view(t, func(tx *Tx) error {
		newest := r.history[len(r.history)-1]
		reader := tx.stateReader(bigRoomNum)
		s, err := reader.snapshot(newest)
		if err != nil {
			return err
		}
		if _, err := reader.event(&s, slotAt(membersPart, 4711)); err != nil || reader.reads > 6 {
			t.Errorf("a look-up reads %d records: %v", reader.reads, err)
		}
		most := 0
		for i := range r.history[10:] {
			reads, err := tx.diff(bigRoomNum, r.history[i], r.history[i+10], StateAll, 0, eachDifference)
			if err != nil {
				return err
			}
			most = max(most, reads)
		}
		if most > 300 {
			t.Errorf("a comparison across ten changes reads %d records", most)
		}
		if n := allocated(func() { err = tx.WalkState(bigRoomNum, newest, StateAll, eachEvent) }); n > heap || err != nil {
			t.Errorf("a walk allocates %d bytes: %v", n, err)
		}
		return nil
	})
	if n := allocated(func() { r.collect(t, r.history) }) / changes; n > 1<<10 {
		t.Errorf("a collection allocates %d bytes for each snapshot", n)
	}
}

// A household's room costs little more than its changes: the whole state fits
// in records without a tree.
func TestSmallRoomCosts(t *testing.T) {
	const changes = 1_000
	r := newBigRoom(t, 8)
	start := r.used(t)
	r.change(t, changes)
	if perChange := (r.used(t) - start) / changes; perChange > 100 {
		t.Errorf("%d bytes on disk for a change", perChange)
	}
	r.view(t, func(tx *Tx) error {
		return tx.scan(bucketState, keyOf(uint32(bigRoomNum), stateRecord), nil, func(rest, value []byte) (bool, error) {
			if value[0] < recordSnapshot {
				t.Errorf("record %x is a node", rest)
			}
			return true, nil
		})
	})
}
