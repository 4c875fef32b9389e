package client

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"

	"hearth/state/matrix"
	"hearth/store"
)

// Who asks for the server by its own name has reached it by that name.
func TestWellKnownByRequest(t *testing.T) {
	for _, tc := range []struct {
		name, host string
		tls        bool
		want       string
	}{
		{"home.example", "home.example", true, "https://home.example"},
		{"home.example", "Home.Example", false, "https://home.example"},
		{"home.example", "home.example:8448", true, "https://home.example:8448"},
		{"home.example", "evil.example", true, ""},
		{"localhost", "localhost:8008", false, "http://localhost:8008"},
		{"localhost", "127.0.0.1:8008", false, ""},
		{"127.0.0.1:8008", "127.0.0.1:8008", false, "http://127.0.0.1:8008"},
		{"[::1]:8008", "[::1]:8008", false, "http://[::1]:8008"},
	} {
		st, err := store.Open(t.TempDir(), matrix.ServerName(tc.name), store.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodGet, "/.well-known/matrix/client", nil)
		r.Host = tc.host
		if tc.tls {
			r.TLS = &tls.ConnectionState{}
		}
		s := Server{store: st}
		if got := s.ownURL(r); got != tc.want {
			t.Errorf("server %s asked as %s: %q, want %q", tc.name, tc.host, got, tc.want)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}
}
