package client

import (
	"errors"
	"fmt"
	"net/http"

	"hearth/server/api"
	"hearth/store"
)

type refreshRequest struct {
	RefreshToken string `json:"refresh_token"`
}

type refreshResponse struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	ExpiresInMS  int64  `json:"expires_in_ms"`
}

// refresh answers POST /refresh. The old tokens stay good until one of the new
// ones is used, so that a client that lost the reply can ask again.
//
// Spec: CS Refreshing access tokens.
func (s *Server) refresh(w http.ResponseWriter, r *http.Request, _ session) error {
	var req refreshRequest
	if err := api.ReadJSON(r, maxLoginBytes, &req); err != nil {
		return err
	}
	if req.RefreshToken == "" {
		return api.MissingParam("refresh_token")
	}
	old := store.HashToken(req.RefreshToken)
	plan := loginPlan{access: newToken(accessTokenPrefix), refresh: newToken(refreshTokenPrefix)}
	if err := s.store.View(func(tx *store.Tx) error { return refreshable(tx, old) }); err != nil {
		return err
	}
	err := s.store.Update(r.Context(), func(tx *store.Tx) error {
		if err := refreshable(tx, old); err != nil {
			return err
		}
		return tx.Refresh(old, plan.hashes(s.now()))
	})
	if err != nil {
		return fmt.Errorf("refresh: %w", err)
	}
	return api.WriteJSON(w, refreshResponse{
		AccessToken: plan.access, RefreshToken: plan.refresh, ExpiresInMS: accessTokenLife.Milliseconds(),
	})
}

// refreshable says whether a refresh token is good now. A spent one was replaced by
// another that has been used: the device is still there, so that its client may
// keep its keys and log in again.
//
// Spec: CS Soft logout, Account locking.
func refreshable(tx *store.Tx, hash store.TokenHash) error {
	token, err := tx.Token(hash)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return api.ErrUnknownToken.Because("This refresh token is not known")
	case err != nil:
		return err
	case token.Kind != store.RefreshToken:
		return api.ErrUnknownToken.Because("This is no refresh token")
	case token.State == store.TokenSpent:
		return api.ErrUnknownToken.Because("This refresh token has been replaced by a newer one").SoftLogout()
	}
	account, err := tx.Account(token.User)
	if err == nil && account.Locked {
		return api.ErrUserLocked.SoftLogout()
	}
	return err
}
