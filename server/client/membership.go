package client

import (
	"context"
	"errors"
	"net/http"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// inviteUser answers POST /rooms/{roomID}/invite.
func (s *Server) inviteUser(w http.ResponseWriter, r *http.Request, who session) error {
	if err := s.limits.Take(api.LimitInvite, string(who.user)); err != nil {
		return err
	}
	return s.changeOther(w, r, who, matrix.Invite)
}

// kick answers POST /rooms/{roomID}/kick.
func (s *Server) kick(w http.ResponseWriter, r *http.Request, who session) error {
	return s.changeOther(w, r, who, matrix.Leave)
}

// ban answers POST /rooms/{roomID}/ban.
func (s *Server) ban(w http.ResponseWriter, r *http.Request, who session) error {
	return s.changeOther(w, r, who, matrix.Ban)
}

// changeOther changes the membership of the user that the body names.
func (s *Server) changeOther(w http.ResponseWriter, r *http.Request, who session, to matrix.Membership) error {
	room, target, reason, err := readTarget(r)
	if err != nil {
		return err
	}
	change := state.MembershipChange{Room: room, Sender: who.user, Target: target, Membership: to, Reason: reason}
	if to == matrix.Leave && target == who.user {
		return api.ErrForbidden.Because("To leave the room yourself, use leave")
	}
	if _, err := s.rooms.ChangeMembership(r.Context(), change); err != nil {
		return err
	}
	return api.WriteEmpty(w)
}

// unban answers POST /rooms/{roomID}/unban.
func (s *Server) unban(w http.ResponseWriter, r *http.Request, who session) error {
	room, target, reason, err := readTarget(r)
	if err != nil {
		return err
	}
	if err := s.rooms.Unban(r.Context(), room, who.user, target, reason); err != nil {
		return err
	}
	return api.WriteEmpty(w)
}

// readTarget reads a request about another user's membership.
func readTarget(r *http.Request) (room matrix.RoomID, target matrix.UserID, reason string, err error) {
	if room, err = pathRoom(r); err != nil {
		return "", "", "", err
	}
	var body struct {
		User    string `json:"user_id"`
		Reason  string `json:"reason"`
		Address string `json:"address"`
	}
	if err := api.ReadJSON(r, maxSmallBody, &body); err != nil {
		return "", "", "", err
	}
	if body.User == "" && body.Address != "" {
		return "", "", "", api.ErrThreePIDDenied.Because("This server cannot invite by address: invite by user ID")
	}
	if body.User == "" {
		return "", "", "", api.MissingParam("user_id")
	}
	if target, err = matrix.ParseUserID(body.User); err != nil {
		return "", "", "", api.InvalidParam("user_id", err)
	}
	return room, target, body.Reason, nil
}

// leaveRoom answers POST /rooms/{roomID}/leave.
func (s *Server) leaveRoom(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	if err := s.refuseRejection(room, who); err != nil {
		return err
	}
	reason, err := readReason(r)
	if err != nil {
		return err
	}
	if err := s.leaveAnywhere(r.Context(), room, who.user, reason); err != nil {
		return err
	}
	return api.WriteEmpty(w)
}

// leaveAnywhere takes a user out of a room of this server, or rejects an invite and
// withdraws a knock where this server is not in the room.
func (s *Server) leaveAnywhere(ctx context.Context, room matrix.RoomID, user matrix.UserID, reason string) error {
	if s.config.Joiner != nil {
		here, err := s.config.Joiner.Leave(ctx, room, user, reason)
		if !here || err != nil {
			return remoteError(err)
		}
	}
	return s.rooms.Leave(ctx, room, user, reason)
}

// readReason reads a body that may say why something is done.
func readReason(r *http.Request) (string, error) {
	var body struct {
		Reason string `json:"reason"`
	}
	err := api.ReadOptionalJSON(r, maxSmallBody, &body)
	return body.Reason, err
}

// forgetRoom answers POST /rooms/{roomID}/forget, for a room that the user has
// left.
func (s *Server) forgetRoom(w http.ResponseWriter, r *http.Request, who session) error {
	id, err := pathRoom(r)
	if err != nil {
		return err
	}
	err = s.store.Update(r.Context(), func(tx *store.Tx) error {
		room := tx.RoomNum(id)
		member, _, err := tx.LocalMembership(who.num, room)
		if err != nil {
			return err
		}
		switch member.Membership {
		case matrix.Join, matrix.Invite, matrix.Knock:
			return api.ErrUnknown.WithStatus(http.StatusBadRequest).Because("Leave the room before you forget it")
		}
		return tx.ForgetRoom(who.num, room)
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) { // nothing to forget is no error
		return err
	}
	return api.WriteEmpty(w)
}

// getJoinedRooms answers GET /joined_rooms.
func (s *Server) getJoinedRooms(w http.ResponseWriter, _ *http.Request, who session) error {
	rooms := []matrix.RoomID{}
	err := s.store.View(func(tx *store.Tx) error {
		joined, err := state.Joined(tx, who.num)
		rooms = append(rooms[:0], joined...)
		return err
	})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, struct {
		Joined []matrix.RoomID `json:"joined_rooms"`
	}{rooms})
}
