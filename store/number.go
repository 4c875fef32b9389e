package store

import (
	"fmt"

	"hearth/state/matrix"
)

// A RoomNum stands for a room ID inside the store. 0 is no room.
type RoomNum uint32

// A UserNum stands for a user ID, local or not, inside the store. 0 is no user.
type UserNum uint32

// A ServerNum stands for another server's name inside the store. 0 is no server.
type ServerNum uint32

// RoomNum returns the number of a room, 0 when the store has never seen it.
func (tx *Tx) RoomNum(id matrix.RoomID) RoomNum {
	return RoomNum(tx.number(numberRoom, string(id)))
}

// RoomID returns the room ID of a number, "" for an unknown one.
func (tx *Tx) RoomID(room RoomNum) matrix.RoomID {
	return matrix.RoomID(tx.name(numberRoom, uint32(room)))
}

// PutRoomNum returns the number of a room and gives it one at first sight.
func (tx *Tx) PutRoomNum(id matrix.RoomID) (RoomNum, error) {
	n, err := tx.putNumber(numberRoom, string(id))
	return RoomNum(n), err
}

// UserNum returns the number of a user, 0 when the store has never seen it.
func (tx *Tx) UserNum(id matrix.UserID) UserNum {
	return UserNum(tx.number(numberUser, string(id)))
}

// UserID returns the user ID of a number, "" for an unknown one.
func (tx *Tx) UserID(user UserNum) matrix.UserID {
	return matrix.UserID(tx.name(numberUser, uint32(user)))
}

// UserIDs calls fn for each user, local or not, whose ID begins with prefix, in
// the order of the IDs, until fn returns false or an error. Users are known for
// ever, so many of them may have left all rooms.
func (tx *Tx) UserIDs(prefix string, fn func(UserNum, matrix.UserID) (bool, error)) error {
	key := append([]byte{numberUser}, prefix...)
	return tx.scan(bucketNumber, key, nil, func(rest, v []byte) (bool, error) {
		if len(v) != 4 {
			return false, fmt.Errorf("number of user %s%s: %w", prefix, rest, ErrDamaged)
		}
		return fn(UserNum(u32(v)), matrix.UserID(prefix+string(rest)))
	})
}

// PutUserNum returns the number of a user and gives it one at first sight.
func (tx *Tx) PutUserNum(id matrix.UserID) (UserNum, error) {
	n, err := tx.putNumber(numberUser, string(id))
	return UserNum(n), err
}

// ServerNum returns the number of a server, 0 when the store has never seen it.
func (tx *Tx) ServerNum(name matrix.ServerName) ServerNum {
	return ServerNum(tx.number(numberServer, string(name)))
}

// ServerName returns the name of a server's number, "" for an unknown one.
func (tx *Tx) ServerName(server ServerNum) matrix.ServerName {
	return matrix.ServerName(tx.name(numberServer, uint32(server)))
}

// PutServerNum returns the number of a server and gives it one at first sight.
func (tx *Tx) PutServerNum(name matrix.ServerName) (ServerNum, error) {
	n, err := tx.putNumber(numberServer, string(name))
	return ServerNum(n), err
}

func (tx *Tx) number(kind byte, name string) uint32 {
	v := tx.get(bucketNumber, append([]byte{kind}, name...))
	if len(v) != 4 {
		return 0
	}
	return u32(v)
}

func (tx *Tx) name(kind byte, num uint32) string {
	return string(tx.get(bucketNumber, numberKey(kind, num)))
}

func (tx *Tx) putNumber(kind byte, name string) (uint32, error) {
	if n := tx.number(kind, name); n != 0 {
		return n, nil
	}
	next, err := tx.in(bucketNumber).NextSequence()
	if err != nil {
		return 0, fmt.Errorf("number for %s: %w", name, err)
	}
	if next > 1<<32-1 {
		return 0, fmt.Errorf("number for %s: %w", name, ErrFull)
	}
	num := uint32(next)
	if err := tx.put(bucketNumber, append([]byte{kind}, name...), appendU32(nil, num)); err != nil {
		return 0, err
	}
	return num, tx.put(bucketNumber, numberKey(kind, num), []byte(name))
}

// numberKey leads from a number back to its name: the kind in upper case.
func numberKey(kind byte, num uint32) []byte {
	return appendU32([]byte{kind - 'a' + 'A'}, num)
}
