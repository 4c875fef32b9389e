package e2ee

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// Claims are the algorithms of the one-time keys that are asked for, by user and
// device.
type Claims map[matrix.UserID]map[matrix.DeviceID]string

// Claimed are one-time keys by user, device and name.
type Claimed map[matrix.UserID]map[matrix.DeviceID]map[string]jsontext.Value

// Put adds the key of a device.
func (c Claimed) Put(user matrix.UserID, device matrix.DeviceID, name string, key jsontext.Value) {
	if c[user] == nil {
		c[user] = make(map[matrix.DeviceID]map[string]jsontext.Value)
	}
	c[user][device] = map[string]jsontext.Value{name: key}
}

// maxClaims is how many keys are claimed in one write.
const maxClaims = 100

// claim is a key that is asked for.
type claim struct {
	user      matrix.UserID
	device    matrix.DeviceID
	algorithm string
}

// Claim takes one-time keys of local users' devices, for somebody to whom alone they
// are given. Where a device is not there, or has no key of the algorithm, nothing is
// claimed, and where there is none at all nothing is written.
//
// Spec: CS One-time and fallback keys.
func Claim(ctx context.Context, st *store.Store, wanted Claims) (Claimed, error) {
	claimed := make(Claimed)
	claims, err := claimable(st, wanted)
	for err == nil && len(claims) > 0 {
		part := claims[:min(len(claims), maxClaims)]
		claims = claims[len(part):]
		var keys []store.OneTimeKey
		keys, err = take(ctx, st, part)
		for i, key := range keys {
			if err == nil && key.JSON != nil {
				claimed.Put(part[i].user, part[i].device, key.Name(), key.JSON)
			}
		}
	}
	return claimed, err
}

// claimable returns the claims on devices that there are, so that nobody makes the
// server write for others.
func claimable(st *store.Store, wanted Claims) (some []claim, err error) {
	err = st.View(func(tx *store.Tx) error {
		for user, devices := range wanted {
			for device, algorithm := range devices {
				_, err := tx.Device(tx.UserNum(user), device)
				if unlessNotFound(err) != nil {
					return fmt.Errorf("device %s of %s: %w", device, user, err)
				}
				if err == nil {
					some = append(some, claim{user, device, algorithm})
				}
			}
		}
		return nil
	})
	return some, err
}

// take takes keys in one write. Where there is none, the key has no JSON.
func take(ctx context.Context, st *store.Store, claims []claim) (keys []store.OneTimeKey, err error) {
	err = st.Update(ctx, func(tx *store.Tx) error {
		keys = make([]store.OneTimeKey, len(claims))
		for i, c := range claims {
			user := tx.UserNum(c.user)
			if _, err := tx.Device(user, c.device); errors.Is(err, store.ErrNotFound) || strings.IndexByte(c.algorithm, 0) >= 0 {
				continue
			}
			key, err := tx.ClaimOneTimeKey(user, c.device, c.algorithm)
			if unlessNotFound(err) != nil {
				return fmt.Errorf("claim a key of %s of %s: %w", c.device, c.user, err)
			}
			keys[i] = key
		}
		return nil
	})
	return keys, err
}
