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
		if notary == n.server {
			continue
		}
		for _, query := range keyQueries(missing, notary) {
			if ctx.Err() != nil {
				return
			}
			if err := n.askNotary(ctx, notary, query); err != nil { // some of the keys may have come
				n.log.Debug("ask a notary for keys", "dest", notary, "err", err)
				if errors.Is(err, ErrUnreachable) {
					break
				}
			}
		}
		var err error
		if missing, err = still(missing); err != nil || len(missing) == 0 {
			return
		}
	}
}

// keyQueries are the questions for keys that are missing, but for a notary's own. Of a
// key that is wanted for several times the latest counts.
func keyQueries(missing []wanted, notary matrix.ServerName) (queries []keyQuery) {
	of := make(map[matrix.ServerName]map[string]keyCriteria)
	for _, w := range missing {
		if w.server == notary {
			continue
		}
		keys := of[w.server]
		if keys == nil {
			keys = make(map[string]keyCriteria)
			of[w.server] = keys
			if last := len(queries) - 1; last < 0 || len(queries[last].Servers) == maxNotaryServers {
				queries = append(queries, keyQuery{make(map[matrix.ServerName]map[string]keyCriteria)})
			}
			queries[len(queries)-1].Servers[w.server] = keys
		}
		criteria := keys[w.id]
		if !w.at.IsZero() {
			criteria.ValidUntil = max(criteria.ValidUntil, w.at.UnixMilli())
		}
		keys[w.id] = criteria
	}
	return queries
}

// askNotary asks one notary and stores what it knows.
func (n *Network) askNotary(ctx context.Context, notary matrix.ServerName, query keyQuery) error {
	var answer struct {
		Keys few[jsontext.Value] `json:"server_keys"`
	}
	err := n.Do(ctx, notary, Request{
		Method: http.MethodPost, Path: "/_matrix/key/v2/query", Body: query,
		MaxBytes: maxNotaryAnswer, Timeout: keyTimeout, quiet: true, unsigned: true,
	}, &answer)
	if err != nil {
		return err
	}
	var errs error
	for _, raw := range answer.Keys {
		errs = also(errs, n.takeFromNotary(ctx, notary, query, raw))
	}
	return errs
}

// takeFromNotary stores the keys of one server that a notary vouches for.
func (n *Network) takeFromNotary(ctx context.Context, notary matrix.ServerName, query keyQuery, raw jsontext.Value) error {
	var about struct {
		Server matrix.ServerName `json:"server_name"`
	}
	if err := json.Unmarshal(raw, &about, answerOptions); err != nil {
		return fmt.Errorf("an answer of %s: %w", notary, err)
	}
	if _, asked := query.Servers[about.Server]; !asked || len(raw) > maxKeyAnswer {
		return fmt.Errorf("%s answers about %q: %w", notary, clip(string(about.Server)), ErrBadKeys)
	}
	if err := n.VerifyJSON(ctx, notary, raw, n.now()); err != nil {
		return err
	}
	answer, keys, err := parseServerKeys(about.Server, raw, n.now())
	if err != nil {
		return err
	}
	return n.putKeys(ctx, about.Server, answer, keys, false)
}

// ServerKeys returns what a server says about its keys, signed by it, for a server
// that asks us as its notary: what we have, if it is young and valid for long
// enough; else what the server says when it is asked; else again what we have. The
// error wraps ErrUnreachable where we have nothing.
//
// Spec: SS Querying Keys Through Another Server.
func (n *Network) ServerKeys(ctx context.Context, server matrix.ServerName, until time.Time) (jsontext.Value, error) {
	answer, err := n.keyAnswer(server)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	now := n.now()
	half := answer.Fetched.Add(answer.ValidUntil.Sub(answer.Fetched) / 2)
	if err == nil && now.Before(half) && !answer.ValidUntil.Before(until) {
		return answer.JSON, nil
	}
	if fetchErr := n.fetchKeys(ctx, server, false); fetchErr != nil {
		if err != nil {
			return nil, fmt.Errorf("keys of %s: %w: %w", server, ErrUnreachable, fetchErr)
		}
		return answer.JSON, nil
	}
	if answer, err = n.keyAnswer(server); err != nil {
		return nil, err
	}
	return answer.JSON, nil
}

func (n *Network) keyAnswer(server matrix.ServerName) (answer store.KeyAnswer, err error) {
	err = n.store.View(func(tx *store.Tx) (err error) {
		answer, err = tx.KeyAnswer(server)
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
