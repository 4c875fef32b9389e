package store

import "fmt"

// The citation index leads from a state event to the state events of its room
// that cite it in auth_events, so that "does the state stand on this event?" is
// answered upwards from the event.
//
// A chain cover would answer "does a reach b?" in one comparison, but only for
// events that are covered: each new one must be given a chain and the links to
// others be closed over, which writes more than this the more a room forks, and
// what is asked during a resolution is another question: which of a few events
// does any of 200,000 cite? Upwards that ends at the first that is in the state,
// as a rule at the first or second hop.
//
// Left out is what no such search comes by: messages, which nobody may cite;
// rejected events, since who cites one is rejected too and neither is ever part
// of a state; and m.room.create, which all state cites anyway.
//
// Measured over a room of 55,261 state events, for each of them: 2.9 entries of
// 107 bytes together, which take 148 bytes of the file. Where 64 events share a
// commit they make it write 2 KiB more for each, half a page. Alone in a commit a
// state event writes 23 KiB more, six pages: three leaves, far apart, and what leads
// to them (three pages in a room of 1,000).

// createType is the event type that the index leaves out.
const createType = "m.room.create"

// CitedBy returns the newest state event below before (0: the newest of all)
// that cites an event, as the citation index has it; ok is false when there is
// none.
func (tx *Tx) CitedBy(room RoomNum, cited, before EventNum) (citing EventNum, ok bool, err error) {
	var end []byte
	if before != 0 {
		end = citationKey(room, cited, before)
	}
	err = tx.scanBack(bucketState, citationPrefix(room, cited), end, func(key, _ []byte) (bool, error) {
		if len(key) != 8 {
			return false, fmt.Errorf("citations of event %d of room %d: %w", cited, room, ErrDamaged)
		}
		citing, ok = EventNum(u64(key)), true
		return false, nil
	})
	return citing, ok, err
}

// CitationsBack calls fn for each entry of a room's citation index below one, from
// the newest event that is cited to the oldest, and for each from the newest that
// cites it to the oldest, until fn returns false or an error.
func (tx *Tx) CitationsBack(room RoomNum, cited, citing EventNum, fn func(citing, cited EventNum) (bool, error)) error {
	prefix := keyOf(uint32(room), stateCitation)
	return tx.scanBack(bucketState, prefix, citationKey(room, cited, citing), func(key, _ []byte) (bool, error) {
		if len(key) != 16 {
			return false, fmt.Errorf("citations of room %d: %w", room, ErrDamaged)
		}
		return fn(EventNum(u64(key[8:])), EventNum(u64(key)))
	})
}

// EventSlot returns the slot of a room's state event, which costs less than the
// event; ok is false for a message. The error wraps ErrNotFound if there is no
// such event.
func (tx *Tx) EventSlot(room RoomNum, num EventNum) (slot Slot, ok bool, err error) {
	ev, _, err := tx.eventHead(room, num)
	if err != nil {
		return 0, false, err
	}
	return ev.Slot, ev.HasSlot, nil
}

// putCitations writes what a new event adds to the citation index.
func (tx *Tx) putCitations(ev *StoredEvent) error {
	return tx.citations(ev, func(cited EventNum) error {
		return tx.put(bucketState, citationKey(ev.RoomNum, cited, ev.StateNum()), nil)
	})
}

// dropCitations takes out of the citation index what an event added to it.
func (tx *Tx) dropCitations(ev *StoredEvent) error {
	return tx.citations(ev, func(cited EventNum) error {
		return tx.delete(bucketState, citationKey(ev.RoomNum, cited, ev.StateNum()))
	})
}

// citations calls fn for each event that the index has ev cite.
func (tx *Tx) citations(ev *StoredEvent, fn func(cited EventNum) error) error {
	if !ev.HasSlot || ev.Rejected || len(ev.AuthEvents) == 0 {
		return nil
	}
	create, _ := tx.Slot(ev.RoomNum, createType, "")
	for _, id := range ev.AuthEvents {
		room, num, known := tx.StateEventByID(id)
		if !known || room != ev.RoomNum {
			continue
		}
		slot, ok, err := tx.EventSlot(room, num)
		if err == nil && ok && slot != create {
			err = fn(num)
		}
		if err != nil {
			return fmt.Errorf("citation of %s: %w", id, err)
		}
	}
	return nil
}

// indexCitations makes the index for all events: the upgrade from format 1.
func (tx *Tx) indexCitations() error {
	return tx.Rooms(func(room RoomNum, _ Head) (bool, error) {
		for _, region := range []byte{regionAside, regionTimeline} {
			err := tx.scan(bucketEvent, regionKey(room, region), nil, func(key, _ []byte) (bool, error) {
				num, err := regionNum(region, key)
				if err != nil {
					return false, fmt.Errorf("event key of room %d: %w", room, err)
				}
				ev, err := tx.Event(room, num)
				if err != nil {
					return false, err
				}
				return true, tx.putCitations(ev)
			})
			if err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// regionNum returns the number of the event whose key in a region ends so.
func regionNum(region byte, key []byte) (EventNum, error) {
	if len(key) != 8 {
		return 0, ErrDamaged
	}
	if region == regionAside {
		return asideNum(Position(u64(key))), nil
	}
	return timelineNum(Position(u64(key))), nil
}

func citationPrefix(room RoomNum, cited EventNum) []byte {
	return appendU64(keyOf(uint32(room), stateCitation), uint64(cited))
}

func citationKey(room RoomNum, cited, citing EventNum) []byte {
	return appendU64(citationPrefix(room, cited), uint64(citing))
}

// checkCitations leads each entry of the citation index to an event that cites
// the other; that no entry is missing is seen where events are checked.
func checkCitations(c *checker) error {
	return c.eachOf(bucketState, stateCitation, func(num uint32, rest, value []byte) {
		room := RoomNum(num)
		if c.purging(room) {
			return
		}
		if len(rest) != 16 || len(value) > 0 {
			c.faultf("room %d: citation %x: %x", room, rest, value)
			return
		}
		cited, citing := EventNum(u64(rest)), EventNum(u64(rest[8:]))
		ev, err := c.Event(room, citing)
		if err != nil {
			c.faultf("room %d: citation of event %d: %v", room, cited, err)
			return
		}
		found := false
		err = c.citations(ev, func(num EventNum) error {
			found = found || num == cited
			return nil
		})
		if !found {
			c.faultf("room %d: event %d (%s) does not cite event %d: %v", room, citing, ev.ID, cited, err)
		}
	})
}

// checkCited finds each citation of an event in the index, and what is cited
// below what cites it: what an event cites was here before.
func (c *checker) checkCited(ev *StoredEvent) {
	err := c.citations(ev, func(cited EventNum) error {
		if cited >= ev.StateNum() {
			c.faultf("room %d: event %d (%s) cites event %d, which is newer", ev.RoomNum, ev.Num, ev.ID, cited)
		}
		if c.get(bucketState, citationKey(ev.RoomNum, cited, ev.StateNum())) == nil {
			c.faultf("room %d: event %d (%s) cites event %d without an entry", ev.RoomNum, ev.Num, ev.ID, cited)
		}
		return nil
	})
	if err != nil {
		c.faultf("room %d, event %d: %v", ev.RoomNum, ev.Num, err)
	}
}
