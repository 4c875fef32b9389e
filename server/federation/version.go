package federation

import (
	"net/http"

	"hearth/server/api"
	"hearth/state/matrix"
)

// versionAnswer says what this server is.
type versionAnswer struct {
	Server versionOfServer `json:"server"`
}

type versionOfServer struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// getVersion answers GET /_matrix/federation/v1/version.
func (s *Server) getVersion(w http.ResponseWriter, _ *http.Request, _ matrix.ServerName) error {
	return api.WriteJSON(w, versionAnswer{versionOfServer{"Hearth", s.config.Version}})
}
