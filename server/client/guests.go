package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// Guests: accounts without a name of their own and without a password, for strangers
// who want to look in. They are part of open registration: where not everybody may
// have an account, nobody may be a guest.
//
// Spec: CS Guest Access.

// guestRoutes are the endpoints that guests may use beside those that need no
// account, and beside logging out.
//
// Spec: CS Guest Access, Client behaviour.
var guestRoutes = map[string]bool{
	"GET /_matrix/client/v3/sync":                                                 true,
	"GET /_matrix/client/v3/rooms/{roomID}/state":                                 true,
	"GET /_matrix/client/v3/rooms/{roomID}/state/{eventType}/{stateKey?}":         true,
	"GET /_matrix/client/v3/rooms/{roomID}/context/{eventID}":                     true,
	"GET /_matrix/client/v3/rooms/{roomID}/event/{eventID}":                       true,
	"GET /_matrix/client/v3/rooms/{roomID}/messages":                              true,
	"GET /_matrix/client/v3/rooms/{roomID}/members":                               true,
	"GET /_matrix/client/v1/media/download/{serverName}/{mediaID}":                true,
	"GET /_matrix/client/v1/media/download/{serverName}/{mediaID}/{fileName}":     true,
	"GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaID}":               true,
	"GET /_matrix/media/v3/download/{serverName}/{mediaID}":                       true, // open to all
	"GET /_matrix/media/v3/download/{serverName}/{mediaID}/{fileName}":            true,
	"GET /_matrix/media/v3/thumbnail/{serverName}/{mediaID}":                      true,
	"POST /_matrix/client/v3/rooms/{roomID}/join":                                 true,
	"POST /_matrix/client/v3/rooms/{roomID}/leave":                                true,
	"PUT /_matrix/client/v3/rooms/{roomID}/send/{eventType}/{txnID}":              true,
	"PUT /_matrix/client/v3/rooms/{roomID}/state/{eventType}/{stateKey?}":         true,
	"PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnID}":                     true,
	"PUT /_matrix/client/v3/profile/{userID}/{keyName}":                           true, // displayname alone
	"DELETE /_matrix/client/v3/profile/{userID}/{keyName}":                        true,
	"PUT /_matrix/client/unstable/uk.tcpip.msc4133/profile/{userID}/{keyName}":    true,
	"DELETE /_matrix/client/unstable/uk.tcpip.msc4133/profile/{userID}/{keyName}": true,
	"GET /_matrix/client/v3/devices":                                              true,
	"GET /_matrix/client/v3/devices/{deviceID}":                                   true,
	"PUT /_matrix/client/v3/devices/{deviceID}":                                   true,
	"GET /_matrix/client/v3/account/whoami":                                       true,
	"POST /_matrix/client/v3/keys/upload":                                         true,
	"POST /_matrix/client/v3/keys/query":                                          true,
	"POST /_matrix/client/v3/keys/claim":                                          true,
	"GET /_matrix/client/versions":                                                true, // needs no account
	"POST /_matrix/client/v3/logout":                                              true,
	"POST /_matrix/client/v3/logout/all":                                          true,
}

// Bounds of guests. Who comes when there are as many as that takes the place of
// guests who have not been seen for a while.
const (
	maxGuests      = 256
	guestIdle      = 7 * 24 * time.Hour
	maxGuestsGone  = 8               // removed for one who comes
	guestsInterval = 2 * time.Second // between two looks at the rooms that guests are in
)

// guests are the guest accounts that there are.
type guests struct {
	mu    sync.Mutex             // guards all; held while an account is made
	all   map[store.UserNum]bool // nil: not read yet
	first chan struct{}          // closed, and made anew, when one comes
}

// refuseGuest returns M_GUEST_ACCESS_FORBIDDEN to a guest at an endpoint that is
// not for guests.
func (who session) refuseGuest(pattern string) error {
	if who.guest && !guestRoutes[pattern] {
		return api.ErrGuestAccessForbidden.Because("Guests cannot do this: register first")
	}
	return nil
}

// refuseGuestIn returns M_GUEST_ACCESS_FORBIDDEN to a guest who wants to join a room
// that takes none.
//
// "Servers MUST only allow guest users to join rooms if the m.room.guest_access state
// event is present on the room, and has the guest_access value can_join."
func (s *Server) refuseGuestIn(room matrix.RoomID, who session) error {
	if !who.guest {
		return nil
	}
	return s.store.View(func(tx *store.Tx) error {
		open, err := takesGuests(tx, room)
		if err == nil && !open {
			err = api.ErrGuestAccessForbidden.Because("Guests cannot join this room")
		}
		return err
	})
}

// takesGuests says whether guests may be in a room.
func takesGuests(tx *store.Tx, room matrix.RoomID) (bool, error) {
	ev, err := state.Current(tx, room, "m.room.guest_access", "")
	if ev == nil || err != nil {
		return false, err
	}
	return contentString(ev.Content, "guest_access") == "can_join", nil
}

// registerGuest answers POST /register?kind=guest. "All parameters in the request
// body with the exception of initial_device_display_name MUST BE ignored".
func (s *Server) registerGuest(w http.ResponseWriter, r *http.Request) error {
	if s.config.Registration != RegistrationOpen {
		return api.ErrGuestAccessForbidden.Because("This server has no guest accounts")
	}
	if err := s.limits.TakeIP(api.LimitRegister, api.ClientIP(r)); err != nil {
		return err
	}
	var body struct {
		Name string `json:"initial_device_display_name"`
	}
	if err := api.ReadOptionalJSON(r, maxLoginBytes, &body); err != nil {
		return err
	}
	plan, err := (&deviceRequest{Name: body.Name}).plan()
	if err != nil {
		return err
	}
	user, err := s.newUserID("")
	if err != nil {
		return err
	}
	if err := s.retireGuests(context.WithoutCancel(r.Context())); err != nil {
		return err
	}
	if err := s.makeGuest(r.Context(), user, plan); err != nil {
		return fmt.Errorf("register guest %s: %w", user, err)
	}
	s.log.Info("guest account made", "user", user)
	return api.WriteJSON(w, s.loginResponse(r, user, plan))
}

// makeGuest makes a guest's account and logs it in.
func (s *Server) makeGuest(ctx context.Context, user matrix.UserID, plan loginPlan) error {
	g := &s.guests
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := s.readGuests(); err != nil {
		return err
	}
	if len(g.all) >= maxGuests {
		return api.ErrGuestAccessForbidden.Because("This server has as many guests as it takes")
	}
	var num store.UserNum
	err := s.store.Update(ctx, func(tx *store.Tx) (err error) {
		num, err = tx.CreateOpenAccount(user, store.Account{Created: s.now(), Guest: true})
		if err != nil {
			return err
		}
		return s.putLogin(tx, num, plan)
	})
	if err != nil {
		return err
	}
	g.all[num] = true
	if g.first != nil {
		close(g.first)
		g.first = nil
	}
	return nil
}

// readGuests reads which guests there are, once. Call it with the lock held.
func (s *Server) readGuests() error {
	if s.guests.all != nil {
		return nil
	}
	all := make(map[store.UserNum]bool)
	err := s.store.View(func(tx *store.Tx) error {
		return tx.Accounts(func(num store.UserNum, a store.Account) (bool, error) {
			if a.Guest && !a.Deactivated {
				all[num] = true
			}
			return true, nil
		})
	})
	if err != nil {
		return fmt.Errorf("guests: %w", err)
	}
	s.guests.all = all
	return nil
}

// listGuests returns the guests that are known, and a channel that closes when the next
// one comes.
func (s *Server) listGuests() (all []store.UserNum, more <-chan struct{}, err error) {
	g := &s.guests
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := s.readGuests(); err != nil {
		return nil, nil, err
	}
	for num := range g.all {
		all = append(all, num)
	}
	if g.first == nil {
		g.first = make(chan struct{})
	}
	return all, g.first, nil
}

// noGuest notes that a user is no guest any more.
func (s *Server) noGuest(user store.UserNum) {
	s.guests.mu.Lock()
	defer s.guests.mu.Unlock()
	delete(s.guests.all, user)
}

// retireGuests makes room for one more guest where there are too many: those who
// have not been seen for long are deactivated.
func (s *Server) retireGuests(ctx context.Context) error {
	all, _, err := s.listGuests()
	if len(all) < maxGuests || err != nil {
		return err
	}
	var idle []store.UserNum
	err = s.store.View(func(tx *store.Tx) error {
		for _, num := range all {
			gone, err := s.isIdle(tx, num)
			if err != nil {
				return err
			}
			if gone && len(idle) < maxGuestsGone {
				idle = append(idle, num)
			}
		}
		return nil
	})
	for _, num := range idle {
		err = errors.Join(err, s.Deactivate(ctx, num, false))
	}
	return err
}

// isIdle says whether no device of a guest has been seen for long.
func (s *Server) isIdle(tx *store.Tx, user store.UserNum) (bool, error) {
	idle := true
	err := tx.Devices(user, func(d store.Device) (bool, error) {
		idle = s.now().Sub(s.sightings.newest(user, d).LastSeen) >= guestIdle
		return idle, nil
	})
	return idle, err
}

// upgradeGuest makes a guest's account a full one in the write that a registration
// makes: the user keeps ID, devices and rooms. The name that was asked for must be
// the guest's.
func (s *Server) upgradeGuest(tx *store.Tx, token string, a newAccount) (store.UserNum, error) {
	known, err := tx.Token(store.HashToken(token))
	if errors.Is(err, store.ErrNotFound) {
		return 0, errNoGuest
	}
	if err != nil {
		return 0, err
	}
	account, err := tx.Account(known.User)
	switch {
	case err != nil:
		return 0, err
	case !account.Guest || account.Deactivated || account.Locked || s.usable(known) != nil:
		return 0, errNoGuest
	case tx.UserID(known.User) != a.user:
		return 0, api.ErrInvalidUsername.Because("A guest keeps their user name: it must be that of the guest account")
	}
	return known.User, tx.UpdateAccount(known.User, func(was *store.Account) {
		was.Guest, was.PasswordHash = false, a.hash
	})
}

var errNoGuest = api.ErrForbidden.Because("guest_access_token is no access token of a guest")

// runGuests makes guests leave the rooms that take none any more, until ctx ends.
//
// "If the m.room.guest_access event is changed to stop this from being the case, the
// server MUST set those users' m.room.member state to leave."
func (s *Server) runGuests(ctx context.Context) error {
	for seen := store.Position(0); ; {
		all, more, err := s.listGuests()
		if err == nil && len(all) > 0 {
			if seen, err = s.store.Wait(ctx, seen); err == nil {
				err = s.seeGuestsOut(ctx, all)
			}
			more = nil // there are some already: look again after a while
		}
		if ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
			return nil
		}
		if err != nil {
			s.log.Error("make guests leave", "err", err)
		}
		var pause <-chan time.Time
		if more == nil {
			pause = time.After(guestsInterval)
		}
		select {
		case <-more:
		case <-pause:
		case <-ctx.Done():
			return nil
		}
	}
}

// seeGuestsOut has guests leave the rooms that do not take them. A room that does
// not let go is left as it is until the next time.
func (s *Server) seeGuestsOut(ctx context.Context, all []store.UserNum) error {
	type stay struct {
		user matrix.UserID
		room matrix.RoomID
	}
	var over []stay
	err := s.store.View(func(tx *store.Tx) error {
		takes := make(map[matrix.RoomID]bool)
		for _, num := range all {
			rooms, err := state.Joined(tx, num)
			if err != nil {
				return err
			}
			for _, room := range rooms {
				open, known := takes[room]
				if !known {
					if open, err = takesGuests(tx, room); err != nil {
						return err
					}
					takes[room] = open
				}
				if !open {
					over = append(over, stay{tx.UserID(num), room})
				}
			}
		}
		return nil
	})
	for _, stay := range over {
		if leaveErr := s.rooms.Leave(ctx, stay.room, stay.user, "Guests are no longer welcome here"); leaveErr != nil {
			err = errors.Join(err, fmt.Errorf("%s in %s: %w", stay.user, stay.room, leaveErr))
		}
	}
	return err
}
