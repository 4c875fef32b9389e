package client

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// session is who makes a request. The zero session is a stranger.
type session struct {
	user   matrix.UserID
	num    store.UserNum
	device matrix.DeviceID
	token  store.TokenHash // of the access token
	owner  bool            // the owner of this server
	admin  bool            // an administrator; the owner is one

	suspended bool // see refuseSuspended
	guest     bool // see refuseGuest
}

// known says whether somebody is logged in.
func (who session) known() bool { return who.num != 0 }

// isSelf returns M_FORBIDDEN unless user, a part of a path, is who asks.
func (who session) isSelf(user string) error {
	if user != string(who.user) {
		return api.ErrForbidden.Because("That belongs to another user")
	}
	return nil
}

// refuseSuspended returns M_USER_SUSPENDED for a suspended account: for handlers
// where the answer depends on the request. Where it does not, the route's access
// is active.
//
// Spec: CS Account suspension.
func (who session) refuseSuspended() error {
	if who.suspended {
		return api.ErrUserSuspended.Because("You cannot do this while your account is suspended")
	}
	return nil
}

// session finds out who makes a request and whether an endpoint takes it.
//
// Spec: CS Using access tokens, Soft logout, Account locking.
func (s *Server) session(r *http.Request, a access) (session, error) {
	if a == open {
		return session{}, s.limits.TakeIP(api.LimitRequest, api.ClientIP(r))
	}
	token, err := accessToken(r)
	switch {
	case err != nil:
		return session{}, err
	case token == "" && a == optional:
		return session{}, s.limits.TakeIP(api.LimitRequest, api.ClientIP(r))
	case token == "":
		return session{}, api.ErrMissingToken
	}
	who, account, err := s.find(r, store.HashToken(token))
	if errors.Is(err, api.ErrUnknownToken) { // a stranger: the token costs a look
		if limited := s.limits.TakeIP(api.LimitRequest, api.ClientIP(r)); limited != nil {
			return session{}, limited
		}
	}
	if err != nil {
		return session{}, err
	}
	switch {
	case account.Deactivated:
		return session{}, api.ErrUnknownToken
	case account.Locked && a != always:
		return session{}, api.ErrUserLocked.SoftLogout()
	case account.Suspended && a == active:
		return session{}, who.refuseSuspended()
	}
	s.sightings.note(who, s.now(), api.ClientIP(r))
	return who, nil
}

// accessToken returns the token of a request, "" where there is none. The query
// parameter is deprecated and must still work.
func accessToken(r *http.Request) (string, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return r.URL.Query().Get("access_token"), nil
	}
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", api.ErrMissingToken.Because("The Authorization header must be: Bearer and the access token")
	}
	return token, nil
}

// find looks an access token up. A fresh one is put in use, which spends the
// tokens that it replaces.
func (s *Server) find(r *http.Request, hash store.TokenHash) (who session, account store.Account, err error) {
	var token store.Token
	look := func(tx *store.Tx) (err error) {
		if token, err = tx.Token(hash); err != nil {
			return err
		}
		if token.State == store.TokenFresh && tx.Writable() {
			if token, err = tx.UseToken(hash); err != nil {
				return err
			}
		}
		if account, err = tx.Account(token.User); err != nil {
			return err
		}
		who = session{
			user: tx.UserID(token.User), num: token.User, device: token.Device, token: hash,
			owner: tx.Owner() == token.User, admin: account.Admin, suspended: account.Suspended, guest: account.Guest,
		}
		return nil
	}
	err = s.store.View(look)
	if err == nil && s.usable(token) == nil && token.State == store.TokenFresh {
		err = s.store.Update(r.Context(), look)
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return session{}, account, api.ErrUnknownToken
	case err != nil:
		return session{}, account, fmt.Errorf("look up an access token: %w", err)
	}
	return who, account, s.usable(token)
}

// stillLoggedIn returns M_UNKNOWN_TOKEN where a session has ended since its request
// came: a long poll must tell nothing to a device that was logged out meanwhile. A
// token that was only replaced by a newer one is still one of the device's.
func (s *Server) stillLoggedIn(who session) error {
	err := s.store.View(func(tx *store.Tx) error {
		if _, err := tx.Token(who.token); err != nil {
			return err
		}
		account, err := tx.Account(who.num)
		switch {
		case err != nil:
			return err
		case account.Deactivated:
			return store.ErrNotFound
		case account.Locked:
			return api.ErrUserLocked.SoftLogout()
		}
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return api.ErrUnknownToken
	}
	return err
}

// usable says why a known token is not good for a request. The device of a spent
// or expired token is still there: the client keeps its keys.
//
// Spec: CS Soft logout.
func (s *Server) usable(token store.Token) error {
	switch {
	case token.Kind != store.AccessToken:
		return api.ErrUnknownToken.Because("A refresh token is no access token")
	case token.State == store.TokenSpent:
		return api.ErrUnknownToken.Because("This access token has been replaced by a newer one").SoftLogout()
	case token.Expired(s.now()):
		return api.ErrUnknownToken.Because("This access token has expired").SoftLogout()
	}
	return nil
}
