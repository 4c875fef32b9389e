package store

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// DeviceKeys returns the identity keys of a local user's device as they were
// uploaded, or ErrNotFound.
func (tx *Tx) DeviceKeys(user UserNum, device matrix.DeviceID) (jsontext.Value, error) {
	v := tx.get(bucketUser, deviceKeysKey(user, device))
	if v == nil {
		return nil, fmt.Errorf("keys of device %s of user %d: %w", device, user, ErrNotFound)
	}
	return bytes.Clone(v), nil
}

// PutDeviceKeys stores the identity keys of a device. Keys that are there
// already change nothing; new ones end the signatures about the old, and the
// user's device list counts as changed. The error wraps ErrNotFound where there
// is no such device.
func (tx *Tx) PutDeviceKeys(user UserNum, device matrix.DeviceID, keys jsontext.Value) error {
	if _, err := tx.Device(user, device); err != nil {
		return err
	}
	old := tx.get(bucketUser, deviceKeysKey(user, device))
	if old != nil && sameJSON(old, keys) {
		return nil
	}
	if old != nil && !SameKeys(old, keys) {
		if err := tx.deleteDeviceSignatures(user, device); err != nil {
			return err
		}
	}
	if err := tx.put(bucketUser, deviceKeysKey(user, device), bytes.Clone(keys)); err != nil {
		return fmt.Errorf("keys of device %s of user %d: %w", device, user, err)
	}
	return tx.deviceChanged(user, device)
}

// checkDeviceKeys holds the identity keys to the devices that they belong to.
func checkDeviceKeys(c *checker) error {
	return c.eachOf(bucketUser, userDeviceKeys, func(user uint32, device, v []byte) {
		if !c.hasDevice(user, string(device)) {
			c.faultf("user %d: keys of device %s, which is not there", user, device)
		}
		if jsontext.Value(v).Kind() != '{' || !jsontext.Value(v).IsValid() {
			c.faultf("user %d: keys of device %s are no object", user, device)
		}
	})
}

// hasDevice says whether a user has a device.
func (c *checker) hasDevice(user uint32, device string) bool {
	_, err := c.Device(UserNum(user), matrix.DeviceID(device))
	return err == nil
}

func deviceKeysKey(user UserNum, device matrix.DeviceID) []byte {
	return append(keyOf(uint32(user), userDeviceKeys), device...)
}

// SameKeys says whether two signed objects are the same but for their
// signatures and what is unsigned.
func SameKeys(a, b jsontext.Value) bool {
	return sameJSON(signedPart(a), signedPart(b))
}

// signedPart returns the part of an object that signatures are over; what is no
// object stays as it is.
func signedPart(object jsontext.Value) jsontext.Value {
	var members map[string]jsontext.Value
	if json.Unmarshal(object, &members) != nil {
		return object
	}
	delete(members, "signatures")
	delete(members, "unsigned")
	part, err := json.Marshal(members, json.Deterministic(true))
	if err != nil {
		return object
	}
	return part
}

// sameJSON says whether two texts are the same JSON value.
func sameJSON(a, b jsontext.Value) bool {
	return bytes.Equal(a, b) || bytes.Equal(canonicalJSON(a), canonicalJSON(b))
}

// canonicalJSON returns a copy of a value in one of its forms, always the same.
func canonicalJSON(v jsontext.Value) jsontext.Value {
	c := v.Clone()
	if c.Canonicalize() != nil {
		return v
	}
	return c
}
