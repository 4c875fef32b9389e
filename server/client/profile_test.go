package client

import (
	"net/http"
	"strings"
	"testing"

	"hearth/store"
)

// A profile is bounded as a whole, whichever field would make it too large; what is
// taken out makes room again.
//
// Spec: CS Profiles, "the total profile MUST be under 64 KiB".
func TestProfileIsBounded(t *testing.T) {
	s := newTestServer(t, Config{})
	token := s.account(t, "alice", "secret")
	do := func(method, field, body string, status int, code string) {
		t.Helper()
		w := s.do(method, "/_matrix/client/v3/profile/@alice:hearth.test/"+field, token, body)
		if w.Code != status || !strings.Contains(w.Body.String(), code) {
			t.Fatalf("%s %s: %d %s, want %d %s", method, field, w.Code, w.Body, status, code)
		}
	}
	field := func(name string, size int) string { return `{"` + name + `":"` + strings.Repeat("x", size) + `"}` }
	half := store.MaxProfileBytes / 2
	do("PUT", "org.example.a", field("org.example.a", half), http.StatusOK, "")
	do("PUT", "org.example.b", field("org.example.b", half), http.StatusBadRequest, "M_PROFILE_TOO_LARGE")
	do("PUT", "org.example.b", field("org.example.b", half-100), http.StatusOK, "")
	do("PUT", "displayname", field("displayname", 200), http.StatusBadRequest, "M_PROFILE_TOO_LARGE")
	do("GET", "displayname", "", http.StatusNotFound, "M_NOT_FOUND")
	do("DELETE", "org.example.a", "", http.StatusOK, "")
	do("PUT", "displayname", field("displayname", 200), http.StatusOK, "")
	do("PUT", "org.example.a", field("org.example.a", 2*store.MaxProfileBytes), http.StatusRequestEntityTooLarge, "M_TOO_LARGE")
}
