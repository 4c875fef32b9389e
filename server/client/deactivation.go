package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

type deactivateRequest struct {
	Erase bool `json:"erase"`
}

type deactivateResponse struct {
	UnbindResult string `json:"id_server_unbind_result"`
}

// deactivateAccount answers POST /account/deactivate: for the user of the token,
// or for the one whose password a request without a token gives.
//
// Spec: CS Account deactivation.
func (s *Server) deactivateAccount(w http.ResponseWriter, r *http.Request, who session) error {
	in, err := s.interact(r, who, maxLoginBytes, passwordFlows)
	if err != nil {
		return err
	}
	var req deactivateRequest
	if err := json.Unmarshal(in.body, &req); err != nil {
		return api.ErrBadJSON
	}
	shown, err := s.prove(r.Context(), in)
	if err != nil {
		return err
	}
	if err := s.Deactivate(r.Context(), shown.user, req.Erase); err != nil {
		return err
	}
	s.finish(in)
	return api.WriteJSON(w, deactivateResponse{UnbindResult: "success"}) // there is nothing to unbind
}

// Deactivate closes an account for good: the user leaves all rooms, and what the
// account had stored is removed. What a crash cuts short, the next start completes.
func (s *Server) Deactivate(ctx context.Context, user store.UserNum, erase bool) error {
	var id matrix.UserID
	var account store.Account
	err := s.store.Update(ctx, func(tx *store.Tx) (err error) {
		if err := tx.Deactivate(user, erase); err != nil {
			return err
		}
		id = tx.UserID(user)
		account, err = tx.Account(user)
		return err
	})
	if err != nil {
		return fmt.Errorf("deactivate user %d: %w", user, err)
	}
	s.noGuest(user)
	if account.Erased {
		s.erasures.add(id, account.ErasedAt)
	}
	s.log.Info("account deactivated", "user", user)
	return s.sweepAccount(context.WithoutCancel(ctx), user)
}

// sweepRecords is how many records one write of a sweep removes.
const sweepRecords = 256

// sweepAccount takes a deactivated account out of its rooms and removes what it
// has stored.
func (s *Server) sweepAccount(ctx context.Context, user store.UserNum) error {
	if err := s.leaveRooms(ctx, user); err != nil {
		return err
	}
	for more := true; more; {
		err := s.store.Update(ctx, func(tx *store.Tx) (err error) {
			more, err = tx.SweepDeactivated(user, sweepRecords)
			return err
		})
		if err != nil {
			return fmt.Errorf("remove the data of user %d: %w", user, err)
		}
	}
	return nil
}

// leaveRooms has a user leave all rooms, and reject all invites. A room that does
// not let go is left as it is: nobody is there to try again.
func (s *Server) leaveRooms(ctx context.Context, user store.UserNum) error {
	var id matrix.UserID
	var rooms []matrix.RoomID
	err := s.store.View(func(tx *store.Tx) error {
		id = tx.UserID(user)
		return tx.LocalMemberships(user, func(m store.LocalMembership) (bool, error) {
			switch m.Membership {
			case matrix.Join, matrix.Invite, matrix.Knock:
				rooms = append(rooms, tx.RoomID(m.Room))
			}
			return true, nil
		})
	})
	if err != nil {
		return fmt.Errorf("rooms of user %d: %w", user, err)
	}
	for _, room := range rooms {
		if err := s.rooms.Leave(ctx, room, id, ""); err != nil {
			s.log.Warn("a deactivated account could not leave", "user", id, "room", room, "err", err)
		}
	}
	return ctx.Err()
}

// sweepDeactivated ends sweeps that were cut short when the server last stopped.
func (s *Server) sweepDeactivated(ctx context.Context) error {
	var users []store.UserNum
	err := s.store.View(func(tx *store.Tx) error {
		return tx.Accounts(func(user store.UserNum, a store.Account) (bool, error) {
			if a.Deactivated {
				users = append(users, user)
			}
			return true, nil
		})
	})
	for _, user := range users {
		err = errors.Join(err, s.sweepAccount(ctx, user))
	}
	return err
}
