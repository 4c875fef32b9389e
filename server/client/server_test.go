package client

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// testServerName is the server of all tests.
const testServerName matrix.ServerName = "hearth.test"

// testServer is a server over a fresh store, without a network.
type testServer struct {
	*Server
	router http.Handler
	clock  *testClock
	dir    string
	config Config
}

// testClock is a clock that a test sets forward.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

// Now is the time of the clock.
func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance sets the clock forward.
func (c *testClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// newTestServer returns a server that ends, with a check of its store, when the
// test does. Passwords are hashed cheaply.
func newTestServer(t testing.TB, config Config) *testServer {
	t.Helper()
	config.PasswordCost = 4
	s := &testServer{
		clock: &testClock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)},
		dir:   t.TempDir(), config: config,
	}
	s.open(t)
	t.Cleanup(func() {
		err := s.store.Check(context.Background(), func(fault string) { t.Errorf("the store is damaged: %s", fault) })
		if err != nil {
			t.Errorf("check the store: %v", err)
		}
		s.close(t)
		*s = testServer{} // package testing holds on to this function, and so to s
	})
	return s
}

// open opens the store and makes the server over it.
func (s *testServer) open(t testing.TB) {
	t.Helper()
	st, err := store.Open(s.dir, testServerName, store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	var key matrix.SigningKey
	if err := st.View(func(tx *store.Tx) (err error) { key, err = tx.SigningKey(); return err }); err != nil {
		t.Fatal(err)
	}
	rooms := state.New(state.Config{Store: st, Server: testServerName, Key: key, Now: s.clock.Now, Carry: CarryRoom})
	s.Server = New(st, rooms, s.config)
	s.now = s.clock.Now
	if s.router, err = api.NewRouter(slog.New(slog.DiscardHandler), s.Routes()...); err != nil {
		t.Fatal(err)
	}
}

func (s *testServer) close(t testing.TB) {
	t.Helper()
	if err := s.store.Close(); err != nil {
		t.Errorf("close the store: %v", err)
	}
}

// restart makes the server anew over its data.
func (s *testServer) restart(t testing.TB) {
	t.Helper()
	s.close(t)
	s.open(t)
}

// do sends a request and returns the response. token may be empty.
func (s *testServer) do(method, path, token, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	s.router.ServeHTTP(w, r)
	return w
}

// account makes an account with a password and returns the access token of its
// device, which has the name of the account in capitals.
func (s *testServer) account(t testing.TB, name, password string) (token string) {
	t.Helper()
	user, err := matrix.NewUserID(name, testServerName)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := s.passwords.Hash(t.Context(), password)
	if err != nil {
		t.Fatal(err)
	}
	plan := loginPlan{device: matrix.DeviceID(strings.ToUpper(name)), access: newToken(accessTokenPrefix)}
	if err := s.makeAccount(t.Context(), newAccount{user: user, hash: hash, login: &plan}); err != nil {
		t.Fatal(err)
	}
	return plan.access
}

// newLimitedServer is newTestServer with rate limits.
func newLimitedServer(t testing.TB) *testServer {
	return newTestServer(t, Config{Registration: RegistrationOpen, Limits: api.NewLimiter()})
}
