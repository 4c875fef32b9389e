package client

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
)

// Two bodies are the same request where they differ in form alone.
func TestSplitAuth(t *testing.T) {
	for _, c := range []struct{ body, rest, stage string }{
		{`{}`, `{}`, ""},
		{`{"auth":null,"b":1,"a":[2, 3]}`, `{"a":[2,3],"b":1}`, ""},
		{` {"z":"\u0061","auth":{"type":"m.login.dummy","session":"s","x":1},"b":1.0} `, `{"b":1,"z":"a"}`, "m.login.dummy"},
		{`{"nested":{"auth":{"type":"x"}}}`, `{"nested":{"auth":{"type":"x"}}}`, ""},
	} {
		rest, auth, err := splitAuth(jsontext.Value(c.body))
		if err != nil || string(rest) != c.rest {
			t.Errorf("%s: %s, %v, want %s", c.body, rest, err, c.rest)
		}
		if stage := stageOf(auth); stage != c.stage {
			t.Errorf("%s: stage %q, want %q", c.body, stage, c.stage)
		}
	}
}

func stageOf(auth *authData) string {
	if auth == nil {
		return ""
	}
	return auth.Type
}

// A flood of requests that never go on keeps to its bounds, and strangers do not
// push out who is logged in.
func TestStageSessionsAreBounded(t *testing.T) {
	var all stageSessions
	now := new(testClock).Now()
	mine, _, err := all.enter("", stageRequest{user: 7, flows: passwordFlows, body: jsontext.Value(`{}`), now: now})
	if err != nil {
		t.Fatal(err)
	}
	body := jsontext.Value(`{"a":"` + strings.Repeat("x", 10<<10) + `"}`)
	for range 2 * maxStageSessions {
		if _, _, err := all.enter("", stageRequest{body: body, now: now}); err != nil {
			t.Fatal(err)
		}
	}
	strangers := &all.tables[0]
	if len(strangers.sessions) > maxStageSessions || strangers.bytes > maxStageBytes {
		t.Errorf("%d sessions of %d bytes", len(strangers.sessions), strangers.bytes)
	}
	sum := 0
	for _, st := range strangers.sessions {
		sum += len(st.request.body)
	}
	if sum != strangers.bytes {
		t.Errorf("%d bytes are counted as %d", sum, strangers.bytes)
	}
	if all.get(mine.id, now) == nil {
		t.Error("strangers have pushed out a user's session")
	}
	if all.get(mine.id, now.Add(stageLifetime)) != nil || len(strangers.sessions) != 0 || strangers.bytes != 0 {
		t.Error("sessions outlive their time")
	}
}

// Whatever a request that needs user-interactive authentication has in its body,
// it is refused as a standard error, and what is left of it is canonical.
func FuzzSplitAuth(f *testing.F) {
	f.Add(`{"auth":{"type":"m.login.password","session":"s","identifier":{"type":"m.id.user","user":"a"},"password":"p"},"devices":["A"]}`)
	f.Add(`{"auth":[],"a":1e400}`)
	f.Add(`{"a":{"b":"\ud800"}}`)
	f.Fuzz(func(t *testing.T, body string) {
		rest, auth, err := splitAuth(jsontext.Value(body))
		var refused *api.Error
		switch {
		case err == nil && !rest.IsValid():
			t.Fatalf("%q is left of %q", rest, body)
		case err == nil:
			again, _, err := splitAuth(rest)
			if err != nil || string(again) != string(rest) {
				t.Fatalf("%s becomes %s, %v", rest, again, err)
			}
			if auth != nil {
				_, err = auth.Identifier.userID(auth.User, testServerName)
			}
			if err != nil && (!errors.As(err, &refused) || refused.Status >= 500) {
				t.Fatal(err)
			}
		case !errors.As(err, &refused) || refused.Status >= 500:
			t.Fatal(err)
		}
	})
}

// No request to an endpoint with user-interactive authentication is answered with
// a fault of the server's, whatever its body.
func FuzzRegister(f *testing.F) {
	s := newTestServer(f, Config{Registration: RegistrationToken})
	addRegistrationToken(f, s, "t", "")
	token := s.account(f, "alice", "secret")
	f.Add(`{"username":"x","password":"p","auth":{"type":"m.login.registration_token","token":"t"}}`)
	f.Add(`{"devices":["A"],"auth":{"type":"m.login.password","password":"secret","session":"s"}}`)
	f.Fuzz(func(t *testing.T, body string) {
		for _, path := range []string{"/register", "/delete_devices", "/account/password", "/login", "/refresh"} {
			w := s.do("POST", "/_matrix/client/v3"+path, token, body)
			if w.Code >= 500 {
				t.Errorf("%s answers %d %s to %s", path, w.Code, w.Body, fmt.Sprintf("%q", body))
			}
		}
	})
}
