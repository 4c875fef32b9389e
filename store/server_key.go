package store

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// A VerifyKey is a key of another server, as it was told to us.
//
// Spec: SS Publishing Keys.
type VerifyKey struct {
	ID     string // "ed25519:name"
	Public ed25519.PublicKey
	// ValidUntil is the last moment whose signatures count.
	ValidUntil time.Time
	// Expired: the server signs nothing more with it.
	Expired bool
}

// KeyAnswer is the newest answer that a server gave about its keys.
type KeyAnswer struct {
	JSON       jsontext.Value // with the server's own signatures
	Fetched    time.Time
	ValidUntil time.Time
}

// maxVerifyKeys bounds the keys of one server.
const maxVerifyKeys = 256

// VerifyKey returns a key of a server, ErrNotFound where it is not known.
func (tx *Tx) VerifyKey(server matrix.ServerName, id string) (VerifyKey, error) {
	v := tx.get(bucketRemote, verifyKeyKey(server, id))
	if v == nil {
		return VerifyKey{}, fmt.Errorf("key %s of %s: %w", id, server, ErrNotFound)
	}
	return readVerifyKey(server, id, v)
}

// KeyAnswer returns a server's newest answer about its keys, or ErrNotFound.
func (tx *Tx) KeyAnswer(server matrix.ServerName) (KeyAnswer, error) {
	v := tx.get(bucketRemote, verifyKeyKey(server, ""))
	if v == nil {
		return KeyAnswer{}, fmt.Errorf("keys of %s: %w", server, ErrNotFound)
	}
	return readKeyAnswer(server, v)
}

// PutServerKeys stores an answer of a server about its keys, with the keys that it
// names. Others that are known stay, as there may be signatures of theirs; the
// error wraps ErrFull where a server has had too many.
func (tx *Tx) PutServerKeys(server matrix.ServerName, answer KeyAnswer, keys []VerifyKey) error {
	known := 0
	err := tx.scan(bucketRemote, verifyKeyKey(server, ""), nil, func(id, _ []byte) (bool, error) {
		known++
		return true, nil
	})
	if err != nil {
		return err
	}
	for _, k := range keys {
		key := verifyKeyKey(server, k.ID)
		if tx.get(bucketRemote, key) == nil {
			if known++; known > maxVerifyKeys {
				return fmt.Errorf("keys of %s: more than %d: %w", server, maxVerifyKeys, ErrFull)
			}
		}
		v := appendTime([]byte{0}, k.ValidUntil)
		if k.Expired {
			v[0] = 1
		}
		if err := tx.put(bucketRemote, key, append(v, k.Public...)); err != nil {
			return err
		}
	}
	v := appendTime(appendTime(nil, answer.Fetched), answer.ValidUntil)
	return tx.put(bucketRemote, verifyKeyKey(server, ""), append(v, answer.JSON...))
}

// KeyAnswers calls fn for each server whose keys are known, with when it was fetched what
// it says of them, until fn returns false or an error. It reads all keys of all servers.
func (tx *Tx) KeyAnswers(fn func(server matrix.ServerName, fetched time.Time) (bool, error)) error {
	return tx.scan(bucketRemote, []byte{remoteVerifyKey}, nil, func(key, v []byte) (bool, error) {
		name, id, found := cutPart(key)
		if !found {
			return false, fmt.Errorf("key of a server %q: %w", key, ErrDamaged)
		}
		if id != "" {
			return true, nil
		}
		answer := reader{b: v}
		if fetched := answer.time(); answer.err == nil {
			return fn(matrix.ServerName(name), fetched)
		}
		return false, fmt.Errorf("keys of %s: %w", name, ErrDamaged)
	})
}

// DeleteServerKeys forgets the keys of a server, and its answer about them.
func (tx *Tx) DeleteServerKeys(server matrix.ServerName) error {
	_, err := tx.deleteAll(bucketRemote, verifyKeyKey(server, ""), maxVerifyKeys+1)
	return err
}

// verifyKeyKey is the key of a server's key; with an empty ID, of its answer.
func verifyKeyKey(server matrix.ServerName, id string) []byte {
	return append(appendPart([]byte{remoteVerifyKey}, string(server)), id...)
}

func readVerifyKey(server matrix.ServerName, id string, v []byte) (VerifyKey, error) {
	r := reader{b: v}
	k := VerifyKey{ID: id, Expired: r.byte() == 1, ValidUntil: r.time()}
	k.Public = bytes.Clone(r.bytes(ed25519.PublicKeySize))
	if r.err != nil || len(r.b) > 0 {
		return VerifyKey{}, fmt.Errorf("key %s of %s: %w", id, server, ErrDamaged)
	}
	return k, nil
}

func readKeyAnswer(server matrix.ServerName, v []byte) (KeyAnswer, error) {
	r := reader{b: v}
	a := KeyAnswer{Fetched: r.time(), ValidUntil: r.time()}
	a.JSON = bytes.Clone(r.b)
	if r.err != nil || len(a.JSON) == 0 {
		return KeyAnswer{}, fmt.Errorf("keys of %s: %w", server, ErrDamaged)
	}
	return a, nil
}

// checkServerKeys reads every key of another server and every answer, and holds
// the answers to their form.
func checkServerKeys(c *checker) error {
	return c.each(bucketRemote, []byte{remoteVerifyKey}, func(key, v []byte) {
		name, id, found := cutPart(key)
		server, err := matrix.ParseServerName(name)
		if err != nil || !found {
			c.faultf("key of a server %q: %v", key, err)
			return
		}
		if id != "" {
			if _, err := readVerifyKey(server, id, v); err != nil {
				c.faultf("%v", err)
			} else if _, err := c.KeyAnswer(server); err != nil {
				c.faultf("key %s of %s comes from no answer", id, server)
			}
			return
		}
		if answer, err := readKeyAnswer(server, v); err != nil {
			c.faultf("%v", err)
		} else if !answer.JSON.IsValid() {
			c.faultf("keys of %s: the answer is no JSON", server)
		}
	})
}
