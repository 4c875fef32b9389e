package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"hearth/state/matrix"
)

// A Device is one login of a local user.
type Device struct {
	ID       matrix.DeviceID
	Name     string    // display name; empty: none
	Created  time.Time // with milliseconds
	LastSeen time.Time // the last request, give or take some minutes
	LastIP   string    // its address, as text; empty: unknown
}

// maxDeviceItems bounds how many keys or messages of one kind a deleted device
// takes with it in one write.
const maxDeviceItems = 1 << 20

// deviceKinds are the kinds of a user's records whose keys begin with a device
// ID and a NUL byte. They do not outlive the device.
var deviceKinds = []byte{userOneTimeKey, userOneTimeKeyID, userGivenKeys, userFallbackKey, userToDevice, userTxn}

// deviceHooks remove what else hangs on a device: records that name it in
// their value. A file that keeps such records adds its function in this list.
var deviceHooks = []func(tx *Tx, user UserNum, device matrix.DeviceID) error{
	(*Tx).deleteTokens,
	(*Tx).deleteDeviceSignatures,
	(*Tx).deleteDevicePushers,
}

// Device returns a device of a local user, or ErrNotFound.
func (tx *Tx) Device(user UserNum, id matrix.DeviceID) (Device, error) {
	v := tx.get(bucketUser, deviceKey(user, id))
	if v == nil || id == "" {
		return Device{}, fmt.Errorf("device %s of user %d: %w", id, user, ErrNotFound)
	}
	return readDevice(user, id, v)
}

// Devices calls fn for each device of a local user, by ID, until fn returns
// false or an error.
func (tx *Tx) Devices(user UserNum, fn func(Device) (bool, error)) error {
	prefix := keyOf(uint32(user), userDevice)
	return tx.scan(bucketUser, prefix, nil, func(rest, value []byte) (bool, error) {
		d, err := readDevice(user, matrix.DeviceID(rest), value)
		if err != nil {
			return false, err
		}
		return fn(d)
	})
}

// PutDevice stores a new device or a change of one. Where others see the
// change, as the name is new, the user's device list counts as changed.
func (tx *Tx) PutDevice(user UserNum, d Device) error {
	old, oldErr := tx.Device(user, d.ID)
	v := binary.AppendVarint(nil, d.Created.UnixMilli())
	v = binary.AppendVarint(v, d.LastSeen.UnixMilli())
	v = appendString(v, d.LastIP)
	v = append(v, d.Name...)
	if err := tx.put(bucketUser, deviceKey(user, d.ID), v); err != nil {
		return fmt.Errorf("device %s of user %d: %w", d.ID, user, err)
	}
	if oldErr == nil && old.Name == d.Name {
		return nil
	}
	return tx.deviceChanged(user, d.ID)
}

// DeleteDevice removes a device with its tokens, keys, to-device messages,
// transactions and pushers, and marks the user's device list as changed. It is
// no error if there is no such device.
func (tx *Tx) DeleteDevice(user UserNum, id matrix.DeviceID) error {
	if _, err := tx.Device(user, id); err != nil {
		return ignoreNotFound(err)
	}
	if err := tx.deleteDevice(user, id); err != nil {
		return fmt.Errorf("delete device %s of user %d: %w", id, user, err)
	}
	return tx.deviceChanged(user, id)
}

// DeleteDevices removes all devices of a user but the one called keep ("":
// none is kept).
func (tx *Tx) DeleteDevices(user UserNum, keep matrix.DeviceID) error {
	var ids []matrix.DeviceID
	err := tx.Devices(user, func(d Device) (bool, error) {
		if d.ID != keep {
			ids = append(ids, d.ID)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := tx.DeleteDevice(user, id); err != nil {
			return err
		}
	}
	return nil
}

// LogOut removes all devices of a user but the one called keep, and the login
// tokens that nobody has used.
func (tx *Tx) LogOut(user UserNum, keep matrix.DeviceID) error {
	return errors.Join(tx.DeleteDevices(user, keep), tx.deleteLoginTokens(user))
}

func (tx *Tx) deleteDevice(user UserNum, id matrix.DeviceID) error {
	for _, remove := range deviceHooks {
		if err := remove(tx, user, id); err != nil {
			return err
		}
	}
	for _, kind := range deviceKinds {
		prefix := appendPart(keyOf(uint32(user), kind), string(id))
		if _, err := tx.deleteAll(bucketUser, prefix, maxDeviceItems); err != nil {
			return err
		}
	}
	keys := append(keyOf(uint32(user), userDeviceKeys), id...)
	if err := tx.delete(bucketUser, keys); err != nil {
		return err
	}
	return tx.delete(bucketUser, deviceKey(user, id))
}

// A Sighting is when and from where a device was last used.
type Sighting struct {
	User   UserNum
	Device matrix.DeviceID
	Time   time.Time
	IP     string
}

// PutSighting notes a sighting in its device's record. A device that is gone,
// or was seen later already, is left as it is.
func (tx *Tx) PutSighting(s Sighting) error {
	d, err := tx.Device(s.User, s.Device)
	if err != nil {
		return ignoreNotFound(err)
	}
	if s.Time.Before(d.LastSeen) {
		return nil
	}
	d.LastSeen, d.LastIP = s.Time, s.IP
	return tx.PutDevice(s.User, d)
}

func deviceKey(user UserNum, id matrix.DeviceID) []byte {
	return append(keyOf(uint32(user), userDevice), id...)
}

func readDevice(user UserNum, id matrix.DeviceID, v []byte) (Device, error) {
	r := reader{b: v}
	d := Device{ID: id, Created: time.UnixMilli(r.varint()), LastSeen: time.UnixMilli(r.varint())}
	d.LastIP = r.string()
	d.Name = string(r.b)
	if r.err != nil {
		return Device{}, fmt.Errorf("device %s of user %d: %w", id, user, r.err)
	}
	return d, nil
}

// ignoreNotFound turns ErrNotFound into success, for deeds that are done
// already where there is nothing.
func ignoreNotFound(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
