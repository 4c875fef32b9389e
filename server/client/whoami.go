package client

import (
	"net/http"

	"hearth/server/api"
	"hearth/state/matrix"
)

type whoamiResponse struct {
	UserID   matrix.UserID   `json:"user_id"`
	DeviceID matrix.DeviceID `json:"device_id,omitzero"`
	IsGuest  bool            `json:"is_guest"`
}

// getTokenOwner answers GET /account/whoami.
func (s *Server) getTokenOwner(w http.ResponseWriter, _ *http.Request, who session) error {
	return api.WriteJSON(w, whoamiResponse{UserID: who.user, DeviceID: who.device, IsGuest: who.guest})
}
