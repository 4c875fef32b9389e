package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// maxLoginTokens bounds the login tokens that wait to be used, over all users.
const maxLoginTokens = 256

// PutLoginToken stores a token that lets its bearer log in as user, once,
// before it expires. Those that have expired are removed on the way. The error
// wraps ErrFull where too many wait.
//
// Spec: CS Login, m.login.token.
func (tx *Tx) PutLoginToken(hash TokenHash, user UserNum, now, expires time.Time) error {
	waiting := 0
	err := tx.removeLoginTokens(func(_ UserNum, until time.Time) bool {
		old := !now.Before(until)
		if !old {
			waiting++
		}
		return old
	})
	if err != nil {
		return fmt.Errorf("login token of user %d: %w", user, err)
	}
	if waiting >= maxLoginTokens {
		return fmt.Errorf("login token of user %d: %d wait already: %w", user, waiting, ErrFull)
	}
	v := binary.AppendUvarint(nil, uint64(user))
	v = binary.AppendVarint(v, expires.UnixMilli())
	return tx.put(bucketUser, loginTokenKey(hash), v)
}

// TakeLoginToken removes a login token and returns whose it was. The error
// wraps ErrNotFound where it was never given, was used or has expired.
func (tx *Tx) TakeLoginToken(hash TokenHash, now time.Time) (UserNum, error) {
	v := tx.get(bucketUser, loginTokenKey(hash))
	if v == nil {
		return 0, fmt.Errorf("login token: %w", ErrNotFound)
	}
	user, expires, err := readLoginToken(v)
	if err != nil {
		return 0, err
	}
	if !now.Before(expires) {
		return 0, fmt.Errorf("login token has expired: %w", ErrNotFound)
	}
	return user, tx.delete(bucketUser, loginTokenKey(hash))
}

// deleteLoginTokens removes the login tokens of a user.
func (tx *Tx) deleteLoginTokens(user UserNum) error {
	return tx.removeLoginTokens(func(u UserNum, _ time.Time) bool { return u == user })
}

// removeLoginTokens removes those that drop says yes to.
func (tx *Tx) removeLoginTokens(drop func(UserNum, time.Time) bool) error {
	var hashes []TokenHash
	err := tx.scan(bucketUser, keyOf(0, loginToken), nil, func(rest, value []byte) (bool, error) {
		hash, err := readHash(rest)
		if err != nil {
			return false, err
		}
		user, expires, err := readLoginToken(value)
		if err == nil && drop(user, expires) {
			hashes = append(hashes, hash)
		}
		return true, err
	})
	for _, hash := range hashes {
		err = errors.Join(err, tx.delete(bucketUser, loginTokenKey(hash)))
	}
	return err
}

func loginTokenKey(hash TokenHash) []byte { return append(keyOf(0, loginToken), hash[:]...) }

func readLoginToken(v []byte) (UserNum, time.Time, error) {
	r := reader{b: v}
	user, expires := UserNum(r.uvarint()), time.UnixMilli(r.varint())
	if r.err != nil {
		return 0, time.Time{}, fmt.Errorf("login token: %w", r.err)
	}
	return user, expires, nil
}
