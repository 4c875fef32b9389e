package federation

import (
	"net/http"

	"hearth/server/api"
	"hearth/state/matrix"
)

// exchangeOpenIdToken answers GET /openid/userinfo: whom an OpenID token speaks for.
// Anybody may ask who has the token.
//
// Spec: SS OpenID.
func (s *Server) exchangeOpenIdToken(w http.ResponseWriter, r *http.Request, _ matrix.ServerName) error {
	if err := s.limits.TakeIP(api.LimitTokenCheck, api.ClientIP(r)); err != nil {
		return err
	}
	token := r.URL.Query().Get("access_token")
	if token == "" {
		return api.ErrMissingToken
	}
	user, err := s.config.OpenIDUser(token)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, struct {
		User matrix.UserID `json:"sub"`
	}{user})
}
