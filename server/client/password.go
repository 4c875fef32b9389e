package client

import (
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

type passwordRequest struct {
	NewPassword   string `json:"new_password"`
	LogoutDevices *bool  `json:"logout_devices"`
}

// changePassword answers POST /account/password: for the user of the token, or
// for the one whose old password a request without a token gives. Other devices
// are logged out unless the request says not to.
//
// Spec: CS Password management.
func (s *Server) changePassword(w http.ResponseWriter, r *http.Request, who session) error {
	in, err := s.interact(r, who, maxLoginBytes, passwordFlows)
	if err != nil {
		return err
	}
	var req passwordRequest
	if err := json.Unmarshal(in.body, &req); err != nil {
		return api.ErrBadJSON
	}
	shown, err := s.prove(r.Context(), in)
	if err != nil {
		return err
	}
	if req.NewPassword == "" {
		return api.MissingParam("new_password")
	}
	hash, err := s.passwords.Hash(r.Context(), req.NewPassword)
	if err != nil {
		return err
	}
	keep := req.LogoutDevices != nil && !*req.LogoutDevices
	if err := s.setPassword(r, shown.user, hash, keep, who.device); err != nil {
		return err
	}
	s.finish(in)
	return api.WriteEmpty(w)
}

// setPassword stores a new password and logs out all devices but the one that
// asked, or none.
func (s *Server) setPassword(r *http.Request, user store.UserNum, hash string, keepAll bool, asked matrix.DeviceID) error {
	err := s.store.Update(r.Context(), func(tx *store.Tx) error {
		if err := tx.ResetPassword(user, hash); err != nil {
			return err
		}
		if keepAll {
			return nil
		}
		return tx.LogOut(user, asked)
	})
	if err != nil {
		return fmt.Errorf("change the password of user %d: %w", user, err)
	}
	s.log.Info("password changed", "user", user)
	return nil
}
