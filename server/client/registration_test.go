package client

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"

	"hearth/store"
)

// Tools compute the HMAC over nonce, name, password and role with NUL bytes
// between them, and the account has what they asked for.
func TestRegisterBySecret(t *testing.T) {
	s := newTestServer(t, Config{SharedSecret: "hunter2"})
	for i, admin := range []bool{true, false, true} {
		name := map[bool]string{true: "admin", false: "plain"}[admin]
		var nonce nonceResponse
		w := s.do("GET", "/_synapse/admin/v1/register", "", "")
		if err := json.Unmarshal(w.Body.Bytes(), &nonce); err != nil {
			t.Fatal(err)
		}
		role := map[bool]string{true: "admin", false: "notadmin"}[admin]
		mac := hmac.New(sha1.New, []byte("hunter2"))
		mac.Write([]byte(strings.Join([]string{nonce.Nonce, name, "pässwörd", role}, "\x00")))
		body := fmt.Sprintf(`{"nonce":%q,"username":%q,"displayname":"Ü","password":"pässwörd","admin":%t,"mac":%q}`,
			nonce.Nonce, name, admin, hex.EncodeToString(mac.Sum(nil)))
		w = s.do("POST", "/_synapse/admin/v1/register", "", body)
		if i == 2 {
			if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "M_USER_IN_USE") {
				t.Errorf("a name that is taken: %d %s", w.Code, w.Body)
			}
			continue
		}
		if w.Code != http.StatusOK {
			t.Fatalf("register %s: %d %s", name, w.Code, w.Body)
		}
		var login loginResponse
		if err := json.Unmarshal(w.Body.Bytes(), &login); err != nil {
			t.Fatal(err)
		}
		if w := s.do("GET", "/_matrix/client/v3/account/whoami", login.AccessToken, ""); w.Code != http.StatusOK {
			t.Errorf("whoami of %s: %d", name, w.Code)
		}
		err := s.store.View(func(tx *store.Tx) error {
			a, err := tx.Account(tx.UserNum(login.UserID))
			if err == nil && a.Admin != admin {
				t.Errorf("%s is an administrator: %t, want %t", name, a.Admin, admin)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// Of many who race for the last use of a token, or for one name, one wins.
func TestRegistrationRaces(t *testing.T) {
	s := newTestServer(t, Config{Registration: RegistrationToken})
	addRegistrationToken(t, s, "once", "1")
	if n := race(s, func(i int) string {
		return fmt.Sprintf(`{"username":"u%d","password":"secret","auth":{"type":"m.login.registration_token","token":"once"}}`, i)
	}); n != 1 {
		t.Errorf("a token for one account made %d", n)
	}
	addRegistrationToken(t, s, "many", "")
	if n := race(s, func(int) string {
		return `{"username":"same","password":"secret","auth":{"type":"m.login.registration_token","token":"many"}}`
	}); n != 1 {
		t.Errorf("one name was given %d times", n)
	}
}

// race sends a registration from several clients at once and counts successes.
func race(s *testServer, body func(i int) string) int {
	var wait sync.WaitGroup
	codes := make([]int, 12)
	for i := range codes {
		wait.Go(func() { codes[i] = s.do("POST", "/_matrix/client/v3/register", "", body(i)).Code })
	}
	wait.Wait()
	n := 0
	for _, code := range codes {
		if code == http.StatusOK {
			n++
		}
	}
	return n
}

// The first account is the owner's; later ones are not, and neither is that of a
// stranger who was quicker.
func TestFirstAccountIsOwner(t *testing.T) {
	s := newTestServer(t, Config{Registration: RegistrationOpen})
	if w := s.do("POST", "/_matrix/client/v3/register", "", `{"username":"zero","password":"secret","auth":{"type":"m.login.dummy"}}`); w.Code != http.StatusOK {
		t.Fatalf("register: %d %s", w.Code, w.Body)
	}
	s.account(t, "first", "secret")
	s.account(t, "second", "secret")
	err := s.store.View(func(tx *store.Tx) error {
		first, second := tx.UserNum("@first:hearth.test"), tx.UserNum("@second:hearth.test")
		if tx.Owner() != first {
			t.Errorf("the owner is %d, want %d", tx.Owner(), first)
		}
		for user, want := range map[store.UserNum]bool{tx.UserNum("@zero:hearth.test"): false, first: true, second: false} {
			a, err := tx.Account(user)
			if err != nil {
				return err
			}
			if a.Admin != want {
				t.Errorf("user %d is an administrator: %t, want %t", user, a.Admin, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
