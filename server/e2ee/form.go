package e2ee

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// SigningKeyPrefix begins the names of keys that sign.
const SigningKeyPrefix = "ed25519:"

// Bounds of one key, in bytes.
const (
	MaxDeviceKeys   = 32 << 10 // the identity keys of a device
	MaxCrossSigning = 32 << 10 // a cross-signing key
	MaxOneTimeKey   = 4 << 10  // a one-time or fallback key
	MaxKeyName      = 255      // algorithm and ID together
	MaxDeviceName   = 255      // what is kept of a name that another server sends
)

// DeviceKeys are the identity keys of a device. What else stands in them is kept.
//
// Spec: CS Device keys; definitions/device_keys.yaml.
type DeviceKeys struct {
	UserID     matrix.UserID     `json:"user_id"`
	DeviceID   matrix.DeviceID   `json:"device_id"`
	Algorithms []string          `json:"algorithms"`
	Keys       map[string]string `json:"keys"`
	Signatures Signatures        `json:"signatures"`
}

// CheckDeviceKeys says what is wrong with the keys that another server sends as
// those of a device. Their signatures are for clients to check.
func CheckDeviceKeys(object jsontext.Value, user matrix.UserID, device matrix.DeviceID) error {
	if len(object) > MaxDeviceKeys {
		return fmt.Errorf("device keys may have %d bytes at most", MaxDeviceKeys)
	}
	var keys DeviceKeys
	if object.Kind() != '{' || json.Unmarshal(object, &keys) != nil {
		return errors.New("they do not have the form of device keys")
	}
	if keys.UserID != user || keys.DeviceID != device {
		return errors.New("the keys are those of another device")
	}
	return nil
}

// CheckCrossSigning holds a cross-signing key to its form and returns its public
// part.
//
// Spec: definitions/cross_signing_key.yaml.
func CheckCrossSigning(object jsontext.Value, usage store.Usage, user matrix.UserID) (public string, err error) {
	var key struct {
		UserID     matrix.UserID     `json:"user_id"`
		Usage      []store.Usage     `json:"usage"`
		Keys       map[string]string `json:"keys"`
		Signatures Signatures        `json:"signatures"`
	}
	if len(object) > MaxCrossSigning {
		return "", fmt.Errorf("a cross-signing key may have %d bytes at most", MaxCrossSigning)
	}
	if object.Kind() != '{' || json.Unmarshal(object, &key) != nil {
		return "", errors.New("it does not have the form of a cross-signing key")
	}
	switch {
	case key.UserID != user:
		return "", errors.New("user_id is not yours")
	case !slices.Contains(key.Usage, usage):
		return "", fmt.Errorf("usage must have %s", usage)
	}
	return onlyKey(key.Keys)
}

// onlyKey returns the one key that a cross-signing key has.
func onlyKey(keys map[string]string) (public string, err error) {
	if len(keys) != 1 {
		return "", errors.New("keys must have exactly one key")
	}
	for name, value := range keys {
		if name != SigningKeyPrefix+value {
			return "", errors.New("the key's name must be ed25519: and the key")
		}
		if _, err := PublicKey(value); err != nil {
			return "", err
		}
		public = value
	}
	return public, nil
}

// PublicPart returns the public part of a cross-signing key.
func PublicPart(object jsontext.Value) (string, error) {
	var key struct {
		Keys map[string]string `json:"keys"`
	}
	if err := json.Unmarshal(object, &key); err != nil {
		return "", err
	}
	return onlyKey(key.Keys)
}

// PublicKey reads a public ed25519 key from unpadded base64.
func PublicKey(text string) (ed25519.PublicKey, error) {
	key, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, errors.New("the key is no ed25519 key in unpadded base64")
	}
	return key, nil
}

// Verify checks the signature that a user's key, of that name and that public part,
// has made about an object.
func Verify(object jsontext.Value, signer matrix.UserID, name, public string) error {
	key, err := PublicKey(public)
	if err != nil {
		return err
	}
	return matrix.VerifyJSON(object, string(signer), SigningKeyPrefix+name, key)
}

// IsKey says whether a value has the form of a one-time key: a string or a
// KeyObject.
//
// Spec: CS Key algorithms; definitions/one_time_keys.yaml.
func IsKey(v jsontext.Value) bool {
	if v.Kind() == '"' {
		return true
	}
	var key struct {
		Key        *string    `json:"key"`
		Signatures Signatures `json:"signatures"`
	}
	return v.Kind() == '{' && json.Unmarshal(v, &key) == nil && key.Key != nil
}
