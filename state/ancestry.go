package state

import (
	"cmp"
	"slices"

	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of a walk over events that another server asked for.
const (
	// maxPassed is how many events a walk looks at for each one that it may give away:
	// those that were rejected are passed over.
	maxPassed = 4
	// maxWalkBytes is how much of events a walk holds, but for the last ones.
	maxWalkBytes = 4 << 20
)

// Ancestors returns some events and those that they stand on, the deepest first, no
// more than limit, and fewer where they are large. What is not here, of another room, or of unknown place is left
// out, and so are rejected events, but not what those stand on.
//
// Spec: SS Backfilling, backfillRoom.
func Ancestors(tx *store.Tx, room store.RoomNum, from []matrix.EventID, limit int) (events []*store.StoredEvent, err error) {
	deeper := func(a, b *store.StoredEvent) int {
		return cmp.Or(cmp.Compare(b.Depth, a.Depth), cmp.Compare(b.Num, a.Num))
	}
	var open []*store.StoredEvent // in the order in which they come out
	seen := make(map[matrix.EventID]bool)
	held := 0 // bytes of what is open or comes out
	add := func(ids []matrix.EventID) error {
		for _, id := range ids {
			ev, err := standing(tx, room, id, seen)
			if err != nil {
				return err
			}
			if ev != nil {
				at, _ := slices.BinarySearchFunc(open, ev, deeper)
				open = slices.Insert(open, at, ev)
				held += len(ev.JSON())
			}
		}
		return nil
	}
	if err := add(from); err != nil {
		return nil, err
	}
	for looked := 0; len(open) > 0 && len(events) < limit && looked < limit*maxPassed; looked++ {
		ev := open[0]
		open[0], open = nil, open[1:]
		if ev.Rejected {
			held -= len(ev.JSON())
		} else {
			events = append(events, ev)
		}
		if held > maxWalkBytes {
			break
		}
		if err := add(ev.PrevEvents); err != nil {
			return nil, err
		}
	}
	return events, nil
}

// Between returns the events that some events stand on, without those that the asker
// has, breadth first, no more than limit, and fewer where they are large, none less deep
// than minDepth.
//
// Spec: SS Backfilling, getMissingPreviousEvents: "a breadth-first walk of the
// prev_events for the latest_events, ignoring any events in earliest_events and
// stopping at the limit".
func Between(tx *store.Tx, room store.RoomNum, ask MissingEvents, minDepth int64) (events []*store.StoredEvent, err error) {
	seen := make(map[matrix.EventID]bool)
	for _, id := range ask.Earliest {
		seen[id] = true
	}
	var queue []*store.StoredEvent
	held := 0 // bytes of what is in the queue or comes out
	for _, id := range ask.Latest {
		ev, err := standing(tx, room, id, seen)
		if err != nil {
			return nil, err
		}
		if ev != nil {
			queue = append(queue, ev)
		}
	}
	for looked := 0; len(queue) > 0 && looked < ask.Limit*maxPassed && held <= maxWalkBytes; looked++ {
		for _, id := range queue[0].PrevEvents {
			ev, err := standing(tx, room, id, seen)
			if err != nil {
				return nil, err
			}
			if ev == nil || ev.Depth < minDepth {
				continue
			}
			queue = append(queue, ev)
			held += len(ev.JSON())
			if ev.Rejected {
				continue
			}
			if events = append(events, ev); len(events) >= ask.Limit {
				return events, nil
			}
		}
		queue[0], queue = nil, queue[1:]
	}
	return events, nil
}

// standing returns an event of a room that has its place there, nil for others and
// for those that were seen.
func standing(tx *store.Tx, room store.RoomNum, id matrix.EventID, seen map[matrix.EventID]bool) (*store.StoredEvent, error) {
	if seen[id] {
		return nil, nil
	}
	seen[id] = true
	at, num, here := tx.EventByID(id)
	if !here || at != room {
		return nil, nil
	}
	ev, err := tx.Event(room, num)
	if err != nil || ev.Outlier {
		return nil, err
	}
	return ev, nil
}
