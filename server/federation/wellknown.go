package federation

import (
	"net"
	"net/http"
	"strings"

	"hearth/server/api"
	"hearth/state/matrix"
)

// delegation is the well-known document for servers.
type delegation struct {
	Server string `json:"m.server"`
}

// getWellKnown answers GET /.well-known/matrix/server. Whoever asks for it at our
// own name has reached us there, and may send everything else to the same port.
//
// Spec: SS Resolving server names, step 3.
func (s *Server) getWellKnown(w http.ResponseWriter, r *http.Request, _ matrix.ServerName) error {
	own := s.network.Server()
	asked, err := matrix.ParseServerName(strings.ToLower(r.Host))
	if err != nil || asked.Host() != string(own) { // with a port or an address, our name says it all
		return api.ErrNotFound
	}
	_, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		port = "443"
	}
	return api.WriteJSON(w, delegation{string(own) + ":" + port})
}
