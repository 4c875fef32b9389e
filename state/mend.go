package state

import (
	"context"
	"fmt"
	"slices"

	"hearth/state/matrix"
	"hearth/store"
)

// Mend takes in an event that came with a state and was left out of it, as the key that
// it is signed with could not be had. It is held to what it cites, and kept as an
// outlier. One that was part of the state gets its place in the current state too, and in
// those before the events that the next will stand on. Where something has that place, it
// may have replaced it since or be older: see contest.
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
	changes := []store.StateChange{change}
	if standing != 0 {
		if changes, err = a.contest(standing, change); err != nil || !slices.Contains(changes, change) {
			return err // what stands there stays
		}
	}
	whole, err := a.tx.Derive(a.num, a.head.Current, changes...)
	if err != nil {
		return err
	}
	if err := a.correctBefore(standing, change); err != nil {
		return err
	}
	return a.become(a.ev.Room, whole)
}

// contest returns how the current state changes where something stands in the place of
// the event. If one of the two cites the other, it has replaced that; otherwise the
// resolution of the states with either decides.
func (a *acceptance) contest(standing store.EventNum, change store.StateChange) ([]store.StateChange, error) {
	ev, err := a.tx.Event(a.num, standing)
	if err != nil {
		return nil, err
	}
	switch {
	case slices.Contains(ev.AuthEvents, a.ev.ID):
		return nil, nil
	case slices.Contains(a.ev.AuthEvents, ev.ID):
		return []store.StateChange{change}, nil
	}
	whole, err := a.tx.Derive(a.num, a.head.Current, change)
	if err != nil {
		return nil, err
	}
	m := a.resolution(a.head.Current, whole)
	m.tx = a.tx
	return m.resolve()
}

// correctBefore changes a place in the states before the room's extremities where it
// holds what it should not, 0 for nothing: where the room forks, the current state is
// made of what is behind them anew.
func (a *acceptance) correctBefore(wrong store.EventNum, change store.StateChange) error {
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
		if standing != wrong {
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

// Disown rejects an event that was used unchecked, and is not signed by whom it says. It
// is taken out of the current state of its room, and out of the states before the events
// that the next will stand on, and has no part in a state until it comes with the
// signatures that it must have. An event that was checked is left alone.
func (r *Rooms) Disown(ctx context.Context, in matrix.RoomID, id matrix.EventID) error {
	defer r.locks.own(in)()
	err := r.store.Update(ctx, func(tx *store.Tx) error {
		place, _, err := tx.EventPlace(id)
		if err != nil || !place.Unchecked {
			return err
		}
		if err := tx.SetDisowned(id); err != nil {
			return err
		}
		a := acceptance{rooms: r, ctx: ctx, tx: tx}
		if a.num, a.head, err = Head(tx, in); err != nil || place.Room != a.num || !place.HasSlot {
			return err
		}
		r.litter.add(a.num, r.now())
		change := store.StateChange{Slot: place.Slot}
		if err := a.correctBefore(place.StateNum, change); err != nil {
			return err
		}
		standing, err := tx.StateAt(a.num, a.head.Current, place.Slot)
		if standing != place.StateNum || err != nil {
			return err
		}
		without, err := tx.Derive(a.num, a.head.Current, change)
		if err != nil {
			return err
		}
		return a.become(in, without)
	})
	if err != nil {
		return fmt.Errorf("disown %s: %w", id, err)
	}
	return nil
}

// become gives the room another current state.
func (a *acceptance) become(id matrix.RoomID, current store.SnapshotID) error {
	rm := &room{rooms: a.rooms, tx: a.tx, num: a.num, id: id, head: a.head, changed: true}
	rm.head.Current = current
	if err := rm.settle(a.head.Current, current); err != nil {
		return err
	}
	return rm.close()
}
