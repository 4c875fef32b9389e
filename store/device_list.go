package store

import (
	"fmt"

	"hearth/state/matrix"
)

// deviceListChanged notes that a local user's devices, their names or the
// user's keys have changed: a place in the stream, the index of the newest
// change of each device list, and news for the user and for the local users
// who share a room with them.
//
// Spec: CS Tracking the device list for a user.
func (tx *Tx) deviceListChanged(user UserNum) error {
	pos, err := tx.appendChange(Change{Kind: streamDevices, User: user})
	if err != nil {
		return fmt.Errorf("device list of user %d: %w", user, err)
	}
	latest := keyOf(uint32(user), userDevicesLatest)
	if old := tx.get(bucketUser, latest); len(old) == 8 {
		if err := tx.delete(bucketUser, append(keyOf(0, userDevicesAt), old...)); err != nil {
			return err
		}
	}
	at := appendU64(nil, uint64(pos))
	if err := tx.put(bucketUser, latest, at); err != nil {
		return err
	}
	if err := tx.put(bucketUser, append(keyOf(0, userDevicesAt), at...), appendU32(nil, uint32(user))); err != nil {
		return err
	}
	return tx.touchRoommates(user)
}

// touchRoommates wakes a local user and the local users in the user's rooms.
func (tx *Tx) touchRoommates(user UserNum) error {
	tx.Touch(user)
	return tx.LocalMemberships(user, func(m LocalMembership) (bool, error) {
		if m.Membership != matrix.Join {
			return true, nil
		}
		err := tx.LocalMembers(m.Room, func(other UserNum, _ matrix.Membership) (bool, error) {
			tx.Touch(other)
			return true, nil
		})
		return true, err
	})
}

// DeviceListChanges calls fn for each user, local or not, whose device list or
// cross-signing keys have changed behind a position, the oldest newest change
// first, until fn returns false or an error. It knows only the newest change of
// each user.
func (tx *Tx) DeviceListChanges(after Position, fn func(UserNum) (bool, error)) error {
	prefix := keyOf(0, userDevicesAt)
	start := appendU64(keyOf(0, userDevicesAt), uint64(after)+1)
	return tx.scan(bucketUser, prefix, start, func(_, v []byte) (bool, error) {
		if len(v) != 4 {
			return false, fmt.Errorf("index of device lists: %w", ErrDamaged)
		}
		return fn(UserNum(u32(v)))
	})
}
