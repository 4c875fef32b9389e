package store

import (
	"fmt"

	"hearth/state/matrix"
)

// The device list of a user, local or not, changes one thing at a time: a device,
// with its name and keys, or the user's cross-signing keys. Each change has a place
// in the stream. Beside it stands, for each user, where the newest changes are, and
// over all users an index of the newest change of each: that is all that readers
// with a cursor need, and it does not grow with the changes.
//
// The changes of one user's devices are a chain, as each entry knows the one before
// it. Other servers follow the chain: the position of a change is its stream_id.
//
// Spec: CS Tracking the device list for a user; SS Device Management.

// A DeviceListState says where the newest changes of a user's device list stand, 0
// for none.
type DeviceListState struct {
	Newest       Position // of either kind
	Device       Position // of a device
	CrossSigning Position // of the cross-signing keys
}

// DeviceList returns where the newest changes of a user's device list stand.
func (tx *Tx) DeviceList(user UserNum) (DeviceListState, error) {
	v := tx.get(bucketUser, keyOf(uint32(user), userDevicesLatest))
	l, err := readDeviceListState(v)
	if err != nil {
		return l, fmt.Errorf("device list of user %d: %w", user, err)
	}
	return l, nil
}

// readDeviceListState reads the record. Format 3 had the newest position alone, of
// what nobody noted.
func readDeviceListState(v []byte) (DeviceListState, error) {
	switch len(v) {
	case 0:
		return DeviceListState{}, nil
	case 8:
		return DeviceListState{Newest: Position(u64(v)), Device: Position(u64(v))}, nil
	case 24:
		return DeviceListState{Position(u64(v)), Position(u64(v[8:])), Position(u64(v[16:]))}, nil
	}
	return DeviceListState{}, ErrDamaged
}

func (l DeviceListState) pack() []byte {
	return appendU64(appendU64(appendU64(nil, uint64(l.Newest)), uint64(l.Device)), uint64(l.CrossSigning))
}

// deviceChanged notes that a device of a local user, its name or its keys have
// changed, and tells the user and the local users who share a room with them.
func (tx *Tx) deviceChanged(user UserNum, device matrix.DeviceID) error {
	if err := tx.deviceListChanged(Change{User: user, Name: string(device)}); err != nil {
		return err
	}
	return tx.touchRoommates(user)
}

// crossSigningChanged is deviceChanged for the cross-signing keys.
func (tx *Tx) crossSigningChanged(user UserNum) error {
	if err := tx.deviceListChanged(Change{User: user, CrossSigning: true}); err != nil {
		return err
	}
	return tx.touchRoommates(user)
}

// RemoteDevicesChanged notes that the device list of another server's user has
// changed, and tells those local users who share a room with that user.
func (tx *Tx) RemoteDevicesChanged(user UserNum, roommates []UserNum) error {
	tx.Touch(roommates...)
	return tx.deviceListChanged(Change{User: user})
}

// deviceListChanged gives a change its place in the stream and makes it the newest
// of its user.
func (tx *Tx) deviceListChanged(c Change) error {
	list, err := tx.DeviceList(c.User)
	if err != nil {
		return err
	}
	if old := list.Newest; old != 0 {
		if err := tx.delete(bucketUser, deviceListAtKey(old)); err != nil {
			return err
		}
	}
	c.Kind, c.Previous = streamDevices, list.Device
	pos, err := tx.appendChange(c)
	if err != nil {
		return fmt.Errorf("device list of user %d: %w", c.User, err)
	}
	list.Newest = pos
	if c.CrossSigning {
		list.CrossSigning = pos
	} else {
		list.Device = pos
	}
	if err := tx.put(bucketUser, keyOf(uint32(c.User), userDevicesLatest), list.pack()); err != nil {
		return err
	}
	return tx.put(bucketUser, deviceListAtKey(pos), appendU32(nil, uint32(c.User)))
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
	return tx.scan(bucketUser, prefix, deviceListAtKey(after+1), func(_, v []byte) (bool, error) {
		if len(v) != 4 {
			return false, fmt.Errorf("index of device lists: %w", ErrDamaged)
		}
		return fn(UserNum(u32(v)))
	})
}

// DeviceChangesBack calls fn for the changes of a local user's devices, the newest
// first, each with the position of the one before it in Previous, until fn returns
// false or an error, or the chain ends. Changes that format 3 noted do not say which
// device it was, and end it: their Name is empty.
func (tx *Tx) DeviceChangesBack(user UserNum, fn func(Change) (bool, error)) error {
	list, err := tx.DeviceList(user)
	if err != nil {
		return err
	}
	for pos := list.Device; pos != 0; {
		key := appendU64(nil, uint64(pos))
		c, err := readChange(key, tx.get(bucketStream, key))
		if err != nil || c.Kind != streamDevices || c.User != user || c.Previous >= pos {
			return fmt.Errorf("change %d of the devices of user %d: %w", pos, user, ErrDamaged)
		}
		if more, err := fn(c); err != nil || !more {
			return err
		}
		pos = c.Previous
	}
	return nil
}

// IsDevices says whether the change is one of a user's device list; User may be of
// another server.
func (c Change) IsDevices() bool { return c.Kind == streamDevices }

func deviceListAtKey(pos Position) []byte { return appendU64(keyOf(0, userDevicesAt), uint64(pos)) }

// checkDeviceLists holds the index of changed device lists to the newest change
// of each, and that to the stream.
func checkDeviceLists(c *checker) error {
	err := c.eachOf(bucketUser, userDevicesLatest, func(num uint32, _, value []byte) {
		list, err := readDeviceListState(value)
		if err != nil || list.Newest == 0 || list.Newest != max(list.Device, list.CrossSigning) {
			c.faultf("device list of user %d: its newest change is noted as %x", num, value)
			return
		}
		if v := c.get(bucketUser, deviceListAtKey(list.Newest)); len(v) != 4 || u32(v) != num {
			c.faultf("device list of user %d: its change at %d is not in the index", num, list.Newest)
		}
		for _, pos := range []Position{list.Device, list.CrossSigning} {
			key := appendU64(nil, uint64(pos))
			if change, err := readChange(key, c.get(bucketStream, key)); pos != 0 &&
				(err != nil || change.Kind != streamDevices || change.User != UserNum(num) || change.Previous >= pos) {
				c.faultf("device list of user %d: the stream has no change of it at %d", num, pos)
			}
		}
	})
	if err != nil {
		return err
	}
	return c.each(bucketUser, keyOf(0, userDevicesAt), func(rest, value []byte) {
		if len(value) != 4 {
			c.faultf("index of device lists: entry %x has a value of %d bytes", rest, len(value))
		} else if list, err := c.DeviceList(UserNum(u32(value))); err != nil || uint64(list.Newest) != u64(rest) {
			c.faultf("index of device lists: entry %x leads nowhere", rest)
		}
	})
}
