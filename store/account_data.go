package store

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// AccountData is one piece of a user's account data, global or about a room.
type AccountData struct {
	Room     RoomNum // 0: global
	Type     string
	Content  jsontext.Value
	Position Position // when it was last set
}

// PutAccountData sets a piece of a user's account data and gives the change a
// place in the stream; what was there before is forgotten. Position is set by
// the store. Specification: client-server API, "Client Config".
func (tx *Tx) PutAccountData(user UserNum, d AccountData) error {
	key := accountDataKey(user, d.Room, d.Type)
	if old := tx.get(bucketUser, key); len(old) >= 8 {
		if err := tx.delete(bucketUser, accountDataAtKey(user, Position(u64(old)))); err != nil {
			return err
		}
	}
	pos, err := tx.appendChange(Change{Kind: streamAccountData, User: user, Room: d.Room, Name: d.Type})
	if err != nil {
		return fmt.Errorf("account data %s of user %d: %w", d.Type, user, err)
	}
	tx.Touch(user)
	if err := tx.put(bucketUser, key, append(appendU64(nil, uint64(pos)), d.Content...)); err != nil {
		return err
	}
	at := append(appendU32(nil, uint32(d.Room)), d.Type...)
	return tx.put(bucketUser, accountDataAtKey(user, pos), at)
}

// AccountData returns a piece of a user's account data, or ErrNotFound.
func (tx *Tx) AccountData(user UserNum, room RoomNum, typ string) (AccountData, error) {
	v := tx.get(bucketUser, accountDataKey(user, room, typ))
	if v == nil {
		return AccountData{}, fmt.Errorf("account data %s of user %d: %w", typ, user, ErrNotFound)
	}
	return readAccountData(room, typ, v)
}

// AccountDataPosition returns when a piece of a user's account data was last set,
// 0 for never.
func (tx *Tx) AccountDataPosition(user UserNum, room RoomNum, typ string) Position {
	v := tx.get(bucketUser, accountDataKey(user, room, typ))
	if len(v) < 8 {
		return 0
	}
	return Position(u64(v))
}

// AllAccountData calls fn for each piece of a user's account data that belongs
// to a room (0: that is global), by type, until fn returns false or an error.
func (tx *Tx) AllAccountData(user UserNum, room RoomNum, fn func(AccountData) (bool, error)) error {
	return tx.scan(bucketUser, accountDataKey(user, room, ""), nil, func(typ, v []byte) (bool, error) {
		d, err := readAccountData(room, string(typ), v)
		if err != nil {
			return false, err
		}
		return fn(d)
	})
}

// AccountDataSince calls fn for each piece of a user's account data that was
// set behind a position, oldest first, until fn returns false or an error.
func (tx *Tx) AccountDataSince(user UserNum, after Position, fn func(AccountData) (bool, error)) error {
	prefix := keyOf(uint32(user), userDataAt)
	return tx.scan(bucketUser, prefix, accountDataAtKey(user, after+1), func(_, v []byte) (bool, error) {
		if len(v) < 4 {
			return false, fmt.Errorf("account data index of user %d: %w", user, ErrDamaged)
		}
		d, err := tx.AccountData(user, RoomNum(u32(v)), string(v[4:]))
		if err != nil {
			return false, err
		}
		return fn(d)
	})
}

func accountDataKey(user UserNum, room RoomNum, typ string) []byte {
	return append(appendU32(keyOf(uint32(user), userData), uint32(room)), typ...)
}

func accountDataAtKey(user UserNum, pos Position) []byte {
	return appendU64(keyOf(uint32(user), userDataAt), uint64(pos))
}

func readAccountData(room RoomNum, typ string, v []byte) (AccountData, error) {
	if len(v) < 8 {
		return AccountData{}, fmt.Errorf("account data %s: %w", typ, ErrDamaged)
	}
	return AccountData{Room: room, Type: typ, Content: bytes.Clone(v[8:]), Position: Position(u64(v))}, nil
}

// checkAccountData holds account data and their index to each other.
func checkAccountData(c *checker) error {
	values, places := 0, 0
	err := c.eachOf(bucketUser, userData, func(user uint32, rest, v []byte) {
		values++
		if len(rest) < 4 || len(v) < 8 || !jsontext.Value(v[8:]).IsValid() {
			c.faultf("account data of user %d: record %x cannot be read", user, rest)
			return
		}
		at := c.get(bucketUser, accountDataAtKey(UserNum(user), Position(u64(v))))
		if !bytes.Equal(at, rest) {
			c.faultf("account data %s of user %d: not in the index at %d", rest[4:], user, u64(v))
		}
	})
	if err != nil {
		return err
	}
	err = c.eachOf(bucketUser, userDataAt, func(uint32, []byte, []byte) { places++ })
	if places != values {
		c.faultf("%d pieces of account data, %d in the index", values, places)
	}
	return err
}
