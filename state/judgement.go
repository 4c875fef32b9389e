package state

import (
	"errors"
	"slices"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// look finds the room and what the event stands on, and holds it to its own auth
// events. The verdict is 0 where none is reached yet.
func (a *acceptance) look() (verdict Verdict, err error) {
	err = a.view(func(tx *store.Tx) error {
		known, err := a.known(tx)
		if err != nil {
			return err
		}
		if !known && a.how.txn.ID != "" { // the request has come a second time meanwhile
			_, known, err = tx.TxnEvent(a.num, a.how.txn)
		}
		if known || err != nil {
			verdict = Known
			return err
		}
		cited, lacking, err := a.cited(tx)
		if err != nil {
			return err
		}
		baseless, foreign, err := a.findPrev(tx)
		if err != nil {
			return err
		}
		if len(lacking) > 0 || len(baseless) > 0 && a.given == nil {
			return &MissingError{Event: a.ev.ID, Events: append(lacking, baseless...), cited: len(lacking)}
		}
		if foreign {
			verdict = Rejected // no event stands in two rooms
			return nil
		}
		a.linear = a.given == nil && len(baseless) == 0 && sameSet(a.prev, a.head.Extremities)
		if a.late, err = a.isLate(tx); err != nil {
			return err
		}
		verdict, err = cited.judge(a.ev)
		return err
	})
	return verdict, err
}

// known finds the room and says whether the event has its place in it, which an
// outlier has not yet.
func (a *acceptance) known(tx *store.Tx) (known bool, err error) {
	_, num, here := tx.EventByID(a.ev.ID)
	if here && !num.Aside() {
		return true, nil
	}
	if a.num, a.head, err = Head(tx, a.ev.Room); err != nil || !here {
		return false, err
	}
	a.outlier, _, err = tx.EventPlace(a.ev.ID)
	return !a.outlier.Outlier || a.outlier.Room != a.num, err
}

// findPrev finds what the event stands on. It returns what cannot be stood upon, as
// it is not here or an outlier, and whether something is of another room.
func (a *acceptance) findPrev(tx *store.Tx) (baseless []matrix.EventID, foreign bool, err error) {
	for _, id := range a.ev.PrevEvents {
		room, num, ok := tx.EventByID(id)
		if ok && num.Aside() {
			place, _, err := tx.EventPlace(id)
			if err != nil {
				return nil, false, err
			}
			ok = !place.Outlier
		}
		switch {
		case !ok:
			baseless = append(baseless, id)
		case room != a.num:
			foreign = true
		case !slices.Contains(a.prev, num): // it may be named twice
			a.prev = append(a.prev, num)
		}
	}
	return baseless, foreign, nil
}

// citation is the events that an event cites as its right to be there.
type citation struct {
	events   []*matrix.Event
	rejected map[matrix.EventID]bool
}

// judge holds an event to what it cites; 0 is no verdict yet.
func (c citation) judge(ev *matrix.Event) (Verdict, error) {
	if citesToBegin(ev) {
		return Rejected, nil
	}
	err := auth.CheckAuthEvents(ev, c.events, func(id matrix.EventID) bool { return c.rejected[id] })
	if err != nil {
		return refusedIs(Rejected, err)
	}
	return 0, nil
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

// current returns the current state that the event is held to. Behind a gap the one
// that we have may be long past: who sends may have come to the room since. So it is
// resolved with the state that was given, which leaves no way around a ban that we
// know of, as gaps are easily made. So are forks that are too tangled to resolve, by
// who is no longer in the room: there the one that we have counts.
func (a *acceptance) current(before store.SnapshotID) (current store.SnapshotID, err error) {
	switch {
	case a.given == nil || a.alone || a.late:
		return a.head.Current, nil
	case len(a.others()) == 0:
		return before, nil // ours is resolved into it
	}
	m := a.resolution(before, a.head.Current)
	changes, err := a.meet(&m, nil)
	if err != nil {
		return 0, err
	}
	err = a.update(func(tx *store.Tx) (err error) {
		current, err = tx.Derive(a.num, before, changes...)
		return err
	})
	return current, err
}

// judge holds the event to the state before it, then to the current state.
func (a *acceptance) judge(before, current store.SnapshotID) (verdict Verdict, err error) {
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
			refusal := err
			if verdict, err = refusedIs(Rejected, err); err == nil {
				err = a.doubt(refusal)
			}
			return err
		}
		verdict = Accepted
		if before == current {
			return nil
		}
		if err := auth.Check(a.ev, at(current)); err != nil {
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

// citesToBegin says whether an event of type m.room.create cites anything. The auth
// rules let it pass whatever it cites, events of other rooms and such as are not
// here too, on which no resolution could go on.
//
// Spec: SS Auth events selection: "The auth_events for the m.room.create event in a
// room is empty".
func citesToBegin(ev *matrix.Event) bool {
	return ev.Type == "m.room.create" && len(ev.AuthEvents) > 0
}
