package client

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// loginFrom tries a password from an address and returns the status.
func loginFrom(s *testServer, address, password string) int {
	body := fmt.Sprintf(`{"type":"m.login.password","user":"alice","password":%q}`, password)
	r := httptest.NewRequest("POST", "/_matrix/client/v3/login", strings.NewReader(body))
	r.RemoteAddr = address
	w := httptest.NewRecorder()
	s.router.ServeHTTP(w, r)
	return w.Code
}

// However many strangers guess, a day has a bounded number of tries, and the user
// logs in from home, and from elsewhere where few strangers are at it.
func TestStrangersDoNotLockOut(t *testing.T) {
	s := newLimitedServer(t)
	token := s.account(t, "alice", "secret")
	const home, elsewhere = "[2001:db8:1:1::5]:1000", "198.51.100.7:1000"
	r := httptest.NewRequest("GET", "/_matrix/client/v3/account/whoami", nil)
	r.RemoteAddr = "[2001:db8:1:1::9]:1000"
	r.Header.Set("Authorization", "Bearer "+token)
	s.router.ServeHTTP(httptest.NewRecorder(), r)

	tried := 0
	for range 40 {
		if loginFrom(s, "203.0.113.1:1000", "wrong") == http.StatusForbidden {
			tried++
		}
	}
	if tried > 11 {
		t.Errorf("one stranger tried %d passwords at once", tried)
	}
	if code := loginFrom(s, elsewhere, "secret"); code != http.StatusOK {
		t.Errorf("from elsewhere, while one stranger guesses: %d", code)
	}
	for i := range 200 {
		if loginFrom(s, fmt.Sprintf("[2001:db8:2:%x::1]:1000", i), "wrong") == http.StatusForbidden {
			tried++
		}
	}
	if tried > 65 {
		t.Errorf("many strangers tried %d passwords at once", tried)
	}
	if code := loginFrom(s, home, "secret"); code != http.StatusOK {
		t.Errorf("from home, while many strangers guess: %d", code)
	}
}

// Account data, tags and receipts are counted, and large pieces as many.
func TestDataIsLimited(t *testing.T) {
	s := newLimitedServer(t)
	alice := s.account(t, "alice", "secret")
	const path = "/_matrix/client/v3/user/@alice:hearth.test/account_data/org.example"
	large := `{"a":"` + strings.Repeat("x", 1_000_000) + `"}`
	for _, test := range []struct {
		body        string
		least, most int
	}{{large, 3, 10}, {"{}", 0, 60}} {
		good := 0
		for range 100 {
			if s.do("PUT", path, alice, test.body).Code == http.StatusOK {
				good++
			}
		}
		if good < test.least || good > test.most {
			t.Errorf("%d pieces of %d bytes at once, want %d to %d", good, len(test.body), test.least, test.most)
		}
	}
}
