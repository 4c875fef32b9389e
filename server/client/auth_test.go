package client

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/store"
)

// An account that is locked can log out and nothing else; one that is suspended
// can read but not act. Neither loses its tokens.
//
// Spec: CS Account locking, Account suspension.
func TestLockedAndSuspended(t *testing.T) {
	s := newTestServer(t, Config{})
	token := s.account(t, "alice", "secret")
	const profile = "/_matrix/client/v3/profile/@alice:hearth.test/m.tz"
	steps := []struct {
		locked, suspended  bool
		method, path, body string
		status             int
		code               string
	}{
		{true, false, "GET", "/_matrix/client/v3/devices", "", 401, `"M_USER_LOCKED"`},
		{true, false, "GET", "/_matrix/client/v3/devices", "", 401, `"soft_logout":true`},
		{true, false, "GET", "/_matrix/client/versions", "", 401, `"M_USER_LOCKED"`},
		{true, false, "POST", "/_matrix/client/v3/login", `{"type":"m.login.password","user":"alice","password":"secret"}`, 401, `"M_USER_LOCKED"`},
		{false, true, "GET", "/_matrix/client/v3/devices", "", 200, ""},
		{false, true, "PUT", profile, `{"m.tz":"UTC"}`, 403, `"M_USER_SUSPENDED"`},
		{false, false, "PUT", profile, `{"m.tz":"UTC"}`, 200, ""},
		{true, true, "POST", "/_matrix/client/v3/logout", "{}", 200, ""},
		{false, false, "GET", "/_matrix/client/v3/devices", "", 401, `"M_UNKNOWN_TOKEN"`},
	}
	for _, step := range steps {
		err := s.store.Update(t.Context(), func(tx *store.Tx) error {
			return tx.UpdateAccount(tx.UserNum("@alice:hearth.test"), func(a *store.Account) {
				a.Locked, a.Suspended = step.locked, step.suspended
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		w := s.do(step.method, step.path, token, step.body)
		if w.Code != step.status || !strings.Contains(w.Body.String(), step.code) {
			t.Errorf("locked %t, suspended %t: %s %s gives %d %s, want %d %s",
				step.locked, step.suspended, step.method, step.path, w.Code, w.Body, step.status, step.code)
		}
	}
}

// A password is not guessed: after a few tries the account takes none from that
// address for a while, but who is logged in can still confirm a deed.
func TestPasswordTriesAreLimited(t *testing.T) {
	s := newLimitedServer(t)
	token := s.account(t, "alice", "secret")
	limited := false
	for range 15 {
		w := s.do("POST", "/_matrix/client/v3/login", "", `{"type":"m.login.password","user":"alice","password":"wrong"}`)
		limited = limited || w.Code == http.StatusTooManyRequests
	}
	if !limited {
		t.Error("15 wrong passwords in a row were all tried")
	}
	body := `{"auth":{"type":"m.login.password","user":"alice","password":"secret"}}`
	if w := s.do("DELETE", "/_matrix/client/v3/devices/X", token, body); w.Code != http.StatusOK {
		t.Errorf("a deed confirmed meanwhile: %d %s", w.Code, w.Body)
	}
}

// A device cannot be called like a cross-signing key of its user: a signature
// could be about either.
func TestDeviceIsNoCrossSigningKey(t *testing.T) {
	s := newTestServer(t, Config{})
	s.account(t, "alice", "secret")
	err := s.store.Update(t.Context(), func(tx *store.Tx) error {
		key := store.CrossSigningKey{Public: "PUBLIC", JSON: jsontext.Value(`{"keys":{"ed25519:PUBLIC":"PUBLIC"}}`)}
		return tx.PutCrossSigningKeys(tx.UserNum("@alice:hearth.test"), map[store.Usage]store.CrossSigningKey{store.UsageMaster: key})
	})
	if err != nil {
		t.Fatal(err)
	}
	for device, want := range map[string]int{"PUBLIC": http.StatusForbidden, "OTHER": http.StatusOK} {
		w := s.do("POST", "/_matrix/client/v3/login", "",
			`{"type":"m.login.password","user":"alice","password":"secret","device_id":"`+device+`"}`)
		if w.Code != want {
			t.Errorf("login as device %s: %d %s", device, w.Code, w.Body)
		}
	}
}

// A stranger who makes tokens up is held back like one who brings none.
func TestUnknownTokensAreLimited(t *testing.T) {
	s := newLimitedServer(t)
	token := s.account(t, "alice", "secret")
	limited := false
	for range 250 {
		w := s.do("GET", "/_matrix/client/v3/devices", "made-up", "")
		limited = limited || w.Code == http.StatusTooManyRequests
	}
	if !limited {
		t.Error("250 unknown tokens in a row were all looked up")
	}
	if w := s.do("GET", "/_matrix/client/v3/devices", token, ""); w.Code != http.StatusOK {
		t.Errorf("a good token from the same address meanwhile: %d %s", w.Code, w.Body)
	}
}

// A sync that waits while its device is logged out ends with an error and tells
// nothing of what comes after.
func TestLogoutEndsWaitingSync(t *testing.T) {
	s := newTestServer(t, Config{})
	token := s.account(t, "alice", "secret")
	since := syncDevice(t, s, token, "").Next
	done := make(chan *httptest.ResponseRecorder, 1)
	go func() { done <- s.do("GET", "/_matrix/client/v3/sync?timeout=30000&since="+since, token, "") }()
	time.Sleep(50 * time.Millisecond) // so that it waits; without, it is refused at once
	if w := s.do("POST", "/_matrix/client/v3/logout", token, "{}"); w.Code != http.StatusOK {
		t.Fatalf("logout: %d %s", w.Code, w.Body)
	}
	if w := <-done; w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), "M_UNKNOWN_TOKEN") {
		t.Errorf("the sync that waited: %d %s", w.Code, w.Body)
	}
}

// A suspended account may redact what it sent itself and nothing else.
//
// Spec: CS Account suspension.
func TestSuspendedRedactsOwnAlone(t *testing.T) {
	s := newTestServer(t, Config{})
	alice, bob := s.account(t, "alice", "secret"), s.account(t, "bob", "secret")
	room := answerString(t, s.do("POST", "/_matrix/client/v3/createRoom", alice, `{"preset":"public_chat"}`), "room_id")
	if w := s.do("POST", "/_matrix/client/v3/join/"+room, bob, "{}"); w.Code != http.StatusOK {
		t.Fatalf("join: %d %s", w.Code, w.Body)
	}
	rooms := "/_matrix/client/v3/rooms/" + room
	ofAlice := answerString(t, s.do("PUT", rooms+"/send/m.room.message/1", alice, `{"body":"a"}`), "event_id")
	ofBob := answerString(t, s.do("PUT", rooms+"/send/m.room.message/1", bob, `{"body":"b"}`), "event_id")
	err := s.store.Update(t.Context(), func(tx *store.Tx) error {
		return tx.UpdateAccount(tx.UserNum("@alice:hearth.test"), func(a *store.Account) { a.Suspended = true })
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		method, path, body string
		status             int
	}{
		{"PUT", rooms + "/redact/" + ofBob + "/2", "{}", http.StatusForbidden},
		{"PUT", rooms + "/send/m.room.redaction/3", `{"redacts":"` + ofBob + `"}`, http.StatusForbidden},
		{"PUT", rooms + "/redact/" + ofAlice + "/4", "{}", http.StatusOK},
		{"PUT", rooms + "/send/m.room.message/5", `{"body":"c"}`, http.StatusForbidden},
		{"POST", rooms + "/leave", "{}", http.StatusOK},
	} {
		if w := s.do(step.method, step.path, alice, step.body); w.Code != step.status {
			t.Errorf("%s %s: %d %s, want %d", step.method, step.path, w.Code, w.Body, step.status)
		}
	}
}

// answerString returns a member of a good answer that is text.
func answerString(t *testing.T, w *httptest.ResponseRecorder, name string) string {
	t.Helper()
	text := contentString(w.Body.Bytes(), name)
	if w.Code != http.StatusOK || text == "" {
		t.Fatalf("%s: %d %s", name, w.Code, w.Body)
	}
	return text
}

// Who cannot log in because the account is locked cannot go round that with the
// deeds that need no token.
func TestLockedAccountProvesNothing(t *testing.T) {
	s := newTestServer(t, Config{})
	s.account(t, "alice", "secret")
	lock := func(locked bool) {
		err := s.store.Update(t.Context(), func(tx *store.Tx) error {
			return tx.UpdateAccount(tx.UserNum("@alice:hearth.test"), func(a *store.Account) { a.Locked = locked })
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	const auth = `"auth":{"type":"m.login.password","user":"alice","password":"secret"}`
	lock(true)
	for path, body := range map[string]string{
		"password":   `{"new_password":"other",` + auth + `}`,
		"deactivate": `{` + auth + `}`,
	} {
		w := s.do("POST", "/_matrix/client/v3/account/"+path, "", body)
		if w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), "M_USER_LOCKED") {
			t.Errorf("%s of a locked account: %d %s", path, w.Code, w.Body)
		}
	}
	lock(false)
	w := s.do("POST", "/_matrix/client/v3/login", "", `{"type":"m.login.password","user":"alice","password":"secret"}`)
	if w.Code != http.StatusOK {
		t.Errorf("login with the old password: %d %s", w.Code, w.Body)
	}
}
