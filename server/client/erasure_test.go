package client

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// What an erased user wrote is seen by those who were there, and not by who comes
// later; a restart changes nothing.
func TestErasure(t *testing.T) {
	s := newTestServer(t, Config{})
	alice, bob, carol := s.account(t, "alice", "secret"), s.account(t, "bob", "secret"), s.account(t, "carol", "secret")
	var room roomAnswer
	made := post(t, s, "/_matrix/client/v3/createRoom", alice, `{"preset":"public_chat","name":"Kitchen"}`, 200)
	if err := json.Unmarshal([]byte(made), &room); err != nil {
		t.Fatal(err)
	}
	path := "/_matrix/client/v3/rooms/" + string(room.Room)
	post(t, s, path+"/join", bob, "{}", 200)
	for i, body := range []string{
		`{"msgtype":"m.text","body":"personal"}`,
		`{"msgtype":"m.text","body":"* personal","m.new_content":{"msgtype":"m.text","body":"personal"},"m.relates_to":{"rel_type":"m.replace","event_id":"$x"}}`,
	} {
		if w := s.do("PUT", path+"/send/m.room.message/"+string(rune('a'+i)), alice, body); w.Code != 200 {
			t.Fatal(w.Code, w.Body)
		}
	}
	if w := s.do("PUT", "/_matrix/client/v3/profile/@alice:hearth.test/displayname", alice, `{"displayname":"personal"}`); w.Code != 200 {
		t.Fatal(w.Code, w.Body)
	}
	read := func(token string) string {
		return s.do("GET", path+"/messages?dir=b&limit=100", token, "").Body.String() + s.do("GET", path+"/state", token, "").Body.String() +
			s.do("GET", "/_matrix/client/v3/sync", token, "").Body.String()
	}
	post(t, s, "/_matrix/client/v3/account/deactivate", alice,
		`{"erase":true,"auth":{"type":"m.login.password","user":"alice","password":"secret"}}`, 200)
	post(t, s, path+"/join", carol, "{}", 200)
	for range 2 {
		if got := read(bob); !strings.Contains(got, "personal") {
			t.Errorf("who was there does not see it any more: %s", got)
		}
		if got := read(carol); strings.Contains(got, "personal") || !strings.Contains(got, "Kitchen") {
			t.Errorf("who came later sees it, or no name: %s", got)
		}
		s.restart(t)
	}
	post(t, s, path+"/leave", bob, "{}", 200)
	post(t, s, path+"/join", bob, "{}", 200)
	if got := read(bob); !strings.Contains(got, "personal") {
		t.Error("who was there, left and came back does not see it any more")
	}
}
