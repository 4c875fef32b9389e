package store

import (
	"encoding/binary"
	"fmt"

	"hearth/state/matrix"
)

// A Head is the newest of a room: what every send reads and writes.
type Head struct {
	Version     *matrix.Version
	Current     SnapshotID // the room's current state
	Extremities []EventNum // the forward extremities: events that no other follows
	Depth       int64      // the greatest depth among them
	First       EventNum   // the first event of our timeline; 0: it is empty
	Latest      EventNum   // the newest one
	Joined      uint64     // members of the current state who have joined
	Invited     uint64     // and who are invited
	// Entered is the join by which this server came into the room last, from another one
	// that is in it; 0: it never did, or a version wrote this that did not note it.
	Entered EventNum
}

// maxExtremities bounds what a head may hold; the state package keeps far fewer.
const maxExtremities = 1 << 16

// Head returns the head of a room. The error wraps ErrNotFound when the store
// knows nothing of the room but perhaps its number.
func (tx *Tx) Head(room RoomNum) (Head, error) {
	v := tx.get(bucketEvent, regionKey(room, regionHead))
	if v == nil {
		return Head{}, fmt.Errorf("head of room %d: %w", room, ErrNotFound)
	}
	h, err := readHead(v)
	if err != nil {
		return Head{}, fmt.Errorf("head of room %d: %w", room, err)
	}
	return h, nil
}

// PutHead stores the head of a room. Events of a room can be read once it has
// a head. The error wraps ErrPurging for a room of which a purge has yet to
// remove what was there before.
func (tx *Tx) PutHead(room RoomNum, h Head) error {
	key := regionKey(room, regionHead)
	if tx.get(bucketEvent, key) == nil {
		if _, purging := tx.purgedVersion(room); purging {
			return fmt.Errorf("head of room %d: %w", room, ErrPurging)
		}
	}
	return tx.put(bucketEvent, key, packHead(h))
}

// Rooms calls fn for each room that has a head, by number, until fn returns
// false or an error.
func (tx *Tx) Rooms(fn func(RoomNum, Head) (bool, error)) error {
	c := tx.in(bucketEvent).Cursor()
	for k, _ := c.First(); k != nil; {
		if len(k) < 5 {
			return fmt.Errorf("key of %d bytes in bucket event: %w", len(k), ErrDamaged)
		}
		room := RoomNum(u32(k))
		if tx.get(bucketEvent, regionKey(room, regionHead)) != nil {
			head, err := tx.Head(room)
			if err != nil {
				return err
			}
			if more, err := fn(room, head); err != nil || !more {
				return err
			}
		}
		next := after(appendU32(nil, uint32(room)))
		if next == nil {
			break
		}
		k, _ = c.Seek(next)
	}
	return nil
}

func packHead(h Head) []byte {
	v := make([]byte, 0, 96)
	v = appendString(v, h.Version.ID)
	v = binary.AppendUvarint(v, uint64(h.Current))
	v = binary.AppendUvarint(v, uint64(len(h.Extremities)))
	for _, num := range h.Extremities {
		v = binary.AppendUvarint(v, uint64(num))
	}
	v = binary.AppendVarint(v, h.Depth)
	v = binary.AppendUvarint(v, uint64(h.First))
	v = binary.AppendUvarint(v, uint64(h.Latest))
	v = binary.AppendUvarint(v, h.Joined)
	v = binary.AppendUvarint(v, h.Invited)
	return binary.AppendUvarint(v, uint64(h.Entered))
}

func readHead(v []byte) (Head, error) {
	r := reader{b: v}
	id := r.string()
	h := Head{Current: SnapshotID(r.uvarint())}
	n := r.uvarint()
	if n > maxExtremities {
		r.fail()
		n = 0
	}
	for range n {
		h.Extremities = append(h.Extremities, EventNum(r.uvarint()))
	}
	h.Depth = r.varint()
	h.First = EventNum(r.uvarint())
	h.Latest = EventNum(r.uvarint())
	h.Joined = r.uvarint()
	h.Invited = r.uvarint()
	if len(r.b) > 0 {
		h.Entered = EventNum(r.uvarint())
	}
	var known bool
	if h.Version, known = matrix.VersionByID(id); !known || r.err != nil || len(r.b) > 0 {
		return Head{}, fmt.Errorf("version %q: %w", id, ErrDamaged)
	}
	return h, nil
}

// roomFacts are what never changes about a room that has a head.
type roomFacts struct {
	version *matrix.Version
	id      matrix.RoomID
}

// roomCache holds the facts of the rooms that a transaction has met: every
// event that is read asks for them.
type roomCache map[RoomNum]roomFacts

// learn puts the facts of a room into the cache.
func (tx *Tx) learn(room RoomNum, v *matrix.Version) roomFacts {
	if tx.rooms == nil {
		tx.rooms = make(roomCache)
	}
	facts := roomFacts{version: v, id: tx.RoomID(room)}
	tx.rooms[room] = facts
	return facts
}

// facts returns the facts of a room that has a head, or of one that is being joined.
func (tx *Tx) facts(room RoomNum) (roomFacts, error) {
	if facts, ok := tx.rooms[room]; ok {
		return facts, nil
	}
	h, err := tx.Head(room)
	if err != nil {
		if v, joining := tx.joining(room); joining {
			return tx.learn(room, v), nil
		}
		return roomFacts{}, err
	}
	return tx.learn(room, h.Version), nil
}
