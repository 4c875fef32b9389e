package store

import (
	"encoding/binary"
	"fmt"
)

// A server that is in a room no more has a right to what was sent while it was there and
// did not reach it. So the time of its last stay is kept, for who sends it that.

// noteLeft notes that a server, which was in a room since a position, is so until now.
func (tx *Tx) noteLeft(room RoomNum, server ServerNum, since Position) error {
	v := binary.AppendUvarint(nil, uint64(since))
	return tx.put(bucketRemote, roomLeftKey(server, room), binary.AppendUvarint(v, uint64(tx.Position())))
}

// stayedAt says whether a position is within the last stay of a server in a room that it
// has left.
func (tx *Tx) stayedAt(room RoomNum, server ServerNum, pos Position) (bool, error) {
	v := tx.get(bucketRemote, roomLeftKey(server, room))
	if v == nil {
		return false, nil
	}
	since, until, err := readStay(v)
	if err != nil {
		return false, fmt.Errorf("server %d, which was in room %d: %w", server, room, err)
	}
	return since <= pos && pos <= until, nil
}

// LeftAt returns the position up to which a server was in a room that it has left, 0
// where it was never there.
func (tx *Tx) LeftAt(room RoomNum, server ServerNum) (until Position, err error) {
	v := tx.get(bucketRemote, roomLeftKey(server, room))
	if v == nil {
		return 0, nil
	}
	if _, until, err = readStay(v); err != nil {
		err = fmt.Errorf("server %d, which was in room %d: %w", server, room, err)
	}
	return until, err
}

// RoomsLeft calls fn for each room that another server was in behind a position and has
// left since, also where it has come back, until fn returns false or an error. fn must
// not change them.
func (tx *Tx) RoomsLeft(server ServerNum, behind Position, fn func(RoomNum) (bool, error)) error {
	return tx.scan(bucketRemote, remoteKey(remoteRoomLeft, server), nil, func(rest, v []byte) (bool, error) {
		_, until, err := readStay(v)
		if len(rest) != 4 || err != nil {
			return false, fmt.Errorf("room %x that server %d was in: %w", rest, server, ErrDamaged)
		}
		if until <= behind {
			return true, nil
		}
		return fn(RoomNum(u32(rest)))
	})
}

func readStay(v []byte) (since, until Position, err error) {
	r := reader{b: v}
	since, until = Position(r.uvarint()), Position(r.uvarint())
	if r.err != nil || len(r.b) > 0 || until < since {
		return 0, 0, ErrDamaged
	}
	return since, until, nil
}

func roomLeftKey(server ServerNum, room RoomNum) []byte {
	return appendU32(remoteKey(remoteRoomLeft, server), uint32(room))
}

// purgeStays removes what is kept of the servers that were in a room that is being
// purged. It looks at all that is kept, as purges are rare.
func (tx *Tx) purgeStays(room RoomNum) (removed int, err error) {
	var keys [][]byte
	err = tx.scan(bucketRemote, []byte{remoteRoomLeft}, nil, func(rest, _ []byte) (bool, error) {
		if len(rest) == 8 && RoomNum(u32(rest[4:])) == room {
			keys = append(keys, append([]byte{remoteRoomLeft}, rest...))
		}
		return len(keys) < purgeKeys, nil
	})
	for _, key := range keys {
		if err == nil {
			err = tx.delete(bucketRemote, key)
		}
	}
	return len(keys), err
}

// checkStays holds what is kept of former servers of rooms to its form.
func checkStays(c *checker) error {
	return c.each(bucketRemote, []byte{remoteRoomLeft}, func(rest, v []byte) {
		if len(rest) != 8 {
			c.faultf("server and room %x: no stay", rest)
			return
		}
		room := RoomNum(u32(rest[4:]))
		if _, _, err := readStay(v); err != nil {
			c.faultf("server %d, which was in room %d: %v", u32(rest), room, err)
		} else if c.get(bucketEvent, regionKey(room, regionHead)) == nil && !c.purging(room) && !c.joining(room) {
			c.faultf("server %d was in room %d, which has no head", u32(rest), room)
		}
	})
}
