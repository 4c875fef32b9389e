package client

import (
	"net/http"

	"hearth/server/api"
)

// wellKnown is the well-known document for clients.
//
// Spec: CS Well-known URIs.
type wellKnown struct {
	Homeserver wellKnownServer `json:"m.homeserver"`
}

type wellKnownServer struct {
	BaseURL string `json:"base_url"`
}

// wellKnown returns the document, nil where the server does not know its URL.
func (s *Server) wellKnown() *wellKnown {
	if s.config.BaseURL == "" {
		return nil
	}
	return &wellKnown{Homeserver: wellKnownServer{BaseURL: s.config.BaseURL}}
}

// getWellknown answers GET /.well-known/matrix/client.
func (s *Server) getWellknown(w http.ResponseWriter, _ *http.Request, _ session) error {
	doc := s.wellKnown()
	if doc == nil {
		return api.ErrNotFound
	}
	return api.WriteJSON(w, doc)
}
