package store

// DiffSnapshots calls fn for each slot in which a and b differ, the others
// first and then the members, each in the order of their slots, until fn
// returns false or an error. 0 stands for no event. What the two snapshots
// share is not read. fn may use tx, but not change the state of the room.
func (tx *Tx) DiffSnapshots(room RoomNum, a, b SnapshotID, fn func(slot Slot, inA, inB EventNum) (bool, error)) error {
	_, err := tx.diff(room, a, b, StateAll, 0, fn)
	return err
}

// WalkState calls fn for each event of a snapshot's part, the others before
// the members, each in the order of their slots, until fn returns false or an
// error. fn may use tx, but not change the state of the room.
func (tx *Tx) WalkState(room RoomNum, snap SnapshotID, part StatePart, fn func(Slot, EventNum) (bool, error)) error {
	return tx.WalkStateFrom(room, snap, part, 0, fn)
}

// WalkStateFrom is WalkState from a slot on, for a walk that goes on in
// another transaction; 0 begins it. A slot of the members leaves out the others.
func (tx *Tx) WalkStateFrom(room RoomNum, snap SnapshotID, part StatePart, from Slot, fn func(Slot, EventNum) (bool, error)) error {
	_, err := tx.diff(room, 0, snap, part, from, func(slot Slot, _, event EventNum) (bool, error) {
		return fn(slot, event)
	})
	return err
}

// diff is DiffSnapshots for one part and from a slot on. It also says how many
// records it read.
func (tx *Tx) diff(room RoomNum, a, b SnapshotID, part StatePart, from Slot, fn func(slot Slot, inA, inB EventNum) (bool, error)) (reads int, err error) {
	if a == b {
		return 0, nil
	}
	d := differ{stateReader: tx.stateReader(room), fn: fn}
	if d.a, err = d.snapshot(a); err != nil {
		return d.reads, err
	}
	if d.b, err = d.snapshot(b); err != nil {
		return d.reads, err
	}
	for d.part = from.part(); d.part < parts; d.part++ {
		if part>>d.part&1 == 0 {
			continue
		}
		d.from = 0
		if d.part == from.part() {
			d.from = from.ordinal()
		}
		if more, err := d.diffPart(); err != nil || !more {
			return d.reads, err
		}
	}
	return d.reads, nil
}

// A differ compares two snapshots. Its methods return false once fn has.
type differ struct {
	stateReader
	a, b    snapshot
	fn      func(slot Slot, inA, inB EventNum) (bool, error)
	part    int     // which of the two trees it is at
	from    uint32  // the ordinal to begin at
	pending []entry // of either overlay, still to be compared; their events do not count
}

// diffPart compares one part. The trees give their differences in order, and
// what the overlays hold is worked in where its turn is.
func (d *differ) diffPart() (bool, error) {
	d.pending = mergeEntries(d.a.overlay[d.part], d.b.overlay[d.part])
	for len(d.pending) > 0 && d.pending[0].ordinal < d.from {
		d.pending = d.pending[1:]
	}
	rootA, rootB := d.a.roots[d.part], d.b.roots[d.part]
	more, err := d.diffTrees(rootA, rootB, max(rootA.level, rootB.level), 0)
	if err != nil || !more {
		return false, err
	}
	return d.overlaysBefore(maxOrdinal + 1)
}

// diffTrees compares the trees under two nodes, which are at most of a level,
// at the place that begins with the ordinal first.
func (d *differ) diffTrees(a, b nodeRef, level uint8, first uint32) (bool, error) {
	if a.num == b.num && (a.num == 0 || a.level == b.level) {
		return true, nil
	}
	na, err := d.spread(a, level)
	if err != nil {
		return false, err
	}
	nb, err := d.spread(b, level)
	if err != nil {
		return false, err
	}
	for i := range na {
		at := first + uint32(i)<<(fanBits*uint(level))
		last := uint64(at) + 1<<(fanBits*uint(level)) - 1
		if na[i] == nb[i] || last < uint64(d.from) {
			continue
		}
		var more bool
		if level == 0 {
			more, err = d.entry(at, EventNum(na[i].num), EventNum(nb[i].num))
		} else {
			more, err = d.diffTrees(na[i], nb[i], level-1, at)
		}
		if err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

// entry takes a difference of the trees at an ordinal, and before it what the
// overlays have at lower ones.
func (d *differ) entry(ordinal uint32, inA, inB EventNum) (bool, error) {
	if more, err := d.overlaysBefore(ordinal); err != nil || !more {
		return false, err
	}
	slot := slotAt(d.part, ordinal)
	if len(d.pending) > 0 && d.pending[0].ordinal == ordinal {
		d.pending = d.pending[1:]
		if event, ok := d.a.overlay.find(slot); ok {
			inA = event
		}
		if event, ok := d.b.overlay.find(slot); ok {
			inB = event
		}
	}
	if inA == inB {
		return true, nil
	}
	return d.fn(slot, inA, inB)
}

// overlaysBefore compares what the overlays have below an ordinal, where the
// trees do not differ.
func (d *differ) overlaysBefore(ordinal uint32) (bool, error) {
	for len(d.pending) > 0 && d.pending[0].ordinal < ordinal {
		slot := slotAt(d.part, d.pending[0].ordinal)
		d.pending = d.pending[1:]
		inA, err := d.event(&d.a, slot)
		if err != nil {
			return false, err
		}
		inB, err := d.event(&d.b, slot)
		if err != nil {
			return false, err
		}
		if inA == inB {
			continue
		}
		if more, err := d.fn(slot, inA, inB); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}
