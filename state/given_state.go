package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"hearth/state/matrix"
	"hearth/store"
)

// ErrGivenState is wrapped where what another server gives as a state of a room
// cannot be one.
var ErrGivenState = errors.New("the other server gives a state that is none")

// errBegunAnew: what was found out is of a room that was purged meanwhile.
var errBegunAnew = fmt.Errorf("the room has begun anew: %w", ErrGivenState)

// Bounds of one given state.
const (
	maxStateIDs     = 1 << 20 // events in it; their IDs are looked at and dropped
	maxGivenChanges = 1 << 16 // places in which it differs from what we have; 1 MiB
	stateStep       = 1 << 10 // IDs, slots or changes that one transaction works on
)

// A givenState is the state before an event as another server has it: what is to
// be changed in a state of ours. It holds until the room is purged.
type givenState struct {
	first   store.EventNum // the room's first event: another one is another life of the room
	base    store.SnapshotID
	changes []store.StateChange // in the order of their slots
}

// buildGiven makes the snapshot of the state that was given.
func (a *acceptance) buildGiven() (snap store.SnapshotID, err error) {
	if a.given.first != a.head.First {
		return 0, errBegunAnew
	}
	a.rooms.litter.add(a.num, a.rooms.now())
	changes := a.given.changes
	if len(changes) <= stateStep {
		err = a.update(func(tx *store.Tx) (err error) {
			snap, err = tx.Derive(a.num, a.given.base, changes...)
			return err
		})
		return snap, err
	}
	err = a.update(func(tx *store.Tx) (err error) {
		snap, err = tx.NewSnapshot(a.num, a.given.base)
		return err
	})
	for step := range slices.Chunk(changes, stateStep) {
		if err != nil {
			return 0, err
		}
		err = a.update(func(tx *store.Tx) error { return tx.GrowSnapshot(a.num, snap, step...) })
	}
	if err != nil {
		return 0, err
	}
	return snap, a.update(func(tx *store.Tx) error { return tx.SealSnapshot(a.num, snap) })
}

// A stateList turns the IDs of a state's events, as they come in, into a
// givenState. Its memory follows what differs: of the rest it keeps a bit for each
// slot.
type stateList struct {
	*gathering
	givenState
	room   matrix.RoomID
	num    store.RoomNum
	create store.Slot
	ids    []matrix.EventID // that wait to be looked at
	count  int              // IDs so far
	slots  []uint64         // a bit for each slot that the state has
	most   int              // how many events may be fetched
	absent []matrix.EventID // that are not here, as many as that
	over   bool             // there are more
}

// stateBefore asks for the state before an event and fetches those of its events
// that are not here.
func (g *gathering) stateBefore(ctx context.Context, ev *matrix.Event) (*givenState, error) {
	l := stateList{gathering: g, room: ev.Room, most: g.left}
	if err := l.begin(); err != nil {
		return nil, err
	}
	if err := l.gather(ctx, ev.ID); err != nil {
		return nil, fmt.Errorf("state before %s: %w", ev.ID, err)
	}
	return &l.givenState, nil
}

// gather asks for the IDs, fetches what is not here, and compares.
func (l *stateList) gather(ctx context.Context, before matrix.EventID) error {
	var refused error // by us, which is no failure to ask
	err := l.from.StateIDs(ctx, l.room, before, func(id matrix.EventID) error {
		refused = l.take(id)
		return refused
	})
	switch {
	case refused != nil:
		return refused
	case err != nil:
		return fmt.Errorf("%w: %w", ErrFetch, err)
	}
	if err := l.look(); err != nil {
		return err
	}
	if err := l.fetch(ctx, before); err != nil {
		return err
	}
	return l.end()
}

// begin finds the state of ours to compare with. It stays, since the newest event
// of the timeline refers to it.
func (l *stateList) begin() error {
	return l.rooms.store.View(func(tx *store.Tx) error {
		num, head, err := Head(tx, l.room)
		if err != nil {
			return err
		}
		l.num, l.first, l.base = num, head.First, head.Current
		create, ok := tx.Slot(num, "m.room.create", "")
		if !ok {
			return fmt.Errorf("slot of m.room.create: %w", store.ErrDamaged)
		}
		l.create = create
		return nil
	})
}

// view runs fn where it can read what the state is compared with, which is gone once
// the room is purged.
func (l *stateList) view(fn func(*store.Tx) error) error {
	return l.rooms.store.View(func(tx *store.Tx) error {
		_, head, err := Head(tx, l.room)
		if err == nil && head.First != l.first {
			err = errBegunAnew
		}
		if err != nil {
			return err
		}
		return fn(tx)
	})
}

// take is told the next ID.
func (l *stateList) take(id matrix.EventID) error {
	if l.count++; l.count > maxStateIDs {
		return fmt.Errorf("more than %d events: %w", maxStateIDs, ErrGivenState)
	}
	if l.ids = append(l.ids, id); len(l.ids) < stateStep {
		return nil
	}
	return l.look()
}

// look finds the events whose IDs have come.
func (l *stateList) look() error {
	defer func() { l.ids = l.ids[:0] }()
	return l.view(func(tx *store.Tx) error {
		for _, id := range l.ids {
			here, err := l.add(tx, id)
			if err != nil {
				return err
			}
			switch {
			case here:
			case len(l.absent) < l.most:
				l.absent = append(l.absent, id)
			default:
				l.over = true
			}
		}
		return nil
	})
}

// add holds an event that is here to what every state must be, and notes it where
// it differs from our state.
func (l *stateList) add(tx *store.Tx, id matrix.EventID) (here bool, err error) {
	place, here, err := tx.EventPlace(id)
	switch {
	case !here || err != nil:
		return here, err
	case place.Room != l.num:
		return true, fmt.Errorf("%s is of another room: %w", id, ErrGivenState)
	case !place.HasSlot:
		return true, fmt.Errorf("%s is no state event: %w", id, ErrGivenState)
	case place.Rejected:
		// "it should neither be relayed to clients nor be included as a prev event", and
		// is in no state: SS Rejection. Servers need not agree on what they reject, and
		// the rest of the state may do.
		return true, nil
	}
	if at := int(place.Slot / 64); at >= len(l.slots) {
		l.slots = append(l.slots, make([]uint64, at+1-len(l.slots))...)
	}
	if l.has(place.Slot) {
		return true, fmt.Errorf("%s is the second event in its place: %w", id, ErrGivenState)
	}
	l.slots[place.Slot/64] |= 1 << (place.Slot % 64)
	ours, err := tx.StateAt(l.num, l.base, place.Slot)
	if err != nil || ours == place.StateNum {
		return true, err
	}
	if place.Slot == l.create {
		return true, fmt.Errorf("%s is the m.room.create of another room: %w", id, ErrGivenState)
	}
	return true, l.change(store.StateChange{Slot: place.Slot, Event: place.StateNum})
}

// has says whether the state has something in a slot.
func (l *stateList) has(slot store.Slot) bool {
	at := int(slot / 64)
	return at < len(l.slots) && l.slots[at]>>(slot%64)&1 != 0
}

func (l *stateList) change(change store.StateChange) error {
	if len(l.changes) == maxGivenChanges {
		return fmt.Errorf("more than %d places in which the states differ: %w", maxGivenChanges, ErrTangled)
	}
	l.changes = append(l.changes, change)
	return nil
}

// fetch gets the events of the state that are not here.
func (l *stateList) fetch(ctx context.Context, before matrix.EventID) error {
	fetchErr := l.fetchAside(ctx, l.room, l.absent)
	absent := l.absent
	l.absent = nil
	for step := range slices.Chunk(absent, stateStep) {
		l.ids = append(l.ids, step...)
		if err := l.look(); err != nil {
			return err
		}
	}
	if l.over && fetchErr == nil {
		fetchErr = fmt.Errorf("more than %d events of the state: %w", l.most, ErrTooMuchMissing)
	}
	if l.absent = l.withoutKeyless(l.absent); len(l.absent) > 0 {
		return &MissingError{Event: before, Events: l.absent, Cause: fetchErr}
	}
	return fetchErr
}

// end notes what our state has and the other has not.
func (l *stateList) end() error {
	if !l.has(l.create) {
		return fmt.Errorf("it has no m.room.create: %w", ErrGivenState)
	}
	for from, more := store.Slot(0), true; more; {
		err := l.view(func(tx *store.Tx) error {
			seen := 0
			more = false
			return tx.WalkStateFrom(l.num, l.base, store.StateAll, from, func(slot store.Slot, _ store.EventNum) (bool, error) {
				if seen == stateStep {
					from, more = slot, true
					return false, nil
				}
				seen++
				if l.has(slot) {
					return true, nil
				}
				return true, l.change(store.StateChange{Slot: slot})
			})
		})
		if err != nil {
			return err
		}
	}
	slices.SortFunc(l.changes, func(a, b store.StateChange) int { return cmp.Compare(a.Slot, b.Slot) })
	return nil
}
