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
	how   reception

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
	late   bool // it is of before we came into the room; see isLate

	// given is the state before the event as another server has it, for an event
	// that stands on what is not here or on forks that are too tangled; or nil.
	given   *givenState
	alone   bool             // given decides alone about the state before the event
	outlier store.EventPlace // what the event was here so far, if Outlier is set
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
		current, err := a.current(before)
		if errors.Is(err, ErrTangled) {
			return SoftFailed, a.setAside(before, SoftFailed)
		}
		if err != nil {
			return 0, err
		}
		if verdict, err = a.judge(before, current); err != nil {
			return 0, err
		}
		if verdict == Accepted {
			if verdict, err = a.recommended(current); err != nil {
				return 0, err
			}
		}
	}
	if verdict == Rejected && a.outlier.Outlier && !a.outlier.Rejected {
		// States may hold the outlier, from which nothing takes it any more. It counts
		// as one that failed softly, which gives its sender no more than a fork from
		// before he was forbidden to send it: a resolution holds it to the rules again.
		verdict = SoftFailed
	}
	if verdict != Accepted {
		return verdict, a.setAside(before, verdict)
	}
	if a.late {
		return Accepted, a.takeLate(before)
	}
	return a.take(before)
}

// begin takes the first event of a room.
func (a *acceptance) begin() (verdict Verdict, err error) {
	if citesToBegin(a.ev) {
		return Rejected, nil
	}
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

// before returns the state before the event: that behind its prev events and that
// which another server gave, resolved where they differ. Behind nothing there is no
// state.
//
// What is given decides alone where the forks are too tangled for us: the other
// server has resolved them, and an event without a state before it would be asked
// for again and again, with all that stands on it. See current for what that may not
// lead to.
func (a *acceptance) before() (store.SnapshotID, error) {
	if a.linear {
		return a.head.Current, nil
	}
	m := a.resolution()
	if a.given != nil {
		given, err := a.buildGiven()
		if err != nil || len(a.prev) == 0 {
			return given, err
		}
		m.snapshots = append(m.snapshots, given)
	}
	if len(a.prev) == 0 {
		return 0, nil
	}
	given := m.snapshots
	changes, err := a.meet(&m, a.prev)
	switch {
	case errors.Is(err, ErrTangled) && len(given) > 0:
		a.alone = true
		return given[0], nil
	case err != nil:
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
	return tx.Derive(room, ev.Before, store.StateChange{Slot: ev.Slot, Event: ev.StateNum()})
}

// setAside stores an event that is no part of the timeline.
func (a *acceptance) setAside(before store.SnapshotID, verdict Verdict) error {
	return a.update(func(tx *store.Tx) error {
		a.writing = true
		_, err := a.put(tx, store.NewEvent{Before: before, Rejected: verdict == Rejected, SoftFailed: verdict == SoftFailed})
		return err
	})
}

// put stores the event, as entry says, aside.
func (a *acceptance) put(tx *store.Tx, entry store.NewEvent) (num store.EventNum, err error) {
	entry.Event = a.ev
	if num = a.outlier.StateNum; !a.outlier.Outlier {
		if num, err = tx.NextEventNum(true); err != nil {
			return 0, err
		}
	}
	if a.ev.IsState() {
		if entry.Slot, err = tx.PutSlot(a.num, a.ev.Type, *a.ev.StateKey); err != nil {
			return 0, err
		}
		entry.HasSlot = true
	}
	return num, tx.PutEvent(a.num, num, entry)
}

// take stores an accepted event and moves the room. Of extremities that it does
// not stand on the newest stay, as many as an event may name beside it; the others
// keep their say by the current state, which is theirs. Where their states and the
// event's are too tangled, the event fails softly; see [Rooms.Accept].
func (a *acceptance) take(before store.SnapshotID) (Verdict, error) {
	if a.linear {
		return Accepted, a.write(func(rm *room) error {
			_, err := rm.append(a.ev, before, a.how.txn)
			return err
		})
	}
	base, err := a.base(before)
	if err != nil {
		return 0, err
	}
	others := a.others()
	m := a.resolution(base)
	if a.ev.IsState() && !a.outlier.Outlier {
		m.own = a.ev
	}
	if excess := len(others) - (maxPrevEvents - 1); excess > 0 {
		others = others[excess:]
		m.snapshots = append(m.snapshots, a.head.Current)
	}
	var changes []store.StateChange
	if len(others) > 0 {
		changes, err = a.meet(&m, others)
		switch {
		case errors.Is(err, ErrTangled) && a.tx == nil:
			return SoftFailed, a.setAside(before, SoftFailed)
		case err != nil:
			return 0, err
		}
	}
	return Accepted, a.write(func(rm *room) error { return rm.fork(a.ev, before, base, changes, others) })
}

// others returns the extremities that the event does not stand on.
func (a *acceptance) others() []store.EventNum {
	return slices.DeleteFunc(slices.Clone(a.head.Extremities), func(n store.EventNum) bool { return slices.Contains(a.prev, n) })
}

// base returns what the current state is made of by changes: the state before the
// event, with the event itself if states know it by a number already.
func (a *acceptance) base(before store.SnapshotID) (base store.SnapshotID, err error) {
	if !a.outlier.Outlier || !a.ev.IsState() {
		return before, nil
	}
	err = a.update(func(tx *store.Tx) (err error) {
		base, err = tx.Derive(a.num, before, store.StateChange{Slot: a.outlier.Slot, Event: a.outlier.StateNum})
		return err
	})
	return base, err
}

// write runs fn on the room, as it was when the event was looked at.
func (a *acceptance) write(fn func(*room) error) error {
	return a.update(func(tx *store.Tx) error {
		a.writing = true
		rm := &room{rooms: a.rooms, tx: tx, num: a.num, id: a.ev.Room, head: a.head, how: a.how}
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
