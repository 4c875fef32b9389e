package state

import (
	"errors"
	"fmt"

	"hearth/state/matrix"
	"hearth/store"
)

// A room is one room within one write: its head, which moves with each event
// that is added, and what leads from names to its state.
type room struct {
	rooms   *Rooms
	tx      *store.Tx
	num     store.RoomNum
	id      matrix.RoomID
	head    store.Head
	changed bool // the head must be written
	asks    bool // events that other servers must sign can be proposed
	// A write that has proposed events is tried again, where it makes the same ones.
	at     int64                            // the time of all new events, 0: now
	signed map[matrix.EventID]*matrix.Event // those that it proposed before, signed since
	how    reception
	// elsewhere is where new aliases of other servers lead, as those say.
	elsewhere map[matrix.RoomAlias]matrix.RoomID
}

// open finds a room that this server knows; otherwise it is ErrUnknownRoom.
func (r *Rooms) open(tx *store.Tx, id matrix.RoomID) (*room, error) {
	num := tx.RoomNum(id)
	head, err := tx.Head(num)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, refuse(ErrUnknownRoom, "This server does not know the room %s", id)
	case err != nil:
		return nil, fmt.Errorf("open room %s: %w", id, err)
	}
	return &room{rooms: r, tx: tx, num: num, id: id, head: head}, nil
}

// close writes the head, if it moved.
func (rm *room) close() error {
	if !rm.changed {
		return nil
	}
	return rm.tx.PutHead(rm.num, rm.head)
}

// current returns the event of the current state for a type and state key,
// nil when there is none.
func (rm *room) current(typ, stateKey string) (*store.StoredEvent, error) {
	return EventAt(rm.tx, rm.num, rm.head.Current, typ, stateKey)
}

// auth is current as the auth rules want it.
func (rm *room) auth(typ, stateKey string) (*matrix.Event, error) {
	ev, err := rm.current(typ, stateKey)
	if ev == nil || err != nil {
		return nil, err
	}
	return ev.Event, nil
}

// membership returns a user's membership in the current state, "" for none.
func (rm *room) membership(user matrix.UserID) (matrix.Membership, error) {
	ev, err := rm.current("m.room.member", string(user))
	if ev == nil || err != nil {
		return "", err
	}
	member, err := ev.Member()
	if err != nil {
		return "", nil // the auth rules let nothing else in; what is unreadable counts as absent
	}
	return member.Membership, nil
}

// EventAt returns the event that a snapshot of a room holds for a type and
// state key, nil when it holds none.
func EventAt(tx *store.Tx, room store.RoomNum, at store.SnapshotID, typ, stateKey string) (*store.StoredEvent, error) {
	num, err := numAt(tx, room, at, typ, stateKey)
	if num == 0 || err != nil {
		return nil, err
	}
	return tx.Event(room, num)
}

// numAt is EventAt for the event's number, 0 for none.
func numAt(tx *store.Tx, room store.RoomNum, at store.SnapshotID, typ, stateKey string) (store.EventNum, error) {
	slot, ok := tx.Slot(room, typ, stateKey)
	if !ok {
		return 0, nil
	}
	num, err := tx.StateAt(room, at, slot)
	if err != nil {
		return 0, fmt.Errorf("state %s %q of room %d: %w", typ, stateKey, room, err)
	}
	return num, nil
}

// Current returns the event of a room's current state for a type and state
// key, nil when there is none. The room must be known here: ErrUnknownRoom.
func Current(tx *store.Tx, id matrix.RoomID, typ, stateKey string) (*store.StoredEvent, error) {
	num, head, err := Head(tx, id)
	if err != nil {
		return nil, err
	}
	return EventAt(tx, num, head.Current, typ, stateKey)
}

// Head returns a room's number and head; a room that is not known here is
// ErrUnknownRoom.
func Head(tx *store.Tx, id matrix.RoomID) (store.RoomNum, store.Head, error) {
	num := tx.RoomNum(id)
	head, err := tx.Head(num)
	if errors.Is(err, store.ErrNotFound) {
		return 0, store.Head{}, refuse(ErrUnknownRoom, "This server does not know the room %s", id)
	}
	return num, head, err
}
