package store

import (
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"hearth/state/matrix"
)

// A SigningKey is one of the server's own keys. Retired ones sign nothing more
// but are published for what they have signed. Specification: server-server
// API, "Publishing Keys".
type SigningKey struct {
	matrix.SigningKey
	Created int64 // Unix milliseconds
	Retired int64 // Unix milliseconds; 0: it is in use
}

// SigningKeys returns the server's keys, the newest first.
func (tx *Tx) SigningKeys() ([]SigningKey, error) {
	var keys []SigningKey
	err := tx.scan(bucketMeta, []byte(metaSigningKey), nil, func(id, v []byte) (bool, error) {
		k, err := readSigningKey(string(id), v)
		keys = append(keys, k)
		return true, err
	})
	slices.SortStableFunc(keys, func(a, b SigningKey) int { return cmp.Compare(b.Created, a.Created) })
	return keys, err
}

// SigningKey returns the key that signs.
func (tx *Tx) SigningKey() (matrix.SigningKey, error) {
	keys, err := tx.SigningKeys()
	if err != nil {
		return matrix.SigningKey{}, err
	}
	for _, k := range keys {
		if k.Retired == 0 {
			return k.SigningKey, nil
		}
	}
	return matrix.SigningKey{}, fmt.Errorf("signing key in use: %w", ErrNotFound)
}

// NewSigningKey makes a key that signs from now on and retires the others.
func (tx *Tx) NewSigningKey(now time.Time) error {
	keys, err := tx.SigningKeys()
	if err != nil {
		return err
	}
	for _, k := range keys {
		if k.Retired != 0 {
			continue
		}
		k.Retired = now.UnixMilli()
		if err := tx.putSigningKey(k); err != nil {
			return err
		}
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make a signing key: %w", err)
	}
	name := make([]byte, 5)
	_, _ = rand.Read(name) // never fails
	id := "ed25519:" + strings.ToLower(base32.StdEncoding.EncodeToString(name))
	return tx.putSigningKey(SigningKey{
		SigningKey: matrix.SigningKey{ID: id, Private: private},
		Created:    now.UnixMilli(),
	})
}

// Secret returns 32 random bytes that only this server knows and keeps for
// ever: the key of opaque tokens that need no record.
func (tx *Tx) Secret() ([]byte, error) {
	v := tx.get(bucketMeta, []byte(metaSecret))
	if len(v) != 32 {
		return nil, fmt.Errorf("server secret of %d bytes: %w", len(v), ErrDamaged)
	}
	return slices.Clone(v), nil
}

// putSecret gives a new data directory its secret and its first signing key.
func (tx *Tx) putSecret() error {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	if err := tx.put(bucketMeta, []byte(metaSecret), secret); err != nil {
		return err
	}
	return tx.NewSigningKey(time.Now())
}

func (tx *Tx) putSigningKey(k SigningKey) error {
	v := binary.AppendUvarint(nil, uint64(k.Created))
	v = binary.AppendUvarint(v, uint64(k.Retired))
	return tx.put(bucketMeta, []byte(metaSigningKey+k.ID), append(v, k.Private...))
}

func readSigningKey(id string, v []byte) (SigningKey, error) {
	r := reader{b: v}
	k := SigningKey{Created: int64(r.uvarint()), Retired: int64(r.uvarint())}
	k.ID, k.Private = id, slices.Clone(r.bytes(ed25519.PrivateKeySize))
	if r.err != nil || len(r.b) > 0 {
		return SigningKey{}, fmt.Errorf("signing key %s: %w", id, ErrDamaged)
	}
	return k, nil
}
