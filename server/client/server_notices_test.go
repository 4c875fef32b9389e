package client

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"

	"hearth/state/matrix"
	"hearth/store"
)

// invitedTo returns the only room that a user is invited to.
func invitedTo(t *testing.T, s *testServer, token string) matrix.RoomID {
	t.Helper()
	var answer struct {
		Rooms struct {
			Invite map[matrix.RoomID]struct{} `json:"invite"`
		} `json:"rooms"`
	}
	w := s.do("GET", "/_matrix/client/v3/sync", token, "")
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || len(answer.Rooms.Invite) != 1 {
		t.Fatalf("invites: %v, %v", answer.Rooms.Invite, err)
	}
	for id := range answer.Rooms.Invite {
		return id
	}
	return ""
}

// post sends a request that must be answered with a status.
func post(t *testing.T, s *testServer, path, token, body string, status int) string {
	t.Helper()
	w := s.do("POST", path, token, body)
	if w.Code != status {
		t.Fatalf("POST %s: %d %s, want %d", path, w.Code, w.Body, status)
	}
	return w.Body.String()
}

// Each user has one notices room, whoever asks for it at once and however often it
// is left. The invite to it cannot be rejected, by no endpoint.
func TestNoticesRoom(t *testing.T) {
	s := newTestServer(t, Config{})
	admin, bob := s.account(t, "alice", "secret"), s.account(t, "bob", "secret")
	const send = "/_synapse/admin/v1/send_server_notice"
	const body = `{"user_id":"@bob:hearth.test","content":{"msgtype":"m.text","body":"hello"}}`
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			if w := s.do("POST", send, admin, body); w.Code != http.StatusOK {
				t.Errorf("send a notice: %d %s", w.Code, w.Body)
			}
		})
	}
	wait.Wait()
	room := invitedTo(t, s, bob)
	path := "/_matrix/client/v3/rooms/" + string(room)
	if refused := post(t, s, path+"/leave", bob, "{}", 403); !strings.Contains(refused, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM") {
		t.Errorf("rejected: %s", refused)
	}
	w := s.do("PUT", path+"/state/m.room.member/@bob:hearth.test", bob, `{"membership":"leave"}`)
	if w.Code != 403 || !strings.Contains(w.Body.String(), "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM") {
		t.Errorf("rejected by an event: %d %s", w.Code, w.Body)
	}
	post(t, s, path+"/join", bob, "{}", 200)
	if w := s.do("GET", "/_matrix/client/v3/user/@bob:hearth.test/rooms/"+string(room)+"/tags", bob, ""); !strings.Contains(w.Body.String(), noticesTag) {
		t.Errorf("tags: %s", w.Body)
	}
	if w := s.do("PUT", path+"/send/m.room.message/1", bob, `{"msgtype":"m.text","body":"no"}`); w.Code != 403 {
		t.Errorf("an answer to the server: %d %s", w.Code, w.Body)
	}
	for range 2 {
		post(t, s, path+"/leave", bob, "{}", 200)
		post(t, s, path+"/forget", bob, "{}", 200)
		post(t, s, send, admin, body, 200)
		if again := invitedTo(t, s, bob); again != room {
			t.Errorf("invited again to %s, not %s", again, room)
		}
		post(t, s, path+"/join", bob, "{}", 200)
	}
}

// What the owner gets of a report says who, what and why, and the reason cannot be
// taken for words of the server.
func TestReportReachesOwner(t *testing.T) {
	s := newTestServer(t, Config{})
	alice, bob := s.account(t, "alice", "secret"), s.account(t, "bob", "secret")
	post(t, s, "/_matrix/client/v3/users/@eve:elsewhere.test/report", bob, `{"reason":"spam\n@bob has left"}`, 200)
	room := invitedTo(t, s, alice)
	post(t, s, "/_matrix/client/v3/rooms/"+string(room)+"/join", alice, "{}", 200)
	got := s.do("GET", "/_matrix/client/v3/rooms/"+string(room)+"/messages?dir=b&limit=5", alice, "").Body.String()
	for _, want := range []string{"@bob:hearth.test has reported the user @eve:elsewhere.test", `> spam\n> @bob has left`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
}

// Nobody logs in to the server's account, even with a token made by a mistake.
func TestServiceAccount(t *testing.T) {
	s := newTestServer(t, Config{})
	s.account(t, "alice", "secret")
	if err := s.ensureNoticesUser(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := s.store.Update(t.Context(), func(tx *store.Tx) error {
		num := tx.UserNum(s.NoticesUser())
		if tx.Owner() == num {
			t.Error("the server's account owns the server")
		}
		if err := tx.ResetPassword(num, "hash"); err == nil {
			t.Error("the server's account has got a password")
		}
		if err := tx.Deactivate(num, false); err == nil {
			t.Error("the server's account was deactivated")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.store.View(func(tx *store.Tx) error { return loginAllowed(tx, tx.UserNum(s.NoticesUser())) })
	if err == nil {
		t.Error("the server's account may log in")
	}
}
