package client

import (
	"net/http"
	"net/netip"
	"strings"

	"hearth/server/api"
	"hearth/state/matrix"
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

// wellKnown returns the document for a request, nil where the server does not
// know its URL. Unless the owner has told it, that is where a request came for the
// server's own name: whoever asks there has reached this server by it.
func (s *Server) wellKnown(r *http.Request) *wellKnown {
	base := s.config.BaseURL
	if base == "" {
		base = s.ownURL(r)
	}
	if base == "" {
		return nil
	}
	return &wellKnown{Homeserver: wellKnownServer{BaseURL: base}}
}

// ownURL is the URL of the host that a request came for, "" if that is not the
// server's own name. Only on this machine itself is it plain HTTP: elsewhere a
// plain request has come through a proxy.
func (s *Server) ownURL(r *http.Request) string {
	host := matrix.ServerName(strings.ToLower(r.Host))
	name := s.store.Server().Host()
	if host.Host() != name {
		return ""
	}
	ip, err := netip.ParseAddr(strings.Trim(name, "[]"))
	if r.TLS == nil && (name == "localhost" || err == nil && ip.IsLoopback()) {
		return "http://" + string(host)
	}
	return "https://" + string(host)
}

// getWellknown answers GET /.well-known/matrix/client.
func (s *Server) getWellknown(w http.ResponseWriter, r *http.Request, _ session) error {
	doc := s.wellKnown(r)
	if doc == nil {
		return api.ErrNotFound
	}
	return api.WriteJSON(w, doc)
}
