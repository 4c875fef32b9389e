package client

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
)

// syncAnswer is what these tests look at of an answer of /sync.
type syncAnswer struct {
	Next  string `json:"next_batch"`
	Rooms struct {
		Join  map[matrix.RoomID]jsontext.Value `json:"join"`
		Leave map[matrix.RoomID]jsontext.Value `json:"leave"`
	} `json:"rooms"`
}

// The devices of those who were in a room that is purged learn that they are out
// of it, each once, and everything else answers as if the room had never been;
// half way through the purge as well.
func TestSyncOfPurgedRoom(t *testing.T) {
	s := newTestServer(t, Config{})
	token := s.account(t, "alice", "her-password")
	var room struct {
		ID matrix.RoomID `json:"room_id"`
	}
	ask := func(path string, out any) {
		t.Helper()
		w := s.do(http.MethodGet, path, token, "")
		if w.Code != http.StatusOK {
			t.Fatalf("GET %s: %d %s", path, w.Code, w.Body)
		}
		if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
			t.Fatal(err)
		}
	}
	made := s.do(http.MethodPost, "/_matrix/client/v3/createRoom", token, `{"room_alias_name":"gone"}`)
	if err := json.Unmarshal(made.Body.Bytes(), &room); err != nil || room.ID == "" {
		t.Fatalf("create: %s: %v", made.Body, err)
	}
	var before syncAnswer
	if ask("/_matrix/client/v3/sync", &before); len(before.Rooms.Join) != 1 {
		t.Fatalf("rooms before: %v", before.Rooms)
	}
	look := func() {
		t.Helper()
		var news, later, initial syncAnswer
		ask("/_matrix/client/v3/sync?since="+before.Next, &news)
		if len(news.Rooms.Join) != 0 || len(news.Rooms.Leave) != 1 || news.Rooms.Leave[room.ID] == nil {
			t.Errorf("since before the purge: %v", news.Rooms)
		}
		ask("/_matrix/client/v3/sync?since="+news.Next, &later)
		ask(`/_matrix/client/v3/sync?filter={"room":{"include_leave":true}}&full_state=true`, &initial)
		for _, answer := range []syncAnswer{later, initial} {
			if len(answer.Rooms.Join)+len(answer.Rooms.Leave) != 0 {
				t.Errorf("after that: %v", answer.Rooms)
			}
		}
		for path, want := range map[string]int{
			"/_matrix/client/v3/rooms/" + string(room.ID) + "/state":    http.StatusForbidden,
			"/_matrix/client/v3/rooms/" + string(room.ID) + "/messages": http.StatusForbidden,
			"/_matrix/client/v3/keys/changes?to=x&from=" + before.Next:  http.StatusOK,
			"/_matrix/client/v3/joined_rooms":                           http.StatusOK,
		} {
			w := s.do(http.MethodGet, strings.Replace(path, "to=x", "to="+news.Next, 1), token, "")
			if w.Code != want {
				t.Errorf("GET %s: %d %s", path, w.Code, w.Body)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.rooms.Purge(ctx, room.ID, func(p state.PurgeProgress) {
		if p.Removed > 0 {
			cancel()
		}
	}); err == nil {
		t.Fatal("the purge was not cut short")
	}
	look()
	if err := s.rooms.Purge(t.Context(), room.ID, func(state.PurgeProgress) {}); err != nil {
		t.Fatal(err)
	}
	look()
	if w := s.do(http.MethodPost, "/_matrix/client/v3/createRoom", token, `{"room_alias_name":"gone"}`); w.Code != http.StatusOK {
		t.Errorf("another room with its alias: %d %s", w.Code, w.Body)
	}
}
