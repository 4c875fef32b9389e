package store

import (
	"encoding/binary"
	"fmt"

	"hearth/state/matrix"
)

// An Unread is what a user has not read of a room, up to an event: a
// checkpoint, so that nobody need look through the room's whole timeline after
// a restart. It is derived from timeline, receipts and push rules and may be
// dropped at any time.
type Unread struct {
	Rules   Position // when the push rules that were asked, or the ignored users, were last set
	Upto    EventNum // events up to here have been looked at
	Events  []UnreadEvent
	Threads []matrix.EventID // roots of the threads that Events refers to
}

// An UnreadEvent is an event that the user was notified of and has not read.
type UnreadEvent struct {
	Num       EventNum
	Thread    uint32 // 0: the main timeline; else 1 more than the index of its root in Threads
	Highlight bool
}

// PutUnread stores the checkpoint of a user in a room.
func (tx *Tx) PutUnread(user UserNum, room RoomNum, u Unread) error {
	v := binary.AppendUvarint(nil, uint64(u.Rules))
	v = binary.AppendUvarint(v, uint64(u.Upto))
	v = binary.AppendUvarint(v, uint64(len(u.Threads)))
	for _, root := range u.Threads {
		v = appendString(v, string(root))
	}
	last := EventNum(0)
	for _, ev := range u.Events {
		v = binary.AppendUvarint(v, uint64(ev.Num-last))
		v = binary.AppendUvarint(v, uint64(ev.Thread)<<1|bit(1, ev.Highlight))
		last = ev.Num
	}
	return tx.put(bucketRoom, unreadKey(user, room), v)
}

// DeleteUnread drops the checkpoint of a user in a room.
func (tx *Tx) DeleteUnread(user UserNum, room RoomNum) error {
	return tx.delete(bucketRoom, unreadKey(user, room))
}

// Unread returns the checkpoint of a user in a room, the zero Unread where
// there is none.
func (tx *Tx) Unread(user UserNum, room RoomNum) (Unread, error) {
	v := tx.get(bucketRoom, unreadKey(user, room))
	if v == nil {
		return Unread{}, nil
	}
	r := reader{b: v}
	u := Unread{Rules: Position(r.uvarint()), Upto: EventNum(r.uvarint())}
	for n := r.uvarint(); n > 0 && r.err == nil; n-- {
		u.Threads = append(u.Threads, matrix.EventID(r.string()))
	}
	last := EventNum(0)
	for len(r.b) > 0 {
		last += EventNum(r.uvarint())
		thread := r.uvarint()
		if thread>>1 > uint64(len(u.Threads)) {
			r.fail()
		}
		u.Events = append(u.Events, UnreadEvent{Num: last, Thread: uint32(thread >> 1), Highlight: thread&1 != 0})
	}
	if r.err != nil {
		return Unread{}, fmt.Errorf("unread events of user %d in room %d: %w", user, room, r.err)
	}
	return u, nil
}

func unreadKey(user UserNum, room RoomNum) []byte {
	return appendU32(keyOf(uint32(room), roomUnread), uint32(user))
}

// checkUnread holds every checkpoint to its form.
func checkUnread(c *checker) error {
	return c.eachOf(bucketRoom, roomUnread, func(room uint32, rest, _ []byte) {
		if len(rest) != 4 {
			c.faultf("unread events in room %d: key %x", room, rest)
			return
		}
		if _, err := c.Unread(UserNum(u32(rest)), RoomNum(room)); err != nil {
			c.faultf("%v", err)
		}
	})
}
