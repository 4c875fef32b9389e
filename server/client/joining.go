package client

import (
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
)

// maxSmallBody bounds bodies that hold a few short fields.
const maxSmallBody = 64 << 10

// joinRequest is the body of the endpoints that join. What it has beyond the
// specification goes into the member event, as clients know it from other servers.
type joinRequest struct {
	Reason           string         `json:"reason"`
	ThirdPartySigned jsontext.Value `json:"third_party_signed"`

	Extra map[string]jsontext.Value `json:",embed"`
}

// joinRoomById answers POST /rooms/{roomID}/join.
func (s *Server) joinRoomById(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	return s.join(w, r, who, room)
}

// joinRoom answers POST /join/{roomIDOrAlias}.
func (s *Server) joinRoom(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := s.pathRoomOrAlias(r)
	if err != nil {
		return err
	}
	return s.join(w, r, who, room)
}

func (s *Server) join(w http.ResponseWriter, r *http.Request, who session, room matrix.RoomID) error {
	var req joinRequest
	if err := api.ReadOptionalJSON(r, maxSmallBody, &req); err != nil {
		return err
	}
	if err := s.limits.Take(api.LimitJoin, string(who.user)); err != nil {
		return err
	}
	if err := s.refuseGuestIn(room, who); err != nil {
		return err
	}
	join := state.Join{Room: room, User: who.user, Reason: req.Reason, Extra: req.Extra}
	if signed := req.ThirdPartySigned; signed.Kind() == '{' {
		join.ThirdPartyInvite = append(append([]byte(`{"signed":`), signed...), '}')
	}
	if err := s.rooms.Join(r.Context(), join); err != nil {
		return err
	}
	return api.WriteJSON(w, roomAnswer{room})
}

// roomAnswer is the answer of the endpoints that bring somebody into a room.
type roomAnswer struct {
	Room matrix.RoomID `json:"room_id"`
}

// pathRoomOrAlias reads the room of a path that may name it by an alias.
func (s *Server) pathRoomOrAlias(r *http.Request) (matrix.RoomID, error) {
	text := r.PathValue("roomIDOrAlias")
	if !strings.HasPrefix(text, "#") {
		room, err := matrix.ParseRoomID(text)
		if err != nil {
			return "", api.InvalidParam("roomIdOrAlias", err)
		}
		return room, nil
	}
	alias, err := matrix.ParseRoomAlias(text)
	if err != nil {
		return "", api.InvalidParam("roomIdOrAlias", err)
	}
	return s.aliasRoom(alias)
}

// knockRoom answers POST /knock/{roomIDOrAlias}.
func (s *Server) knockRoom(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := s.pathRoomOrAlias(r)
	if err != nil {
		return err
	}
	if err := s.limits.Take(api.LimitJoin, string(who.user)); err != nil {
		return err
	}
	change := state.MembershipChange{Room: room, Sender: who.user, Target: who.user, Membership: matrix.Knock}
	if err := s.changeMembership(r, change); err != nil {
		return err
	}
	return api.WriteJSON(w, roomAnswer{room})
}
