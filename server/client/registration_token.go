package client

import (
	"errors"
	"fmt"
	"net/http"

	"hearth/server/api"
	"hearth/store"
)

type validityResponse struct {
	Valid bool `json:"valid"`
}

// registrationTokenValidity answers GET /register/m.login.registration_token/validity:
// whether a token is valid now, which does not mean that it will be when it is used.
func (s *Server) registrationTokenValidity(w http.ResponseWriter, r *http.Request, _ session) error {
	if s.config.Registration != RegistrationToken {
		return api.ErrForbidden.Because("Nobody can register with a token here")
	}
	if err := s.limits.TakeIP(api.LimitTokenCheck, api.ClientIP(r)); err != nil {
		return err
	}
	query := r.URL.Query()
	if !query.Has("token") {
		return api.MissingParam("token")
	}
	token := query.Get("token")
	left, err := s.registrationsLeft(token)
	if err != nil {
		return err
	}
	left -= s.stages.holding(token, nil, s.now())
	return api.WriteJSON(w, validityResponse{Valid: left > 0})
}

// tryRegistrationToken checks the stage m.login.registration_token. A token whose
// last uses are held by others who are registering is not good now.
func (s *Server) tryRegistrationToken(st *stageSession, token string) (string, error) {
	if token == "" {
		return "", api.MissingParam("token")
	}
	left, err := s.registrationsLeft(token)
	if err != nil {
		return "", err
	}
	if left-s.stages.holding(token, st, s.now()) <= 0 {
		return "", errBadRegistrationToken
	}
	return token, nil
}

var errBadRegistrationToken = api.ErrUnauthorized.Because("The registration token is not valid, or not any more")

// unlimited is what a token without a bound has left.
const unlimited = 1 << 30

// registrationsLeft returns for how many more accounts a token is good, 0 for one
// that there is not.
func (s *Server) registrationsLeft(token string) (int, error) {
	left := 0
	err := s.store.View(func(tx *store.Tx) error {
		t, err := tx.RegistrationToken(token)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		n, bounded := t.Left(s.now())
		if left = int(min(n, unlimited)); !bounded {
			left = unlimited
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("look up a registration token: %w", err)
	}
	return left, nil
}
