package client

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"hearth/server/api"
	"hearth/store"
)

// An OpenID token tells whose it is until it ends, and no other text does.
func TestOpenIDUser(t *testing.T) {
	s := newTestServer(t, Config{})
	alice := s.account(t, "alice", "secret")
	var answer openIDResponse
	got := post(t, s, "/_matrix/client/v3/user/@alice:hearth.test/openid/request_token", alice, "{}", 200)
	if err := json.Unmarshal([]byte(got), &answer); err != nil {
		t.Fatal(err)
	}
	token := answer.AccessToken
	if user, err := s.OpenIDUser(token); user != "@alice:hearth.test" || err != nil {
		t.Fatalf("%s, %v", user, err)
	}
	sealed, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, openIDPrefix))
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed { // each byte counts
		sealed[i] ^= 1
		changed := openIDPrefix + base64.RawURLEncoding.EncodeToString(sealed)
		if user, err := s.OpenIDUser(changed); !errors.Is(err, api.ErrUnknownToken) {
			t.Fatalf("byte %d changed: %s, %v", i, user, err)
		}
		sealed[i] ^= 1
	}
	for _, other := range []string{"", openIDPrefix, alice, token[:60], token + "AA", token + "=", strings.TrimPrefix(token, openIDPrefix)} {
		if user, err := s.OpenIDUser(other); !errors.Is(err, api.ErrUnknownToken) {
			t.Errorf("%.20q: %s, %v", other, user, err)
		}
	}
	lock := func(locked bool) {
		err := s.store.Update(t.Context(), func(tx *store.Tx) error {
			return tx.UpdateAccount(tx.UserNum("@alice:hearth.test"), func(a *store.Account) { a.Locked = locked })
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	lock(true)
	if _, err := s.OpenIDUser(token); !errors.Is(err, api.ErrUnknownToken) {
		t.Errorf("of a locked account: %v", err)
	}
	lock(false)
	s.clock.Advance(openIDLife - 1)
	if _, err := s.OpenIDUser(token); err != nil {
		t.Errorf("at the end of its life: %v", err)
	}
	s.clock.Advance(1)
	if _, err := s.OpenIDUser(token); !errors.Is(err, api.ErrUnknownToken) {
		t.Errorf("after its end: %v", err)
	}
}
