package auth

import (
	"errors"
	"fmt"
	"slices"

	"hearth/state/matrix"
)

// ErrMissing is wrapped by the error of [CheckAuthEvents] when it was not given
// one of the event's auth events: nothing is known about the event yet.
var ErrMissing = errors.New("auth event is missing")

// CheckAuthEvents is the check of an event on its auth events alone: the rules on
// auth_events themselves, then [Check] with them as the state. Specification:
// server-server API, "Checks performed on receipt of a PDU", 4.
//
// auth holds, in any order, the events that ev.AuthEvents names and, in version
// 12, the room's m.room.create event, which is never named but implied by the room
// ID. rejected says which of them were rejected. The result is nil, an [*Error]
// when ev must be rejected, or an error wrapping [ErrMissing].
func CheckAuthEvents(ev *matrix.Event, auth []*matrix.Event, rejected func(matrix.EventID) bool) error {
	if ev.Type == typeCreate {
		return checkCreate(ev) // rule 1 allows or refuses it before rule 2 is reached
	}
	a := authEvents{ev: ev, needed: Needed(ev.Version, ev.Type, ev.Sender, ev.StateKey, ev.Content)}
	a.found = make([]*matrix.Event, len(a.needed))
	if err := a.createImplied(auth, rejected); err != nil {
		return err
	}
	for _, id := range ev.AuthEvents {
		i := slices.IndexFunc(auth, func(entry *matrix.Event) bool { return entry.ID == id })
		if i < 0 {
			return fmt.Errorf("authorise %s: %w: %s", ev.ID, ErrMissing, id)
		}
		if err := a.add(auth[i], rejected); err != nil {
			return err
		}
	}
	// Without m.room.create among the entries, Check refuses by rule 2.4.
	return Check(ev, a.state)
}

// authEvents collects the auth events of ev, each in the place of its key. A place
// is taken once, so no more are read than there are places.
type authEvents struct {
	ev     *matrix.Event
	needed []Key
	found  []*matrix.Event // by index in needed; nil: none so far
	create *matrix.Event   // in version 12, where it is no entry
}

// createImplied finds the create event that the room ID of version 12 stands for.
func (a *authEvents) createImplied(auth []*matrix.Event, rejected func(matrix.EventID) bool) error {
	if !a.ev.Version.RoomIDIsHash {
		return nil
	}
	i := slices.IndexFunc(auth, func(e *matrix.Event) bool {
		return e.Is(typeCreate, "") && e.Room == a.ev.Room
	})
	// NoCreate. v12 2: "If the event's `room_id` is not an event ID for an accepted
	// (not rejected) `m.room.create` event, with the sigil `!` instead of `$`,
	// reject."
	if i < 0 || rejected(auth[i].ID) {
		return refuse(a.ev, NoCreate, "This room does not exist")
	}
	a.create = auth[i]
	return nil
}

// add applies the rules about one entry of auth_events and puts it in its place.
func (a *authEvents) add(entry *matrix.Event, rejected func(matrix.EventID) bool) error {
	place := -1
	if entry.StateKey != nil {
		place = slices.Index(a.needed, Key{entry.Type, *entry.StateKey})
	}
	switch {
	// AuthExcess. v1-11 2.2, v12 3.2: "If there are entries whose `type` and
	// `state_key` don't match those specified by the auth events selection algorithm
	// described in the server specification, reject."
	case place < 0:
		return refuse(a.ev, AuthExcess, "The event cites %s, which has no say in it", entry.ID)
	// AuthDuplicate. v1-11 2.1, v12 3.1: "If there are duplicate entries for a given
	// `type` and `state_key` pair, reject."
	case a.found[place] != nil:
		return refuse(a.ev, AuthDuplicate, "The event cites two events of type %s for one state key", entry.Type)
	// AuthRejected. v1-11 2.3, v12 3.3: "If there are entries which were themselves
	// rejected under the checks performed on receipt of a PDU, reject."
	case rejected(entry.ID):
		return refuse(a.ev, AuthRejected, "The event cites %s, which was rejected", entry.ID)
	// AuthOtherRoom. v1-11 2.5, v12 3.5: "If any event in `auth_events` has a
	// `room_id` which does not match that of the event being authorised, reject."
	case entry.Room != a.ev.Room:
		return refuse(a.ev, AuthOtherRoom, "The event cites %s of another room", entry.ID)
	}
	a.found[place] = entry
	return nil
}

// state answers from the entries.
func (a *authEvents) state(typ, stateKey string) (*matrix.Event, error) {
	if a.create != nil && typ == typeCreate && stateKey == "" {
		return a.create, nil
	}
	if place := slices.Index(a.needed, Key{typ, stateKey}); place >= 0 {
		return a.found[place], nil
	}
	return nil, nil
}
