package client

import (
	"errors"
	"fmt"
	"net/http"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// Administration of the server by its administrators, the owner among them.
//
// Spec: CS Server Administration, Account locking, Account suspension.

// whoisResponse is where a user is logged in. What the program is that a device
// uses is not kept, so there is no user_agent.
type whoisResponse struct {
	UserID  matrix.UserID                   `json:"user_id"`
	Devices map[matrix.DeviceID]whoisDevice `json:"devices"`
}

type (
	whoisDevice struct {
		Sessions []whoisSession `json:"sessions"`
	}
	whoisSession struct {
		Connections []whoisConnection `json:"connections"`
	}
	whoisConnection struct {
		IP       string `json:"ip,omitzero"`
		LastSeen int64  `json:"last_seen,omitzero"` // milliseconds
	}
)

// getWhoIs answers GET /admin/whois/{userID}: for everybody about themselves, for
// administrators about every user of this server.
func (s *Server) getWhoIs(w http.ResponseWriter, r *http.Request, who session) error {
	if r.PathValue("userID") != string(who.user) && !who.admin {
		return errNoAdmin
	}
	user, err := s.pathLocalUser(r)
	if err != nil {
		return err
	}
	answer := whoisResponse{UserID: user, Devices: make(map[matrix.DeviceID]whoisDevice)}
	err = s.store.View(func(tx *store.Tx) error {
		num := tx.UserNum(user)
		if _, err := livingAccount(tx, num); err != nil {
			return err
		}
		return tx.Devices(num, func(d store.Device) (bool, error) {
			d = s.sightings.newest(num, d)
			seen := whoisConnection{IP: d.LastIP, LastSeen: d.LastSeen.UnixMilli()}
			answer.Devices[d.ID] = whoisDevice{[]whoisSession{{[]whoisConnection{seen}}}}
			return true, nil
		})
	})
	if err != nil {
		return fmt.Errorf("devices of %s: %w", user, err)
	}
	return api.WriteJSON(w, answer)
}

var errNoAdmin = api.ErrForbidden.Because("Only administrators of this server may do that")

// pathLocalUser reads from a path a user who must be one of this server.
func (s *Server) pathLocalUser(r *http.Request) (matrix.UserID, error) {
	user, err := matrix.ParseUserID(r.PathValue("userID"))
	if err != nil {
		return "", api.InvalidParam("userId", err)
	}
	if user.Server() != s.store.Server() {
		return "", api.ErrInvalidParam.Because("%s is not a user of this server", user)
	}
	return user, nil
}

// livingAccount returns an account that has not been deactivated, else M_NOT_FOUND.
func livingAccount(tx *store.Tx, user store.UserNum) (store.Account, error) {
	account, err := tx.Account(user)
	if errors.Is(err, store.ErrNotFound) || err == nil && account.Deactivated {
		return account, api.ErrNotFound.Because("There is no such user")
	}
	return account, err
}

// lockStatus and suspendStatus are what is asked and told of an account.
type (
	lockStatus struct {
		Locked *bool `json:"locked"`
	}
	suspendStatus struct {
		Suspended *bool `json:"suspended"`
	}
)

// getAdminLockUser answers GET /admin/lock/{userID}.
func (s *Server) getAdminLockUser(w http.ResponseWriter, r *http.Request, who session) error {
	account, err := s.judged(r, who)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, lockStatus{&account.Locked})
}

// setAdminLockUser answers PUT /admin/lock/{userID}.
func (s *Server) setAdminLockUser(w http.ResponseWriter, r *http.Request, who session) error {
	if !who.admin { // before anything is told of the body
		return errNoAdmin
	}
	var req lockStatus
	if err := api.ReadJSON(r, maxSmallBody, &req); err != nil {
		return err
	}
	if req.Locked == nil {
		return api.MissingParam("locked")
	}
	if err := s.judge(r, who, func(a *store.Account) { a.Locked = *req.Locked }); err != nil {
		return err
	}
	s.log.Info("account locked or unlocked", "user", r.PathValue("userID"), "locked", *req.Locked, "by", who.user)
	return api.WriteJSON(w, req)
}

// getAdminSuspendUser answers GET /admin/suspend/{userID}.
func (s *Server) getAdminSuspendUser(w http.ResponseWriter, r *http.Request, who session) error {
	account, err := s.judged(r, who)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, suspendStatus{&account.Suspended})
}

// setAdminSuspendUser answers PUT /admin/suspend/{userID}.
func (s *Server) setAdminSuspendUser(w http.ResponseWriter, r *http.Request, who session) error {
	if !who.admin { // before anything is told of the body
		return errNoAdmin
	}
	var req suspendStatus
	if err := api.ReadJSON(r, maxSmallBody, &req); err != nil {
		return err
	}
	if req.Suspended == nil {
		return api.MissingParam("suspended")
	}
	if err := s.judge(r, who, func(a *store.Account) { a.Suspended = *req.Suspended }); err != nil {
		return err
	}
	s.log.Info("account suspended or released", "user", r.PathValue("userID"), "suspended", *req.Suspended, "by", who.user)
	return api.WriteJSON(w, req)
}

// judged returns the account that an administrator asks about.
//
// "In order to prevent user enumeration, servers MUST ensure that authorisation is
// checked prior to trying to do account lookups."
func (s *Server) judged(r *http.Request, who session) (account store.Account, err error) {
	if !who.admin {
		return account, errNoAdmin
	}
	user, err := s.pathLocalUser(r)
	if err != nil {
		return account, err
	}
	err = s.store.View(func(tx *store.Tx) error {
		num := tx.UserNum(user)
		account, err = livingAccount(tx, num)
		if err == nil && account.Admin && num != who.num {
			err = errIsAdmin
		}
		return err
	})
	return account, err
}

var errIsAdmin = api.ErrForbidden.Because("That is an account of an administrator")

// judge has an administrator change somebody's account. It may be neither their
// own, nor another administrator's, nor the server's.
func (s *Server) judge(r *http.Request, who session, change func(*store.Account)) error {
	user, err := s.pathLocalUser(r)
	if err != nil {
		return err
	}
	err = s.store.Update(r.Context(), func(tx *store.Tx) error {
		num := tx.UserNum(user)
		account, err := livingAccount(tx, num)
		switch {
		case err != nil:
			return err
		case account.Admin:
			return errIsAdmin
		case account.Service:
			return api.ErrForbidden.Because("That is the account of the server itself")
		}
		return tx.UpdateAccount(num, change)
	})
	if err != nil {
		return fmt.Errorf("account of %s: %w", user, err)
	}
	return nil
}
