package store

import (
	"errors"

	"hearth/state/matrix"
)

// checkMemberships holds the records of local memberships to their mirror,
// their index and their events.
func checkMemberships(c *checker) error {
	return errors.Join(
		c.eachOf(bucketUser, userRoom, func(user uint32, rest, value []byte) {
			if len(rest) != 4 {
				c.faultf("user %d: membership key %x", user, rest)
				return
			}
			m, err := readMembership(RoomNum(u32(rest)), value)
			if err != nil {
				c.faultf("user %d: %v", user, err)
				return
			}
			c.checkMembership(UserNum(user), m)
		}),
		c.eachOf(bucketUser, userRoomAt, func(user uint32, rest, value []byte) {
			if len(rest) != 8 || len(value) != 4 {
				c.faultf("user %d: membership index %x: %x", user, rest, value)
				return
			}
			m, ok, err := c.LocalMembership(UserNum(user), RoomNum(u32(value)))
			if err == nil && (!ok || m.Position != Position(u64(rest))) {
				c.faultf("user %d: membership index %d leads to room %d, which changed at %d",
					user, u64(rest), u32(value), m.Position)
			}
		}),
		c.eachOf(bucketRoom, roomMember, func(room uint32, rest, value []byte) {
			if len(rest) != 4 {
				c.faultf("room %d: local member key %x", room, rest)
				return
			}
			m, ok, err := c.LocalMembership(UserNum(u32(rest)), RoomNum(room))
			if err == nil && (!ok || string(m.Membership) != string(value)) {
				c.faultf("room %d: local member %d is %q here and %q there", room, u32(rest), value, m.Membership)
			}
		}),
	)
}

func (c *checker) checkMembership(user UserNum, m LocalMembership) {
	mirror := c.get(bucketRoom, localMemberKey(m.Room, user))
	if matrix.Membership(mirror) != m.Membership {
		c.faultf("user %d: membership %q in room %d, there %q", user, m.Membership, m.Room, mirror)
	}
	at := c.get(bucketUser, membershipAtKey(user, m.Position))
	if len(at) != 4 || RoomNum(u32(at)) != m.Room {
		c.faultf("user %d: membership in room %d has no place at %d", user, m.Room, m.Position)
	}
	v := c.get(bucketStream, appendU64(nil, uint64(m.Position)))
	if len(v) == 0 || v[0] != streamMembership {
		c.faultf("user %d: membership in room %d is not in the stream at %d", user, m.Room, m.Position)
	}
	if m.Event == 0 {
		c.checkOwn(user, m)
		return
	}
	ev, err := c.Event(m.Room, m.Event)
	if err != nil {
		c.faultf("user %d: membership in room %d: %v", user, m.Room, err)
		return
	}
	content, err := ev.Member()
	if err != nil || content.Membership != m.Membership || !ev.Is(memberType, string(c.UserID(user))) {
		c.faultf("user %d: membership %q in room %d, event %s says %q: %v",
			user, m.Membership, m.Room, ev.ID, content.Membership, err)
	}
	if head, err := c.Head(m.Room); err == nil && m.Stripped == nil {
		if now, err := c.StateAt(m.Room, head.Current, ev.Slot); err != nil || now != m.Event {
			c.faultf("user %d: membership in room %d is by event %d, the state has %d: %v", user, m.Room, m.Event, now, err)
		}
	}
}

// checkOwn holds a membership in a room that we are not in to its event.
func (c *checker) checkOwn(user UserNum, m LocalMembership) {
	own, err := m.Own()
	if own == nil && err == nil {
		return
	}
	var content matrix.MemberContent
	if err == nil {
		content, err = own.Member()
	}
	if err != nil || content.Membership != m.Membership || !own.Is(memberType, string(c.UserID(user))) {
		c.faultf("user %d: membership %q in room %d, its event says %q: %v", user, m.Membership, m.Room, content.Membership, err)
	}
}

// checkRoomRecords holds relations, pending redactions and back-filled history
// to the events that they name.
func checkRoomRecords(c *checker) error {
	exists := func(room uint32, num EventNum) bool {
		return c.hasEvent(RoomNum(room), num)
	}
	return errors.Join(
		c.eachOf(bucketRoom, roomRelation, func(room uint32, rest, _ []byte) {
			if len(rest) == 16 && string(rest[8:]) == threadChild {
				return // no event, but the thread: see checkThreads
			}
			place, ok := readTurn(rest[min(8, len(rest)):])
			if !ok || !exists(room, place.event()) {
				c.faultf("room %d: relation %x names no event", room, rest)
				return
			}
			if is, ok, err := c.PlaceOf(RoomNum(room), place.event()); !ok || is != place || err != nil {
				c.faultf("room %d: relation %x, but the place of its event is %v: %v", room, rest, is, err)
			}
		}),
		c.eachOf(bucketRoom, roomRedaction, func(room uint32, rest, value []byte) {
			r := reader{b: value}
			if num := EventNum(r.uvarint()); len(rest) != 16 || r.err != nil || !exists(room, num) {
				c.faultf("room %d: pending redaction %x by event %d, which is not here", room, rest, num)
			}
		}),
		checkHistory(c),
	)
}
