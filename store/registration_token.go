package store

import (
	"encoding/binary"
	"fmt"
	"time"
)

// MaxRegistrationToken is the most bytes that a registration token may have.
//
// Spec: CS Token-authenticated registration.
const MaxRegistrationToken = 64

// A RegistrationToken lets people make an account.
type RegistrationToken struct {
	Token     string
	Allowed   uint64 // how often it may be used; 0: without bound
	Completed uint64 // how often it was used
	Created   time.Time
	Expires   time.Time // zero: never
}

// Left returns how many more accounts the token is good for at a time, and
// whether there is a bound at all. An expired one is good for none.
func (t RegistrationToken) Left(now time.Time) (n uint64, bounded bool) {
	switch {
	case !t.Expires.IsZero() && !now.Before(t.Expires):
		return 0, true
	case t.Allowed == 0:
		return 0, false
	case t.Completed >= t.Allowed:
		return 0, true
	}
	return t.Allowed - t.Completed, true
}

// Valid says whether the token is good for one more account.
func (t RegistrationToken) Valid(now time.Time) bool {
	n, bounded := t.Left(now)
	return n > 0 || !bounded
}

// CheckRegistrationToken says whether s may be a registration token: 1 to 64
// letters, digits and "-._~".
//
// Spec: appendices, Opaque Identifiers.
func CheckRegistrationToken(s string) error {
	if s == "" || len(s) > MaxRegistrationToken {
		return fmt.Errorf("a registration token has 1 to %d characters", MaxRegistrationToken)
	}
	for _, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && c != '-' && c != '.' && c != '_' && c != '~' {
			return fmt.Errorf("a registration token has letters, digits and -._~ only, not %q", c)
		}
	}
	return nil
}

// AddRegistrationToken stores a new token. The error wraps ErrExists where there
// is such a token already.
func (tx *Tx) AddRegistrationToken(t RegistrationToken) error {
	if err := CheckRegistrationToken(t.Token); err != nil {
		return err
	}
	if tx.get(bucketUser, registrationTokenKey(t.Token)) != nil {
		return fmt.Errorf("registration token: %w", ErrExists)
	}
	return tx.putRegistrationToken(t)
}

// RegistrationToken returns a token's record, or ErrNotFound.
func (tx *Tx) RegistrationToken(token string) (RegistrationToken, error) {
	v := tx.get(bucketUser, registrationTokenKey(token))
	if v == nil {
		return RegistrationToken{}, fmt.Errorf("registration token: %w", ErrNotFound)
	}
	return readRegistrationToken(token, v)
}

// RegistrationTokens calls fn for each token, valid or not, until fn returns
// false or an error.
func (tx *Tx) RegistrationTokens(fn func(RegistrationToken) (bool, error)) error {
	return tx.scan(bucketUser, keyOf(0, registrationToken), nil, func(rest, value []byte) (bool, error) {
		t, err := readRegistrationToken(string(rest), value)
		if err != nil {
			return false, err
		}
		return fn(t)
	})
}

// UseRegistrationToken counts one account made by a token. Do it in the write
// that makes the account: of two who race for the last use, one fails. The error
// wraps ErrNotFound where the token is not good any more.
func (tx *Tx) UseRegistrationToken(token string, now time.Time) error {
	t, err := tx.RegistrationToken(token)
	if err != nil {
		return err
	}
	if !t.Valid(now) {
		return fmt.Errorf("registration token is used up or has expired: %w", ErrNotFound)
	}
	t.Completed++
	return tx.putRegistrationToken(t)
}

// RevokeRegistrationToken removes a token. The error wraps ErrNotFound where there
// is none.
func (tx *Tx) RevokeRegistrationToken(token string) error {
	if _, err := tx.RegistrationToken(token); err != nil {
		return err
	}
	return tx.delete(bucketUser, registrationTokenKey(token))
}

func (tx *Tx) putRegistrationToken(t RegistrationToken) error {
	var expires int64
	if !t.Expires.IsZero() {
		expires = t.Expires.UnixMilli()
	}
	v := binary.AppendUvarint(nil, t.Allowed)
	v = binary.AppendUvarint(v, t.Completed)
	v = binary.AppendVarint(v, t.Created.UnixMilli())
	v = binary.AppendVarint(v, expires)
	return tx.put(bucketUser, registrationTokenKey(t.Token), v)
}

func registrationTokenKey(token string) []byte { return append(keyOf(0, registrationToken), token...) }

func readRegistrationToken(token string, v []byte) (RegistrationToken, error) {
	r := reader{b: v}
	t := RegistrationToken{Token: token, Allowed: r.uvarint(), Completed: r.uvarint(), Created: time.UnixMilli(r.varint())}
	if ms := r.varint(); ms != 0 {
		t.Expires = time.UnixMilli(ms)
	}
	if r.err != nil {
		return RegistrationToken{}, fmt.Errorf("registration token: %w", r.err)
	}
	return t, nil
}
