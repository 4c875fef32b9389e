package client

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/server/e2ee"
	"hearth/store"
)

// oneTimeKeys are keys by name; each is a string or an object.
type oneTimeKeys map[string]jsontext.Value

// check holds the keys that a device uploads to their form.
func (req uploadKeysRequest) check(who session) (u keyUpload, err error) {
	if given(req.DeviceKeys) {
		if err := checkDeviceKeys(req.DeviceKeys, who); err != nil {
			return u, err
		}
		u.device = req.DeviceKeys
	}
	if u.oneTime, err = req.OneTimeKeys.check("one_time_keys"); err != nil {
		return u, err
	}
	if u.fallback, err = req.FallbackKeys.check("fallback_keys"); err != nil {
		return u, err
	}
	// "There can only be at most one key per algorithm uploaded"
	for i, key := range u.fallback {
		if i > 0 && key.Algorithm == u.fallback[i-1].Algorithm {
			return u, api.ErrInvalidParam.Because("fallback_keys: there are two keys for %s", key.Algorithm)
		}
	}
	return u, nil
}

// given says whether a member of an object is there; null is as good as absent.
func given(v jsontext.Value) bool { return len(v) > 0 && v.Kind() != 'n' }

// checkDeviceKeys holds identity keys to their form and to the device that
// uploads them.
func checkDeviceKeys(object jsontext.Value, who session) error {
	if len(object) > e2ee.MaxDeviceKeys {
		return api.ErrTooLarge.Because("device_keys may have %d bytes at most", e2ee.MaxDeviceKeys)
	}
	var keys e2ee.DeviceKeys
	if object.Kind() != '{' || json.Unmarshal(object, &keys) != nil {
		return api.ErrBadJSON.Because("device_keys does not have the form that is expected here")
	}
	switch {
	case keys.UserID != who.user:
		return api.ErrInvalidParam.Because("device_keys: user_id is not yours")
	case keys.DeviceID != who.device:
		return api.ErrInvalidParam.Because("device_keys: device_id is not that of this device")
	case keys.Algorithms == nil || keys.Keys == nil:
		return api.ErrBadJSON.Because("device_keys needs algorithms and keys")
	}
	for name := range keys.Keys {
		if _, _, err := cutKeyName(name); err != nil {
			return api.InvalidParam("device_keys", err)
		}
	}
	return nil
}

// check holds one-time or fallback keys to their form; field is where they stand.
// It returns them by name.
func (keys oneTimeKeys) check(field string) ([]store.OneTimeKey, error) {
	var checked []store.OneTimeKey
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		algorithm, id, err := cutKeyName(name)
		if err != nil {
			return nil, api.InvalidParam(field, err)
		}
		key := keys[name]
		if len(key) > e2ee.MaxOneTimeKey {
			return nil, api.ErrInvalidParam.Because("%s: a key may have %d bytes at most", field, e2ee.MaxOneTimeKey)
		}
		if !e2ee.IsKey(key) {
			return nil, api.ErrBadJSON.Because("%s: a key must be a string, or an object with a key", field)
		}
		checked = append(checked, store.OneTimeKey{Algorithm: algorithm, ID: id, JSON: key})
	}
	return checked, nil
}

// cutKeyName takes a key's name, "algorithm:id", apart.
func cutKeyName(name string) (algorithm, id string, err error) {
	algorithm, id, found := strings.Cut(name, ":")
	if !found || algorithm == "" || id == "" || len(name) > e2ee.MaxKeyName || strings.IndexByte(name, 0) >= 0 {
		return "", "", fmt.Errorf("a key's name must be an algorithm, a colon and an ID, in %d bytes at most", e2ee.MaxKeyName)
	}
	return algorithm, id, nil
}
