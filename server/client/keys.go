package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/server/e2ee"
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
	Timeout    float64                             `json:"timeout"` // milliseconds
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

// How long other servers may take to answer a request about keys.
const (
	keysTimeout    = 10 * time.Second // where the client does not say
	maxKeysTimeout = 20 * time.Second
)

// withKeysTimeout returns a context that ends when a client wants its answer, in
// milliseconds from now.
func withKeysTimeout(ctx context.Context, wanted float64) (context.Context, context.CancelFunc) {
	timeout := keysTimeout
	if wanted > 0 {
		timeout = time.Duration(min(wanted, float64(maxKeysTimeout.Milliseconds())) * float64(time.Millisecond))
	}
	return context.WithTimeout(ctx, timeout)
}

// isLocal says whether a user of a request about keys is one of this server's. Where
// there are no other servers, the server of any other is noted as a failure.
func (s *Server) isLocal(user matrix.UserID, failures map[matrix.ServerName]failure) (bool, error) {
	if _, err := matrix.ParseUserID(string(user)); err != nil {
		return false, api.ErrInvalidParam.Because("%v", err)
	}
	server := user.Server()
	if server == s.store.Server() {
		return true, nil
	}
	if s.devices == nil {
		failures[server] = failed(errUnreachable)
	}
	return false, nil
}

// noteFailures notes why other servers gave no keys.
func noteFailures(to map[matrix.ServerName]failure, failures map[matrix.ServerName]error) {
	for server, err := range failures {
		var told *api.Error
		if !errors.As(remoteError(err), &told) {
			told = errUnreachable
		}
		to[server] = failed(told)
	}
}

// queryKeys answers POST /keys/query. Users and devices that are not there are
// left out, servers that do not answer in time are failures.
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
	remotes := make(map[matrix.UserID][]matrix.DeviceID)
	err := s.store.View(func(tx *store.Tx) error {
		view := e2ee.View{Tx: tx, Viewer: who.num}
		for user, devices := range req.DeviceKeys {
			local, err := s.isLocal(user, answer.Failures)
			if err != nil {
				return err
			}
			num := tx.UserNum(user)
			if !local {
				remotes[user] = devices
			}
			if !local || !tx.IsLocal(num) {
				continue
			}
			keys, err := view.User(num, devices)
			if err != nil {
				return fmt.Errorf("keys of %s: %w", user, err)
			}
			answer.add(user, keys)
		}
		return nil
	})
	if err == nil && s.devices != nil && len(remotes) > 0 {
		err = s.queryRemoteKeys(r.Context(), who, req, remotes, &answer)
	}
	if err != nil {
		return err
	}
	return api.WriteJSON(w, answer)
}

// queryRemoteKeys puts the keys of other servers' users into the answer, with what
// the user has signed about them.
func (s *Server) queryRemoteKeys(ctx context.Context, who session, req queryKeysRequest, users map[matrix.UserID][]matrix.DeviceID, answer *queryKeysResponse) error {
	wait, cancel := withKeysTimeout(ctx, req.Timeout)
	defer cancel()
	found, err := s.devices.Query(wait, users)
	if err != nil {
		return err
	}
	noteFailures(answer.Failures, found.Failed)
	return s.store.View(func(tx *store.Tx) (err error) {
		view := e2ee.View{Tx: tx, Viewer: who.num}
		for user, keys := range found.Users {
			if keys.Master != nil {
				if keys.Master, err = view.Sign(keys.Master, tx.UserNum(user)); err != nil {
					return fmt.Errorf("signatures about the key of %s: %w", user, err)
				}
			}
			answer.add(user, keys)
		}
		return nil
	})
}

// add puts the keys of a user into the answer.
func (a *queryKeysResponse) add(user matrix.UserID, keys e2ee.Keys) {
	a.DeviceKeys[user] = keys.Devices
	for _, kind := range []struct {
		key jsontext.Value
		to  map[matrix.UserID]jsontext.Value
	}{{keys.Master, a.Master}, {keys.SelfSigning, a.SelfSigning}, {keys.UserSigning, a.UserSigning}} {
		if kind.key != nil {
			kind.to[user] = kind.key
		}
	}
}

// claimKeysRequest asks for one key of each of these devices.
type claimKeysRequest struct {
	OneTimeKeys e2ee.Claims `json:"one_time_keys"`
	Timeout     float64     `json:"timeout"` // milliseconds
}

type claimKeysResponse struct {
	Failures    map[matrix.ServerName]failure `json:"failures"`
	OneTimeKeys e2ee.Claimed                  `json:"one_time_keys"`
}

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
	answer := claimKeysResponse{Failures: make(map[matrix.ServerName]failure)}
	locals, remotes := make(e2ee.Claims), make(e2ee.Claims)
	for user, devices := range req.OneTimeKeys {
		local, err := s.isLocal(user, answer.Failures)
		if err != nil {
			return err
		}
		if local {
			locals[user] = devices
		} else {
			remotes[user] = devices
		}
	}
	claimed, err := e2ee.Claim(r.Context(), s.store, locals)
	if err != nil {
		return err
	}
	answer.OneTimeKeys = claimed
	if s.devices != nil && len(remotes) > 0 {
		wait, cancel := withKeysTimeout(r.Context(), req.Timeout)
		defer cancel()
		theirs, failures := s.devices.Claim(wait, remotes)
		maps.Copy(answer.OneTimeKeys, theirs)
		noteFailures(answer.Failures, failures)
	}
	return api.WriteJSON(w, answer)
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

// unlessNotFound returns an error unless it says that something is not there.
func unlessNotFound(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
