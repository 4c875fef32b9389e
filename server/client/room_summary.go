package client

import (
	"net/http"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// errNoSummary is the answer for a room that is not here or not for who asks.
var errNoSummary = api.ErrNotFound.Because("There is no such room here, or it is not shown to you")

// getRoomSummary answers GET /room_summary/{roomIDOrAlias}: what a room is, told to
// who may enter it. Strangers are told of rooms that all may enter, knock at or read.
//
// Spec: CS Room Summaries.
func (s *Server) getRoomSummary(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := s.pathRoomOrAlias(r)
	if err != nil {
		return err
	}
	var answer struct {
		state.Summary
		Membership matrix.Membership `json:"membership,omitzero"`
	}
	err = s.store.View(func(tx *store.Tx) error {
		num, head, err := state.Head(tx, room)
		if err != nil {
			return errNoSummary
		}
		if answer.Summary, err = state.Summarize(tx, num, head); err != nil {
			return err
		}
		shown := answer.ShownToAll()
		if who.known() {
			if shown, err = answer.ShownTo(tx, who.num); err != nil {
				return err
			}
			member, known, err := tx.LocalMembership(who.num, num)
			if err != nil {
				return err
			}
			answer.Membership = member.Membership
			if !known {
				answer.Membership = matrix.Leave
			}
		}
		if !shown {
			return errNoSummary
		}
		return nil
	})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, answer)
}
