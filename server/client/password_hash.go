package client

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/bcrypt"

	"hearth/server/api"
)

// Passwords makes and checks password hashes, a few at a time: each one is meant
// to be slow, and a board has few cores. Make it with [NewPasswords].
type Passwords struct {
	cost  int
	slots chan struct{} // one for each hash that is being made
	line  chan struct{} // one for each that is being made or waits
	decoy string        // the hash of no password, checked where there is none
}

const (
	defaultPasswordCost = 10
	maxHashing          = 2               // hashes at a time
	maxHashLine         = 64              // hashes at a time and in line
	hashWait            = 2 * time.Second // told to who finds the line full
	// MaxPassword is the most bytes that a password may have.
	MaxPassword = 512
)

// NewPasswords returns hashing of a work factor (if zero, 10), which is brought
// into the bounds of bcrypt, 4 to 31.
func NewPasswords(cost int) *Passwords {
	if cost == 0 {
		cost = defaultPasswordCost
	}
	cost = min(max(cost, bcrypt.MinCost), bcrypt.MaxCost)
	return &Passwords{
		cost:  cost,
		slots: make(chan struct{}, maxHashing),
		line:  make(chan struct{}, maxHashLine),
		decoy: fmt.Sprintf("$2a$%02d$", cost) + "abcdefghijklmnopqrstuuKDKDpd5Sm0GUVyTzXm5eY2TTGRmGOPa",
	}
}

// Hash returns what an account stores of a password. The error is M_MISSING_PARAM
// for an empty password, M_INVALID_PARAM for one over MaxPassword bytes,
// M_LIMIT_EXCEEDED when too many wait in line, or ctx's.
func (p *Passwords) Hash(ctx context.Context, password string) (string, error) {
	switch {
	case password == "":
		return "", api.MissingParam("password")
	case len(password) > MaxPassword:
		return "", api.ErrInvalidParam.Because("A password may have %d bytes at most", MaxPassword)
	}
	var hash []byte
	err := p.turn(ctx, func() (err error) {
		hash, err = bcrypt.GenerateFromPassword(prehash(password), p.cost)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("hash a password: %w", err)
	}
	return string(hash), nil
}

// Check says whether a password is the one of a hash. An empty hash, of an account
// that has no password or does not exist, takes as long as any other.
func (p *Passwords) Check(ctx context.Context, hash, password string) (bool, error) {
	if password == "" || len(password) > MaxPassword {
		return false, nil
	}
	against := hash
	if hash == "" {
		against = p.decoy
	}
	err := p.turn(ctx, func() error {
		return bcrypt.CompareHashAndPassword([]byte(against), prehash(password))
	})
	switch {
	case errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("check a password: %w", err)
	}
	return hash != "", nil
}

// turn runs fn when it is its turn.
func (p *Passwords) turn(ctx context.Context, fn func() error) error {
	select {
	case p.line <- struct{}{}:
		defer func() { <-p.line }()
	default:
		return api.TryAfter(hashWait)
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
		return fn()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prehash turns a password of any length and content into the 72 bytes or less
// without NUL that bcrypt reads. The key keeps hashes that leaked elsewhere from
// being tried here.
func prehash(password string) []byte {
	mac := hmac.New(sha256.New, []byte("hearth account password"))
	mac.Write([]byte(password))
	return base64.RawStdEncoding.AppendEncode(nil, mac.Sum(nil))
}
