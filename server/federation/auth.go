package federation

import (
	"net/http"

	"hearth/server/api"
	"hearth/state/matrix"
)

// authenticate returns the server that has signed a request, "" for an endpoint
// that needs none.
//
// Spec: SS Request Authentication.
func (s *Server) authenticate(r *http.Request, rt route) (matrix.ServerName, error) {
	if rt.access == open {
		return "", nil
	}
	return "", api.ErrForbidden
}
