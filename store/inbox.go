package store

import (
	"encoding/binary"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// An InboxEvent is a PDU that another server sent and that cannot be accepted yet:
// it stands on or cites what is not here, or the key that it is signed with could not
// be had. The server was told that it has arrived, so it stays until there is a verdict
// or nobody has what it lacks.
type InboxEvent struct {
	Room     RoomNum
	Order    uint64 // rising over all rooms, set by AppendInbox
	Origin   matrix.ServerName
	Received int64 // in milliseconds since 1970
	Part     InboxPart
	PDU      []byte // whose form was checked
}

// InboxPart says what an event of the inbox is to its room.
type InboxPart uint8

// The parts.
const (
	InboxNews  InboxPart = iota // it is to become part of the timeline
	InboxCited                  // it came with a state: what that cites, or with one that closed a gap
	InboxState                  // it came with our join, as part of the state
	inboxParts
)

// AppendInbox puts an event behind the others of its room. The error wraps
// ErrNotFound where the room is not known here, and no join to it under way.
func (tx *Tx) AppendInbox(e InboxEvent) (order uint64, err error) {
	_, err = tx.Head(e.Room)
	if _, arriving := tx.joining(e.Room); err != nil && !arriving {
		return 0, fmt.Errorf("inbox of room %d: %w", e.Room, err)
	}
	if order, err = tx.in(bucketRemote).NextSequence(); err != nil {
		return 0, fmt.Errorf("inbox of room %d: %w", e.Room, err)
	}
	v := appendString(nil, string(e.Origin))
	v = append(binary.AppendVarint(v, e.Received), byte(e.Part))
	return order, tx.put(bucketRemote, inboxKey(e.Room, order), append(v, e.PDU...))
}

// Inbox calls fn for each event that waits in a room behind an order, the oldest
// first, until fn returns false or an error. PDU aliases the file.
func (tx *Tx) Inbox(room RoomNum, after uint64, fn func(InboxEvent) (bool, error)) error {
	prefix := inboxPrefix(room)
	return tx.scan(bucketRemote, prefix, inboxKey(room, after+1), func(rest, v []byte) (bool, error) {
		e, err := readInboxEvent(room, rest, v)
		if err != nil {
			return false, err
		}
		return fn(e)
	})
}

// InboxRooms calls fn for each room in which events wait, until fn returns false or
// an error.
func (tx *Tx) InboxRooms(fn func(RoomNum) (bool, error)) error {
	start := []byte{remoteInbox}
	for start != nil {
		next := []byte(nil)
		err := tx.scan(bucketRemote, []byte{remoteInbox}, start, func(rest, _ []byte) (bool, error) {
			if len(rest) != 12 {
				return false, fmt.Errorf("inbox key %x: %w", rest, ErrDamaged)
			}
			room := RoomNum(u32(rest))
			next = after(inboxPrefix(room))
			more, err := fn(room)
			if !more {
				next = nil
			}
			return false, err
		})
		if err != nil {
			return err
		}
		start = next
	}
	return nil
}

// DeleteInbox removes an event; that there is none is no error.
func (tx *Tx) DeleteInbox(room RoomNum, order uint64) error {
	return tx.delete(bucketRemote, inboxKey(room, order))
}

// purgeInbox removes what waits in a room.
func (tx *Tx) purgeInbox(room RoomNum) (removed int, err error) {
	return tx.deleteAll(bucketRemote, inboxPrefix(room), purgeKeys)
}

func readInboxEvent(room RoomNum, rest, v []byte) (InboxEvent, error) {
	r := reader{b: v}
	e := InboxEvent{Room: room, Order: u64(rest), Origin: matrix.ServerName(r.string()), Received: r.varint(), Part: InboxPart(r.byte())}
	if e.PDU = r.b; r.err != nil || len(rest) != 8 || e.Order == 0 || e.Part >= inboxParts {
		return InboxEvent{}, fmt.Errorf("inbox of room %d: %w", room, ErrDamaged)
	}
	return e, nil
}

func inboxPrefix(room RoomNum) []byte { return appendU32([]byte{remoteInbox}, uint32(room)) }

func inboxKey(room RoomNum, order uint64) []byte { return appendU64(inboxPrefix(room), order) }

// checkInbox holds what waits to a room that is known here, or is being joined.
func checkInbox(c *checker) error {
	highest := c.in(bucketRemote).Sequence()
	return c.each(bucketRemote, []byte{remoteInbox}, func(key, v []byte) {
		if len(key) != 12 {
			c.faultf("inbox key %x has no room and order", key)
			return
		}
		room := RoomNum(u32(key))
		e, err := readInboxEvent(room, key[4:], v)
		switch {
		case err != nil:
			c.faultf("%v", err)
		case e.Order > highest:
			c.faultf("inbox of room %d: order %d lies beyond the newest", room, e.Order)
		case e.Origin == "" || jsontext.Value(e.PDU).Kind() != '{' || !jsontext.Value(e.PDU).IsValid():
			c.faultf("inbox of room %d: event %d is no object of a server", room, e.Order)
		case c.get(bucketEvent, regionKey(room, regionHead)) == nil && !c.purging(room) && !c.joining(room):
			c.faultf("inbox of room %d: the room is not known", room)
		}
	})
}
