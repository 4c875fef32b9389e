package client

import (
	"strconv"
	"testing"

	"hearth/store"
)

// addRegistrationToken stores a token that may be used so often; "": without bound.
func addRegistrationToken(t testing.TB, s *testServer, token, uses string) {
	t.Helper()
	allowed := uint64(0)
	if uses != "" {
		n, err := strconv.ParseUint(uses, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		allowed = n
	}
	err := s.store.Update(t.Context(), func(tx *store.Tx) error {
		return tx.AddRegistrationToken(store.RegistrationToken{Token: token, Allowed: allowed, Created: s.now()})
	})
	if err != nil {
		t.Fatal(err)
	}
}
