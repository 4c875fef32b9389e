package store

import (
	"encoding/binary"
	"fmt"

	"hearth/state/matrix"
)

// A LocalMembership is what one room is to one local user. It follows the
// room's current state and outlives it: rooms that were left, and invites from
// rooms that we are not in, stand here too.
type LocalMembership struct {
	Room       RoomNum
	Membership matrix.Membership
	Event      EventNum // the member event that says so; 0 where we have none
	Position   Position // when it last changed, set by PutLocalMembership
	Joined     Position // when the newest join began; 0: never joined
	Left       Position // when the newest join ended; 0: never, or joined now
	Forgotten  bool     // the user wants to see nothing of the room any more
	// Stripped is the JSON array of stripped state that came with an invite or
	// that a knock was answered with, for rooms that we are not in.
	Stripped []byte
	// PDU is the member event that says so, and Version its room's, where Event is
	// none since we are not in the room; see Own. Else both are empty.
	PDU     []byte
	Version string
}

// Own returns the user's member event of a room that we are not in, as it came from
// there; nil where the room has it, or nobody has told.
func (m LocalMembership) Own() (*matrix.Event, error) {
	if m.PDU == nil {
		return nil, nil
	}
	v, ok := matrix.VersionByID(m.Version)
	if !ok {
		return nil, fmt.Errorf("membership in room %d: version %q: %w", m.Room, m.Version, ErrDamaged)
	}
	ev, err := matrix.Parse(v, m.PDU)
	if err != nil {
		return nil, fmt.Errorf("membership in room %d: %w: %w", m.Room, ErrDamaged, err)
	}
	return ev, nil
}

// PutLocalMembership stores what m.Room is to user from now on, in the
// user's and the room's records alike, and gives the change a place in the
// stream. It sets Position, and Joined and Left from what was known before. A
// room that was forgotten stays so while the user stays out of it.
func (tx *Tx) PutLocalMembership(user UserNum, m LocalMembership) error {
	before, known, err := tx.LocalMembership(user, m.Room)
	if err != nil {
		return err
	}
	if m.Position, err = tx.appendChange(Change{Kind: streamMembership, User: user, Room: m.Room}); err != nil {
		return err
	}
	m.Joined, m.Left = before.Joined, before.Left
	m.Forgotten = before.Forgotten && (m.Membership == matrix.Leave || m.Membership == matrix.Ban)
	switch joined := before.Membership == matrix.Join; {
	case m.Membership == matrix.Join && !joined:
		m.Joined, m.Left = m.Position, 0
	case m.Membership != matrix.Join && joined:
		m.Left = m.Position
	}
	if known {
		if err := tx.delete(bucketUser, membershipAtKey(user, before.Position)); err != nil {
			return err
		}
	}
	return tx.writeMembership(user, m)
}

// ForgetRoom marks a room that the user is no longer in as forgotten; it
// fails with ErrNotFound when the room was never anything to the user.
func (tx *Tx) ForgetRoom(user UserNum, room RoomNum) error {
	m, known, err := tx.LocalMembership(user, room)
	if err != nil {
		return err
	}
	if !known {
		return fmt.Errorf("forget room %d for user %d: %w", room, user, ErrNotFound)
	}
	m.Forgotten = true
	return tx.writeMembership(user, m)
}

// writeMembership writes the record, its mirror and its place in the index.
func (tx *Tx) writeMembership(user UserNum, m LocalMembership) error {
	tx.Touch(user)
	if err := tx.put(bucketUser, membershipKey(user, m.Room), packMembership(m)); err != nil {
		return err
	}
	at := appendU32(nil, uint32(m.Room))
	if err := tx.put(bucketUser, membershipAtKey(user, m.Position), at); err != nil {
		return err
	}
	return tx.put(bucketRoom, localMemberKey(m.Room, user), []byte(m.Membership))
}

// LocalMembership returns what a room is to a local user; ok is false when it
// was never anything.
func (tx *Tx) LocalMembership(user UserNum, room RoomNum) (m LocalMembership, ok bool, err error) {
	v := tx.get(bucketUser, membershipKey(user, room))
	if v == nil {
		return LocalMembership{}, false, nil
	}
	m, err = readMembership(room, v)
	return m, err == nil, err
}

// LocalMemberships calls fn for each room that is or was something to a local
// user, by room number, until fn returns false or an error.
func (tx *Tx) LocalMemberships(user UserNum, fn func(LocalMembership) (bool, error)) error {
	prefix := keyOf(uint32(user), userRoom)
	return tx.scan(bucketUser, prefix, nil, func(key, v []byte) (bool, error) {
		if len(key) != 4 {
			return false, fmt.Errorf("membership key of user %d: %w", user, ErrDamaged)
		}
		m, err := readMembership(RoomNum(u32(key)), v)
		if err != nil {
			return false, err
		}
		return fn(m)
	})
}

// LocalMembershipsSince is LocalMemberships for those that changed behind a
// position, oldest change first.
func (tx *Tx) LocalMembershipsSince(user UserNum, after Position, fn func(LocalMembership) (bool, error)) error {
	prefix := keyOf(uint32(user), userRoomAt)
	start := membershipAtKey(user, after+1)
	return tx.scan(bucketUser, prefix, start, func(_, v []byte) (bool, error) {
		if len(v) != 4 {
			return false, fmt.Errorf("membership index of user %d: %w", user, ErrDamaged)
		}
		m, ok, err := tx.LocalMembership(user, RoomNum(u32(v)))
		if err != nil {
			return false, err
		}
		if !ok {
			return false, fmt.Errorf("membership of user %d in room %d: %w", user, u32(v), ErrDamaged)
		}
		return fn(m)
	})
}

// LocalMembers calls fn for each local user to whom the room is or was
// something, by user number, until fn returns false or an error.
func (tx *Tx) LocalMembers(room RoomNum, fn func(UserNum, matrix.Membership) (bool, error)) error {
	prefix := keyOf(uint32(room), roomMember)
	return tx.scan(bucketRoom, prefix, nil, func(key, v []byte) (bool, error) {
		if len(key) != 4 {
			return false, fmt.Errorf("local member key of room %d: %w", room, ErrDamaged)
		}
		return fn(UserNum(u32(key)), matrix.Membership(v))
	})
}

func membershipKey(user UserNum, room RoomNum) []byte {
	return appendU32(keyOf(uint32(user), userRoom), uint32(room))
}

func membershipAtKey(user UserNum, pos Position) []byte {
	return appendU64(keyOf(uint32(user), userRoomAt), uint64(pos))
}

func localMemberKey(room RoomNum, user UserNum) []byte {
	return appendU32(keyOf(uint32(room), roomMember), uint32(user))
}

// The flags of a membership record.
const (
	membershipForgotten = 1 << iota // nothing
	membershipOwn                   // the room's version and the PDU, before the stripped state
)

func packMembership(m LocalMembership) []byte {
	v := make([]byte, 0, 48+len(m.Stripped)+len(m.PDU))
	var flags byte
	if m.Forgotten {
		flags |= membershipForgotten
	}
	if m.PDU != nil {
		flags |= membershipOwn
	}
	v = append(v, flags)
	v = appendString(v, string(m.Membership))
	v = binary.AppendUvarint(v, uint64(m.Event))
	v = binary.AppendUvarint(v, uint64(m.Position))
	v = binary.AppendUvarint(v, uint64(m.Joined))
	v = binary.AppendUvarint(v, uint64(m.Left))
	if m.PDU != nil {
		v = appendString(appendString(v, m.Version), string(m.PDU))
	}
	return append(v, m.Stripped...)
}

func readMembership(room RoomNum, v []byte) (LocalMembership, error) {
	r := reader{b: v}
	m := LocalMembership{Room: room}
	flags := r.byte()
	m.Forgotten = flags&membershipForgotten != 0
	m.Membership = matrix.Membership(r.string())
	m.Event = EventNum(r.uvarint())
	m.Position = Position(r.uvarint())
	m.Joined = Position(r.uvarint())
	m.Left = Position(r.uvarint())
	if flags&membershipOwn != 0 {
		m.Version, m.PDU = r.string(), []byte(r.string())
	}
	if r.err != nil {
		return LocalMembership{}, fmt.Errorf("membership in room %d: %w", room, r.err)
	}
	if len(r.b) > 0 {
		m.Stripped = append([]byte(nil), r.b...)
	}
	return m, nil
}
