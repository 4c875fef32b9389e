package client

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/go-json-experiment/json"
)

// More rooms than fit one answer come in several, each room once.
func TestMutualRoomsPages(t *testing.T) {
	s := newTestServer(t, Config{})
	alice, bob := s.account(t, "alice", "pw-alice"), s.account(t, "bob", "pw-bob")
	const rooms = 2*mutualPage + 1
	for range rooms {
		var room struct {
			ID string `json:"room_id"`
		}
		w := s.do("POST", "/_matrix/client/v3/createRoom", alice, `{"preset":"public_chat"}`)
		if err := json.Unmarshal(w.Body.Bytes(), &room); err != nil {
			t.Fatal(err)
		}
		if w := s.do("POST", "/_matrix/client/v3/join/"+room.ID, bob, `{}`); w.Code != http.StatusOK {
			t.Fatal(w.Body)
		}
	}
	seen := make(map[string]bool)
	from := ""
	for _, size := range []int{mutualPage, mutualPage, 1} {
		w := s.do("GET", fmt.Sprintf("/_matrix/client/v1/mutual_rooms?user_id=@bob:%s%s", testServerName, from), alice, "")
		var page mutualRooms
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		if len(page.Joined) != size || page.Count != rooms {
			t.Errorf("page with %d rooms of %d, want %d of %d", len(page.Joined), page.Count, size, rooms)
		}
		for _, room := range page.Joined {
			seen[string(room)] = true
		}
		from = "&from=" + page.Next
	}
	if len(seen) != rooms || from != "&from=" {
		t.Errorf("%d rooms, want %d; next_batch %q behind the last page", len(seen), rooms, from)
	}
}
