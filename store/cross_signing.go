package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// Usage is what a cross-signing key is for. Spec: CS Cross-signing.
type Usage string

// The usages of cross-signing keys.
const (
	UsageMaster      Usage = "master"
	UsageSelfSigning Usage = "self_signing" // signs the user's own devices
	UsageUserSigning Usage = "user_signing" // signs other users' master keys; its owner alone sees it
)

// Usages are all of them, the master first.
var Usages = []Usage{UsageMaster, UsageSelfSigning, UsageUserSigning}

// A CrossSigningKey is the public part of one of a user's cross-signing keys.
type CrossSigningKey struct {
	Public string         // unpadded base64, as its name has it
	JSON   jsontext.Value // as it was uploaded
}

// CrossSigningKey returns a user's key for a usage, or ErrNotFound.
func (tx *Tx) CrossSigningKey(user UserNum, usage Usage) (CrossSigningKey, error) {
	v := tx.get(bucketUser, crossSigningKey(user, usage))
	if v == nil {
		return CrossSigningKey{}, fmt.Errorf("%s key of user %d: %w", usage, user, ErrNotFound)
	}
	return readCrossSigning(usage, v)
}

// IsCrossSigningKey says whether one of a user's cross-signing keys has that
// public key. A device may not be called like it, as both share one namespace.
func (tx *Tx) IsCrossSigningKey(user UserNum, public string) (bool, error) {
	for _, usage := range Usages {
		key, err := tx.CrossSigningKey(user, usage)
		if ignoreNotFound(err) != nil || err == nil && key.Public == public {
			return err == nil, ignoreNotFound(err)
		}
	}
	return false, nil
}

// PutCrossSigningKeys sets the cross-signing keys of a user that keys holds; the
// others stay. Signatures by and about a key that is replaced are forgotten, and
// the user's device list counts as changed. The error wraps ErrExists where a
// public key is the ID of one of the user's devices.
func (tx *Tx) PutCrossSigningKeys(user UserNum, keys map[Usage]CrossSigningKey) error {
	for _, usage := range Usages {
		key, given := keys[usage]
		if !given {
			continue
		}
		if _, err := tx.Device(user, matrix.DeviceID(key.Public)); !errors.Is(err, ErrNotFound) {
			return errors.Join(err, fmt.Errorf("%s key of user %d: a device is called like it: %w", usage, user, ErrExists))
		}
		old, err := tx.CrossSigningKey(user, usage)
		switch {
		case ignoreNotFound(err) != nil:
			return err
		case err == nil && old.Public != key.Public:
			if err := tx.deleteKeySignatures(user, old.Public); err != nil {
				return err
			}
		}
		v := append(appendString(nil, key.Public), key.JSON...)
		if err := tx.put(bucketUser, crossSigningKey(user, usage), v); err != nil {
			return fmt.Errorf("%s key of user %d: %w", usage, user, err)
		}
	}
	return tx.crossSigningChanged(user)
}

// A KeySignature is a signature that a user made with one of the own keys about
// a device or a cross-signing key.
type KeySignature struct {
	Target    UserNum
	Key       string // the signed key: a device ID or a public key
	KeyID     string // the signing key: "ed25519:" and a device ID or a public key
	Signature string // base64
}

// PutKeySignatures stores signatures that a local user made. Those about the
// user's own keys are news for all who share a room with the user, those about
// other users' keys for the user alone. Signatures that are there already
// change nothing.
func (tx *Tx) PutKeySignatures(signer UserNum, signatures []KeySignature) error {
	devices := make(map[matrix.DeviceID]bool) // of the signer, that were signed
	crossSigning := false                     // whether the signer's own master key was
	var others []UserNum
	for _, s := range signatures {
		key := append(signaturePrefix(signer, s.Target, s.Key), s.KeyID...)
		if string(tx.get(bucketUser, key)) == s.Signature {
			continue
		}
		if err := tx.put(bucketUser, key, []byte(s.Signature)); err != nil {
			return fmt.Errorf("signature of user %d: %w", signer, err)
		}
		switch _, err := tx.Device(signer, matrix.DeviceID(s.Key)); {
		case ignoreNotFound(err) != nil:
			return err
		case s.Target != signer:
			others = append(others, s.Target)
		case err == nil:
			devices[matrix.DeviceID(s.Key)] = true
		default:
			crossSigning = true
		}
	}
	for _, target := range others {
		if err := tx.signedNow(signer, target); err != nil {
			return err
		}
	}
	for _, device := range slices.Sorted(maps.Keys(devices)) {
		if err := tx.deviceChanged(signer, device); err != nil {
			return err
		}
	}
	if crossSigning {
		return tx.crossSigningChanged(signer)
	}
	return nil
}

// KeySignatures calls fn for each signature that signer made about one key of
// target, by signing key, until fn returns false or an error.
func (tx *Tx) KeySignatures(signer, target UserNum, key string, fn func(KeySignature) (bool, error)) error {
	return tx.scan(bucketUser, signaturePrefix(signer, target, key), nil, func(id, v []byte) (bool, error) {
		return fn(KeySignature{Target: target, Key: key, KeyID: string(id), Signature: string(v)})
	})
}

// SignedSince calls fn for each other user of whose keys signer has signed one
// behind a position, until fn returns false or an error.
func (tx *Tx) SignedSince(signer UserNum, after Position, fn func(UserNum) (bool, error)) error {
	prefix := keyOf(uint32(signer), userSignedAt)
	return tx.scan(bucketUser, prefix, signedAtKey(signer, after+1), func(_, v []byte) (bool, error) {
		if len(v) != 4 {
			return false, fmt.Errorf("signatures of user %d: %w", signer, ErrDamaged)
		}
		return fn(UserNum(u32(v)))
	})
}

// signedNow notes at the next position that signer has signed a key of another
// user. No entry of the stream says so, as it is nobody else's business.
func (tx *Tx) signedNow(signer, target UserNum) error {
	var old []byte
	prefix := keyOf(uint32(signer), userSignedAt)
	err := tx.scan(bucketUser, prefix, nil, func(pos, v []byte) (bool, error) {
		if len(v) == 4 && UserNum(u32(v)) == target {
			old = append(bytes.Clone(prefix), pos...)
		}
		return old == nil, nil
	})
	if err != nil {
		return err
	}
	if old != nil {
		if err := tx.delete(bucketUser, old); err != nil {
			return err
		}
	}
	pos, err := tx.nextPosition()
	if err != nil {
		return err
	}
	tx.Touch(signer)
	return tx.put(bucketUser, signedAtKey(signer, pos), appendU32(nil, uint32(target)))
}

// deleteDeviceSignatures removes the signatures that a user's own keys made
// about a device, and those that the device made.
func (tx *Tx) deleteDeviceSignatures(user UserNum, device matrix.DeviceID) error {
	return tx.deleteKeySignatures(user, string(device))
}

// deleteKeySignatures removes what a user's key has signed, and what the user's
// other keys have signed about it. What other users signed about it is never
// shown again.
func (tx *Tx) deleteKeySignatures(user UserNum, name string) error {
	var stale [][]byte
	prefix := keyOf(uint32(user), userSignature)
	err := tx.scan(bucketUser, prefix, nil, func(rest, _ []byte) (bool, error) {
		target, key, keyID, ok := cutSignature(rest)
		if !ok {
			return false, fmt.Errorf("signatures of user %d: %w", user, ErrDamaged)
		}
		if keyID == signingKeyPrefix+name || target == user && key == name {
			stale = append(stale, append(bytes.Clone(prefix), rest...))
		}
		return true, nil
	})
	for _, key := range stale {
		if err == nil {
			err = tx.delete(bucketUser, key)
		}
	}
	return err
}

// signingKeyPrefix begins the ID of each key that signs.
const signingKeyPrefix = "ed25519:"

func crossSigningKey(user UserNum, usage Usage) []byte {
	return append(keyOf(uint32(user), userCrossSigning), usage...)
}

func readCrossSigning(usage Usage, v []byte) (CrossSigningKey, error) {
	r := reader{b: v}
	key := CrossSigningKey{Public: r.string(), JSON: bytes.Clone(r.b)}
	if r.err != nil {
		return CrossSigningKey{}, fmt.Errorf("%s key: %w", usage, r.err)
	}
	return key, nil
}

func signaturePrefix(signer, target UserNum, key string) []byte {
	return appendPart(appendU32(keyOf(uint32(signer), userSignature), uint32(target)), key)
}

// cutSignature takes apart what is behind the kind in a signature's key.
func cutSignature(rest []byte) (target UserNum, key, keyID string, ok bool) {
	if len(rest) < 4 {
		return 0, "", "", false
	}
	key, keyID, ok = cutPart(rest[4:])
	return UserNum(u32(rest)), key, keyID, ok
}

func signedAtKey(signer UserNum, pos Position) []byte {
	return appendU64(keyOf(uint32(signer), userSignedAt), uint64(pos))
}

// checkCrossSigning holds cross-signing keys and signatures to their form.
func checkCrossSigning(c *checker) error {
	return errors.Join(
		c.eachOf(bucketUser, userCrossSigning, func(user uint32, usage, v []byte) {
			key, err := readCrossSigning(Usage(usage), v)
			if err != nil || key.Public == "" || !key.JSON.IsValid() {
				c.faultf("user %d: %s key cannot be read", user, usage)
			} else if c.hasDevice(user, key.Public) {
				c.faultf("user %d: %s key %s is the name of a device", user, usage, key.Public)
			}
		}),
		c.eachOf(bucketUser, userSignature, func(user uint32, rest, _ []byte) {
			target, key, keyID, ok := cutSignature(rest)
			if !ok || key == "" || keyID == "" || c.UserID(target) == "" {
				c.faultf("user %d: signature %x is about nothing", user, rest)
			}
		}),
		c.eachOf(bucketUser, userSignedAt, func(user uint32, pos, v []byte) {
			if len(pos) != 8 || len(v) != 4 || Position(u64(pos)) > c.Position() || c.UserID(UserNum(u32(v))) == "" {
				c.faultf("user %d: signature at %x about user %x", user, pos, v)
			}
		}),
	)
}
