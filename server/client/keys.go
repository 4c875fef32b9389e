package client

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of requests about keys, in bytes.
const (
	maxKeysBytes    = 512 << 10 // an upload: device keys and one-time keys
	maxKeyListBytes = 1 << 20   // whose keys are asked for: members of large rooms
)

type uploadKeysRequest struct {
	DeviceKeys   jsontext.Value `json:"device_keys"`
	OneTimeKeys  oneTimeKeys    `json:"one_time_keys"`
	FallbackKeys oneTimeKeys    `json:"fallback_keys"`
}

type uploadKeysResponse struct {
	Counts map[string]int `json:"one_time_key_counts"`
}

// uploadKeys answers POST /keys/upload. Whatever is wrong with one of the keys,
// none is stored.
//
// Spec: CS Uploading keys.
func (s *Server) uploadKeys(w http.ResponseWriter, r *http.Request, who session) error {
	if err := s.limits.Take(api.LimitKeys, string(who.user)); err != nil {
		return err
	}
	var req uploadKeysRequest
	if err := api.ReadJSON(r, maxKeysBytes, &req); err != nil {
		return err
	}
	upload, err := req.check(who)
	if err != nil {
		return err
	}
	var answer uploadKeysResponse
	err = s.store.Update(r.Context(), func(tx *store.Tx) (err error) {
		if err := upload.put(tx, who); err != nil {
			return err
		}
		answer.Counts, err = keyCounts(tx, who)
		return err
	})
	switch {
	case errors.Is(err, store.ErrExists):
		return api.ErrInvalidParam.Because("one_time_keys: there is another key of one of these names already")
	case errors.Is(err, store.ErrFull):
		return api.ErrUserLimit.Because("A device may have %d one-time keys at most", store.MaxOneTimeKeys)
	case err != nil:
		return fmt.Errorf("upload keys of %s of %s: %w", who.device, who.user, err)
	}
	return api.WriteJSON(w, answer)
}

// keyUpload is a checked uploadKeysRequest.
type keyUpload struct {
	device   jsontext.Value // nil: none
	oneTime  []store.OneTimeKey
	fallback []store.OneTimeKey
}

func (u keyUpload) put(tx *store.Tx, who session) error {
	if u.device != nil {
		if err := tx.PutDeviceKeys(who.num, who.device, u.device); err != nil {
			return err
		}
	}
	if len(u.oneTime) > 0 {
		if err := tx.AddOneTimeKeys(who.num, who.device, u.oneTime); err != nil {
			return err
		}
	}
	for _, key := range u.fallback {
		if err := tx.PutFallbackKey(who.num, who.device, key); err != nil {
			return err
		}
	}
	return nil
}

// queryKeysRequest asks for the keys of users' devices; an empty list stands for
// all devices of the user.
type queryKeysRequest struct {
	DeviceKeys map[matrix.UserID][]matrix.DeviceID `json:"device_keys"`
}

type queryKeysResponse struct {
	Failures    map[matrix.ServerName]failure                        `json:"failures"`
	DeviceKeys  map[matrix.UserID]map[matrix.DeviceID]jsontext.Value `json:"device_keys"`
	Master      map[matrix.UserID]jsontext.Value                     `json:"master_keys"`
	SelfSigning map[matrix.UserID]jsontext.Value                     `json:"self_signing_keys"`
	UserSigning map[matrix.UserID]jsontext.Value                     `json:"user_signing_keys"`
}

// failure says why there is no answer of a server, or for a key.
type failure struct {
	Code string `json:"errcode"`
	Text string `json:"error"`
}

// failed returns what an error of package api says.
func failed(err *api.Error) failure { return failure{err.Code, err.Text} }

// errUnreachable is the failure of a server that cannot be asked for keys.
var errUnreachable = api.ErrUnknown.Because("The server cannot be reached")

// isLocal says whether a user of a request about keys is one of this server's; the
// server of any other is noted as a failure.
func (s *Server) isLocal(user matrix.UserID, failures map[matrix.ServerName]failure) (bool, error) {
	if _, err := matrix.ParseUserID(string(user)); err != nil {
		return false, api.ErrInvalidParam.Because("%v", err)
	}
	if server := user.Server(); server != s.store.Server() {
		failures[server] = failed(errUnreachable)
		return false, nil
	}
	return true, nil
}

// queryKeys answers POST /keys/query. Users and devices that are not there are
// left out, servers that cannot be asked are failures.
//
// Spec: CS Tracking the device list for a user.
func (s *Server) queryKeys(w http.ResponseWriter, r *http.Request, who session) error {
	if err := s.limits.Take(api.LimitKeys, string(who.user)); err != nil {
		return err
	}
	var req queryKeysRequest
	if err := api.ReadJSON(r, maxKeyListBytes, &req); err != nil {
		return err
	}
	if req.DeviceKeys == nil {
		return api.MissingParam("device_keys")
	}
	answer := queryKeysResponse{
		Failures:   make(map[matrix.ServerName]failure),
		DeviceKeys: make(map[matrix.UserID]map[matrix.DeviceID]jsontext.Value),
		Master:     make(map[matrix.UserID]jsontext.Value), SelfSigning: make(map[matrix.UserID]jsontext.Value),
		UserSigning: make(map[matrix.UserID]jsontext.Value),
	}
	err := s.store.View(func(tx *store.Tx) error {
		for user, devices := range req.DeviceKeys {
			local, err := s.isLocal(user, answer.Failures)
			if err != nil {
				return err
			}
			if !local {
				continue
			}
			if err := answer.add(keyView{tx, who}, user, devices); err != nil {
				return fmt.Errorf("keys of %s: %w", user, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, answer)
}

// add puts the keys of a local user into the answer, as far as the view goes.
func (a *queryKeysResponse) add(view keyView, user matrix.UserID, devices []matrix.DeviceID) error {
	num := view.tx.UserNum(user)
	if !view.tx.IsLocal(num) {
		return nil
	}
	var err error
	if a.DeviceKeys[user], err = view.devices(num, devices); err != nil {
		return err
	}
	for _, kind := range []struct {
		usage store.Usage
		to    map[matrix.UserID]jsontext.Value
	}{
		{store.UsageMaster, a.Master},
		{store.UsageSelfSigning, a.SelfSigning},
		{store.UsageUserSigning, a.UserSigning},
	} {
		key, err := view.crossSigning(num, kind.usage)
		if err != nil {
			return err
		}
		if key != nil {
			kind.to[user] = key
		}
	}
	return nil
}

// claimKeysRequest asks for one key of each of these devices.
type claimKeysRequest struct {
	OneTimeKeys map[matrix.UserID]map[matrix.DeviceID]string `json:"one_time_keys"`
}

type claimKeysResponse struct {
	Failures    map[matrix.ServerName]failure `json:"failures"`
	OneTimeKeys claimedKeys                   `json:"one_time_keys"`
}

// claimedKeys are keys by user, device and name.
type claimedKeys map[matrix.UserID]map[matrix.DeviceID]map[string]jsontext.Value

// keyClaim is a key that is asked for.
type keyClaim struct {
	user      matrix.UserID
	device    matrix.DeviceID
	algorithm string
}

// maxClaims is how many keys are claimed in one write.
const maxClaims = 100

// claimKeys answers POST /keys/claim. Each key is given out once; a claim whose
// answer is lost has used its keys up.
//
// Spec: CS One-time and fallback keys.
func (s *Server) claimKeys(w http.ResponseWriter, r *http.Request, who session) error {
	if err := s.limits.Take(api.LimitKeys, string(who.user)); err != nil {
		return err
	}
	var req claimKeysRequest
	if err := api.ReadJSON(r, maxKeyListBytes, &req); err != nil {
		return err
	}
	if req.OneTimeKeys == nil {
		return api.MissingParam("one_time_keys")
	}
	answer := claimKeysResponse{Failures: make(map[matrix.ServerName]failure), OneTimeKeys: make(claimedKeys)}
	var claims []keyClaim
	for user, devices := range req.OneTimeKeys {
		local, err := s.isLocal(user, answer.Failures)
		if err != nil {
			return err
		}
		if !local {
			continue
		}
		for device, algorithm := range devices {
			claims = append(claims, keyClaim{user, device, algorithm})
		}
	}
	claims, err := s.claimable(claims)
	if err != nil {
		return err
	}
	for len(claims) > 0 {
		part := claims[:min(len(claims), maxClaims)]
		claims = claims[len(part):]
		keys, err := s.claim(r, part)
		if err != nil {
			return err
		}
		for i, key := range keys {
			if key.JSON != nil {
				answer.OneTimeKeys.add(part[i], key)
			}
		}
	}
	return api.WriteJSON(w, answer)
}

// claimable returns the claims on devices that there are, so that nobody makes the
// server write for others.
func (s *Server) claimable(claims []keyClaim) (some []keyClaim, err error) {
	err = s.store.View(func(tx *store.Tx) error {
		for _, c := range claims {
			_, err := tx.Device(tx.UserNum(c.user), c.device)
			if unlessNotFound(err) != nil {
				return fmt.Errorf("device %s of %s: %w", c.device, c.user, err)
			}
			if err == nil {
				some = append(some, c)
			}
		}
		return nil
	})
	return some, err
}

// claim takes keys in one write. Where there is none, the key has no JSON.
func (s *Server) claim(r *http.Request, claims []keyClaim) (keys []store.OneTimeKey, err error) {
	err = s.store.Update(r.Context(), func(tx *store.Tx) error {
		keys = make([]store.OneTimeKey, len(claims))
		for i, c := range claims {
			user := tx.UserNum(c.user)
			if _, err := tx.Device(user, c.device); errors.Is(err, store.ErrNotFound) || strings.IndexByte(c.algorithm, 0) >= 0 {
				continue
			}
			key, err := tx.ClaimOneTimeKey(user, c.device, c.algorithm)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return fmt.Errorf("claim a key of %s of %s: %w", c.device, c.user, err)
			}
			keys[i] = key
		}
		return nil
	})
	return keys, err
}

func (all claimedKeys) add(c keyClaim, key store.OneTimeKey) {
	if all[c.user] == nil {
		all[c.user] = make(map[matrix.DeviceID]map[string]jsontext.Value)
	}
	all[c.user][c.device] = map[string]jsontext.Value{key.Name(): key.JSON}
}

type keysChangesResponse struct {
	Changed []matrix.UserID `json:"changed"`
	Left    []matrix.UserID `json:"left"`
}

// getKeysChanges answers GET /keys/changes: what device_lists of a sync from one
// token to the other said. The list always reaches up to now, as only the newest
// change of each user is known.
func (s *Server) getKeysChanges(w http.ResponseWriter, r *http.Request, who session) error {
	if err := s.limits.Take(api.LimitKeys, string(who.user)); err != nil {
		return err
	}
	var from streamToken
	for name, token := range map[string]*streamToken{"from": &from, "to": new(streamToken)} {
		text := r.URL.Query().Get(name)
		if text == "" {
			return api.MissingParam(name)
		}
		var err error
		if *token, err = parseToken(name, text); err != nil {
			return err
		}
	}
	var lists deviceLists
	err := s.store.View(func(tx *store.Tx) (err error) {
		lists, err = findDeviceLists(tx, who, from.pos)
		return err
	})
	if err != nil {
		return fmt.Errorf("changed device lists of %s: %w", who.user, err)
	}
	return api.WriteJSON(w, keysChangesResponse{Changed: lists.Changed, Left: lists.Left})
}
