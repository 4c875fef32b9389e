package client

import (
	"testing"

	"hearth/store"
)

// What is remembered is bounded in rooms and in events, and the room that is being
// counted stays.
func TestUnreadRoomsAreBounded(t *testing.T) {
	var u unreads
	for n := range store.RoomNum(3 * maxUnreadRooms) {
		key := unreadKey{1, n}
		u.weigh(key, u.room(key), maxUnread)
		total := 0
		for _, r := range u.rooms {
			total += r.weight
		}
		if total != u.events || total > maxUnreadEvents || len(u.rooms) > maxUnreadRooms || u.rooms[key] == nil {
			t.Fatalf("after %d rooms: %d of them with %d events, counted as %d", n+1, len(u.rooms), total, u.events)
		}
	}
	few := u.room(unreadKey{2, 0})
	for n := range store.RoomNum(2 * maxUnreadRooms) {
		u.room(unreadKey{1, n})
	}
	u.weigh(unreadKey{2, 0}, few, maxUnread)
	if u.rooms[unreadKey{2, 0}] == nil && few.weight != 0 {
		t.Error("what is forgotten counts on")
	}
	if len(u.rooms) != maxUnreadRooms {
		t.Errorf("%d rooms, want %d", len(u.rooms), maxUnreadRooms)
	}
}
