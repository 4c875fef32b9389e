package remote

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

const (
	// keyTrust is for how long a key counts at most on one word of its server.
	keyTrust = 7 * 24 * time.Hour
	// keyTimeout bounds one question for keys.
	keyTimeout = 10 * time.Second
	// maxKeyFetches bounds the questions under way.
	maxKeyFetches = 32
	// maxKeyAnswer bounds an answer about keys, in bytes: it is kept for those who ask us
	// as a notary, of whatever server a stranger has us ask. As many keys as there may be
	// take some 12 KiB.
	maxKeyAnswer = 16 << 10
	// maxKeysAnswered bounds the keys of one answer.
	maxKeysAnswered = 64
	// keysAgain is how long a server that has told its keys is not asked again.
	keysAgain = 5 * time.Second

	// A server whose keys could not be had is left alone for a time that doubles;
	// but who has just had something from it may ask soon.
	silenceFirst  = 30 * time.Second
	silenceLong   = time.Hour
	silenceInsist = 2 * time.Second
	// maxSilent bounds the servers of which that is known.
	maxSilent = 4096
)

// errUnchanged is why a server is not asked whose keys came a moment ago.
var errUnchanged = errors.New("its keys came a moment ago")

// silence is when a server's keys could not be had.
type silence struct {
	failures int
	since    time.Time // the first of them
	last     time.Time
}

// fetchAll fetches the keys of some servers from themselves, side by side, and
// returns when all have come or failed.
func (n *Network) fetchAll(ctx context.Context, missing []wanted, insist bool) {
	var all sync.WaitGroup
	seen := make(map[matrix.ServerName]bool)
	for _, w := range missing {
		if seen[w.server] || !n.askable(w) {
			continue
		}
		seen[w.server] = true
		all.Go(func() {
			if err := n.fetchKeys(ctx, w.server, insist); err != nil {
				n.log.Debug("fetch the keys of a server", "dest", w.server, "err", err)
			}
		})
	}
	all.Wait()
}

// fetchKeys fetches and stores a server's keys. Several who want them share one
// question. With insist, it is asked although it does not answer others.
//
// Spec: SS Publishing Keys.
func (n *Network) fetchKeys(ctx context.Context, server matrix.ServerName, insist bool) error {
	if err := n.mayFetch(server, insist); err != nil {
		return err
	}
	ask := context.WithoutCancel(ctx) // others may wait for the answer, too
	answer := n.fetching.DoChan(string(server), func() (any, error) {
		if err := n.mayFetch(server, insist); err != nil {
			return nil, err // somebody else's question has ended since
		}
		ctx, cancel := context.WithTimeout(ask, keyWait)
		defer cancel()
		if err := n.fetches.Acquire(ctx, 1); err != nil {
			return nil, err
		}
		defer n.fetches.Release(1)
		err := n.askForKeys(ask, server) // for its own time, which begins now
		if back := n.noteSilence(server, err); back {
			n.tell(server, true)
		}
		return nil, err
	})
	select {
	case a := <-answer:
		return a.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// askForKeys asks a server for its keys and stores them.
func (n *Network) askForKeys(ctx context.Context, server matrix.ServerName) error {
	var raw jsontext.Value
	q := Request{
		Method: http.MethodGet, Path: "/_matrix/key/v2/server", MaxBytes: maxKeyAnswer, Timeout: keyTimeout,
		Insist: true, quiet: true, unsigned: true,
	}
	if err := n.Do(ctx, server, q, &raw); err != nil {
		return err
	}
	answer, keys, err := parseServerKeys(server, raw, n.now())
	if err != nil {
		return err
	}
	return n.putKeys(ctx, server, answer, keys, true)
}

// mayFetch returns why a server is not to be asked for its keys now, or nil.
func (n *Network) mayFetch(server matrix.ServerName, insist bool) error {
	n.mu.Lock()
	s := n.silent[server]
	n.mu.Unlock()
	wait := min(silenceFirst<<min(max(s.failures-1, 0), 10), silenceLong)
	if insist {
		wait = silenceInsist
	}
	now := n.now()
	if s.failures > 0 && now.Before(s.last.Add(wait)) || !insist && !n.RetryAt(server).IsZero() {
		return ErrBackingOff
	}
	var answer store.KeyAnswer
	err := n.store.View(func(tx *store.Tx) (err error) {
		answer, err = tx.KeyAnswer(server)
		return err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err == nil && now.Before(answer.Fetched.Add(keysAgain)):
		return errUnchanged
	}
	return err
}

// noteSilence remembers whether a server's keys could be had. back says that they could
// not before.
func (n *Network) noteSilence(server matrix.ServerName, err error) (back bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s, known := n.silent[server]
	if err == nil {
		delete(n.silent, server)
		return known
	}
	if !known && len(n.silent) >= maxSilent {
		for other := range n.silent {
			delete(n.silent, other)
			break
		}
	}
	if now := n.now(); known {
		n.silent[server] = silence{s.failures + 1, s.since, now}
	} else {
		n.silent[server] = silence{1, now, now}
	}
	return false
}

// serverKeys is a server's answer about its keys.
//
// Spec: SS Publishing Keys, getServerKey.
type serverKeys struct {
	Server     string               `json:"server_name"`
	Keys       map[string]verifyKey `json:"verify_keys"`
	OldKeys    map[string]oldKey    `json:"old_verify_keys"`
	ValidUntil int64                `json:"valid_until_ts"`
}

type verifyKey struct {
	Key string `json:"key"`
}

type oldKey struct {
	Key     string `json:"key"`
	Expired int64  `json:"expired_ts"`
}

// ErrBadKeys is wrapped by the error about an answer that names no key of the
// server it is about.
var ErrBadKeys = errors.New("no keys of that server")

// parseServerKeys reads a server's answer about its keys, which has come at a time.
// Keys that it signs with count only if it has signed the answer with them, so that
// nobody claims the key of another; and there must be one.
func parseServerKeys(server matrix.ServerName, raw jsontext.Value, now time.Time) (store.KeyAnswer, []store.VerifyKey, error) {
	var said serverKeys
	if err := json.Unmarshal(raw, &said); err != nil {
		return store.KeyAnswer{}, nil, fmt.Errorf("keys of %s: %w: %w", server, ErrBadKeys, err)
	}
	if said.Server != string(server) || len(said.Keys)+len(said.OldKeys) > maxKeysAnswered {
		return store.KeyAnswer{}, nil, fmt.Errorf("keys of %s: %d keys of %q: %w",
			server, len(said.Keys)+len(said.OldKeys), clip(said.Server), ErrBadKeys)
	}
	until := now.Add(keyTrust)
	if told := time.UnixMilli(max(0, said.ValidUntil)); told.Before(until) {
		until = told
	}
	var keys []store.VerifyKey
	for id, k := range said.Keys {
		public, err := decodeBase64(k.Key)
		if err == nil && isKeyID(id) && matrix.VerifyJSON(raw, string(server), id, public) == nil {
			keys = append(keys, store.VerifyKey{ID: id, Public: public, ValidUntil: until})
		}
	}
	if len(keys) == 0 {
		return store.KeyAnswer{}, nil, fmt.Errorf("keys of %s: signed with none of them: %w", server, ErrBadKeys)
	}
	for id, k := range said.OldKeys {
		public, err := decodeBase64(k.Key)
		_, current := said.Keys[id]
		if err == nil && isKeyID(id) && len(public) == ed25519.PublicKeySize && !current {
			keys = append(keys, store.VerifyKey{ID: id, Public: public, Expired: true, ValidUntil: time.UnixMilli(max(0, k.Expired))})
		}
	}
	return store.KeyAnswer{JSON: raw, Fetched: now, ValidUntil: until}, keys, nil
}

// putKeys stores an answer about keys. What others tell of a server never takes the
// place of what it has said itself.
func (n *Network) putKeys(ctx context.Context, server matrix.ServerName, answer store.KeyAnswer, keys []store.VerifyKey, direct bool) error {
	n.learned.Add(1)
	return n.store.Update(ctx, func(tx *store.Tx) error {
		merged := make([]store.VerifyKey, 0, len(keys))
		for _, k := range keys {
			known, err := tx.VerifyKey(server, k.ID)
			switch {
			case errors.Is(err, store.ErrNotFound):
			case err != nil:
				return err
			default:
				k = newerKey(known, k, direct)
			}
			merged = append(merged, k)
		}
		known, err := tx.KeyAnswer(server)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		stored := answer
		if err == nil && !direct && !known.ValidUntil.Before(answer.ValidUntil) {
			stored = known
		}
		return tx.PutServerKeys(server, stored, merged)
	})
}

// newerKey returns which of two records of a key counts.
func newerKey(known, told store.VerifyKey, direct bool) store.VerifyKey {
	switch {
	case !known.Public.Equal(told.Public):
		if direct {
			return told
		}
		return known
	case known.Expired != told.Expired:
		if direct || told.Expired {
			return told
		}
		return known
	case !told.Expired && told.ValidUntil.Before(known.ValidUntil):
		return known
	}
	return told
}
