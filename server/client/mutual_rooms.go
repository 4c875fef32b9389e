package client

import (
	"net/http"
	"strconv"
	"strings"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// mutualPage is how many rooms one answer of getMutualRooms holds.
const mutualPage = 100

// mutualRooms is what getMutualRooms answers.
type mutualRooms struct {
	Joined []matrix.RoomID `json:"joined"`
	Count  int             `json:"count"`
	Next   string          `json:"next_batch,omitzero"`
}

// getMutualRooms answers GET /mutual_rooms: the rooms that both users are in, by
// their number here. A token is "m" and the number of the last room given; it is
// good for ever.
//
// Spec: CS Mutual Rooms.
func (s *Server) getMutualRooms(w http.ResponseWriter, r *http.Request, who session) error {
	q := r.URL.Query()
	if !q.Has("user_id") {
		return api.MissingParam("user_id")
	}
	other, err := matrix.ParseUserID(q.Get("user_id"))
	if err != nil {
		return api.InvalidParam("user_id", err)
	}
	if other == who.user {
		return api.ErrInvalidParam.Because("user_id must be another user")
	}
	var after store.RoomNum
	if from := q.Get("from"); from != "" {
		digits, found := strings.CutPrefix(from, "m")
		num, err := strconv.ParseUint(digits, 10, 32)
		if !found || err != nil {
			return api.InvalidParam("from", errToken)
		}
		after = store.RoomNum(num)
	}
	if err := s.limits.Take(api.LimitSearch, string(who.user)); err != nil {
		return err
	}
	answer := mutualRooms{}
	err = s.store.View(func(tx *store.Tx) (err error) {
		answer, err = s.mutualRooms(tx, who, other, after)
		return err
	})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, answer)
}

func (s *Server) mutualRooms(tx *store.Tx, who session, other matrix.UserID, after store.RoomNum) (answer mutualRooms, err error) {
	var last store.RoomNum
	err = tx.LocalMemberships(who.num, func(m store.LocalMembership) (bool, error) {
		if m.Membership != matrix.Join {
			return true, nil
		}
		joined, err := s.isJoined(tx, m.Room, other)
		if !joined || err != nil {
			return true, err
		}
		answer.Count++
		switch {
		case m.Room <= after:
		case len(answer.Joined) < mutualPage:
			answer.Joined = append(answer.Joined, tx.RoomID(m.Room))
			last = m.Room
		default:
			answer.Next = "m" + strconv.FormatUint(uint64(last), 10)
		}
		return true, nil
	})
	return answer, err
}

// isJoined says whether a user, of this server or another, is in a room.
func (s *Server) isJoined(tx *store.Tx, room store.RoomNum, user matrix.UserID) (bool, error) {
	if user.Server() == s.store.Server() {
		m, _, err := tx.LocalMembership(tx.UserNum(user), room)
		return m.Membership == matrix.Join, err
	}
	head, err := tx.Head(room)
	if err != nil {
		return false, err
	}
	ev, err := state.EventAt(tx, room, head.Current, "m.room.member", string(user))
	if ev == nil || err != nil {
		return false, err
	}
	member, err := ev.Member()
	return err == nil && member.Membership == matrix.Join, nil
}
