package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// A RoomKey is one key of a backup: that of a session in a room, encrypted.
type RoomKey struct {
	Room       matrix.RoomID
	Session    string
	Verified   bool   // the uploader had verified the device that the key is from
	FirstIndex uint64 // of the first message that the key opens
	Forwarded  uint64 // how often the key was passed on between devices
	Data       jsontext.Value
}

// Replaces says whether a key takes the place of old, which is of the same
// session. Spec: CS Server-side key backups.
func (k RoomKey) Replaces(old RoomKey) bool {
	switch {
	// "if the keys have different values for is_verified, then it will keep
	// the key that has is_verified set to true;"
	case k.Verified != old.Verified:
		return k.Verified
	// "if they have the same values for is_verified, then it will keep the key
	// with a lower first_message_index;"
	case k.FirstIndex != old.FirstIndex:
		return k.FirstIndex < old.FirstIndex
	// "and finally, if is_verified and first_message_index are equal, then it
	// will keep the key with a lower forwarded_count."
	default:
		return k.Forwarded < old.Forwarded
	}
}

// PutRoomKeys adds keys to a version of a user's backup, each unless a better one
// of its session is there, and returns the version as it is then.
func (tx *Tx) PutRoomKeys(user UserNum, version BackupVersion, keys []RoomKey) (Backup, error) {
	b, err := tx.Backup(user, version)
	if err != nil {
		return Backup{}, err
	}
	changed := false
	for _, k := range keys {
		room, err := tx.PutRoomNum(k.Room)
		if err != nil {
			return Backup{}, err
		}
		at := roomKeyAt(user, version, room, k.Session)
		if v := tx.get(bucketUser, at); v != nil {
			old, err := readRoomKey(v)
			if err != nil {
				return Backup{}, fmt.Errorf("key %s of user %d: %w", k.Session, user, err)
			}
			if !k.Replaces(old) {
				continue
			}
		} else {
			b.Count++
		}
		if err := tx.put(bucketUser, at, packRoomKey(k)); err != nil {
			return Backup{}, fmt.Errorf("key %s of user %d: %w", k.Session, user, err)
		}
		changed = true
	}
	if !changed {
		return b, nil
	}
	b.ETag++
	return b, tx.putBackup(user, b)
}

// A RoomKeyRange says which keys of a backup are meant: the keys of one session
// of a room, those of a room, or, where it is zero, all.
type RoomKeyRange struct {
	Room    matrix.RoomID
	Session string // "": all of the room
}

// RoomKeys calls fn for each key of a range, room by room, until fn returns
// false or an error. It begins behind the key after, if that has a session, so
// that a large backup can be read in several Views. The error wraps ErrNotFound
// where there is no such version.
func (tx *Tx) RoomKeys(user UserNum, version BackupVersion, in RoomKeyRange, after RoomKeyRange, fn func(RoomKey) (bool, error)) error {
	if _, err := tx.Backup(user, version); err != nil {
		return err
	}
	prefix, ok := tx.roomKeyPrefix(user, version, in)
	if !ok {
		return nil
	}
	var start []byte
	if after.Session != "" {
		start = append(roomKeyAt(user, version, tx.RoomNum(after.Room), after.Session), 0)
	}
	whole := len(backupKeysPrefix(user, version))
	return tx.scan(bucketUser, prefix, start, func(rest, v []byte) (bool, error) {
		key := append(bytes.Clone(prefix), rest...)[whole:]
		if in.Session != "" && len(rest) > 0 {
			return false, nil // the names of other sessions may begin like this one's
		}
		k, err := readRoomKey(v)
		if err != nil || len(key) < 5 {
			return false, fmt.Errorf("key %x of user %d: %w", key, user, errors.Join(err, ErrDamaged))
		}
		k.Room, k.Session = tx.RoomID(RoomNum(u32(key))), string(key[4:])
		return fn(k)
	})
}

// DeleteRoomKeys removes at most limit keys of a range and returns the version
// as it is then; more says that keys may be left. The error wraps ErrNotFound
// where there is no such version.
func (tx *Tx) DeleteRoomKeys(user UserNum, version BackupVersion, in RoomKeyRange, limit int) (b Backup, more bool, err error) {
	if b, err = tx.Backup(user, version); err != nil {
		return Backup{}, false, err
	}
	prefix, ok := tx.roomKeyPrefix(user, version, in)
	if !ok {
		return b, false, nil
	}
	n := 0
	if in.Session != "" {
		if tx.get(bucketUser, prefix) != nil {
			n, err = 1, tx.delete(bucketUser, prefix)
		}
	} else {
		n, err = tx.deleteAll(bucketUser, prefix, limit)
		more = n == limit
	}
	if err != nil || n == 0 {
		return b, false, err
	}
	b.Count -= min(uint64(n), b.Count)
	b.ETag++
	return b, more, tx.putBackup(user, b)
}

// roomKeyPrefix begins the keys of a range; ok is false for a room that nobody
// has ever named here.
func (tx *Tx) roomKeyPrefix(user UserNum, version BackupVersion, in RoomKeyRange) (prefix []byte, ok bool) {
	if in.Room == "" {
		return backupKeysPrefix(user, version), true
	}
	room := tx.RoomNum(in.Room)
	return roomKeyAt(user, version, room, in.Session), room != 0
}

func roomKeyAt(user UserNum, version BackupVersion, room RoomNum, session string) []byte {
	return append(appendU32(backupKeysPrefix(user, version), uint32(room)), session...)
}

// packRoomKey writes what is not in the key of the record.
func packRoomKey(k RoomKey) []byte {
	v := []byte{byte(bit(1, k.Verified))}
	v = binary.AppendUvarint(v, k.FirstIndex)
	v = binary.AppendUvarint(v, k.Forwarded)
	return append(v, k.Data...)
}

func readRoomKey(v []byte) (RoomKey, error) {
	r := reader{b: v}
	k := RoomKey{Verified: r.byte() != 0, FirstIndex: r.uvarint(), Forwarded: r.uvarint()}
	k.Data = bytes.Clone(r.b)
	return k, r.err
}
