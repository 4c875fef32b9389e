package state

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"hearth/state/matrix"
	"hearth/store"
)

// ErrLongChain is wrapped where the auth chain of an event is longer than any that
// servers of a room bring about.
var ErrLongChain = errors.New("the auth chain is too long")

// Bounds of what an EventReader reads.
const (
	readStep   = 1 << 8  // events that one View reads
	readBytes  = 1 << 18 // of JSON of those, but for the last
	numberStep = 1 << 13 // numbers that one View reads
	maxChain   = 1 << 21 // events in one auth chain
	maxDescent = 1 << 10 // events whose chain is found by reading them and what they cite
)

// An EventReader reads lists of a room's events that are too long for one View or
// for the memory, such as all of a state: the numbers first, 8 bytes each, then the
// events themselves, a few at a time. What it hands over, it hands over outside of
// any View, so that it may be written to a slow connection.
//
// A snapshot must be one that an event of the room refers to, as the state before or
// behind it: those stay until the room is purged, which ends the reading with an
// error.
type EventReader struct {
	store *store.Store
	room  store.RoomNum
	first store.EventNum // another one is another life of the room
}

// NewEventReader returns a reader of a room; one that is not known here is
// ErrUnknownRoom.
func NewEventReader(st *store.Store, id matrix.RoomID) (*EventReader, error) {
	r := &EventReader{store: st}
	err := st.View(func(tx *store.Tx) error {
		num, head, err := Head(tx, id)
		r.room, r.first = num, head.First
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// view runs fn in a View in which the room is still the same.
func (r *EventReader) view(ctx context.Context, fn func(*store.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.store.View(func(tx *store.Tx) error {
		head, err := tx.Head(r.room)
		if err != nil {
			return fmt.Errorf("read room %d: %w", r.room, err)
		}
		if head.First != r.first {
			return errBegunAnew
		}
		return fn(tx)
	})
}

// State returns the events of a snapshot, in the order of their slots.
func (r *EventReader) State(ctx context.Context, snap store.SnapshotID) (nums []store.EventNum, err error) {
	for from, more := store.Slot(0), true; more; {
		err = r.view(ctx, func(tx *store.Tx) error {
			seen := 0
			more = false
			return tx.WalkStateFrom(r.room, snap, store.StateAll, from, func(slot store.Slot, num store.EventNum) (bool, error) {
				if seen++; seen > numberStep {
					from, more = slot, true
					return false, nil
				}
				nums = append(nums, num)
				return true, nil
			})
		})
		if err != nil {
			return nil, err
		}
	}
	return nums, nil
}

// Events calls take for each event of a list, in its order.
func (r *EventReader) Events(ctx context.Context, nums []store.EventNum, take func(*store.StoredEvent) error) error {
	var events []*store.StoredEvent
	for len(nums) > 0 {
		events = events[:0]
		err := r.view(ctx, func(tx *store.Tx) error {
			for bytes := 0; len(events) < min(readStep, len(nums)) && bytes < readBytes; {
				ev, err := tx.Event(r.room, nums[len(events)])
				if err != nil {
					return err
				}
				events = append(events, ev)
				bytes += len(ev.JSON())
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, ev := range events {
			if err := take(ev); err != nil {
				return err
			}
		}
		nums = nums[len(events):]
	}
	return nil
}

// IDs calls take for the ID of each event of a list, in its order. It costs less
// than the events.
func (r *EventReader) IDs(ctx context.Context, nums []store.EventNum, take func(matrix.EventID) error) error {
	ids := make([]matrix.EventID, 0, min(len(nums), numberStep))
	for step := range slices.Chunk(nums, numberStep) {
		ids = ids[:0]
		err := r.view(ctx, func(tx *store.Tx) error {
			for _, num := range step {
				id, err := tx.EventID(r.room, num)
				if err != nil {
					return err
				}
				ids = append(ids, id)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := take(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// AuthChain returns the events that those of a list cite, and what those cite, down
// to m.room.create, newest first. An event of the list is among them if
// another of them stands on it. The numbers are those by which states know events;
// rejected events are left out.
//
// A few events are read with all that they cite. Of more, which must be of one
// state, the citation index tells the same without reading any.
//
// Spec: SS Retrieving events, "the full set of authorisation events that make up
// the state of the room, and their authorisation events, recursively".
func (r *EventReader) AuthChain(ctx context.Context, events []store.EventNum) ([]store.EventNum, error) {
	if len(events) <= maxDescent {
		return r.descendChain(ctx, events)
	}
	return r.scanChain(ctx, events)
}

// descendChain walks down from the events, the newest first: so each is met once.
func (r *EventReader) descendChain(ctx context.Context, events []store.EventNum) (chain []store.EventNum, err error) {
	const start, cited forkSet = 0, 1
	d := newDescent(maxChain)
	for _, num := range events {
		d.add(num, start)
	}
	for len(d.open) > 0 {
		err := r.view(ctx, func(tx *store.Tx) error {
			for range numberStep {
				if len(d.open) == 0 {
					return nil
				}
				num, met, err := d.next()
				if err != nil {
					return fmt.Errorf("auth chain in room %d: %w", r.room, ErrLongChain)
				}
				if met == cited {
					chain = append(chain, num)
				}
				if err := r.cite(tx, num, func(n store.EventNum) { d.add(n, cited) }); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return chain, nil
}

// cite calls add for each event that one cites, and that was not rejected.
func (r *EventReader) cite(tx *store.Tx, num store.EventNum, add func(store.EventNum)) error {
	ev, err := tx.Event(r.room, num)
	if err != nil {
		return err
	}
	for _, id := range ev.AuthEvents {
		place, here, err := tx.EventPlace(id)
		switch {
		case err != nil:
			return err
		case !here || place.Room != r.room || place.Rejected:
			continue // a rejected event may cite anything, and be what the list began with
		case place.StateNum >= ev.StateNum():
			return fmt.Errorf("%s cites %s, which is newer: %w", ev.ID, id, store.ErrDamaged)
		}
		add(place.StateNum)
	}
	return nil
}

// scanChain walks the citation index from the newest cited event to the oldest: what
// cites an event is newer, so that it is known by then whether it is in the chain.
func (r *EventReader) scanChain(ctx context.Context, events []store.EventNum) (chain []store.EventNum, err error) {
	is := make(map[store.EventNum]struct{}, len(events)) // in the state or the chain
	for _, num := range events {
		is[num] = struct{}{}
	}
	last := store.EventNum(0) // the newest of the chain is not found yet
	for cited, citing, more := ^store.EventNum(0), ^store.EventNum(0), true; more; {
		err := r.view(ctx, func(tx *store.Tx) error {
			seen := 0
			more = false
			return tx.CitationsBack(r.room, cited, citing, func(by, of store.EventNum) (bool, error) {
				if seen++; seen > numberStep {
					more = true
					return false, nil
				}
				cited, citing = of, by
				if _, carries := is[by]; !carries || of == last {
					return true, nil
				}
				is[of] = struct{}{}
				last = of
				if chain = append(chain, of); len(chain) > maxChain {
					return false, fmt.Errorf("auth chain in room %d: %w", r.room, ErrLongChain)
				}
				return true, nil
			})
		})
		if err != nil {
			return nil, err
		}
	}
	return r.withCreate(ctx, chain)
}

// withCreate adds m.room.create, which the index leaves out and all else cites, but
// for rooms whose ID implies it.
func (r *EventReader) withCreate(ctx context.Context, chain []store.EventNum) ([]store.EventNum, error) {
	err := r.view(ctx, func(tx *store.Tx) error {
		head, err := tx.Head(r.room)
		if err != nil || head.Version.RoomIDIsHash {
			return err
		}
		create, err := numAt(tx, r.room, head.Current, "m.room.create", "")
		if create != 0 {
			chain = append(chain, create)
		}
		return err
	})
	return chain, err
}
