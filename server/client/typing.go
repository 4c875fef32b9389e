package client

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of typing notifications.
const (
	maxTypingTime  = 2 * time.Minute
	usualTyping    = 30 * time.Second
	maxTypingUsers = 100 // shown in one room
	maxTypingKept  = 500 // remembered of one room
	tellAgain      = 20 * time.Second
)

// typingRooms is who is typing where. It lives in memory alone: after a restart
// nobody types, though other servers may believe so for a while.
//
// Spec: CS Typing Notifications.
type typingRooms struct {
	serials *memorySerials
	began   time.Time
	mu      sync.Mutex // guards rooms
	rooms   map[store.RoomNum]*typingRoom
}

// typingRoom is who is typing in one room, and the last change of that.
type typingRoom struct {
	until  map[matrix.UserID]time.Time
	told   map[matrix.UserID]time.Time // when other servers were last told that a local user types; zero: that he does not
	serial uint64
}

// start begins with nobody typing.
func (t *typingRooms) start(serials *memorySerials, now time.Time) {
	t.serials, t.began = serials, now
	t.rooms = make(map[store.RoomNum]*typingRoom)
}

// Changed says whether a room has changed behind a serial. To who was here before
// the start every room has: whoever typed then types no longer. To who was never
// here (0) those have where somebody types.
func (t *typingRooms) Changed(room store.RoomNum, since uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed(t.rooms[room], since)
}

func (t *typingRooms) changed(r *typingRoom, since uint64) bool {
	switch {
	case since == 0:
		return r != nil && len(r.until) > 0
	case t.serials.fromBefore(since):
		return true
	}
	return r != nil && r.serial > since
}

// Since returns the content of m.typing for a room if it has changed behind a
// serial, without those who are ignored.
func (t *typingRooms) Since(room store.RoomNum, since uint64, ignored ignoredUsers) (jsontext.Value, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[room]
	if !t.changed(r, since) {
		return nil, false
	}
	users := []matrix.UserID{}
	if r != nil {
		for user := range r.until {
			if !ignored.has(user) {
				users = append(users, user)
			}
		}
	}
	slices.Sort(users)
	content, err := encodeJSON(struct {
		Users []matrix.UserID `json:"user_ids"`
	}{users[:min(len(users), maxTypingUsers)]})
	return content, err == nil
}

// set notes that a user types until some time or, if that is past, no longer.
// It says whether that is news.
func (t *typingRooms) set(room store.RoomNum, user matrix.UserID, until, now time.Time) (news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[room]
	types := until.After(now)
	if r == nil {
		if !types {
			return false
		}
		r = t.room(room)
	}
	_, typed := r.until[user]
	if types && !typed && len(r.until) >= maxTypingKept {
		return false
	}
	if types {
		r.until[user] = until
	} else {
		delete(r.until, user)
	}
	if typed == types {
		return false
	}
	r.serial = t.serials.take()
	return true
}

// expire forgets who has not said for too long that he still types, and returns
// them by the rooms where that is news.
func (t *typingRooms) expire(now time.Time) (rooms map[store.RoomNum][]matrix.UserID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rooms = make(map[store.RoomNum][]matrix.UserID)
	for room, r := range t.rooms {
		maps.DeleteFunc(r.until, func(user matrix.UserID, until time.Time) bool {
			if until.After(now) {
				return false
			}
			rooms[room] = append(rooms[room], user)
			return true
		})
		if len(rooms[room]) > 0 {
			r.serial = t.serials.take()
		}
	}
	return rooms
}

// room returns who types in a room, to be changed. t.mu is held.
func (t *typingRooms) room(room store.RoomNum) *typingRoom {
	r := t.rooms[room]
	if r == nil {
		r = &typingRoom{until: make(map[matrix.UserID]time.Time), told: make(map[matrix.UserID]time.Time)}
		t.rooms[room] = r
	}
	return r
}

// tell says whether other servers are to be told that a local user types, or types no
// longer: each time that is news, and now and then that it lasts, as they forget it.
// Soon after the start a first end is told in any case: its beginning may have been told
// before.
func (t *typingRooms) tell(room store.RoomNum, user matrix.UserID, types bool, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	young := now.Sub(t.began) < maxTypingTime
	if t.rooms[room] == nil && !types && !young {
		return false
	}
	r := t.room(room)
	last, told := r.told[user]
	switch {
	case types && told && now.Sub(last) < tellAgain:
		return false
	case types:
		r.told[user] = now
		return true
	case young:
		r.told[user] = time.Time{}
	default:
		delete(r.told, user)
	}
	return told && !last.IsZero() || young && !told
}

// runTyping ends what has timed out until ctx ends.
func (s *Server) runTyping(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			now := s.now()
			for room, users := range s.typing.expire(now) {
				s.wakeMembers(room)
				for _, user := range users {
					s.tellTyping(room, user, false, now)
				}
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// setTyping answers PUT /rooms/{roomID}/typing/{userID}.
func (s *Server) setTyping(w http.ResponseWriter, r *http.Request, who session) error {
	id, err := pathRoom(r)
	if err != nil {
		return err
	}
	if err := who.isSelf(r.PathValue("userID")); err != nil {
		return err
	}
	var body struct {
		Typing  *bool `json:"typing"`
		Timeout int64 `json:"timeout"`
	}
	if err := api.ReadJSON(r, maxSmallBody, &body); err != nil {
		return err
	}
	if body.Typing == nil {
		return api.MissingParam("typing")
	}
	while := time.Duration(0)
	if *body.Typing {
		while = usualTyping
		if body.Timeout > 0 {
			while = min(time.Duration(min(body.Timeout, maxTypingTime.Milliseconds()))*time.Millisecond, maxTypingTime)
		}
	}
	room, err := s.joinedRoom(id, who)
	if err != nil {
		return err
	}
	now := s.now()
	if s.typing.set(room, who.user, now.Add(while), now) {
		s.wakeMembers(room)
	}
	s.tellTyping(room, who.user, *body.Typing, now)
	if *body.Typing {
		s.noteActive(who)
	}
	return api.WriteEmpty(w)
}

// noteSent notes that a user who has sent something is there, and types no longer.
func (s *Server) noteSent(id matrix.RoomID, who session) {
	s.noteActive(who)
	room, err := s.joinedRoom(id, who)
	if err != nil {
		return
	}
	now := s.now()
	if s.typing.set(room, who.user, now, now) {
		s.wakeMembers(room)
	}
	s.tellTyping(room, who.user, false, now)
}

// tellTyping hands on for other servers whether a user types, if the user is local
// and they do not know it.
func (s *Server) tellTyping(room store.RoomNum, user matrix.UserID, types bool, now time.Time) {
	if s.config.OnTyping == nil || user.Server() != s.store.Server() || !s.typing.tell(room, user, types, now) {
		return
	}
	var id matrix.RoomID
	err := s.store.View(func(tx *store.Tx) error {
		id = tx.RoomID(room)
		return nil
	})
	if err == nil {
		s.config.OnTyping(id, user, types)
	}
}

// joinedRoom returns the number of a room that the user is in, or M_FORBIDDEN.
func (s *Server) joinedRoom(id matrix.RoomID, who session) (room store.RoomNum, err error) {
	err = s.store.View(func(tx *store.Tx) error {
		if room, _, err = state.Head(tx, id); err != nil {
			return errNotMember
		}
		member, _, err := tx.LocalMembership(who.num, room)
		if err == nil && member.Membership != matrix.Join {
			err = errNotMember
		}
		return err
	})
	return room, err
}

// wakeMembers wakes the syncs of the local users in a room.
func (s *Server) wakeMembers(room store.RoomNum) {
	var users []store.UserNum
	err := s.store.View(func(tx *store.Tx) error {
		return tx.LocalMembers(room, func(user store.UserNum, m matrix.Membership) (bool, error) {
			if m == matrix.Join {
				users = append(users, user)
			}
			return true, nil
		})
	})
	if err != nil {
		s.log.Warn("typing is not told", "room", room, "err", err)
		return
	}
	s.store.Touch(users...)
}
