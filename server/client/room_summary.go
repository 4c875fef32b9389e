package client

import (
	"errors"
	"net/http"

	"hearth/server/api"
	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// errNoSummary is the answer for a room that is not here or not for who asks.
var errNoSummary = api.ErrNotFound.Because("There is no such room here, or it is not shown to you")

// shownSummary is what somebody is told of a room.
type shownSummary struct {
	state.Summary
	Membership matrix.Membership `json:"membership,omitzero"`
}

// getRoomSummary answers GET /room_summary/{roomIDOrAlias}: what a room is, told to
// who may enter it. Strangers are told of rooms that all may enter, knock at or read.
// Of a room that this server is not in, other servers are asked.
//
// Spec: CS Room Summaries.
func (s *Server) getRoomSummary(w http.ResponseWriter, r *http.Request, who session) error {
	room, servers, err := s.pathRoomServers(r)
	if err != nil {
		return err
	}
	summary, err := s.ownSummary(room)
	if errors.Is(err, api.ErrNotFound) && s.config.Network != nil {
		summary, err = s.summaryElsewhere(r, who, room, servers)
	}
	if err != nil {
		return err
	}
	answer := shownSummary{Summary: summary}
	if err := s.showSummary(&answer, who); err != nil {
		return err
	}
	return api.WriteJSON(w, answer)
}

// ownSummary returns the summary of a room that this server is in, or, where no others
// can be asked, of one that it knows.
func (s *Server) ownSummary(room matrix.RoomID) (summary state.Summary, err error) {
	err = s.store.View(func(tx *store.Tx) error {
		num, head, err := state.Head(tx, room)
		if err != nil {
			return errNoSummary
		}
		if resident, err := state.Resident(tx, num); err != nil {
			return err
		} else if !resident && s.config.Network != nil {
			return errNoSummary
		}
		summary, err = state.Summarize(tx, num, head)
		return err
	})
	return summary, err
}

// summaryElsewhere returns what one of some servers tells of a room.
func (s *Server) summaryElsewhere(r *http.Request, who session, room matrix.RoomID, servers []matrix.ServerName) (state.Summary, error) {
	servers, err := s.serversOf(room, who, servers)
	if err != nil {
		return state.Summary{}, err
	}
	for _, server := range servers[:min(len(servers), 1)] {
		if err := s.limitAsking(r, who, server); err != nil {
			return state.Summary{}, err
		}
	}
	answer, _, err := s.config.Network.Space(r.Context(), room, servers)
	var refusal *remote.Error
	if errors.As(err, &refusal) || errors.Is(err, remote.ErrUnreachable) {
		return state.Summary{}, errNoSummary
	}
	return answer.Room.Summary, err
}

// serversOf returns servers that may know a room: those that are named, and where none
// is those that an invite or the room's ID leads to.
func (s *Server) serversOf(room matrix.RoomID, who session, named []matrix.ServerName) ([]matrix.ServerName, error) {
	if len(named) > 0 || s.config.Joiner == nil {
		return named, nil
	}
	return s.likelyServers(state.Join{Room: room, User: who.user}, nil)
}

// showSummary refuses who may not see a summary, and adds how a user stands to the room.
func (s *Server) showSummary(summary *shownSummary, who session) error {
	if !who.known() {
		if !summary.ShownToAll() {
			return errNoSummary
		}
		return nil
	}
	return s.store.View(func(tx *store.Tx) error {
		shown, err := summary.ShownTo(tx, who.num)
		if err == nil && !shown {
			return errNoSummary
		}
		if err != nil {
			return err
		}
		member, known, err := tx.LocalMembership(who.num, tx.RoomNum(summary.Room))
		summary.Membership = member.Membership
		if !known {
			summary.Membership = matrix.Leave
		}
		return err
	})
}
