package client

import (
	"sync"

	"hearth/store"
)

// unreads remembers which events each user has not read, by room, so that a sync
// looks at new events only. What it knows is written as checkpoints now and then;
// all of it can be found again from timeline, receipts and rules.
type unreads struct {
	mu     sync.Mutex // guards the fields below; taken after an unreadRoom's
	rooms  map[unreadKey]*unreadRoom
	events int // in all of them
}

// Bounds of what is remembered of rooms: their number, and the events in all of
// them, of 24 bytes each.
const (
	maxUnreadRooms  = 1024
	maxUnreadEvents = 1 << 18
)

type unreadKey struct {
	user store.UserNum
	room store.RoomNum
}

// unreadRoom is what one user has not read of one room.
type unreadRoom struct {
	weight int // events that count in unreads, which guards it

	mu    sync.Mutex // guards the fields below; held while events are looked at
	known bool       // Unread has been read from the store
	dirty bool       // it is newer than the checkpoint
	store.Unread
}

// room returns the entry of a user's room. When there are too many, some are
// forgotten.
func (u *unreads) room(key unreadKey) *unreadRoom {
	u.mu.Lock()
	defer u.mu.Unlock()
	if r := u.rooms[key]; r != nil {
		return r
	}
	if u.rooms == nil {
		u.rooms = make(map[unreadKey]*unreadRoom)
	}
	for old := range u.rooms {
		if len(u.rooms) < maxUnreadRooms {
			break
		}
		u.forget(old)
	}
	r := &unreadRoom{}
	u.rooms[key] = r
	return r
}

// weigh notes how many events an entry has now. Where all have too many together,
// others are forgotten.
func (u *unreads) weigh(key unreadKey, r *unreadRoom, events int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.rooms[key] != r {
		return // it is forgotten already
	}
	u.events += events - r.weight
	r.weight = events
	for old := range u.rooms {
		if u.events <= maxUnreadEvents {
			return
		}
		if old != key {
			u.forget(old)
		}
	}
}

// forget lets go of an entry. The caller holds the lock.
func (u *unreads) forget(key unreadKey) {
	u.events -= u.rooms[key].weight
	delete(u.rooms, key)
}

// all returns the entries as they are now.
func (u *unreads) all() map[unreadKey]*unreadRoom {
	u.mu.Lock()
	defer u.mu.Unlock()
	rooms := make(map[unreadKey]*unreadRoom, len(u.rooms))
	for key, room := range u.rooms {
		rooms[key] = room
	}
	return rooms
}
