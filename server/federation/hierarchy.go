package federation

import (
	"errors"
	"net/http"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
)

// getSpaceHierarchy answers GET /hierarchy/{roomID}: a space and those of its children
// that this server is in and whose users the other server's may join or peek into.
//
// Spec: SS space_hierarchy.yaml.
func (s *Server) getSpaceHierarchy(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	room, err := matrix.ParseRoomID(r.PathValue("roomID"))
	if err != nil {
		return api.InvalidParam("roomId", err)
	}
	suggestedOnly := false
	switch r.URL.Query().Get("suggested_only") {
	case "", "false":
	case "true":
		suggestedOnly = true
	default:
		return api.ErrInvalidParam.Because("suggested_only must be true or false")
	}
	answer, err := s.rooms.SpaceFor(r.Context(), room, from, suggestedOnly)
	if errors.Is(err, state.ErrUnknownRoom) {
		return api.ErrNotFound.Because("There is no such room here, or it is not shown to you")
	}
	if err != nil {
		return err
	}
	return api.WriteJSON(w, answer)
}
