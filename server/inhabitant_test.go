package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"hearth/state/matrix"
	"hearth/store"
)

// A host is a server that takes part in a world: one in memory, or a process in a
// network namespace of its own.
type host interface {
	name() matrix.ServerName
	folder() string // of its data
	start()
	end()
	crash() // ends it as a power cut would
	up() bool
	// answer has the server answer a request of the client API; ok is false where it
	// ended before it did.
	answer(r *http.Request) (status int, body []byte, ok bool)
}

// An inhabitant is a user of a host, with one device.
type inhabitant struct {
	t      *testing.T
	home   host
	id     string
	token  string
	device string
	since  string
	got    map[string]int // bodies of to-device messages, and how often each came
	txn    int
}

// inhabit makes a user.
func inhabit(t *testing.T, home host, localpart string) *inhabitant {
	t.Helper()
	u := &inhabitant{t: t, home: home, got: make(map[string]int)}
	var made struct {
		User   string `json:"user_id"`
		Token  string `json:"access_token"`
		Device string `json:"device_id"`
	}
	body := map[string]any{"username": localpart, "password": "a long password", "auth": map[string]any{"type": "m.login.dummy"}}
	if status := u.ask("POST", "/register", body, &made); status != http.StatusOK {
		t.Fatalf("%s: register: %d", home.name(), status)
	}
	u.id, u.token, u.device = made.User, made.Token, made.Device
	return u
}

// ask makes a request of the client API and returns the status, 0 where the server
// ended before it answered.
func (u *inhabitant) ask(method, path string, body, answer any) int {
	var sent bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&sent).Encode(body); err != nil {
			u.t.Fatal(err)
		}
	}
	r := httptest.NewRequest(method, "/_matrix/client/v3"+path, &sent)
	if u.token != "" {
		r.Header.Set("Authorization", "Bearer "+u.token)
	}
	status, got, ok := u.home.answer(r)
	if !ok {
		return 0
	}
	if answer != nil && status == http.StatusOK {
		if err := json.Unmarshal(got, answer); err != nil {
			u.t.Fatalf("%s %s: %v", method, path, err)
		}
	}
	return status
}

// must is ask for what has to succeed.
func (u *inhabitant) must(method, path string, body, answer any) {
	u.t.Helper()
	if status := u.ask(method, path, body, answer); status != http.StatusOK {
		u.t.Fatalf("%s: %s %s: %d", u.id, method, path, status)
	}
}

// next returns a new transaction ID.
func (u *inhabitant) next() string {
	u.txn++
	return fmt.Sprintf("t%d", u.txn)
}

// sync takes what came, and counts to-device messages.
func (u *inhabitant) sync() {
	for {
		var answer struct {
			Next     string `json:"next_batch"`
			ToDevice struct {
				Events []struct {
					Content struct{ Body string } `json:"content"`
				} `json:"events"`
			} `json:"to_device"`
		}
		path := "/sync?timeout=0"
		if u.since != "" {
			path += "&since=" + url.QueryEscape(u.since)
		}
		if u.ask("GET", path, nil, &answer) != http.StatusOK {
			return
		}
		for _, e := range answer.ToDevice.Events {
			u.got[e.Content.Body]++
		}
		u.since = answer.Next
		if len(answer.ToDevice.Events) == 0 {
			return
		}
	}
}

// page reads a room back to its beginning, for which its server asks others.
func (u *inhabitant) page(room matrix.RoomID) {
	from := ""
	for range 1000 {
		var answer struct {
			End string `json:"end"`
		}
		path := "/rooms/" + url.PathEscape(string(room)) + "/messages?dir=b&limit=100" + from
		if status := u.ask("GET", path, nil, &answer); status != http.StatusOK {
			u.t.Errorf("%s pages in %s: %d", u.id, room, status)
		}
		if answer.End == "" {
			return
		}
		from = "&from=" + url.QueryEscape(answer.End)
	}
	u.t.Errorf("%s finds no beginning of %s", u.id, room)
}

// stateOf returns the current state of a room as the user is shown it: event IDs by
// type and state key. ok is false where he is not in it.
func (u *inhabitant) stateOf(room matrix.RoomID) (state map[string]matrix.EventID, ok bool) {
	var member struct{ Membership string }
	in := "/rooms/" + url.PathEscape(string(room)) + "/state"
	if u.ask("GET", in+"/m.room.member/"+url.PathEscape(u.id), nil, &member) != http.StatusOK || member.Membership != "join" {
		return nil, false
	}
	var events []struct {
		Type     string         `json:"type"`
		StateKey string         `json:"state_key"`
		ID       matrix.EventID `json:"event_id"`
	}
	if u.ask("GET", in, nil, &events) != http.StatusOK {
		return nil, false
	}
	state = make(map[string]matrix.EventID)
	for _, e := range events {
		state[e.Type+" "+e.StateKey] = e.ID
	}
	return state, true
}

// examine opens the data of a server that has ended, holds it to all invariants of
// the store, and lets fn look at it.
func examine(t *testing.T, h host, fn func(*store.Tx) error) {
	t.Helper()
	st, err := store.Open(h.folder(), h.name(), store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := st.Check(context.Background(), func(fault string) { t.Errorf("%s: %s", h.name(), fault) }); err != nil {
		t.Errorf("%s: %v", h.name(), err)
	}
	if err := st.View(fn); err != nil {
		t.Errorf("%s: %v", h.name(), err)
	}
}
