package remote

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"hearth/state/matrix"
	"hearth/store"
)

const (
	// maxKeysTried bounds the signatures of one server that are looked at, on one
	// event or object.
	maxKeysTried = 4
	// keyWait bounds how long the keys of some events are waited for.
	keyWait = 20 * time.Second
	// keyHope is for how long a server may be away whose keys are expected to come.
	keyHope = 10 * time.Minute
)

// ErrKeyLater is wrapped where a key could not be had and its server has not been
// silent for long. What it has signed is worth another try.
var ErrKeyLater = fmt.Errorf("%w for now", ErrUnreachable)

// ErrKeyUntold is wrapped beside ErrUnreachable where a server cannot be asked for a key,
// and nothing that it has told speaks against the signature: none of its keys is known
// here, or the signature is one of a key that it had, and not known for how long.
var ErrKeyUntold = errors.New("the server has not told of this key")

// ErrKeyUnasked is wrapped beside ErrUnreachable where none of a server's keys is known
// here, or not for so late a time, and there was no time to ask it.
var ErrKeyUnasked = errors.New("there was no time to ask the server for its keys")

// keyAlgorithm begins the ID of every key that signs.
const keyAlgorithm = "ed25519:"

// wanted is a key that a signature was made with.
type wanted struct {
	server matrix.ServerName
	id     string
	at     time.Time // when it must have been valid; zero: ever
}

// keyCheck is one check of signatures with the keys that it has gathered.
type keyCheck struct {
	network *Network
	keys    map[keyName]store.VerifyKey
}

type keyName struct {
	server matrix.ServerName
	id     string
}

// VerifyEvents checks, for each of some events, the signatures that it must have,
// with keys that were valid when it was made. The errors are at the events' places;
// nil: all is well. Keys that are not known are fetched, those of different servers
// at the same time. An error wraps matrix.ErrBadSignature where the signature is at
// fault, and ErrUnreachable where a key could not be had.
//
// Spec: SS Validating hashes and signatures on received events.
func (n *Network) VerifyEvents(ctx context.Context, events []*matrix.Event) []error {
	errs := make([]error, len(events))
	wants := make([][][]wanted, len(events)) // by event, then by signer
	var all []wanted
	for i, ev := range events {
		wants[i], errs[i] = wantedOf(ev)
		for _, keys := range wants[i] {
			all = append(all, keys...)
		}
	}
	v := keyCheck{network: n, keys: make(map[keyName]store.VerifyKey)}
	gatherErr := v.gather(ctx, all, false)
	for i, ev := range events {
		if errs[i] == nil && gatherErr != nil {
			errs[i] = gatherErr
		}
		if errs[i] == nil {
			errs[i] = v.checkAll(ev, wants[i])
		}
		if errs[i] != nil {
			errs[i] = fmt.Errorf("verify %s: %w", ev.ID, errs[i])
		}
	}
	return errs
}

// VerifyEvent is [Network.VerifyEvents] for one event.
func (n *Network) VerifyEvent(ctx context.Context, ev *matrix.Event) error {
	return n.VerifyEvents(ctx, []*matrix.Event{ev})[0]
}

// VerifyJSON checks that an object has a good signature of a server by a key that
// was valid at a time; with the zero time, by any key that it ever had. Errors are
// those of [Network.VerifyEvents].
//
// Spec: appendices, Checking for a Signature.
func (n *Network) VerifyJSON(ctx context.Context, server matrix.ServerName, object []byte, at time.Time) error {
	var signed struct {
		Signatures map[string]map[string]string `json:"signatures"`
	}
	if err := json.Unmarshal(object, &signed, answerOptions); err != nil {
		return fmt.Errorf("verify an object of %s: %w: %w", server, matrix.ErrBadSignature, err)
	}
	var ids []string
	for id := range signed.Signatures[string(server)] {
		ids = append(ids, id)
	}
	keys, err := wantedFrom(server, ids, at)
	if err == nil {
		err = n.verify(ctx, keys, func(id string, public ed25519.PublicKey) error {
			return matrix.VerifyJSON(object, string(server), id, public)
		})
	}
	if err != nil {
		return fmt.Errorf("verify an object of %s: %w", server, err)
	}
	return nil
}

// VerifyRequest checks the signature of a request that another server has made, by
// a key that it signs with now. Errors are those of [Network.VerifyEvents].
//
// Spec: SS Request Authentication.
func (n *Network) VerifyRequest(ctx context.Context, q SignedRequest, keyID, signature string) error {
	keys, err := wantedFrom(q.Origin, []string{keyID}, n.now())
	if err == nil {
		err = n.verify(ctx, keys, func(_ string, public ed25519.PublicKey) error {
			return n.verifyRequest(ctx, q, public, signature)
		})
	}
	if err != nil {
		return fmt.Errorf("verify a request: %w", err)
	}
	return nil
}

// verify checks the signatures of one server on one thing that it has just given
// us, or somebody waits for: its keys are asked for although it was silent before.
func (n *Network) verify(ctx context.Context, keys []wanted, good func(string, ed25519.PublicKey) error) error {
	v := keyCheck{network: n, keys: make(map[keyName]store.VerifyKey)}
	if err := v.gather(ctx, keys, true); err != nil {
		return err
	}
	return v.check(keys, good)
}

// wantedOf returns, for each server that must have signed an event, the keys that
// it has signed with.
func wantedOf(ev *matrix.Event) ([][]wanted, error) {
	signatures, err := ev.Signatures()
	if err != nil {
		return nil, err
	}
	at := time.Time{}
	if ev.Version.KeyValidity {
		at = time.UnixMilli(ev.OriginServerTS)
	}
	var all [][]wanted
	for _, server := range ev.RequiredSigners() {
		keys, err := wantedFrom(server, signatures[server], at)
		if err != nil {
			return nil, err
		}
		all = append(all, keys)
	}
	return all, nil
}

// wantedFrom returns those of a server's keys that can be looked for.
func wantedFrom(server matrix.ServerName, ids []string, at time.Time) ([]wanted, error) {
	var keys []wanted
	for _, id := range ids {
		if isKeyID(id) && len(keys) < maxKeysTried {
			keys = append(keys, wanted{server, id, at})
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: none of %s", matrix.ErrBadSignature, server)
	}
	return keys, nil
}

// isKeyID reports whether an ID is that of a key which may have signed something.
func isKeyID(id string) bool {
	name, ok := strings.CutPrefix(id, keyAlgorithm)
	return ok && name != "" && len(id) <= matrix.MaxIDBytes && strings.IndexByte(id, 0) < 0
}

// check looks for one good signature with one of a server's keys.
func (v *keyCheck) check(keys []wanted, good func(string, ed25519.PublicKey) error) error {
	var failed error
	for _, w := range keys {
		key, known := v.keys[keyName{w.server, w.id}]
		switch {
		case !known:
			if failed == nil {
				failed = fmt.Errorf("key %s of %s could not be had: %w", w.id, w.server, v.network.keyless(w))
			}
		default:
			err := good(w.id, key.Public)
			if err == nil && !validAt(key, w.at) {
				err = fmt.Errorf("key %s of %s is not known to be valid then: %w", w.id, w.server, v.network.outdated(w, key))
			}
			if err == nil {
				return nil
			}
			failed = err
		}
	}
	return failed
}

// checkAll checks all signatures that an event must have. One that is bad counts for more
// than one that cannot be checked.
func (v *keyCheck) checkAll(ev *matrix.Event, signers [][]wanted) (failed error) {
	for _, keys := range signers {
		err := v.check(keys, func(id string, public ed25519.PublicKey) error {
			return ev.VerifySignature(keys[0].server, id, public)
		})
		if gravity(err) > gravity(failed) {
			failed = err
		}
	}
	return failed
}

// gravity says how much an error of a check says about an event: a signature that is bad
// more than one that cannot be checked, and that least of whose key its server has not told.
func gravity(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrKeyUntold):
		return 1
	case errors.Is(err, ErrUnreachable):
		return 2
	}
	return 3
}

// keyless says why a key could not be had: its server is there but has no such key; it is
// not there, and may be again soon; or there were too many to ask all of them in time.
func (n *Network) keyless(w wanted) error {
	_, err := n.keyAnswer(w.server)
	untold := errors.Is(err, store.ErrNotFound) && w.server != n.server
	away := n.away(w.server)
	switch {
	case away != nil && untold:
		return fmt.Errorf("%w: %w", away, ErrKeyUntold)
	case away != nil:
		return away
	case untold && n.askable(w):
		return fmt.Errorf("%w: %w", ErrKeyLater, ErrKeyUnasked)
	}
	return ErrUnreachable
}

// outdated says what it means that a key is not known to be valid at the time when it is
// wanted: it was not valid, by what its server says now; or the server, which would tell
// for how long it is, cannot be asked.
func (n *Network) outdated(w wanted, key store.VerifyKey) error {
	if key.Expired || w.server == n.server || !n.askable(w) {
		return matrix.ErrBadSignature
	}
	if away := n.away(w.server); away != nil {
		return fmt.Errorf("%w: %w", away, ErrKeyUntold)
	}
	answer, err := n.keyAnswer(w.server)
	if err == nil && n.now().Sub(answer.Fetched) < 2*keyWait {
		return matrix.ErrBadSignature
	}
	return fmt.Errorf("%w: %w", ErrKeyLater, ErrKeyUnasked)
}

// away returns nil for a server that answers, as far as is known, ErrKeyLater for one that
// has been silent, but not for long, and ErrUnreachable.
func (n *Network) away(server matrix.ServerName) error {
	n.mu.Lock()
	s := n.silent[server]
	n.mu.Unlock()
	if b := n.Backoff(server); s.failures == 0 && b.Failures > 0 {
		s = silence{failures: b.Failures, since: b.Since}
	}
	switch {
	case s.failures == 0:
		return nil
	case n.now().Sub(s.since) > keyHope:
		return ErrUnreachable
	}
	return ErrKeyLater
}

// askable says whether an answer could reach so far that a key is valid when it is wanted.
func (n *Network) askable(w wanted) bool { return !w.at.After(n.now().Add(keyTrust)) }

// validAt reports whether signatures of a key count that were made at a time.
func validAt(key store.VerifyKey, at time.Time) bool {
	return at.IsZero() || !at.After(key.ValidUntil)
}

// gather reads the keys that are wanted from disk and fetches what is not there, or
// not known to be valid for as long. That a key cannot be had is no error here.
func (v *keyCheck) gather(ctx context.Context, wants []wanted, insist bool) error {
	missing, err := v.read(wants)
	if err != nil || len(missing) == 0 {
		return err
	}
	within, cancel := context.WithTimeout(ctx, keyWait)
	defer cancel()
	v.network.fetchAll(within, missing, insist)
	missing, err = v.read(missing)
	if err != nil || len(missing) == 0 {
		return err
	}
	if len(v.network.config.Notaries) > 0 {
		within, cancel := context.WithTimeout(ctx, keyWait)
		defer cancel()
		v.network.askNotaries(within, missing, v.read)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return nil
}

// read reads keys from disk and returns those of wants that should be asked for.
func (v *keyCheck) read(wants []wanted) (missing []wanted, err error) {
	err = v.network.store.View(func(tx *store.Tx) error {
		missing = nil
		for _, w := range wants {
			key, err := v.network.readKey(tx, w.server, w.id)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			if err == nil {
				v.keys[keyName{w.server, w.id}] = key
			}
			if w.server != v.network.server && (err != nil || !key.Expired && !validAt(key, w.at)) {
				missing = append(missing, w)
			}
		}
		return nil
	})
	return missing, err
}

// readKey returns a key of another server, or of our own.
func (n *Network) readKey(tx *store.Tx, server matrix.ServerName, id string) (store.VerifyKey, error) {
	if server != n.server {
		return tx.VerifyKey(server, id)
	}
	own, err := tx.SigningKeys()
	if err != nil {
		return store.VerifyKey{}, err
	}
	for _, k := range own {
		if k.ID != id {
			continue
		}
		key := store.VerifyKey{ID: id, Public: k.Private.Public().(ed25519.PublicKey), ValidUntil: n.now().Add(keyTrust)}
		if k.Retired != 0 {
			key.ValidUntil, key.Expired = time.UnixMilli(k.Retired), true
		}
		return key, nil
	}
	return store.VerifyKey{}, fmt.Errorf("our key %s: %w", id, store.ErrNotFound)
}

// KnowsKey reports whether a key of another server is on disk, so that what it has
// signed costs no request.
func (n *Network) KnowsKey(server matrix.ServerName, id string) bool {
	err := n.store.View(func(tx *store.Tx) error {
		key, err := tx.VerifyKey(server, id)
		if err == nil && !key.Expired && !validAt(key, n.now()) {
			err = store.ErrNotFound
		}
		return err
	})
	return err == nil
}
