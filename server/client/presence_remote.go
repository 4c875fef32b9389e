package client

import (
	"context"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/remote"
	"hearth/state/matrix"
	"hearth/store"
)

// maxPresenceBatch bounds how many users' presence one call brings.
const maxPresenceBatch = 100

// maxPresenceBytes bounds what m.presence may be.
const maxPresenceBytes = 256 << 10

// saidPresence is a user's presence as another server tells it.
type saidPresence struct {
	User   matrix.UserID  `json:"user_id"`
	State  PresenceState  `json:"presence"`
	Status string         `json:"status_msg"`
	Ago    jsontext.Value `json:"last_active_ago"` // milliseconds
	Active bool           `json:"currently_active"`
}

// ReceivePresence takes from another server whether users of it are there:
// m.presence. Of those who share a room with a local user, and at most 100 of them,
// it is believed; what is not that server's to say is passed over.
//
// Spec: SS Presence.
func (s *Server) ReceivePresence(_ context.Context, origin matrix.ServerName, content jsontext.Value) error {
	if len(content) > maxPresenceBytes {
		return fmt.Errorf("m.presence of %d bytes: %w", len(content), remote.ErrBadEDU)
	}
	var said struct {
		Push []jsontext.Value `json:"push"`
	}
	if err := json.Unmarshal(content, &said); err != nil {
		return fmt.Errorf("m.presence: %w: %w", remote.ErrBadEDU, err)
	}
	now := s.now()
	var list []Presence
	for _, v := range said.Push[:min(len(said.Push), maxPresenceBatch)] {
		var p saidPresence
		if json.Unmarshal(v, &p) != nil {
			continue
		}
		switch p.State {
		case Online, Unavailable, Offline:
			list = append(list, p.presence(now))
		}
	}
	return s.receivePresence(origin, list)
}

// presence is what is said, by our clock.
func (p saidPresence) presence(now time.Time) Presence {
	told := Presence{User: p.User, State: p.State, Status: p.Status, Active: p.Active}
	var ago int64
	if json.Unmarshal(p.Ago, &ago) == nil && ago >= 0 && ago < now.UnixMilli() {
		told.LastActive = now.Add(-time.Duration(ago) * time.Millisecond)
	}
	return told
}

// receivePresence takes what a server says of its users.
func (s *Server) receivePresence(origin matrix.ServerName, list []Presence) error {
	if s.config.Presence != PresenceOn {
		return nil
	}
	now := s.now()
	woken := make(map[store.UserNum]bool)
	err := s.store.View(func(tx *store.Tx) error {
		var rooms []store.RoomNum
		err := tx.ServerRooms(tx.ServerNum(origin), func(room store.RoomNum) (bool, error) {
			rooms = append(rooms, room)
			return true, nil
		})
		if err != nil {
			return err
		}
		search := &listSearch{tx: tx}
		for _, p := range list[:min(len(list), maxPresenceBatch)] {
			num := tx.UserNum(p.User)
			if num == 0 || p.User.Server() != origin || tx.IsLocal(num) {
				continue
			}
			sharers := make(map[store.UserNum]bool)
			for _, room := range rooms {
				if err := search.addSharers(room, p.User, sharers); err != nil {
					return err
				}
			}
			if len(sharers) > 0 && s.presences.receive(num, p, now) {
				for user := range sharers {
					woken[user] = true
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("presence from %s: %w", origin, err)
	}
	s.touchAll(woken)
	return nil
}

// addSharers adds the local users of a room if a remote user is in it.
func (l *listSearch) addSharers(room store.RoomNum, user matrix.UserID, sharers map[store.UserNum]bool) error {
	if _, known := l.tx.Slot(room, "m.room.member", string(user)); !known {
		return nil
	}
	now, err := l.tx.CurrentAt(room, l.tx.Position())
	if err != nil {
		return err
	}
	is, err := l.isJoined(room, now, user)
	if !is || err != nil {
		return err
	}
	return addLocalMembers(l.tx, room, sharers)
}
