package client

import (
	"fmt"

	"hearth/state/matrix"
	"hearth/store"
)

// maxPresenceBatch bounds how many users' presence one call brings.
const maxPresenceBatch = 100

// ReceivePresence takes what another server says of its users: of those who share
// a room with a local user, and at most 100 of them. What is not that server's to
// say is passed over.
//
// Spec: SS Presence.
func (s *Server) ReceivePresence(origin matrix.ServerName, list []Presence) error {
	if s.config.Presence != PresenceOn {
		return nil
	}
	now := s.now()
	woken := make(map[store.UserNum]bool)
	err := s.store.View(func(tx *store.Tx) error {
		rooms, err := openRooms(tx)
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

// openRooms returns the rooms that local users are in.
func openRooms(tx *store.Tx) (rooms []store.RoomNum, err error) {
	err = tx.Rooms(func(room store.RoomNum, _ store.Head) (bool, error) {
		inside := false
		err := tx.LocalMembers(room, func(_ store.UserNum, m matrix.Membership) (bool, error) {
			inside = m == matrix.Join
			return !inside, nil
		})
		if inside {
			rooms = append(rooms, room)
		}
		return true, err
	})
	return rooms, err
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
