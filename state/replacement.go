package state

import (
	"errors"

	"github.com/go-json-experiment/json"

	"hearth/state/matrix"
	"hearth/store"
)

// One room replaces another if its m.room.create says so and the other's
// m.room.tombstone does: what only one of them claims would let strangers dress
// their rooms as those that a user trusts.

// carryIn takes to this room what a local user, who has just joined it, keeps about
// the one that it replaces. "When a user joins the new room, the server should
// automatically transfer/replicate some of the user's personalized settings such as
// notifications, tags, etc." (CS Room Upgrades.)
func (rm *room) carryIn(user store.UserNum) error {
	if rm.rooms.carry == nil {
		return nil
	}
	create, err := rm.current("m.room.create", "")
	if create == nil || err != nil {
		return err
	}
	old := rm.tx.RoomNum(predecessor(create))
	tombstone, err := rm.currentOf(old, "m.room.tombstone")
	if tombstone == nil || err != nil || replacement(tombstone) != rm.id {
		return err
	}
	return rm.carry(user, old, rm.num)
}

// currentOf returns an event of the current state of another room; nil where that room is
// this one or not known here.
func (rm *room) currentOf(other store.RoomNum, typ string) (*store.StoredEvent, error) {
	if other == 0 || other == rm.num {
		return nil, nil
	}
	head, err := rm.tx.Head(other)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return EventAt(rm.tx, other, head.Current, typ, "")
}

// carryOut is carryIn for the local users who were in the replacement before this
// room's tombstone, which has just been added, named it.
func (rm *room) carryOut(tombstone store.EventNum) error {
	if rm.rooms.carry == nil {
		return nil
	}
	ev, err := rm.current("m.room.tombstone", "")
	if ev == nil || err != nil || ev.Num != tombstone {
		return err
	}
	fresh := rm.tx.RoomNum(replacement(ev))
	create, err := rm.currentOf(fresh, "m.room.create")
	if create == nil || err != nil || predecessor(create) != rm.id {
		return err
	}
	var users []store.UserNum
	err = rm.tx.LocalMembers(fresh, func(user store.UserNum, m matrix.Membership) (bool, error) {
		if m == matrix.Join {
			users = append(users, user)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	for _, user := range users {
		if err := rm.carry(user, rm.num, fresh); err != nil {
			return err
		}
	}
	return nil
}

// carry carries what a user keeps about a room that is or was something to him.
func (rm *room) carry(user store.UserNum, from, to store.RoomNum) error {
	_, known, err := rm.tx.LocalMembership(user, from)
	if !known || err != nil {
		return err
	}
	return rm.rooms.carry(rm.tx, user, from, to)
}

// predecessor is the room that a create event claims to replace, "" for none.
func predecessor(create *store.StoredEvent) matrix.RoomID {
	content, err := create.CreateContent()
	if err != nil || content.Predecessor == nil {
		return ""
	}
	return content.Predecessor.Room
}

// replacement is the room that a tombstone points to, "" for none.
func replacement(tombstone *store.StoredEvent) matrix.RoomID {
	var content struct {
		Room string `json:"replacement_room"`
	}
	if json.Unmarshal(tombstone.Content, &content) != nil {
		return ""
	}
	id, err := matrix.ParseRoomID(content.Room)
	if err != nil {
		return ""
	}
	return id
}
