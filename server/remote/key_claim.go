package remote

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/errgroup"

	"hearth/server/e2ee"
	"hearth/state/matrix"
)

// claimRequest is the request of POST /user/keys/claim.
type claimRequest struct {
	OneTimeKeys e2ee.Claims `json:"one_time_keys"`
}

// claimAnswer is the answer of it.
type claimAnswer struct {
	OneTimeKeys fewNamed[matrix.UserID, jsontext.Value] `json:"one_time_keys"` // by device, then by name
}

// Claim takes one-time keys of devices of other servers' users from their servers,
// until ctx ends. It returns one key at most for each device, which has the form of a
// key of the algorithm that was asked for, and why which server failed.
//
// Spec: SS End-to-End Encryption, POST /user/keys/claim.
func (l *DeviceLists) Claim(ctx context.Context, claims e2ee.Claims) (e2ee.Claimed, map[matrix.ServerName]error) {
	byServer := make(map[matrix.ServerName]e2ee.Claims)
	for user, devices := range claims {
		if byServer[user.Server()] == nil {
			byServer[user.Server()] = make(e2ee.Claims)
		}
		byServer[user.Server()][user] = devices
	}
	var mu sync.Mutex // guards the next two
	claimed, failed := make(e2ee.Claimed), make(map[matrix.ServerName]error)
	var group errgroup.Group
	group.SetLimit(maxAsking)
	for server, wanted := range byServer {
		group.Go(func() error {
			answer, err := l.claimOf(ctx, server, wanted)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed[server] = err
				return nil
			}
			for user, devices := range wanted {
				for device, algorithm := range devices {
					takeKey(claimed, user, device, algorithm, answer[user][device])
				}
			}
			return nil
		})
	}
	_ = group.Wait() // none returns an error
	return claimed, failed
}

// claimOf takes keys from one server.
func (l *DeviceLists) claimOf(ctx context.Context, server matrix.ServerName, wanted e2ee.Claims) (map[matrix.UserID]map[matrix.DeviceID]fewNamed[string, jsontext.Value], error) {
	if err := l.asking.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("claim keys of users of %s: %w: %w", server, ErrUnreachable, err)
	}
	defer l.asking.Release(1)
	q := Request{Method: http.MethodPost, Path: "/_matrix/federation/v1/user/keys/claim", Body: claimRequest{wanted}, MaxBytes: maxKeysAnswer}
	var answer claimAnswer
	if err := l.config.Ask(ctx, server, q, &answer); err != nil {
		return nil, err
	}
	keys := make(map[matrix.UserID]map[matrix.DeviceID]fewNamed[string, jsontext.Value])
	for user, devices := range wanted {
		ofUser, err := fewMembers[matrix.DeviceID](answer.OneTimeKeys[user])
		keys[user] = make(map[matrix.DeviceID]fewNamed[string, jsontext.Value])
		for device := range devices {
			if err == nil {
				keys[user][device], err = fewMembers[string](ofUser[device])
			}
		}
		if err != nil {
			return nil, fmt.Errorf("keys of %s: %w: %w", user, ErrUnreachable, err)
		}
	}
	return keys, nil
}

// takeKey adds a key of a device that is as it was asked for.
func takeKey(c e2ee.Claimed, user matrix.UserID, device matrix.DeviceID, algorithm string, keys map[string]jsontext.Value) {
	for name, object := range keys {
		if strings.HasPrefix(name, algorithm+":") && len(name) <= e2ee.MaxKeyName && len(object) <= e2ee.MaxOneTimeKey && object.IsValid() && e2ee.IsKey(object) {
			c.Put(user, device, name, object)
			return
		}
	}
}
