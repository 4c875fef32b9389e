package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// A OneTimeKey is a public key of a device that others begin a session with: a
// one-time key, given to one of them, or a fallback key, given to all who come
// when no other is left. Spec: CS One-time and fallback keys.
type OneTimeKey struct {
	Algorithm string // such as "signed_curve25519"
	ID        string // behind the colon of the key's name
	JSON      jsontext.Value
}

// Name returns the key's name on the wire.
func (k OneTimeKey) Name() string { return k.Algorithm + ":" + k.ID }

// hash names a key for the ring of those given out.
func (k OneTimeKey) hash() uint64 {
	sum := sha256.Sum256(append(appendPart(nil, k.ID), canonicalJSON(k.JSON)...))
	return u64(sum[:8])
}

// MaxOneTimeKeys bounds the one-time keys of a device. Clients keep 50 to 100
// of them here.
const MaxOneTimeKeys = 1000

// maxGivenKeys is how many of the keys given out last are remembered: who
// uploads one of them again, as the answer to the first upload was lost, does
// not bring it back.
const maxGivenKeys = 256

// AddOneTimeKeys stores one-time keys behind those that are there. A key that
// is there already, or was given out lately, is passed over. The error wraps
// ErrExists, and nothing should be kept, where a key of that name has another
// content, and ErrFull where the device would have more than MaxOneTimeKeys.
func (tx *Tx) AddOneTimeKeys(user UserNum, device matrix.DeviceID, keys []OneTimeKey) error {
	if _, err := tx.Device(user, device); err != nil {
		return err
	}
	counts, err := tx.OneTimeKeyCounts(user, device)
	if err != nil {
		return err
	}
	held := 0
	for _, n := range counts {
		held += n
	}
	for _, key := range keys {
		added, err := tx.addOneTimeKey(user, device, key)
		if err != nil {
			return fmt.Errorf("one-time key %s of device %s of user %d: %w", key.Name(), device, user, err)
		}
		if added {
			held++
		}
	}
	if held > MaxOneTimeKeys {
		return fmt.Errorf("%d one-time keys of device %s of user %d: %w", held, device, user, ErrFull)
	}
	return nil
}

func (tx *Tx) addOneTimeKey(user UserNum, device matrix.DeviceID, key OneTimeKey) (added bool, err error) {
	if ringHolds(tx.get(bucketUser, givenKeysKey(user, device, key.Algorithm)), key.hash()) {
		return false, nil
	}
	idKey := append(oneTimePrefix(user, userOneTimeKeyID, device, key.Algorithm), key.ID...)
	prefix := oneTimePrefix(user, userOneTimeKey, device, key.Algorithm)
	if order := tx.get(bucketUser, idKey); order != nil {
		old, err := readOneTimeKey(key.Algorithm, tx.get(bucketUser, append(prefix, order...)))
		if err == nil && !sameJSON(old.JSON, key.JSON) {
			err = ErrExists
		}
		return false, err
	}
	order := make([]byte, 8)
	err = tx.scanBack(bucketUser, prefix, nil, func(rest, _ []byte) (bool, error) {
		if len(rest) != 8 {
			return false, ErrDamaged
		}
		order = appendU64(nil, u64(rest)+1)
		return false, nil
	})
	if err != nil {
		return false, err
	}
	return true, errors.Join(
		tx.put(bucketUser, append(bytes.Clone(prefix), order...), append(appendPart(nil, key.ID), key.JSON...)),
		tx.put(bucketUser, idKey, order),
	)
}

// OneTimeKeyCounts returns how many one-time keys of each algorithm a device
// has left. Algorithms without any are not in it.
func (tx *Tx) OneTimeKeyCounts(user UserNum, device matrix.DeviceID) (map[string]int, error) {
	counts := make(map[string]int, 1)
	prefix := appendPart(keyOf(uint32(user), userOneTimeKeyID), string(device))
	err := tx.scan(bucketUser, prefix, nil, func(rest, _ []byte) (bool, error) {
		algorithm, _, ok := bytes.Cut(rest, []byte{0})
		if !ok {
			return false, fmt.Errorf("one-time keys of device %s of user %d: %w", device, user, ErrDamaged)
		}
		counts[string(algorithm)]++
		return true, nil
	})
	return counts, err
}

// ClaimOneTimeKey takes the oldest one-time key of an algorithm from a device,
// for somebody to whom alone it is given; where none is left, it returns the
// fallback key, which stays and counts as used. The error wraps ErrNotFound
// where there is neither.
func (tx *Tx) ClaimOneTimeKey(user UserNum, device matrix.DeviceID, algorithm string) (OneTimeKey, error) {
	prefix := oneTimePrefix(user, userOneTimeKey, device, algorithm)
	var at, value []byte
	err := tx.scan(bucketUser, prefix, nil, func(rest, v []byte) (bool, error) {
		at, value = append(bytes.Clone(prefix), rest...), bytes.Clone(v)
		return false, nil
	})
	if err != nil {
		return OneTimeKey{}, err
	}
	if at == nil {
		return tx.useFallbackKey(user, device, algorithm)
	}
	key, err := readOneTimeKey(algorithm, value)
	if err != nil {
		return OneTimeKey{}, fmt.Errorf("one-time key of device %s of user %d: %w", device, user, err)
	}
	given := givenKeysKey(user, device, algorithm)
	tx.Touch(user)
	return key, errors.Join(
		tx.delete(bucketUser, at),
		tx.delete(bucketUser, append(oneTimePrefix(user, userOneTimeKeyID, device, algorithm), key.ID...)),
		tx.put(bucketUser, given, ringAppend(tx.get(bucketUser, given), key.hash(), maxGivenKeys)),
	)
}

// PutFallbackKey sets a device's fallback key of an algorithm, which then is
// unused. The key that is there already stays as it is, used or not.
func (tx *Tx) PutFallbackKey(user UserNum, device matrix.DeviceID, key OneTimeKey) error {
	if _, err := tx.Device(user, device); err != nil {
		return err
	}
	at := fallbackKey(user, device, key.Algorithm)
	if v := tx.get(bucketUser, at); v != nil {
		old, _, err := readFallbackKey(key.Algorithm, v)
		if err == nil && old.ID == key.ID && sameJSON(old.JSON, key.JSON) {
			return nil
		}
	}
	return tx.putFallbackKey(at, key, false)
}

// UnusedFallbackKeys returns the algorithms for which a device has a fallback
// key that nobody was given yet, in order; never nil.
func (tx *Tx) UnusedFallbackKeys(user UserNum, device matrix.DeviceID) ([]string, error) {
	algorithms := []string{}
	prefix := fallbackKey(user, device, "")
	err := tx.scan(bucketUser, prefix, nil, func(algorithm, v []byte) (bool, error) {
		_, used, err := readFallbackKey(string(algorithm), v)
		if err == nil && !used {
			algorithms = append(algorithms, string(algorithm))
		}
		return true, err
	})
	return algorithms, err
}

// useFallbackKey returns a device's fallback key and notes that it is used.
func (tx *Tx) useFallbackKey(user UserNum, device matrix.DeviceID, algorithm string) (OneTimeKey, error) {
	at := fallbackKey(user, device, algorithm)
	v := tx.get(bucketUser, at)
	if v == nil {
		return OneTimeKey{}, fmt.Errorf("%s key of device %s of user %d: %w", algorithm, device, user, ErrNotFound)
	}
	key, used, err := readFallbackKey(algorithm, v)
	if err != nil || used {
		return key, err
	}
	tx.Touch(user)
	return key, tx.putFallbackKey(at, key, true)
}

func (tx *Tx) putFallbackKey(at []byte, key OneTimeKey, used bool) error {
	v := []byte{byte(bit(1, used))}
	return tx.put(bucketUser, at, append(appendString(v, key.ID), key.JSON...))
}

func readFallbackKey(algorithm string, v []byte) (key OneTimeKey, used bool, err error) {
	r := reader{b: v}
	used = r.byte() != 0
	key = OneTimeKey{Algorithm: algorithm, ID: r.string(), JSON: bytes.Clone(r.b)}
	if r.err != nil {
		return OneTimeKey{}, false, fmt.Errorf("fallback key: %w", r.err)
	}
	return key, used, nil
}

func readOneTimeKey(algorithm string, v []byte) (OneTimeKey, error) {
	id, key, ok := bytes.Cut(v, []byte{0})
	if !ok {
		return OneTimeKey{}, fmt.Errorf("one-time key: %w", ErrDamaged)
	}
	return OneTimeKey{Algorithm: algorithm, ID: string(id), JSON: bytes.Clone(key)}, nil
}

func oneTimePrefix(user UserNum, kind byte, device matrix.DeviceID, algorithm string) []byte {
	return appendPart(appendPart(keyOf(uint32(user), kind), string(device)), algorithm)
}

func givenKeysKey(user UserNum, device matrix.DeviceID, algorithm string) []byte {
	return append(appendPart(keyOf(uint32(user), userGivenKeys), string(device)), algorithm...)
}

func fallbackKey(user UserNum, device matrix.DeviceID, algorithm string) []byte {
	return append(appendPart(keyOf(uint32(user), userFallbackKey), string(device)), algorithm...)
}

// checkOneTimeKeys holds one-time keys to their index, and all keys of devices
// to devices that are there.
func checkOneTimeKeys(c *checker) error {
	keys, ids := 0, 0
	check := func(kind byte, fn func(user uint32, device matrix.DeviceID, rest string, v []byte)) error {
		return c.eachOf(bucketUser, kind, func(user uint32, key, v []byte) {
			device, rest, ok := cutPart(key)
			if !ok || !c.hasDevice(user, device) {
				c.faultf("user %d: key %q of kind %q belongs to no device", user, key, kind)
				return
			}
			fn(user, matrix.DeviceID(device), rest, v)
		})
	}
	err := errors.Join(
		check(userOneTimeKey, func(user uint32, device matrix.DeviceID, rest string, v []byte) {
			keys++
			algorithm, order, ok := cutPart([]byte(rest))
			key, err := readOneTimeKey(algorithm, v)
			if !ok || err != nil || !key.JSON.IsValid() {
				c.faultf("user %d: one-time key %q of device %s cannot be read", user, rest, device)
				return
			}
			id := append(oneTimePrefix(UserNum(user), userOneTimeKeyID, device, algorithm), key.ID...)
			if got := c.get(bucketUser, id); string(got) != order {
				c.faultf("user %d: one-time key %s of device %s stands at %x, its ID at %x", user, key.Name(), device, order, got)
			}
		}),
		check(userOneTimeKeyID, func(uint32, matrix.DeviceID, string, []byte) { ids++ }),
		check(userGivenKeys, func(user uint32, device matrix.DeviceID, rest string, v []byte) {
			if len(v)%ringHashSize != 0 || len(v) > maxGivenKeys*ringHashSize {
				c.faultf("user %d: ring of given %s keys of device %s has %d bytes", user, rest, device, len(v))
			}
		}),
		check(userFallbackKey, func(user uint32, device matrix.DeviceID, rest string, v []byte) {
			if key, _, err := readFallbackKey(rest, v); err != nil || !key.JSON.IsValid() {
				c.faultf("user %d: fallback key %s of device %s cannot be read", user, rest, device)
			}
		}),
	)
	if keys != ids {
		c.faultf("%d one-time keys, %d in the index of their IDs", keys, ids)
	}
	return err
}
