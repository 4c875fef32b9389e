package store

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxProfileBytes bounds the JSON of a whole profile.
//
// Spec: CS Profiles.
const MaxProfileBytes = 64 << 10

// ErrProfileTooLarge is wrapped where a profile would exceed MaxProfileBytes.
var ErrProfileTooLarge = errors.New("the profile would be too large")

// Profile calls fn for each field of a local user's profile, by name, until fn
// returns false or an error. The value aliases the file.
func (tx *Tx) Profile(user UserNum, fn func(name string, value jsontext.Value) (bool, error)) error {
	return tx.scan(bucketUser, keyOf(uint32(user), userProfile), nil, func(rest, value []byte) (bool, error) {
		return fn(string(rest), value)
	})
}

// ProfileField returns one field of a local user's profile, or ErrNotFound.
func (tx *Tx) ProfileField(user UserNum, name string) (jsontext.Value, error) {
	v := tx.get(bucketUser, profileKey(user, name))
	if v == nil {
		return nil, fmt.Errorf("profile field %s of user %d: %w", name, user, ErrNotFound)
	}
	return bytes.Clone(v), nil
}

// PutProfileField sets one field. A value that is there already changes nothing.
// The error wraps ErrProfileTooLarge where the whole would be too large.
func (tx *Tx) PutProfileField(user UserNum, name string, value jsontext.Value) error {
	if bytes.Equal(tx.get(bucketUser, profileKey(user, name)), value) {
		return nil
	}
	size := fieldSize(name, value)
	err := tx.Profile(user, func(other string, value jsontext.Value) (bool, error) {
		if other != name {
			size += fieldSize(other, value)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	if size > MaxProfileBytes {
		return fmt.Errorf("profile of user %d: %d bytes: %w", user, size, ErrProfileTooLarge)
	}
	if err := tx.put(bucketUser, profileKey(user, name), bytes.Clone(value)); err != nil {
		return err
	}
	return tx.profileChanged(user)
}

// fieldSize is what a field adds to the profile's JSON: two quotes, a colon and a
// comma beside name and value.
func fieldSize(name string, value jsontext.Value) int { return len(name) + len(value) + 4 }

// DeleteProfileField removes one field. It is no error if there is none.
func (tx *Tx) DeleteProfileField(user UserNum, name string) error {
	if tx.get(bucketUser, profileKey(user, name)) == nil {
		return nil
	}
	if err := tx.delete(bucketUser, profileKey(user, name)); err != nil {
		return err
	}
	return tx.profileChanged(user)
}

// profileChanged gives a change of a profile its place in the stream.
func (tx *Tx) profileChanged(user UserNum) error {
	_, err := tx.appendChange(Change{Kind: streamProfile, User: user})
	if err != nil {
		return fmt.Errorf("profile of user %d: %w", user, err)
	}
	return nil
}

func profileKey(user UserNum, name string) []byte {
	return append(keyOf(uint32(user), userProfile), name...)
}
