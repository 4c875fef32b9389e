package store

import "math/bits"

// checkSlots holds the slots of each room to its counter: as many of either
// kind as were given out, each ordinal once, and each member's user known.
func checkSlots(c *checker) error {
	return c.eachStateRoom(func(room RoomNum, counter stateCounters) error {
		for part, given := range counter.slots {
			if err := c.checkSlotsOf(room, part, given); err != nil {
				return err
			}
		}
		return nil
	})
}

// eachStateRoom calls fn for each room that has state, with its counters.
func (c *checker) eachStateRoom(fn func(RoomNum, stateCounters) error) error {
	next := uint32(0)
	for {
		var room RoomNum
		err := c.scan(bucketState, nil, appendU32(nil, next), func(key, _ []byte) (bool, error) {
			if len(key) >= 4 {
				room = RoomNum(u32(key))
			}
			return false, nil
		})
		if err != nil || uint32(room) < next || room == 0 {
			return err
		}
		if !c.purging(room) { // what is left of a purged one need not fit together
			counter, err := c.stateCounter(room)
			if err != nil {
				c.faultf("%v", err)
			} else if err := fn(room, counter); err != nil {
				return err
			}
		}
		if next = uint32(room) + 1; next == 0 {
			return nil
		}
	}
}

func (c *checker) checkSlotsOf(room RoomNum, part int, given uint32) error {
	prefix := append(keyOf(uint32(room), stateSlot), byte(part))
	found := uint32(0)
	if err := c.each(bucketState, prefix, func(_, _ []byte) { found++ }); err != nil {
		return err
	}
	if found != given {
		c.faultf("room %d: %d slots of kind %d, counted %d", room, found, part, given)
		return nil
	}
	seen := make([]uint64, (given+63)/64)
	return c.each(bucketState, prefix, func(rest, _ []byte) {
		slot, ok := c.slot(append(prefix[:len(prefix):len(prefix)], rest...))
		ordinal := slot.ordinal()
		switch {
		case !ok || ordinal >= given:
			c.faultf("room %d: slot %x has the ordinal %d of %d", room, rest, ordinal, given)
			return
		case seen[ordinal/64]>>(ordinal%64)&1 != 0:
			c.faultf("room %d: the ordinal %d of kind %d is given twice", room, ordinal, part)
		case part == membersPart && (len(rest) != 4 || c.get(bucketNumber, numberKey(numberUser, u32(rest))) == nil):
			c.faultf("room %d: slot %x is of an unknown user", room, rest)
		}
		seen[ordinal/64] |= 1 << (ordinal % 64)
	})
}

// checkSnapshots holds each snapshot and each node to what snapshot_record.go
// and snapshot_node.go say: it can be read, what it leads to is there, its
// slots are given and its events stored.
func checkSnapshots(c *checker) error {
	return c.eachStateRoom(func(room RoomNum, counter stateCounters) error {
		return c.checkRecords(room, counter, func(num EventNum) bool {
			return c.hasEvent(room, num)
		})
	})
}

// A recordChecker checks the records of one room's states.
type recordChecker struct {
	*checker
	stateReader
	counter stateCounters
	stored  func(EventNum) bool // says whether the room has an event
}

func (c *checker) checkRecords(room RoomNum, counter stateCounters, stored func(EventNum) bool) error {
	rc := recordChecker{checker: c, stateReader: c.Tx.stateReader(room), counter: counter, stored: stored}
	return c.each(bucketState, keyOf(uint32(room), stateRecord), func(rest, value []byte) {
		num, err := readRecordNum(rest)
		switch {
		case err != nil:
			c.faultf("room %d: %v", room, err)
		case num == 0 || num >= counter.next:
			c.faultf("room %d: state record %d, %d is the next", room, num, counter.next)
		case len(value) > 0 && value[0] < recordSnapshot:
			rc.checkNode(num, value)
		default:
			rc.checkSnapshot(SnapshotID(num))
		}
	})
}

// checkNode checks one node's own values; its children have their own turn.
func (c *recordChecker) checkNode(num uint64, value []byte) {
	n, err := readNode(value)
	if err != nil {
		c.faultf("room %d: state node %d: %v", c.room, num, err)
		return
	}
	for i, v := range n.values {
		switch {
		case v == 0:
		case n.level == 0:
			c.checkEvent(num, EventNum(v))
		default:
			if _, err := c.node(n.child(i)); err != nil {
				c.faultf("child of state node %d: %v", num, err)
			}
		}
	}
}

func (c *recordChecker) checkEvent(num uint64, event EventNum) {
	if !c.stored(event) {
		c.faultf("room %d: state record %d holds event %d, which is not there", c.room, num, event)
	}
}

// checkSnapshot checks a snapshot's record and that neither its entries nor
// its trees have more slots than were given out.
func (c *recordChecker) checkSnapshot(id SnapshotID) {
	s, err := c.snapshot(id)
	if err != nil {
		c.faultf("%v", err)
		return
	}
	for part, entries := range s.overlay {
		for _, e := range entries {
			if e.ordinal >= c.counter.slots[part] {
				c.faultf("room %d: snapshot %d has the ordinal %d of kind %d", c.room, id, e.ordinal, part)
			}
			if e.event != 0 {
				c.checkEvent(uint64(id), e.event)
			}
		}
	}
	for part, root := range s.roots {
		last, err := c.lastOrdinal(root)
		if err != nil {
			c.faultf("snapshot %d: %v", id, err)
		} else if root.num != 0 && last >= uint64(c.counter.slots[part]) {
			c.faultf("room %d: tree of snapshot %d has the ordinal %d of kind %d", c.room, id, last, part)
		}
	}
}

// lastOrdinal returns the highest ordinal of a tree.
func (r *stateReader) lastOrdinal(at nodeRef) (last uint64, err error) {
	for at.num != 0 {
		n, err := r.node(at)
		if err != nil {
			return 0, err
		}
		i := bits.Len16(n.mask()) - 1
		last = last<<fanBits | uint64(i)
		if n.level == 0 {
			break
		}
		at = n.child(i)
	}
	return last, nil
}
