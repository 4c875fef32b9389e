package state

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// A Verdict is what became of an event that came from elsewhere.
type Verdict uint8

// The verdicts. Spec: SS Checks performed on receipt of a PDU; Rejection; Soft
// failure.
const (
	Accepted   Verdict = iota + 1 // it is part of the timeline
	Known                         // it was here before, whatever became of it then
	SoftFailed                    // kept for later events that stand on it, and shown to nobody
	Rejected                      // it breaks the rules: kept only to answer those who cite it
)

// MissingError says which events must be accepted before another one can be.
type MissingError struct {
	Event  matrix.EventID
	Events []matrix.EventID
}

// Error names the event and how many it lacks.
func (e *MissingError) Error() string {
	return fmt.Sprintf("%s stands on %d events that are not here", e.Event, len(e.Events))
}

// maxTogether is how many events from elsewhere are taken in by one write.
const maxTogether = 64

// Accept takes an event from elsewhere into its room, as far as the rules allow:
// by its own auth events, by the state before it, and by the room's current
// state. Its form, hashes and signatures are checked by the caller. An
// m.room.create of a room that is not known here begins the room. The error is a
// MissingError where events must come first, or a failure that decides nothing.
//
// Spec: SS Checks performed on receipt of a PDU, steps 4 to 6.
func (r *Rooms) Accept(ctx context.Context, ev *matrix.Event) (Verdict, error) {
	verdicts, err := r.AcceptAll(ctx, []*matrix.Event{ev})
	if err != nil {
		return 0, err
	}
	return verdicts[0], nil
}

// AcceptAll is Accept for events in an order in which each comes behind what it
// stands on and cites. Neighbours of one room share writes, up to 64 of them; in
// between others may write to the room. It ends at the first error and returns
// the verdicts on the events before, as many as are taken.
func (r *Rooms) AcceptAll(ctx context.Context, events []*matrix.Event) ([]Verdict, error) {
	verdicts := make([]Verdict, 0, len(events))
	for len(verdicts) < len(events) {
		some, err := r.acceptSome(ctx, events[len(verdicts):])
		verdicts = append(verdicts, some...)
		if err != nil {
			return verdicts, err
		}
	}
	return verdicts, nil
}

// acceptSome takes the first events of a list, which are of one room, in one
// write, and no further ones. An event whose forks are too tangled for that has
// its resolution outside of any write.
func (r *Rooms) acceptSome(ctx context.Context, events []*matrix.Event) (verdicts []Verdict, err error) {
	defer r.locks.own(events[0].Room)()
	var failed error
	err = r.store.Update(ctx, func(tx *store.Tx) error {
		verdicts, failed = nil, nil
		for _, ev := range events[:min(len(events), maxTogether)] {
			if len(verdicts) > 0 && (tx.Full() || ev.Room != events[0].Room) {
				return nil
			}
			a := acceptance{rooms: r, ctx: ctx, ev: ev, tx: tx}
			verdict, err := a.run()
			if err != nil {
				failed = fmt.Errorf("accept %s: %w", ev.ID, err)
				if a.writing || len(verdicts) == 0 {
					return failed
				}
				return nil
			}
			verdicts = append(verdicts, verdict)
		}
		return nil
	})
	switch {
	case errors.Is(failed, ErrTangled) && len(verdicts) > 0:
		return verdicts, err // it is the first of the next ones
	case errors.Is(failed, ErrTangled):
		verdict, err := (&acceptance{rooms: r, ctx: ctx, ev: events[0]}).run()
		if err != nil {
			return nil, fmt.Errorf("accept %s: %w", events[0].ID, err)
		}
		return []Verdict{verdict}, nil
	case err != nil:
		return nil, err // nothing of the write is kept
	}
	return verdicts, failed
}

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
	return resolution{room: a.num, version: a.head.Version, snapshots: snapshots, bounds: bounds}
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
		create, err := EventAt(tx, a.num, a.head.Current, "m.room.create", "")
		if err != nil {
			return c, nil, err
		}
		ids = append(slices.Clone(ids), create.ID)
	}
	for _, id := range ids {
		room, num, ok := tx.EventByID(id)
		if !ok {
			missing = append(missing, id)
			continue
		}
		ev, err := tx.Event(room, num) // the auth rules refuse one of another room
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
				ev, err := EventAt(tx, a.num, snap, typ, key)
				if ev == nil || err != nil {
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
		return rm.close()
	})
}

// sameSet says whether two short lists hold the same numbers.
func sameSet(a, b []store.EventNum) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(n store.EventNum) bool { return !slices.Contains(b, n) })
}
