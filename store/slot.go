package store

import (
	"encoding/binary"
	"fmt"

	"hearth/state/matrix"
)

// A Slot is the place of one (event type, state key) pair in the snapshots of
// its room: a dense ordinal given at first sight and never taken back, shifted
// left by one, and a low bit that says whether the pair is a membership
// (m.room.member), whose ordinals are counted apart.
type Slot uint32

// maxOrdinal is the last ordinal of either kind.
const maxOrdinal = 1<<31 - 1

// memberType is the event type whose slots are the members.
const memberType = "m.room.member"

// Member says whether the slot is that of a membership.
func (s Slot) Member() bool { return s&1 != 0 }

// part returns which of the two trees holds the slot.
func (s Slot) part() int { return int(s & 1) }

// ordinal returns the slot's place in that tree.
func (s Slot) ordinal() uint32 { return uint32(s >> 1) }

// slotAt is the slot with an ordinal in one of the trees.
func slotAt(part int, ordinal uint32) Slot { return Slot(ordinal<<1 | uint32(part)) }

// Slot returns the slot of a piece of state in a room, false when the room has
// never seen it.
func (tx *Tx) Slot(room RoomNum, typ, stateKey string) (Slot, bool) {
	var user UserNum
	if typ == memberType {
		if user = tx.UserNum(matrix.UserID(stateKey)); user == 0 {
			return 0, false
		}
	}
	return tx.slot(slotKey(room, user, typ, stateKey))
}

// PutSlot returns the slot of a piece of state and gives it one at first sight.
func (tx *Tx) PutSlot(room RoomNum, typ, stateKey string) (Slot, error) {
	var user UserNum
	part := othersPart
	if typ == memberType {
		part = membersPart
		var err error
		if user, err = tx.PutUserNum(matrix.UserID(stateKey)); err != nil {
			return 0, err
		}
	}
	key := slotKey(room, user, typ, stateKey)
	if s, ok := tx.slot(key); ok {
		return s, nil
	}
	c, err := tx.stateCounter(room)
	if err != nil {
		return 0, err
	}
	if c.slots[part] > maxOrdinal {
		return 0, fmt.Errorf("slot in room %d: %w", room, ErrFull)
	}
	s := slotAt(part, c.slots[part])
	c.slots[part]++
	if err := tx.put(bucketState, key, binary.AppendUvarint(nil, uint64(s.ordinal()))); err != nil {
		return 0, err
	}
	return s, tx.putStateCounter(room, c)
}

// StateSize returns how many pieces of state a room ever had, of all kinds: no state of it
// has more.
func (tx *Tx) StateSize(room RoomNum) (int, error) {
	c, err := tx.stateCounter(room)
	size := 0
	for _, given := range c.slots {
		size += int(given)
	}
	return size, err
}

// Slots calls fn for each slot that a room has for an event type, by state key,
// until fn returns false or an error. The slot may hold nothing now. Members are
// not among them: walk a state for those.
func (tx *Tx) Slots(room RoomNum, typ string, fn func(stateKey string, slot Slot) (bool, error)) error {
	return tx.scan(bucketState, slotKey(room, 0, typ, ""), nil, func(key, v []byte) (bool, error) {
		r := reader{b: v}
		ordinal := r.uvarint()
		if r.err != nil || ordinal > maxOrdinal {
			return false, fmt.Errorf("slot %s of room %d: %w", typ, room, ErrDamaged)
		}
		return fn(string(key), slotAt(othersPart, uint32(ordinal)))
	})
}

// MemberSlots calls fn for each user who ever was anything to a room, with the slot of
// the membership, by user number, until fn returns false or an error. The slot may
// hold nothing in a state.
func (tx *Tx) MemberSlots(room RoomNum, fn func(UserNum, Slot) (bool, error)) error {
	prefix := append(keyOf(uint32(room), stateSlot), byte(membersPart))
	return tx.scan(bucketState, prefix, nil, func(key, v []byte) (bool, error) {
		r := reader{b: v}
		ordinal := r.uvarint()
		if len(key) != 4 || r.err != nil || ordinal > maxOrdinal {
			return false, fmt.Errorf("slots of members of room %d: %w", room, ErrDamaged)
		}
		return fn(UserNum(u32(key)), slotAt(membersPart, uint32(ordinal)))
	})
}

// slot reads the slot under a key; the flag in the key says of which kind it is.
func (tx *Tx) slot(key []byte) (Slot, bool) {
	r := reader{b: tx.get(bucketState, key)}
	ordinal := r.uvarint()
	if r.err != nil || ordinal > maxOrdinal {
		return 0, false
	}
	return slotAt(int(key[5]), uint32(ordinal)), true
}

// slotKey is the key of a slot: a member's when user is set. The type has its
// length before it, since hostile types and state keys may hold any byte.
func slotKey(room RoomNum, user UserNum, typ, stateKey string) []byte {
	k := keyOf(uint32(room), stateSlot)
	if user != 0 {
		return appendU32(append(k, byte(membersPart)), uint32(user))
	}
	return append(appendString(append(k, byte(othersPart)), typ), stateKey...)
}

// stateCounters are what the state of a room has given out so far.
type stateCounters struct {
	slots [parts]uint32 // the next ordinal of each kind
	next  uint64        // the next record number
}

func (tx *Tx) stateCounter(room RoomNum) (stateCounters, error) {
	c := stateCounters{next: 1}
	v := tx.get(bucketState, keyOf(uint32(room), stateCounter))
	if v == nil {
		return c, nil
	}
	r := reader{b: v}
	for part := range c.slots {
		n := r.uvarint()
		if n > maxOrdinal+1 {
			r.fail()
		}
		c.slots[part] = uint32(n)
	}
	c.next = r.uvarint()
	if r.err != nil || len(r.b) > 0 || c.next == 0 {
		return c, fmt.Errorf("state counter of room %d: %w", room, ErrDamaged)
	}
	return c, nil
}

func (tx *Tx) putStateCounter(room RoomNum, c stateCounters) error {
	v := make([]byte, 0, 16)
	for _, n := range c.slots {
		v = binary.AppendUvarint(v, uint64(n))
	}
	v = binary.AppendUvarint(v, c.next)
	return tx.put(bucketState, keyOf(uint32(room), stateCounter), v)
}
