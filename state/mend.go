package state

import (
	"context"
	"fmt"

	"hearth/state/matrix"
	"hearth/store"
)

// Mend takes in an event that came with a state and was left out of it, as the key that
// it is signed with could not be had. It is held to what it cites, and kept as an
// outlier. One that was part of the state gets its place in the current state too, and in
// those before the events that the next will stand on. Where something has that place,
// which may have replaced it since or be older, the resolution of both states decides.
// The error is a [MissingError] where what it cites is not here.
func (r *Rooms) Mend(ctx context.Context, ev *matrix.Event, state bool) error {
	defer r.locks.own(ev.Room)()
	err := r.store.Update(ctx, func(tx *store.Tx) error {
		a := acceptance{rooms: r, ctx: ctx, ev: ev, tx: tx, cache: new(eventCache)}
		if err := a.keep(); err != nil || !state {
			return err
		}
		return a.restore()
	})
	if err != nil {
		return fmt.Errorf("mend the state by %s: %w", ev.ID, err)
	}
	return nil
}

// restore gives an outlier its place in the current state.
func (a *acceptance) restore() error {
	place, _, err := a.tx.EventPlace(a.ev.ID)
	if err != nil {
		return err
	}
	if a.num, a.head, err = Head(a.tx, a.ev.Room); err != nil || place.Room != a.num || place.Rejected || !place.HasSlot {
		return err
	}
	standing, err := a.tx.StateAt(a.num, a.head.Current, place.Slot)
	if err != nil || standing == place.StateNum {
		return err
	}
	a.rooms.litter.add(a.num, a.rooms.now())
	change := store.StateChange{Slot: place.Slot, Event: place.StateNum}
	if err := a.restoreBefore(change); err != nil {
		return err
	}
	whole, err := a.tx.Derive(a.num, a.head.Current, change)
	if err != nil {
		return err
	}
	if standing != 0 {
		m := a.resolution(a.head.Current, whole)
		m.tx = a.tx
		changes, err := m.resolve()
		if err != nil {
			return err
		}
		if whole, err = a.tx.Derive(a.num, a.head.Current, changes...); err != nil {
			return err
		}
	}
	rm := &room{rooms: a.rooms, tx: a.tx, num: a.num, id: a.ev.Room, head: a.head, changed: true}
	rm.head.Current = whole
	if err := rm.settle(a.head.Current, rm.head.Current); err != nil {
		return err
	}
	return rm.close()
}

// restoreBefore fills an empty place in the states before the room's extremities: where
// the room forks, the current state is made of what is behind them anew.
func (a *acceptance) restoreBefore(change store.StateChange) error {
	for _, num := range a.head.Extremities {
		if num < a.head.Entered {
			continue // a fork of before we came, where that member may not have been yet
		}
		ev, err := a.tx.Event(a.num, num)
		if err != nil {
			return err
		}
		standing, err := a.tx.StateAt(a.num, ev.Before, change.Slot)
		if err != nil {
			return err
		}
		if standing != 0 {
			continue
		}
		before, err := a.tx.Derive(a.num, ev.Before, change)
		if err != nil {
			return err
		}
		if err := a.tx.CorrectBefore(a.num, num, before); err != nil {
			return err
		}
	}
	return nil
}
