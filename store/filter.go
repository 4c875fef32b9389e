package store

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// A FilterID names a filter among those of one user. It comes from the filter's
// content, so that the same one stored twice is one.
type FilterID uint64

// maxFilters bounds the filters of a user. Clients make a handful each.
const maxFilters = 1000

// PutFilter stores a filter, in canonical form, and returns its name. The error
// wraps ErrFull where the user has too many.
//
// Spec: CS Filtering.
func (tx *Tx) PutFilter(user UserNum, filter jsontext.Value) (FilterID, error) {
	sum := sha256.Sum256(filter)
	for id := u64(sum[:8]); ; id++ { // filters whose hashes agree stand side by side
		old := tx.get(bucketUser, filterKey(user, FilterID(id)))
		switch {
		case old == nil && tx.countFilters(user) >= maxFilters:
			return 0, fmt.Errorf("filter of user %d: %w", user, ErrFull)
		case old == nil:
			return FilterID(id), tx.put(bucketUser, filterKey(user, FilterID(id)), bytes.Clone(filter))
		case bytes.Equal(old, filter):
			return FilterID(id), nil
		}
	}
}

// Filter returns a filter of a user, or ErrNotFound.
func (tx *Tx) Filter(user UserNum, id FilterID) (jsontext.Value, error) {
	v := tx.get(bucketUser, filterKey(user, id))
	if v == nil {
		return nil, fmt.Errorf("filter %x of user %d: %w", uint64(id), user, ErrNotFound)
	}
	return bytes.Clone(v), nil
}

func (tx *Tx) countFilters(user UserNum) int {
	n := 0
	_ = tx.scan(bucketUser, keyOf(uint32(user), userFilter), nil, func(_, _ []byte) (bool, error) {
		n++
		return true, nil
	})
	return n
}

func filterKey(user UserNum, id FilterID) []byte {
	return appendU64(keyOf(uint32(user), userFilter), uint64(id))
}
