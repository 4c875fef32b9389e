package client

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"hearth/server/api"
	"hearth/store"
)

// loginTokenLife is how long a login token may be used.
const loginTokenLife = 2 * time.Minute

type loginTokenResponse struct {
	LoginToken  string `json:"login_token"`
	ExpiresInMS int64  `json:"expires_in_ms"`
}

// generateLoginToken answers POST /login/get_token: a token with which another
// client can log in as the same user, once. Each one is confirmed by the user.
func (s *Server) generateLoginToken(w http.ResponseWriter, r *http.Request, who session) error {
	if _, err := s.confirm(r, who, maxLoginBytes); err != nil {
		return err
	}
	token := newToken(loginTokenPrefix)
	err := s.store.Update(r.Context(), func(tx *store.Tx) error {
		now := s.now()
		return tx.PutLoginToken(store.HashToken(token), who.num, now, now.Add(loginTokenLife))
	})
	if errors.Is(err, store.ErrFull) {
		return api.TryAfter(loginTokenLife)
	}
	if err != nil {
		return fmt.Errorf("login token for %s: %w", who.user, err)
	}
	return api.WriteJSON(w, loginTokenResponse{LoginToken: token, ExpiresInMS: loginTokenLife.Milliseconds()})
}
