package client

import (
	"fmt"
	"net/http"

	"hearth/server/api"
	"hearth/store"
)

// logout answers POST /logout: the device goes with its token.
func (s *Server) logout(w http.ResponseWriter, r *http.Request, who session) error {
	err := s.store.Update(r.Context(), func(tx *store.Tx) error {
		return tx.DeleteDevice(who.num, who.device)
	})
	if err != nil {
		return fmt.Errorf("log out %s: %w", who.user, err)
	}
	s.log.Info("logout", "user", who.user, "device", who.device)
	return api.WriteEmpty(w)
}

// logoutAll answers POST /logout/all: every device goes, and the login tokens
// that were not used yet.
func (s *Server) logoutAll(w http.ResponseWriter, r *http.Request, who session) error {
	err := s.store.Update(r.Context(), func(tx *store.Tx) error {
		return tx.LogOut(who.num, "")
	})
	if err != nil {
		return fmt.Errorf("log out all devices of %s: %w", who.user, err)
	}
	s.log.Info("logout of all devices", "user", who.user)
	return api.WriteEmpty(w)
}
