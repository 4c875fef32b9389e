package client

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"hearth/state/matrix"
	"hearth/store"
)

// guest registers a guest.
func guest(t *testing.T, s *testServer) loginResponse {
	t.Helper()
	var login loginResponse
	if err := json.Unmarshal([]byte(post(t, s, "/_matrix/client/v3/register?kind=guest", "", "{}", 200)), &login); err != nil {
		t.Fatal(err)
	}
	return login
}

// Every endpoint for guests is there.
func TestGuestRoutes(t *testing.T) {
	known := make(map[string]bool)
	for _, rt := range routes {
		known[rt.pattern] = true
	}
	for pattern := range guestRoutes {
		if !known[pattern] {
			t.Errorf("no route %s", pattern)
		}
	}
}

// When a room stops taking guests, those who are in it leave, and users stay.
func TestGuestsLeave(t *testing.T) {
	s := newTestServer(t, Config{Registration: RegistrationOpen})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.runGuests(ctx) }()
	defer func() {
		stop()
		<-done
	}()
	alice, bob, visitor := s.account(t, "alice", "secret"), s.account(t, "bob", "secret"), guest(t, s)
	var room roomAnswer
	made := post(t, s, "/_matrix/client/v3/createRoom", alice,
		`{"preset":"public_chat","initial_state":[{"type":"m.room.guest_access","content":{"guest_access":"can_join"}}]}`, 200)
	if err := json.Unmarshal([]byte(made), &room); err != nil {
		t.Fatal(err)
	}
	path := "/_matrix/client/v3/rooms/" + string(room.Room)
	post(t, s, path+"/join", bob, "{}", 200)
	post(t, s, path+"/join", visitor.AccessToken, "{}", 200)
	if w := s.do("PUT", path+"/state/m.room.guest_access", alice, `{"guest_access":"forbidden"}`); w.Code != 200 {
		t.Fatal(w.Code, w.Body)
	}
	joined := func() string { return s.do("GET", path+"/joined_members", alice, "").Body.String() }
	for end := time.Now().Add(20 * time.Second); strings.Contains(joined(), string(visitor.UserID)); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the guest is still there")
		}
	}
	if !strings.Contains(joined(), "@bob:hearth.test") {
		t.Error("bob is no guest and was made to leave")
	}
	post(t, s, path+"/join", visitor.AccessToken, "{}", 403)
}

// There are so many guests and no more, until some have not been seen for long.
func TestGuestsAreBounded(t *testing.T) {
	s := newTestServer(t, Config{Registration: RegistrationOpen})
	for i := range maxGuests - 1 {
		plan := loginPlan{device: "D", access: newToken(accessTokenPrefix)}
		if err := s.makeGuest(t.Context(), matrix.UserID(fmt.Sprintf("@g%d:hearth.test", i)), plan); err != nil {
			t.Fatal(err)
		}
	}
	last := guest(t, s)
	post(t, s, "/_matrix/client/v3/register?kind=guest", "", "{}", 403)
	s.restart(t)
	post(t, s, "/_matrix/client/v3/register?kind=guest", "", "{}", 403)
	s.clock.Advance(guestIdle)
	if w := s.do("GET", "/_matrix/client/v3/account/whoami", last.AccessToken, ""); w.Code != 200 {
		t.Fatal(w.Code, w.Body)
	}
	guest(t, s)
	if w := s.do("GET", "/_matrix/client/v3/account/whoami", last.AccessToken, ""); w.Code != 200 {
		t.Errorf("a guest who was just here is gone: %d %s", w.Code, w.Body)
	}
}

// A guest who registers keeps ID, device and token, and is no guest any more.
func TestGuestUpgrade(t *testing.T) {
	s := newTestServer(t, Config{Registration: RegistrationOpen})
	visitor := guest(t, s)
	name, _, _ := strings.Cut(strings.TrimPrefix(string(visitor.UserID), "@"), ":")
	body := fmt.Sprintf(`{"username":%q,"password":"secret","guest_access_token":%q,"auth":{"type":"m.login.dummy"}}`, name, visitor.AccessToken)
	var login loginResponse
	if err := json.Unmarshal([]byte(post(t, s, "/_matrix/client/v3/register", "", body, 200)), &login); err != nil {
		t.Fatal(err)
	}
	if login.UserID != visitor.UserID {
		t.Errorf("%s has become %s", visitor.UserID, login.UserID)
	}
	for _, token := range []string{visitor.AccessToken, login.AccessToken} {
		if w := s.do("GET", "/_matrix/client/v3/account/whoami", token, ""); !strings.Contains(w.Body.String(), `"is_guest":false`) {
			t.Errorf("whoami: %s", w.Body)
		}
	}
	post(t, s, "/_matrix/client/v3/login", "", fmt.Sprintf(`{"type":"m.login.password","user":%q,"password":"secret"}`, name), 200)
	post(t, s, "/_matrix/client/v3/register", "", body, 403)
	if all, _, err := s.listGuests(); len(all) != 0 || err != nil {
		t.Errorf("guests: %v, %v", all, err)
	}
	err := s.store.View(func(tx *store.Tx) error {
		if tx.Owner() != 0 {
			t.Error("a guest has become the owner")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
