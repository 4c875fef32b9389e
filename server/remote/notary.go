package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

const (
	// maxNotaryServers bounds the servers of one question to a notary.
	maxNotaryServers = 64
	// maxNotaryAnswer bounds a notary's answer, in bytes.
	maxNotaryAnswer = 2 << 20
	// queryTimeout bounds the time of one, who may ask others itself.
	queryTimeout = 20 * time.Second
)

// keyQuery is a question for keys, by server and key ID.
//
// Spec: SS Querying Keys Through Another Server, bulkPerspectivesKeyQuery.
type keyQuery struct {
	Servers map[matrix.ServerName]map[string]keyCriteria `json:"server_keys"`
}

type keyCriteria struct {
	ValidUntil int64 `json:"minimum_valid_until_ts,omitzero"`
}

// askNotaries asks the notaries for keys that the servers themselves do not give,
// one notary after the other, until none is missing. still says which are.
func (n *Network) askNotaries(ctx context.Context, missing []wanted, still func([]wanted) ([]wanted, error)) {
	for _, notary := range n.config.Notaries {
		query, _ := queryFor(missing, notary)
		if notary == n.server || len(query.Servers) == 0 {
			continue
		}
		if err := n.askNotary(ctx, notary, query); err != nil { // some of the keys may have come
			n.log.Debug("ask a notary for keys", "dest", notary, "err", err)
		}
		var err error
		if missing, err = still(missing); err != nil || len(missing) == 0 {
			return
		}
	}
}

// askNotary asks one notary and stores what it vouches for.
func (n *Network) askNotary(ctx context.Context, notary matrix.ServerName, query keyQuery) error {
	return n.queryKeys(ctx, notary, query, func(of matrix.ServerName, raw jsontext.Value) error {
		if err := n.VerifyJSON(ctx, notary, raw, n.now()); err != nil {
			return err
		}
		answer, keys, err := parseServerKeys(of, raw, n.now())
		if err != nil {
			return err
		}
		return n.putKeys(ctx, of, answer, keys, false)
	})
}

// queryFor returns a question to a notary for as many keys as one may be about, and the
// keys that are left. Its own keys a notary is not asked for.
func queryFor(missing []wanted, notary matrix.ServerName) (query keyQuery, left []wanted) {
	query.Servers = make(map[matrix.ServerName]map[string]keyCriteria)
	for _, w := range missing {
		if w.server == notary {
			continue
		}
		if query.Servers[w.server] == nil && len(query.Servers) == maxNotaryServers {
			left = append(left, w)
			continue
		}
		if query.Servers[w.server] == nil {
			query.Servers[w.server] = make(map[string]keyCriteria)
		}
		query.Servers[w.server][w.id] = keyCriteria{}
		if !w.at.IsZero() {
			query.Servers[w.server][w.id] = keyCriteria{w.at.UnixMilli()}
		}
	}
	return query, left
}

// queryKeys asks a server what it knows of the keys of others, and calls take for what
// the answer says of each that was asked for.
func (n *Network) queryKeys(ctx context.Context, dest matrix.ServerName, query keyQuery, take func(of matrix.ServerName, raw jsontext.Value) error) error {
	var answer struct {
		Keys few[jsontext.Value] `json:"server_keys"`
	}
	err := n.Do(ctx, dest, Request{
		Method: http.MethodPost, Path: "/_matrix/key/v2/query", Body: query,
		MaxBytes: maxNotaryAnswer, Timeout: queryTimeout, quiet: true, unsigned: true,
	}, &answer)
	if err != nil {
		return err
	}
	var errs error
	for _, raw := range answer.Keys {
		var about struct {
			Server matrix.ServerName `json:"server_name"`
		}
		err := json.Unmarshal(raw, &about, answerOptions)
		_, asked := query.Servers[about.Server]
		switch {
		case err != nil:
			err = fmt.Errorf("an answer of %s: %w", dest, err)
		case !asked || len(raw) > maxKeyAnswer:
			err = fmt.Errorf("%s answers about %q: %w", dest, clip(string(about.Server)), ErrBadKeys)
		default:
			err = take(about.Server, raw)
		}
		errs = also(errs, err)
	}
	return errs
}

// ServerKeys returns what a server says about its keys, signed by it, for a server
// that asks us as its notary: what we have, if it is young and valid for long
// enough; else what the server says when it is asked; else again what we have. If that
// is hearsay, we do not vouch for it: only a witness may say so. The error wraps
// ErrUnreachable where we have nothing.
//
// Spec: SS Querying Keys Through Another Server.
func (n *Network) ServerKeys(ctx context.Context, server matrix.ServerName, until time.Time) (said jsontext.Value, hearsay bool, err error) {
	answer, err := n.keyAnswer(server)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, false, err
	}
	now := n.now()
	half := answer.Fetched.Add(answer.ValidUntil.Sub(answer.Fetched) / 2)
	if err == nil && now.Before(half) && !answer.ValidUntil.Before(until) {
		return answer.JSON, false, nil
	}
	fetchErr := n.fetchKeys(ctx, server, false)
	switch {
	case fetchErr == nil:
		answer, err = n.keyAnswer(server)
		return answer.JSON, false, err
	case err == nil:
		return answer.JSON, false, nil
	}
	answer, err = n.hearsay(server)
	if errors.Is(err, store.ErrNotFound) {
		err = fmt.Errorf("keys of %s: %w: %w", server, ErrUnreachable, fetchErr)
	}
	return answer.JSON, true, err
}

func (n *Network) keyAnswer(server matrix.ServerName) (answer store.KeyAnswer, err error) {
	err = n.store.View(func(tx *store.Tx) (err error) {
		answer, err = tx.KeyAnswer(server)
		return err
	})
	return answer, err
}

func (n *Network) hearsay(server matrix.ServerName) (answer store.KeyAnswer, err error) {
	err = n.store.View(func(tx *store.Tx) (err error) {
		answer, err = tx.Hearsay(server)
		return err
	})
	return answer, err
}

// also returns both errors in one line.
func also(a, b error) error {
	if a == nil || b == nil {
		return errors.Join(a, b)
	}
	return fmt.Errorf("%w; %w", a, b)
}
