package client

import (
	"fmt"

	"hearth/server/push"
	"hearth/state/matrix"
	"hearth/store"
)

// Notices returns what tells the notices of a room's events to a user, for the
// sender of push notifications, see [push.Sources]. It is good within one View, and
// nil where nothing in the room concerns the user.
func (s *Server) Notices(tx *store.Tx, user store.UserNum, room store.RoomNum) (func(*store.StoredEvent) (push.Notice, error), error) {
	n, err := newPushNotices(tx, session{user: tx.UserID(user), num: user}, room)
	if n == nil || err != nil {
		return nil, err
	}
	return n.of, nil
}

// pushNotices judges the events of one room for one user, who is in it or invited.
type pushNotices struct {
	tx     *store.Tx
	who    session
	member store.LocalMembership
	judge  *judge
	read   readMarks
}

// newPushNotices returns nil where the room is nothing to the user.
func newPushNotices(tx *store.Tx, who session, room store.RoomNum) (*pushNotices, error) {
	member, known, err := tx.LocalMembership(who.num, room)
	if err != nil || !known || member.Membership != matrix.Join && member.Membership != matrix.Invite {
		return nil, err
	}
	if member.Membership == matrix.Invite && member.Event == 0 {
		return nil, nil // the invite is no event of a room that we have
	}
	n := &pushNotices{tx: tx, who: who, member: member}
	if n.judge, err = newJudge(tx, who, room); err != nil {
		return nil, fmt.Errorf("notices of %s: %w", who.user, err)
	}
	if member.Membership == matrix.Join {
		n.read, err = readUpto(tx, who, room)
	}
	return n, err
}

// of judges an event. What came before the user did is nothing to him, and to who
// is invited nothing is but the invite.
func (n *pushNotices) of(ev *store.StoredEvent) (push.Notice, error) {
	if n.member.Membership == matrix.Invite {
		if ev.StateNum() != n.member.Event {
			return push.Notice{}, nil
		}
		hidden, err := readHiddenInvites(n.tx, n.who)
		if err != nil {
			return push.Notice{}, err
		}
		if hide, err := hidden.hides(n.tx, n.member); hide || err != nil {
			return push.Notice{}, err
		}
		return push.Notice{Rule: n.judge.rule(ev)}, nil
	}
	if ev.Num.Position() <= n.member.Joined {
		return push.Notice{}, nil
	}
	rule := n.judge.rule(ev)
	if rule == nil {
		return push.Notice{}, nil
	}
	thread, err := threadOf(n.tx, n.member.Room, ev.Num)
	if err != nil {
		return push.Notice{}, err
	}
	return push.Notice{Rule: rule, Read: ev.Num <= n.read.upto(thread)}, nil
}

// InviteNotice returns the invite of a user to a room that this server is not in, and
// what it means to the user, for the sender of push notifications, see
// [push.Sources]; nil where there is none. Rules that ask about the room's members
// and power levels find none.
func (s *Server) InviteNotice(tx *store.Tx, user store.UserNum, room store.RoomNum) (*store.StoredEvent, push.Notice, error) {
	member, _, err := tx.LocalMembership(user, room)
	if err != nil || member.Membership != matrix.Invite || member.Event != 0 {
		return nil, push.Notice{}, err
	}
	invite, err := member.Own()
	if invite == nil || err != nil {
		return nil, push.Notice{}, err
	}
	who := session{user: tx.UserID(user), num: user}
	hidden, err := readHiddenInvites(tx, who)
	if err != nil {
		return nil, push.Notice{}, err
	}
	if hide, err := hidden.hides(tx, member); hide || err != nil {
		return nil, push.Notice{}, err
	}
	saved, err := savedRules(tx, user)
	if err != nil {
		return nil, push.Notice{}, err
	}
	rule := saved.Rules(who.user).Match(invite, &push.Context{User: who.user})
	return &store.StoredEvent{Event: invite, RoomNum: room}, push.Notice{Rule: rule}, nil
}

// UnreadCount counts the events of all rooms that a user was notified of and has not
// read. Spec: PG notify, counts.
func (s *Server) UnreadCount(tx *store.Tx, user store.UserNum) (int, error) {
	who := session{user: tx.UserID(user), num: user}
	sum := 0
	err := tx.LocalMemberships(user, func(m store.LocalMembership) (bool, error) {
		if m.Membership != matrix.Join {
			return true, nil
		}
		counts, _, err := s.unread(tx, who, m.Room, false)
		sum += counts.Notifications
		return true, err
	})
	return sum, err
}
