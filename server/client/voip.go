package client

import (
	"net/http"

	"hearth/server/api"
)

// getTurnServer answers GET /voip/turnServer. A server without a relay says so
// with an empty object, as clients know it from other servers, though the
// specification lists four fields.
//
// Spec: CS Voice over IP.
func (s *Server) getTurnServer(w http.ResponseWriter, _ *http.Request, _ session) error {
	return api.WriteEmpty(w)
}
