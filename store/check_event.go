package store

import (
	"bytes"
	"errors"
	"slices"

	"hearth/state/matrix"
)

// checkEvents reads every event and holds its record to the event and to the
// other places that name it.
func checkEvents(c *checker) error {
	return c.each(bucketEvent, nil, func(key, value []byte) {
		if len(key) < 5 || key[4] != regionAside && key[4] != regionTimeline {
			return
		}
		room := RoomNum(u32(key))
		if len(key) != 13 {
			c.faultf("room %d: event key %x", room, key)
			return
		}
		num := timelineNum(Position(u64(key[5:])))
		if key[4] == regionAside {
			num = asideNum(num.Position())
		}
		if c.purging(room) {
			return
		}
		ev, err := c.Event(room, num)
		if err != nil {
			c.faultf("%v", err)
			return
		}
		if ev.Num != num && ev.AsideNum != num {
			c.faultf("room %d: the outlier %d has become event %d (%s), which was %d", room, num, ev.Num, ev.ID, ev.AsideNum)
		}
		c.checkEvent(ev)
		c.checkCited(ev)
		if sent := len(value) == 8; !num.Aside() && (sent != (ev.Txn.ID != "") || !sent && len(value) > 0) {
			c.faultf("room %d, event %d (%s): transaction %q stands as %x", room, num, ev.ID, ev.Txn.ID, value)
		}
	})
}

func (c *checker) checkEvent(ev *StoredEvent) {
	faultf := func(format string, args ...any) {
		c.faultf("room %d, event %d (%s): "+format, slices.Concat([]any{ev.RoomNum, ev.Num, ev.ID}, args)...)
	}
	if room, num, ok := c.EventByID(ev.ID); !ok || room != ev.RoomNum || num != ev.Num {
		faultf("the ID leads to event %d of room %d", num, room)
	}
	if _, num, _ := c.StateEventByID(ev.ID); num != ev.StateNum() {
		faultf("the ID leads states to event %d", num)
	}
	if ev.AsideNum != 0 {
		if at, _, err := c.eventRecord(ev.RoomNum, ev.AsideNum); err != nil || at != ev.Num || !ev.AsideNum.Aside() {
			faultf("was event %d, which leads to event %d: %v", ev.AsideNum, at, err)
		}
	}
	if ev.Outlier && (!ev.Num.Aside() || ev.Before != 0 || ev.After != 0 || ev.SoftFailed) {
		faultf("is an outlier with snapshots %d and %d, soft-failed: %t", ev.Before, ev.After, ev.SoftFailed)
	}
	if ev.Num.Position() == 0 || ev.Num.Position() > c.Tx.Position() {
		faultf("lies beyond the newest position %d", c.Tx.Position())
	}
	if c.UserID(ev.SenderNum) != ev.Sender {
		faultf("sender %s has the number %d of %s", ev.Sender, ev.SenderNum, c.UserID(ev.SenderNum))
	}
	if id := c.RoomID(ev.RoomNum); ev.Room != id {
		faultf("belongs to %s and stands in %s", ev.Room, id)
	}
	if hash, hashed := hashOfID(ev.Version, ev.ID); hashed {
		if is, err := ev.ReferenceHash(); err != nil || !bytes.Equal(is[:], hash) {
			faultf("the body is not the one that the ID names")
		}
	}
	if ev.RedactedBy != 0 && !c.hasEvent(ev.RoomNum, ev.RedactedBy) {
		faultf("is redacted by event %d, which is not here", ev.RedactedBy)
	}
	for _, snap := range []SnapshotID{ev.Before, ev.After} {
		if _, err := c.StateAt(ev.RoomNum, snap, 0); snap != 0 && err != nil {
			faultf("snapshot %d: %v", snap, err)
		}
	}
	if !ev.HasSlot {
		return
	}
	if !ev.IsState() {
		faultf("is no state event but has slot %d", ev.Slot)
	} else if slot, ok := c.Slot(ev.RoomNum, ev.Type, *ev.StateKey); !ok || slot != ev.Slot {
		faultf("has slot %d, its type and state key have slot %d", ev.Slot, slot)
	}
}

// checkEventIDs leads each entry of the index of event IDs to an event and
// back.
func checkEventIDs(c *checker) error {
	return c.each(bucketID, nil, func(key, value []byte) {
		room, num, err := readEventPlace(value)
		if err != nil {
			c.faultf("event ID index %x: %v", key, err)
			return
		}
		if c.purging(room) && c.hasEvent(room, num) {
			return
		}
		if id, err := c.EventID(room, num); err != nil || !bytes.Equal(eventIDKey(id), key) {
			c.faultf("event ID index %x leads to event %d of room %d (%s): %v", key, num, room, id, err)
		}
	})
}

// joining says whether a room is one that is being joined, which Check must allow for.
func (c *checker) joining(room RoomNum) bool {
	_, joining := c.Tx.joining(room)
	return joining
}

// checkHeads holds each room's head to its timeline and its current state.
func checkHeads(c *checker) error {
	last := RoomNum(0)
	err := c.each(bucketEvent, nil, func(key, _ []byte) {
		if room := RoomNum(u32(key)); room != last {
			last = room
			if c.get(bucketEvent, regionKey(room, regionHead)) == nil && !c.purging(room) && !c.joining(room) {
				c.faultf("room %d has events but no head", room)
			}
		}
	})
	if err != nil {
		return err
	}
	return c.Rooms(func(room RoomNum, h Head) (bool, error) {
		c.checkHead(room, h)
		return c.ctx.Err() == nil, c.checkCounts(room, h)
	})
}

func (c *checker) checkHead(room RoomNum, h Head) {
	first, latest := EventNum(0), EventNum(0)
	prefix := regionKey(room, regionTimeline)
	take := func(num *EventNum) func(key, _ []byte) (bool, error) {
		return func(key, _ []byte) (bool, error) {
			*num = timelineNum(Position(u64(key)))
			return false, nil
		}
	}
	if err := errors.Join(
		c.scan(bucketEvent, prefix, nil, take(&first)),
		c.scanBack(bucketEvent, prefix, nil, take(&latest)),
	); err != nil {
		c.faultf("room %d: %v", room, err)
	}
	if first != h.First || latest != h.Latest {
		c.faultf("room %d: the head says %d to %d, the timeline is %d to %d", room, h.First, h.Latest, first, latest)
	}
	depth := int64(0)
	for _, num := range h.Extremities {
		ev, err := c.Event(room, num)
		if err != nil {
			c.faultf("room %d: extremity: %v", room, err)
			return
		}
		depth = max(depth, ev.Depth)
	}
	if depth != h.Depth {
		c.faultf("room %d: the head's depth is %d, that of its extremities %d", room, h.Depth, depth)
	}
	if h.Entered == 0 {
		return
	}
	join, err := c.Event(room, h.Entered)
	if err != nil || join.Num != h.Entered || join.Type != memberType || join.Sender.Server() != c.store.server {
		c.faultf("room %d: event %d, by which we came, is no join of ours: %v", room, h.Entered, err)
	}
}

// checkLocalMember holds a local user's member event of a current state to the
// user's own record of the room. One that a purge has struck names no event; nor does
// one that came from there when nobody of us was in the room, which is newer.
func (c *checker) checkLocalMember(ev *StoredEvent) {
	user, err := matrix.ParseUserID(*ev.StateKey)
	if err != nil || user.Server() != c.store.server {
		return
	}
	m, known, err := c.LocalMembership(c.UserNum(user), ev.RoomNum)
	struck := m.Event == 0 && m.Membership == matrix.Leave
	elsewhere := m.Event == 0 && m.PDU != nil && !c.inRoom(ev.RoomNum)
	if err != nil || !known || m.Event != ev.StateNum() && !struck && !elsewhere {
		c.faultf("room %d: event %d is the membership of %s, whose record is of event %d: %v", ev.RoomNum, ev.Num, user, m.Event, err)
	}
}

// inRoom says whether a local user is in a room.
func (c *checker) inRoom(room RoomNum) (in bool) {
	if err := c.LocalMembers(room, func(_ UserNum, m matrix.Membership) (bool, error) {
		in = m == matrix.Join
		return !in, nil
	}); err != nil {
		c.faultf("room %d: %v", room, err)
	}
	return in
}

// checkCounts counts the members of the current state.
func (c *checker) checkCounts(room RoomNum, h Head) error {
	var joined, invited uint64
	err := c.WalkState(room, h.Current, StateAll, func(slot Slot, num EventNum) (bool, error) {
		ev, err := c.Event(room, num)
		if err != nil {
			c.faultf("room %d: current state, slot %d: %v", room, slot, err)
			return true, c.ctx.Err()
		}
		if ev.StateNum() != num {
			c.faultf("room %d: current state, slot %d: event %d, which states know as %d", room, slot, num, ev.StateNum())
		}
		if ev.Rejected {
			c.faultf("room %d: current state, slot %d: event %d is rejected", room, slot, num)
		}
		if !slot.Member() {
			return true, nil
		}
		c.checkLocalMember(ev)
		switch m, _ := ev.Member(); m.Membership {
		case matrix.Join:
			joined++
		case matrix.Invite:
			invited++
		}
		return true, c.ctx.Err()
	})
	if err != nil {
		return err
	}
	if joined != h.Joined || invited != h.Invited {
		c.faultf("room %d: the head counts %d joined and %d invited, the state %d and %d",
			room, h.Joined, h.Invited, joined, invited)
	}
	return nil
}
