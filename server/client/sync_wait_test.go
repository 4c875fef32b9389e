package client

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// longSync is the timeout, in milliseconds, of a sync that news shall wake. It looks a
// last time when that is over, so its answer alone does not tell that it was woken.
const longSync = 120_000

// woken returns the answer to a sync that was woken, or whose short timeout is over.
func woken[T any](t *testing.T, answers <-chan T) (answer T) {
	t.Helper()
	select {
	case answer = <-answers:
	case <-time.After(longSync / 3 * time.Millisecond):
		t.Fatal("the sync is not woken")
	}
	return answer
}

// A sync that waits is answered by whatever concerns its user, and by nothing else.
func TestSyncWaits(t *testing.T) {
	s := newTestServer(t, Config{})
	alice, bob := s.account(t, "alice", "secret"), s.account(t, "bob", "secret")
	var room struct {
		ID string `json:"room_id"`
	}
	must := func(w *httptest.ResponseRecorder) *httptest.ResponseRecorder {
		t.Helper()
		if w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return w
	}
	w := must(s.do("POST", "/_matrix/client/v3/createRoom", alice, `{"preset":"public_chat"}`))
	if err := json.Unmarshal(w.Body.Bytes(), &room); err != nil {
		t.Fatal(err)
	}
	path := func(parts ...string) string { return roomPath(room.ID, parts...) }
	must(s.do("POST", path("join"), bob, "{}"))
	for name, deed := range map[string]struct {
		method, path, token, body string
		news                      bool
	}{
		"message":          {"PUT", path("send", "m.room.message", "1"), bob, `{"body":"hi"}`, true},
		"state":            {"PUT", path("state", "m.room.topic"), alice, `{"topic":"x"}`, true},
		"typing":           {"PUT", path("typing", "@bob:hearth.test"), bob, `{"typing":true}`, true},
		"own account data": {"PUT", "/_matrix/client/v3/user/@alice:hearth.test/account_data/x", alice, `{}`, true},
		"own tag":          {"PUT", "/_matrix/client/v3/user/@alice:hearth.test/rooms/" + url.PathEscape(room.ID) + "/tags/x", alice, `{}`, true},
		"own push rule":    {"PUT", "/_matrix/client/v3/pushrules/global/override/.m.rule.master/enabled", alice, `{"enabled":true}`, true},
		"another's data":   {"PUT", "/_matrix/client/v3/user/@bob:hearth.test/account_data/x", bob, `{}`, false},
		"another's room":   {"POST", "/_matrix/client/v3/createRoom", bob, `{}`, false},
		"invite":           {"POST", "/_matrix/client/v3/createRoom", bob, `{"invite":["@alice:hearth.test"]}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			var answer struct {
				Next string `json:"next_batch"`
			}
			w := must(s.do("GET", "/_matrix/client/v3/sync", alice, ""))
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
				t.Fatal(err)
			}
			wait := longSync
			if !deed.news {
				wait = 100
			}
			done := make(chan *httptest.ResponseRecorder, 1)
			go func() {
				done <- s.do("GET", fmt.Sprintf("/_matrix/client/v3/sync?since=%s&timeout=%d", answer.Next, wait), alice, "")
			}()
			time.Sleep(20 * time.Millisecond)
			must(s.do(deed.method, deed.path, deed.token, deed.body))
			w = must(woken(t, done))
			if news := strings.Contains(w.Body.String(), `"rooms"`) || strings.Contains(w.Body.String(), `"account_data"`); news != deed.news {
				t.Errorf("news: %v, want %v\n%s", news, deed.news, w.Body)
			}
		})
	}
}

// A private receipt wakes its owner alone, a public one the whole room; both come
// from the device that the user holds in his hand, while another one waits.
func TestSyncWaitsForReceipts(t *testing.T) {
	h := newSyncHouse(t, 1)
	alice, bob := h.users[0], h.users[1]
	h.createRoom()
	room := h.rooms[len(h.rooms)-1]
	h.post(alice, room, "invite", `{"user_id":"`+bob.id+`"}`)
	h.join(bob, room)
	h.say(alice, room)
	h.say(alice, room)
	since := func(user *syncUser) string {
		var answer syncAnswerModel
		h.get("/_matrix/client/v3/sync?set_presence=offline", user.token, &answer)
		return answer.Next
	}
	for i, typ := range []string{"m.read.private", "m.read"} {
		told := map[*syncUser]bool{alice: typ == "m.read", bob: true}
		waits := map[*syncUser]chan string{alice: make(chan string, 1), bob: make(chan string, 1)}
		for user, done := range waits {
			wait := longSync
			if !told[user] {
				wait = 500
			}
			path := fmt.Sprintf("/_matrix/client/v3/sync?set_presence=offline&timeout=%d&since=%s", wait, since(user))
			go func() { done <- h.server.do("GET", path, user.token, "").Body.String() }()
		}
		time.Sleep(20 * time.Millisecond)
		if w := h.server.do("POST", roomPath(room, "receipt", typ, h.events[room][i]), bob.token, "{}"); w.Code != http.StatusOK {
			t.Fatal(w.Body)
		}
		for user, done := range waits {
			if got := strings.Contains(woken(t, done), typ); got != told[user] {
				t.Errorf("%s is told of %s: %v, want %v", user.name, typ, got, told[user])
			}
		}
	}
}

// Typing that times out is told by Run, which ends with its context.
func TestRun(t *testing.T) {
	h := newSyncHouse(t, 2)
	alice := h.users[0]
	room := h.rooms[0]
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.server.Run(ctx) }()
	if w := h.server.do("PUT", roomPath(room, "typing", alice.id), alice.token, `{"typing":true,"timeout":5000}`); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	var answer syncAnswerModel
	h.get("/_matrix/client/v3/sync", alice.token, &answer)
	h.server.clock.Advance(6 * time.Second)
	body := h.server.do("GET", "/_matrix/client/v3/sync?timeout=10000&since="+answer.Next, alice.token, "").Body.String()
	if !strings.Contains(body, `"user_ids":[]`) {
		t.Errorf("the end of typing is not told: %s", body)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}
