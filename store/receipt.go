package store

import (
	"encoding/binary"
	"fmt"

	"hearth/state/matrix"
)

// The types of receipts. Specification: client-server API, "Receipts".
const (
	ReceiptRead    = "m.read"
	ReceiptPrivate = "m.read.private"
)

// A Receipt says how far a user has read a room or one of its threads.
type Receipt struct {
	User     UserNum
	Type     string         // ReceiptRead or ReceiptPrivate
	Thread   string         // a thread root's event ID, "main", or "" for the whole room
	Event    matrix.EventID // the newest event that was read
	Num      EventNum       // the event's number; 0 where it is not in our timeline
	TS       int64          // when, in milliseconds since 1970
	Position Position       // when the receipt came, set by PutReceipt
}

// PutReceipt stores a receipt and wakes who may see it. A user has one of each
// type for each thread. It reports false and changes nothing when the receipt
// would go back to an older event than the one it takes the place of.
func (tx *Tx) PutReceipt(room RoomNum, r Receipt) (moved bool, err error) {
	key := receiptKey(room, r)
	old, known, err := tx.receipt(room, key)
	if err != nil {
		return false, err
	}
	if known && (r.Num < old.Num || r.Event == old.Event) {
		return false, nil
	}
	if known {
		if err := tx.delete(bucketRoom, receiptAtKey(room, old.Position)); err != nil {
			return false, err
		}
	}
	if r.Position, err = tx.appendChange(Change{Kind: streamReceipt, Room: room, User: r.User}); err != nil {
		return false, fmt.Errorf("receipt of user %d: %w", r.User, err)
	}
	if err := tx.put(bucketRoom, key, packReceipt(r)); err != nil {
		return false, err
	}
	if err := tx.put(bucketRoom, receiptAtKey(room, r.Position), key[5:]); err != nil {
		return false, err
	}
	if r.Type == ReceiptPrivate {
		tx.Touch(r.User)
		return true, nil
	}
	return true, tx.touchMembers(room)
}

// touchMembers wakes the local users who are in a room.
func (tx *Tx) touchMembers(room RoomNum) error {
	return tx.LocalMembers(room, func(user UserNum, m matrix.Membership) (bool, error) {
		if m == matrix.Join {
			tx.Touch(user)
		}
		return true, nil
	})
}

// ReceiptsSince calls fn for each receipt of a room that came behind a
// position, oldest first, until fn returns false or an error. It shows private
// receipts too: whose they are is the caller's to look at.
func (tx *Tx) ReceiptsSince(room RoomNum, after Position, fn func(Receipt) (bool, error)) error {
	prefix := keyOf(uint32(room), roomReceiptAt)
	return tx.scan(bucketRoom, prefix, receiptAtKey(room, after+1), func(_, name []byte) (bool, error) {
		key := append(keyOf(uint32(room), roomReceipt), name...)
		r, known, err := tx.receipt(room, key)
		if err == nil && !known {
			err = fmt.Errorf("receipt index of room %d: %w", room, ErrDamaged)
		}
		if err != nil {
			return false, err
		}
		return fn(r)
	})
}

// UserReceipts calls fn for each receipt that a user has in a room, until fn
// returns false or an error.
func (tx *Tx) UserReceipts(room RoomNum, user UserNum, fn func(Receipt) (bool, error)) error {
	prefix := appendU32(keyOf(uint32(room), roomReceipt), uint32(user))
	return tx.scan(bucketRoom, prefix, nil, func(rest, v []byte) (bool, error) {
		r, err := readReceipt(user, rest, v)
		if err != nil {
			return false, fmt.Errorf("receipt in room %d: %w", room, err)
		}
		return fn(r)
	})
}

func (tx *Tx) receipt(room RoomNum, key []byte) (r Receipt, known bool, err error) {
	v := tx.get(bucketRoom, key)
	if v == nil {
		return Receipt{}, false, nil
	}
	if len(key) < 9 {
		return Receipt{}, false, fmt.Errorf("receipt in room %d: %w", room, ErrDamaged)
	}
	r, err = readReceipt(UserNum(u32(key[5:])), key[9:], v)
	return r, err == nil, err
}

// receiptKey is where a receipt stands: by user, type and thread.
func receiptKey(room RoomNum, r Receipt) []byte {
	k := appendU32(keyOf(uint32(room), roomReceipt), uint32(r.User))
	return append(appendPart(k, r.Type), r.Thread...)
}

func receiptAtKey(room RoomNum, pos Position) []byte {
	return appendU64(keyOf(uint32(room), roomReceiptAt), uint64(pos))
}

func packReceipt(r Receipt) []byte {
	v := binary.AppendUvarint(nil, uint64(r.Position))
	v = binary.AppendUvarint(v, uint64(r.Num))
	v = binary.AppendVarint(v, r.TS)
	return append(v, r.Event...)
}

// readReceipt reads a receipt; name is the part of its key behind the user.
func readReceipt(user UserNum, name, v []byte) (Receipt, error) {
	typ, thread, ok := cutPart(name)
	r := reader{b: v}
	receipt := Receipt{User: user, Type: typ, Thread: thread}
	receipt.Position = Position(r.uvarint())
	receipt.Num = EventNum(r.uvarint())
	receipt.TS = r.varint()
	receipt.Event = matrix.EventID(r.b)
	if r.err != nil || !ok {
		return Receipt{}, fmt.Errorf("receipt of user %d: %w", user, ErrDamaged)
	}
	return receipt, nil
}

// checkReceipts holds receipts and their index to each other.
func checkReceipts(c *checker) error {
	values, places := 0, 0
	err := c.eachOf(bucketRoom, roomReceipt, func(room uint32, rest, v []byte) {
		values++
		if len(rest) < 4 {
			c.faultf("receipt in room %d: key %x is too short", room, rest)
			return
		}
		r, err := readReceipt(UserNum(u32(rest)), rest[4:], v)
		if err != nil {
			c.faultf("receipt in room %d: %v", room, err)
			return
		}
		if at := c.get(bucketRoom, receiptAtKey(RoomNum(room), r.Position)); string(at) != string(rest) {
			c.faultf("receipt of user %d in room %d: not in the index at %d", r.User, room, r.Position)
		}
	})
	if err != nil {
		return err
	}
	err = c.eachOf(bucketRoom, roomReceiptAt, func(uint32, []byte, []byte) { places++ })
	if places != values {
		c.faultf("%d receipts, %d in the index", values, places)
	}
	return err
}
