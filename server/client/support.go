package client

import (
	"net/http"

	"hearth/server/api"
	"hearth/state/matrix"
)

// Support tells whoever has trouble with the server whom to ask. The zero value
// tells nothing.
type Support struct {
	MatrixID matrix.UserID // of an administrator
	Email    string        // of an administrator
	Page     string        // URL of a page about the server
}

type supportResponse struct {
	Contacts    []supportContact `json:"contacts,omitempty"`
	SupportPage string           `json:"support_page,omitzero"`
}

type supportContact struct {
	MatrixID matrix.UserID `json:"matrix_id,omitzero"`
	Email    string        `json:"email_address,omitzero"`
	Role     string        `json:"role"`
}

// getWellknownSupport answers GET /.well-known/matrix/support.
func (s *Server) getWellknownSupport(w http.ResponseWriter, _ *http.Request, _ session) error {
	about := s.config.Support
	if about == (Support{}) {
		return api.ErrNotFound
	}
	answer := supportResponse{SupportPage: about.Page}
	if about.MatrixID != "" || about.Email != "" {
		answer.Contacts = []supportContact{{MatrixID: about.MatrixID, Email: about.Email, Role: "m.role.admin"}}
	}
	return api.WriteJSON(w, answer)
}
