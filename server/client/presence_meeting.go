package client

import (
	"context"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// meetingPatience is how long after it came a server is told who is there: one that
// joins a room has to take it in first, and what it is told before is lost on it.
const meetingPatience = 2 * time.Second

// A meeting is the beginning of what other servers and our users share: a server has
// come to a room, or one of our users has (server is 0).
type meeting struct {
	room   store.RoomNum
	server store.ServerNum
	user   store.UserNum
}

// runMeetings tells servers that begin to share a room with our users who of these
// is there. Without it they would not know before something changes.
//
// Spec: SS Presence: "Servers should only send presence updates for users that the
// receiving server would be interested in. Such as the receiving server sharing a
// room with a given user."
func (s *Server) runMeetings(ctx context.Context) error {
	if s.config.Presence != PresenceOn || s.config.OnMeeting == nil {
		return nil
	}
	after := s.store.Position() // nobody was there before
	for {
		if _, err := s.store.Wait(ctx, after); err != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(meetingPatience):
		}
		upto, err := s.meet(after)
		if err != nil {
			s.log.Warn("presence is not told to those who came", "err", err)
			upto = s.store.Position()
		}
		after = upto
	}
}

// meet looks at the next entries of the stream, tells who has met, and returns up to
// where it has come.
func (s *Server) meet(after store.Position) (upto store.Position, err error) {
	var list []meeting
	upto, err = s.store.ReadOn(after, func(tx *store.Tx, c store.Change) error {
		m, ok, err := meetingOf(tx, c)
		if ok {
			list = append(list, m)
		}
		return err
	})
	for _, m := range list {
		if err == nil {
			err = s.introduce(m)
		}
	}
	return upto, err
}

// meetingOf returns the meeting that an entry of the stream is, if it is one. An
// event of a server that was not in the room a moment ago is as good as its join.
func meetingOf(tx *store.Tx, c store.Change) (m meeting, ok bool, err error) {
	m.room = c.Room
	if c.IsMembership() {
		m.user = c.User
		is, _, err := tx.LocalMembership(c.User, c.Room)
		return m, is.Membership == matrix.Join, err
	}
	if c.Event == 0 || c.User == 0 || tx.IsLocal(c.User) {
		return m, false, nil
	}
	m.server = tx.ServerNum(tx.UserID(c.User).Server())
	if m.server == 0 || !tx.ServerInRoom(c.Room, m.server) {
		return m, false, nil
	}
	before, err := tx.ServerInRoomSince(c.Room, m.server, c.Position-1)
	return m, !before, err
}

// introduce tells the servers of a meeting of our users in the room who are there.
func (s *Server) introduce(m meeting) error {
	var (
		room   matrix.RoomID
		server matrix.ServerName
		there  []Presence
	)
	err := s.store.View(func(tx *store.Tx) error {
		room = tx.RoomID(m.room)
		if m.server != 0 {
			server = tx.ServerName(m.server)
		}
		return tx.LocalMembers(m.room, func(user store.UserNum, is matrix.Membership) (bool, error) {
			if is != matrix.Join || m.server == 0 && user != m.user {
				return true, nil
			}
			if p, known := s.presences.get(user); known && p.State != Offline {
				there = append(there, p)
			}
			return len(there) < maxPresenceBatch, nil
		})
	})
	for _, p := range there {
		s.config.OnMeeting(p, room, server)
	}
	return err
}
