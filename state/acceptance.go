package state

import (
	"context"
	"errors"
	"slices"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// acceptance is the way of one event into its room, whose lock it holds.
type acceptance struct {
	rooms *Rooms
	ctx   context.Context
	ev    *matrix.Event

	// tx is the write in which all of it happens, within brief bounds. If nil,
	// reading and resolving happen in Views of their own, within wide ones, and
	// only what comes out of them is written.
	tx      *store.Tx
	writing bool // the event itself is being written
	cache   *eventCache

	num    store.RoomNum
	head   store.Head
	prev   []store.EventNum
	linear bool // it stands on exactly the forward extremities
}

// view runs fn where it can read.
func (a *acceptance) view(fn func(*store.Tx) error) error {
	if a.tx != nil {
		return fn(a.tx)
	}
	return a.rooms.store.View(fn)
}

// update runs fn where it can write.
func (a *acceptance) update(fn func(*store.Tx) error) error {
	if a.tx != nil {
		return fn(a.tx)
	}
	return a.rooms.store.Update(a.ctx, fn)
}

// resolution begins to resolve states of the event's room.
func (a *acceptance) resolution(snapshots ...store.SnapshotID) resolution {
	bounds := wideBounds
	if a.tx != nil {
		bounds = briefBounds
	}
	return resolution{room: a.num, version: a.head.Version, snapshots: snapshots, bounds: bounds, cache: a.cache}
}

func (a *acceptance) run() (Verdict, error) {
	if a.ev.Is("m.room.create", "") {
		return a.begin()
	}
	verdict, err := a.look()
	if verdict == Known || err != nil {
		return verdict, err
	}
	before, err := a.before() // of a rejected event too: others may stand on it
	if err != nil {
		return 0, err
	}
	if verdict == 0 {
		if verdict, err = a.judge(before); err != nil {
			return 0, err
		}
	}
	if verdict != Accepted {
		return verdict, a.setAside(before, verdict)
	}
	return Accepted, a.take(before)
}

// begin takes the first event of a room.
func (a *acceptance) begin() (verdict Verdict, err error) {
	none := func(string, string) (*matrix.Event, error) { return nil, nil }
	if err := auth.Check(a.ev, none); err != nil {
		return refusedIs(Rejected, err)
	}
	err = a.update(func(tx *store.Tx) error {
		verdict = Known
		if _, _, known := tx.EventByID(a.ev.ID); known {
			return nil
		}
		num, err := tx.PutRoomNum(a.ev.Room)
		if err != nil {
			return err
		}
		if _, err := tx.Head(num); err == nil {
			verdict = Rejected // the room has begun with another event
			return nil
		}
		a.writing = true
		rm := &room{rooms: a.rooms, tx: tx, num: num, id: a.ev.Room, head: store.Head{Version: a.ev.Version}}
		if err := tx.PutHead(num, rm.head); err != nil {
			return err
		}
		if _, err := rm.append(a.ev, 0, store.TxnID{}); err != nil {
			return err
		}
		verdict = Accepted
		return rm.close()
	})
	return verdict, err
}

// look finds the room and what the event stands on, and holds it to its own auth
// events. The verdict is 0 where none is reached yet.
func (a *acceptance) look() (verdict Verdict, err error) {
	err = a.view(func(tx *store.Tx) error {
		if _, _, known := tx.EventByID(a.ev.ID); known {
			verdict = Known
			return nil
		}
		if a.num, a.head, err = Head(tx, a.ev.Room); err != nil {
			return err
		}
		cited, missing, err := a.cited(tx)
		if err != nil {
			return err
		}
		foreign := false
		for _, id := range a.ev.PrevEvents {
			room, num, ok := tx.EventByID(id)
			switch {
			case !ok:
				missing = append(missing, id)
			case room != a.num:
				foreign = true
			case !slices.Contains(a.prev, num): // it may be named twice
				a.prev = append(a.prev, num)
			}
		}
		if len(missing) > 0 {
			return &MissingError{Event: a.ev.ID, Events: missing}
		}
		if foreign {
			verdict = Rejected // no event stands in two rooms
			return nil
		}
		a.linear = sameSet(a.prev, a.head.Extremities)
		rejected := func(id matrix.EventID) bool { return cited.rejected[id] }
		if err := auth.CheckAuthEvents(a.ev, cited.events, rejected); err != nil {
			verdict, err = refusedIs(Rejected, err)
			return err
		}
		return nil
	})
	return verdict, err
}

// citation is the events that an event cites as its right to be there.
type citation struct {
	events   []*matrix.Event
	rejected map[matrix.EventID]bool
}

// cited reads the auth events; in rooms whose ID is the create event's hash that
// event is cited without being named.
func (a *acceptance) cited(tx *store.Tx) (c citation, missing []matrix.EventID, err error) {
	c.rejected = make(map[matrix.EventID]bool)
	ids := a.ev.AuthEvents
	if a.head.Version.RoomIDIsHash {
		ids = append(slices.Clone(ids), matrix.EventID("$"+a.ev.Room[1:]))
	}
	for _, id := range ids {
		room, num, ok := tx.EventByID(id)
		if !ok {
			missing = append(missing, id)
			continue
		}
		ev, err := a.cache.event(tx, room, num) // the auth rules refuse one of another room
		if err != nil {
			return c, nil, err
		}
		c.events = append(c.events, ev.Event)
		c.rejected[id] = ev.Rejected
	}
	return c, missing, nil
}

// before returns the state before the event: that behind its prev events,
// resolved where they differ. Behind none there is no state.
func (a *acceptance) before() (store.SnapshotID, error) {
	if a.linear {
		return a.head.Current, nil
	}
	if len(a.prev) == 0 {
		return 0, nil
	}
	m := a.resolution()
	changes, err := a.meet(&m, a.prev)
	if err != nil {
		return 0, err
	}
	var met store.SnapshotID
	err = a.update(func(tx *store.Tx) (err error) {
		met, err = tx.Derive(a.num, m.snapshots[0], changes...)
		return err
	})
	return met, err
}

// meet resolves the states that m has and those behind the given events. It
// returns what makes the first of them the resolved one.
func (a *acceptance) meet(m *resolution, ends []store.EventNum) (changes []store.StateChange, err error) {
	given := m.snapshots
	a.rooms.litter.add(a.num, a.rooms.now())
	err = a.update(func(tx *store.Tx) error {
		m.snapshots = slices.Clone(given)
		for _, num := range ends {
			snap, err := stateBehind(tx, a.num, num)
			if err != nil {
				return err
			}
			m.snapshots = append(m.snapshots, snap)
		}
		if m.own == nil {
			return nil
		}
		m.ownSlot, err = tx.PutSlot(a.num, m.own.Type, *m.own.StateKey)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = a.view(func(tx *store.Tx) error {
		m.tx = tx
		changes, err = m.resolve()
		return err
	})
	return changes, err
}

// stateBehind returns the state behind an event on its own branch: the state
// before it and, unless it was rejected, the event itself.
func stateBehind(tx *store.Tx, room store.RoomNum, num store.EventNum) (store.SnapshotID, error) {
	ev, err := tx.Event(room, num)
	if err != nil {
		return 0, err
	}
	if !ev.HasSlot || ev.Rejected {
		return ev.Before, nil
	}
	return tx.Derive(room, ev.Before, store.StateChange{Slot: ev.Slot, Event: num})
}

// judge holds the event to the state before it, then to the current state.
func (a *acceptance) judge(before store.SnapshotID) (verdict Verdict, err error) {
	err = a.view(func(tx *store.Tx) error {
		at := func(snap store.SnapshotID) auth.State {
			return func(typ, key string) (*matrix.Event, error) {
				num, err := numAt(tx, a.num, snap, typ, key)
				if num == 0 || err != nil {
					return nil, err
				}
				ev, err := a.cache.event(tx, a.num, num)
				if err != nil {
					return nil, err
				}
				return ev.Event, nil
			}
		}
		if err := auth.Check(a.ev, at(before)); err != nil {
			verdict, err = refusedIs(Rejected, err)
			return err
		}
		verdict = Accepted
		if before == a.head.Current {
			return nil
		}
		if err := auth.Check(a.ev, at(a.head.Current)); err != nil {
			verdict, err = refusedIs(SoftFailed, err)
			return err
		}
		return nil
	})
	return verdict, err
}

// refusedIs turns a refusal by the auth rules into a verdict; any other error
// decides nothing.
func refusedIs(verdict Verdict, err error) (Verdict, error) {
	var refused *auth.Error
	if errors.As(err, &refused) {
		return verdict, nil
	}
	return 0, err
}

// setAside stores an event that is no part of the timeline.
func (a *acceptance) setAside(before store.SnapshotID, verdict Verdict) error {
	return a.update(func(tx *store.Tx) error {
		a.writing = true
		num, err := tx.NextEventNum(true)
		if err != nil {
			return err
		}
		entry := store.NewEvent{
			Event: a.ev, Before: before,
			Rejected: verdict == Rejected, SoftFailed: verdict == SoftFailed,
		}
		if a.ev.IsState() {
			if entry.Slot, err = tx.PutSlot(a.num, a.ev.Type, *a.ev.StateKey); err != nil {
				return err
			}
			entry.HasSlot = true
		}
		return tx.PutEvent(a.num, num, entry)
	})
}

// take stores an accepted event and moves the room. Of extremities that it does
// not stand on the newest stay, as many as an event may name beside it; the others
// keep their say by the current state, which is theirs.
func (a *acceptance) take(before store.SnapshotID) error {
	if a.linear {
		return a.write(func(rm *room) error {
			_, err := rm.append(a.ev, before, store.TxnID{})
			return err
		})
	}
	others := slices.DeleteFunc(slices.Clone(a.head.Extremities), func(n store.EventNum) bool { return slices.Contains(a.prev, n) })
	m := a.resolution(before)
	if a.ev.IsState() {
		m.own = a.ev
	}
	if excess := len(others) - (maxPrevEvents - 1); excess > 0 {
		others = others[excess:]
		m.snapshots = append(m.snapshots, a.head.Current)
	}
	var changes []store.StateChange
	if len(others) > 0 {
		var err error
		if changes, err = a.meet(&m, others); err != nil {
			return err
		}
	}
	return a.write(func(rm *room) error { return rm.fork(a.ev, before, changes, others) })
}

// write runs fn on the room, as it was when the event was looked at.
func (a *acceptance) write(fn func(*room) error) error {
	return a.update(func(tx *store.Tx) error {
		a.writing = true
		rm := &room{rooms: a.rooms, tx: tx, num: a.num, id: a.ev.Room, head: a.head}
		rm.head.Extremities = slices.Clone(a.head.Extremities)
		if err := fn(rm); err != nil {
			return err
		}
		if a.ev.Type == "m.room.redaction" {
			a.cache.clear() // it may have changed any of them
		}
		return rm.close()
	})
}

// sameSet says whether two short lists hold the same numbers.
func sameSet(a, b []store.EventNum) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(n store.EventNum) bool { return !slices.Contains(b, n) })
}
