package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

type registerRequest struct {
	Username     string `json:"username"`
	Password     string `json:"password"`
	InhibitLogin bool   `json:"inhibit_login"`
	GuestToken   string `json:"guest_access_token"`
	deviceRequest
}

// register answers POST /register.
//
// Spec: CS Legacy account registration. The name is checked before the client has
// to authenticate and again, in the write that makes the account, after it.
func (s *Server) register(w http.ResponseWriter, r *http.Request, _ session) error {
	kind := r.URL.Query().Get("kind")
	if kind == "guest" {
		return s.registerGuest(w, r)
	}
	if err := s.registrationAllowed(kind); err != nil {
		return err
	}
	in, err := s.interact(r, session{}, maxLoginBytes, s.registrationFlows())
	if err != nil {
		return err
	}
	var req registerRequest
	if err := json.Unmarshal(in.body, &req); err != nil {
		return api.ErrBadJSON
	}
	user, err := s.newUserID(req.Username)
	if err != nil {
		return err
	}
	plan, err := req.plan()
	if err != nil {
		return err
	}
	if err := s.checkAvailable(user); err != nil && req.GuestToken == "" {
		return err
	}
	if err := s.limitRegistration(r, in); err != nil {
		return err
	}
	shown, err := s.prove(r.Context(), in)
	if err != nil {
		return err
	}
	hash, err := s.passwords.Hash(r.Context(), req.Password)
	if err != nil {
		return err
	}
	made := newAccount{
		user: user, hash: hash, token: shown.registrationToken, guest: req.GuestToken,
		open: s.config.Registration == RegistrationOpen,
	}
	if !req.InhibitLogin {
		made.login = &plan
	}
	if err := s.makeAccount(r.Context(), made); err != nil {
		if errors.Is(err, errBadRegistrationToken) {
			s.stages.revoke(in.stage, stageRegistrationToken)
			return in.stage.refuse(errBadRegistrationToken)
		}
		return err
	}
	s.finish(in)
	if req.InhibitLogin {
		return api.WriteJSON(w, loginResponse{UserID: user, HomeServer: s.store.Server()})
	}
	return api.WriteJSON(w, s.loginResponse(r, user, plan))
}

// registrationAllowed says whether anybody may register an account of a kind.
func (s *Server) registrationAllowed(kind string) error {
	switch {
	case kind != "" && kind != "user":
		return api.ErrInvalidParam.Because("kind must be user or guest")
	case s.config.Registration == RegistrationClosed:
		return api.ErrForbidden.Because("The owner of this server makes its accounts: nobody can register")
	}
	return nil
}

// registrationFlows is how a stranger shows that they may register.
func (s *Server) registrationFlows() []flow {
	if s.config.Registration == RegistrationToken {
		return []flow{{Stages: []string{stageRegistrationToken}}}
	}
	return []flow{{Stages: []string{stageDummy}}}
}

// limitRegistration counts tries of a registration token, and requests that may
// make an account.
func (s *Server) limitRegistration(r *http.Request, in *interaction) error {
	switch {
	case in.auth == nil:
		return nil
	case in.auth.Type == stageRegistrationToken:
		return s.limits.TakeIP(api.LimitTokenCheck, api.ClientIP(r))
	default:
		return s.limits.TakeIP(api.LimitRegister, api.ClientIP(r))
	}
}

type availableResponse struct {
	Available bool `json:"available"`
}

// checkUsernameAvailability answers GET /register/available.
func (s *Server) checkUsernameAvailability(w http.ResponseWriter, r *http.Request, _ session) error {
	if err := s.registrationAllowed(""); err != nil {
		return err
	}
	query := r.URL.Query()
	if !query.Has("username") {
		return api.MissingParam("username")
	}
	name := query.Get("username")
	if name == "" {
		return api.ErrInvalidUsername.Because("A user name cannot be empty")
	}
	user, err := s.newUserID(name)
	if err != nil {
		return err
	}
	if err := s.checkAvailable(user); err != nil {
		return err
	}
	return api.WriteJSON(w, availableResponse{Available: true})
}

// newUserID returns the ID of an account to be made for a name: in lower case, or
// of random letters where there is no name.
//
// Spec: appendices, User Identifiers.
func (s *Server) newUserID(name string) (matrix.UserID, error) {
	if name == "" {
		name = rand.Text()[:12]
	}
	user, err := matrix.NewUserID(strings.ToLower(name), s.store.Server())
	if err != nil {
		return "", api.ErrInvalidUsername.Because("A user name has letters a to z, digits and ._=-/+ only, and is not too long")
	}
	if user == s.NoticesUser() {
		return "", api.ErrExclusive.Because("The server keeps that name for itself")
	}
	return user, nil
}

// checkAvailable says whether a name is free now.
func (s *Server) checkAvailable(user matrix.UserID) error {
	return s.store.View(func(tx *store.Tx) error {
		if tx.IsLocal(tx.UserNum(user)) {
			return api.ErrUserInUse
		}
		return nil
	})
}

// newAccount is an account to be made.
type newAccount struct {
	user        matrix.UserID
	hash        string // of the password
	admin       bool
	displayName string     // empty: the localpart
	token       string     // the registration token that allows it; empty: none is needed
	login       *loginPlan // nil: do not log in
	guest       string     // the access token of the guest whose account it has been; empty: nobody's
	open        bool       // made by a stranger with nobody's leave: never the owner's
}

// makeAccount makes an account in one write: whoever races for the name or for
// the last use of a token gets all of it or nothing. The error is M_USER_IN_USE or
// errBadRegistrationToken.
func (s *Server) makeAccount(ctx context.Context, a newAccount) error {
	var num store.UserNum
	err := s.store.Update(ctx, func(tx *store.Tx) (err error) {
		if a.token != "" {
			if err := tx.UseRegistrationToken(a.token, s.now()); errors.Is(err, store.ErrNotFound) {
				return errBadRegistrationToken
			} else if err != nil {
				return err
			}
		}
		num, err = s.putAccount(tx, a)
		if err != nil {
			return err
		}
		if a.displayName != "" {
			if err := tx.PutProfileField(num, "displayname", quote(a.displayName)); err != nil {
				return err
			}
		}
		if a.login == nil {
			return nil
		}
		return s.putLogin(tx, num, *a.login)
	})
	if err != nil {
		return fmt.Errorf("register %s: %w", a.user, err)
	}
	s.noGuest(num)
	s.log.Info("account made", "user", a.user)
	return nil
}

// putAccount stores the record of an account, be it new or a guest's.
func (s *Server) putAccount(tx *store.Tx, a newAccount) (store.UserNum, error) {
	if a.guest != "" {
		return s.upgradeGuest(tx, a.guest, a)
	}
	create := tx.CreateAccount
	if a.open {
		create = tx.CreateOpenAccount
	}
	num, err := create(a.user, store.Account{PasswordHash: a.hash, Created: s.now(), Admin: a.admin})
	if errors.Is(err, store.ErrExists) {
		err = api.ErrUserInUse
	}
	return num, err
}
