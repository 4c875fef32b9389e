package store

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"hearth/state/matrix"
)

// A TokenHash is the SHA-256 of a token. The token itself is never stored.
type TokenHash [sha256.Size]byte

// HashToken returns the hash under which a token is known.
func HashToken(token string) TokenHash { return sha256.Sum256([]byte(token)) }

// TokenKind says what a token is good for.
type TokenKind uint8

// The kinds of tokens of a device.
const (
	AccessToken  TokenKind = 1
	RefreshToken TokenKind = 2
)

// TokenState says how far a pair of tokens has come.
//
// A refresh makes a fresh pair beside the one that is in use. When a fresh
// token is first used, its pair takes the place of the other, whose tokens are
// then spent. So a refresh whose reply was lost can be repeated. A spent token
// is kept for one generation: who presents it has lost a race, not the device.
//
// Spec: CS Refreshing access tokens.
type TokenState uint8

// The states of a token.
const (
	TokenFresh TokenState = 1 // given out, not seen yet
	TokenInUse TokenState = 2
	TokenSpent TokenState = 3
)

// A Token is an access or refresh token of a device.
type Token struct {
	Hash    TokenHash
	User    UserNum
	Device  matrix.DeviceID
	Kind    TokenKind
	State   TokenState
	Pair    uint64    // the tokens that were given out together have the same
	Expires time.Time // zero: never
}

// Expired says whether the token's time is over.
func (t Token) Expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

// maxFreshPairs bounds the pairs that wait to be used: a client that never
// receives the reply to its refresh does not pile up tokens.
const maxFreshPairs = 4

// Token returns what a token stands for, or ErrNotFound.
func (tx *Tx) Token(hash TokenHash) (Token, error) {
	v := tx.get(bucketUser, tokenUserKey(hash))
	if len(v) != 4 {
		return Token{}, fmt.Errorf("token: %w", ErrNotFound)
	}
	user := UserNum(u32(v))
	t, err := readToken(user, hash, tx.get(bucketUser, tokenKey(user, hash)))
	if err != nil {
		return Token{}, fmt.Errorf("token of user %d: %w", user, err)
	}
	return t, nil
}

// NewTokens are the hashes of the tokens that a login or a refresh gives out.
type NewTokens struct {
	Access  TokenHash
	Expires time.Time // of the access token; zero: never
	Refresh *TokenHash
}

// PutLogin gives a device its tokens and takes away all that it had.
//
// Spec: CS Relationship between access tokens and devices.
func (tx *Tx) PutLogin(user UserNum, device matrix.DeviceID, n NewTokens) error {
	if err := tx.deleteTokens(user, device); err != nil {
		return err
	}
	return tx.putPair(user, device, 1, TokenInUse, n)
}

// Refresh gives a device a fresh pair for its refresh token, which stays good
// until the fresh pair is used. The error wraps ErrNotFound where the token is no
// refresh token that is good now.
func (tx *Tx) Refresh(hash TokenHash, n NewTokens) error {
	old, err := tx.UseToken(hash)
	if err != nil {
		return err
	}
	if old.Kind != RefreshToken || old.State == TokenSpent {
		return fmt.Errorf("refresh: %w", ErrNotFound)
	}
	tokens, err := tx.tokens(old.User, old.Device)
	if err != nil {
		return err
	}
	pair, fresh := old.Pair, []uint64(nil)
	for _, t := range tokens {
		pair = max(pair, t.Pair)
		if t.State == TokenFresh && t.Kind == RefreshToken {
			fresh = append(fresh, t.Pair)
		}
	}
	if len(fresh) >= maxFreshPairs {
		if err := tx.deletePair(tokens, oldest(fresh)); err != nil {
			return err
		}
	}
	return tx.putPair(old.User, old.Device, pair+1, TokenFresh, n)
}

// UseToken returns what a token stands for, as Token does, and puts a fresh
// one in use in place of its predecessors. A View is enough for a token whose
// State is not TokenFresh.
func (tx *Tx) UseToken(hash TokenHash) (Token, error) {
	used, err := tx.Token(hash)
	if err != nil || used.State != TokenFresh {
		return used, err
	}
	tokens, err := tx.tokens(used.User, used.Device)
	if err != nil {
		return Token{}, err
	}
	for _, t := range tokens {
		switch {
		case t.Pair == used.Pair:
			t.State = TokenInUse
			err = tx.putToken(t)
		case t.State == TokenInUse:
			t.State = TokenSpent
			err = tx.putToken(t)
		default:
			err = tx.deleteToken(t)
		}
		if err != nil {
			return Token{}, err
		}
	}
	used.State = TokenInUse
	return used, nil
}

// deleteTokens takes all its tokens from a device.
func (tx *Tx) deleteTokens(user UserNum, device matrix.DeviceID) error {
	tokens, err := tx.tokens(user, device)
	for _, t := range tokens {
		if err == nil {
			err = tx.deleteToken(t)
		}
	}
	return err
}

// tokens returns the tokens of a device: a handful.
func (tx *Tx) tokens(user UserNum, device matrix.DeviceID) ([]Token, error) {
	var tokens []Token
	prefix := keyOf(uint32(user), userToken)
	err := tx.scan(bucketUser, prefix, nil, func(rest, value []byte) (bool, error) {
		hash, err := readHash(rest)
		if err != nil {
			return false, err
		}
		t, err := readToken(user, hash, value)
		if err != nil {
			return false, fmt.Errorf("token of user %d: %w", user, err)
		}
		if t.Device == device {
			tokens = append(tokens, t)
		}
		return true, nil
	})
	return tokens, err
}

func (tx *Tx) putPair(user UserNum, device matrix.DeviceID, pair uint64, state TokenState, n NewTokens) error {
	t := Token{Hash: n.Access, User: user, Device: device, Kind: AccessToken, State: state, Pair: pair, Expires: n.Expires}
	if err := tx.putToken(t); err != nil || n.Refresh == nil {
		return err
	}
	t.Hash, t.Kind, t.Expires = *n.Refresh, RefreshToken, time.Time{}
	return tx.putToken(t)
}

func (tx *Tx) deletePair(tokens []Token, pair uint64) error {
	for _, t := range tokens {
		if t.Pair != pair {
			continue
		}
		if err := tx.deleteToken(t); err != nil {
			return err
		}
	}
	return nil
}

func oldest(pairs []uint64) uint64 {
	first := pairs[0]
	for _, p := range pairs {
		first = min(first, p)
	}
	return first
}

func (tx *Tx) putToken(t Token) error {
	v := []byte{byte(t.Kind), byte(t.State)}
	v = binary.AppendUvarint(v, t.Pair)
	var expires int64
	if !t.Expires.IsZero() {
		expires = t.Expires.UnixMilli()
	}
	v = binary.AppendVarint(v, expires)
	v = append(v, t.Device...)
	return errors.Join(
		tx.put(bucketUser, tokenKey(t.User, t.Hash), v),
		tx.put(bucketUser, tokenUserKey(t.Hash), appendU32(nil, uint32(t.User))),
	)
}

func (tx *Tx) deleteToken(t Token) error {
	return errors.Join(
		tx.delete(bucketUser, tokenKey(t.User, t.Hash)),
		tx.delete(bucketUser, tokenUserKey(t.Hash)),
	)
}

func tokenKey(user UserNum, hash TokenHash) []byte {
	return append(keyOf(uint32(user), userToken), hash[:]...)
}

func tokenUserKey(hash TokenHash) []byte { return append(keyOf(0, tokenUser), hash[:]...) }

// readHash reads the hash that ends a key.
func readHash(rest []byte) (TokenHash, error) {
	if len(rest) != len(TokenHash{}) {
		return TokenHash{}, fmt.Errorf("token hash of %d bytes: %w", len(rest), ErrDamaged)
	}
	return TokenHash(rest), nil
}

func readToken(user UserNum, hash TokenHash, v []byte) (Token, error) {
	r := reader{b: v}
	t := Token{Hash: hash, User: user, Kind: TokenKind(r.byte()), State: TokenState(r.byte()), Pair: r.uvarint()}
	if ms := r.varint(); ms != 0 {
		t.Expires = time.UnixMilli(ms)
	}
	t.Device = matrix.DeviceID(r.b)
	return t, r.err
}
