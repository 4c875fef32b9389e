package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// leaveTimeout is how long other servers are asked to let a user go, all together: then
// the user is rid of it without them.
const leaveTimeout = 40 * time.Second

// Leave rejects an invite to a room that this server is not in, or withdraws a knock
// there, at a server that is in the room. Where none of those answers the user is rid
// of it all the same: only we know of it then. here is true where the user stands in
// no such room, and the leave is one for [state.Rooms.ChangeMembership].
//
// Spec: SS Leaving Rooms (Rejecting Invites).
func (j *Joiner) Leave(ctx context.Context, room matrix.RoomID, user matrix.UserID, reason string) (here bool, err error) {
	is, err := j.residence(room)
	if is != residenceNone || err != nil {
		return err == nil, err
	}
	var was store.LocalMembership
	err = j.store.View(func(tx *store.Tx) (err error) {
		was, _, err = tx.LocalMembership(tx.UserNum(user), tx.RoomNum(room))
		return err
	})
	if err != nil {
		return false, err
	}
	if was.Membership != matrix.Invite && was.Membership != matrix.Knock || was.Event != 0 {
		return true, nil
	}
	left := store.LocalMembership{Room: was.Room, Membership: matrix.Leave}
	within, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	ev, err := j.leaveAt(within, room, user, reason, outsideServers(was))
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil:
		j.log.Info("a leave is known here alone", "room", room, "user", user, "err", err)
		if ev, err = j.rooms.Farewell(was, reason); err != nil {
			return false, err
		}
	}
	if ev != nil {
		left.PDU, left.Version = ev.JSON(), ev.Version.ID
	}
	return false, j.settle(ctx, user, was, left)
}

// settle writes down what a room that we are not in has become to a user, unless that
// has changed meanwhile by other means. What the new event cites came before it, however
// late it reached us: a kick, after which the user knocks again.
func (j *Joiner) settle(ctx context.Context, user matrix.UserID, was, is store.LocalMembership) error {
	return j.store.Update(ctx, func(tx *store.Tx) error {
		num, err := tx.PutUserNum(user)
		if err != nil {
			return err
		}
		now, _, err := tx.LocalMembership(num, is.Room)
		if err != nil {
			return err
		}
		if now.Position != was.Position {
			if later, err := cites(is, now); !later || err != nil {
				return err
			}
		}
		return tx.PutLocalMembership(num, is)
	})
}

// cites says whether the event of one membership cites that of another.
func cites(m, earlier store.LocalMembership) (bool, error) {
	own, err := m.Own()
	if own == nil || err != nil {
		return false, err
	}
	old, err := earlier.Own()
	return old != nil && slices.Contains(own.AuthEvents, old.ID), err
}

// outsideServers returns the servers that may be in a room that we are not in, by
// what has come with an invite or a knock: that of who sent the invite first.
func outsideServers(m store.LocalMembership) (servers []matrix.ServerName) {
	if own, err := m.Own(); err == nil && own != nil {
		servers = append(servers, own.Sender.Server())
		if server, ok := own.Room.Server(); ok {
			servers = append(servers, server)
		}
	}
	var stripped []struct {
		Sender matrix.UserID `json:"sender"`
	}
	if json.Unmarshal(m.Stripped, &stripped) != nil {
		return servers
	}
	for _, ev := range stripped {
		if user, err := matrix.ParseUserID(string(ev.Sender)); err == nil {
			servers = append(servers, user.Server())
		}
	}
	return servers
}

// leaveAt leaves a room by way of the first server that does it.
func (j *Joiner) leaveAt(ctx context.Context, room matrix.RoomID, user matrix.UserID, reason string, servers []matrix.ServerName) (*matrix.Event, error) {
	var refusal error
	for _, server := range j.candidates(servers) {
		proposal, err := j.propose(ctx, server, "make_leave", room, user, matrix.Leave)
		if err == nil {
			var ev *matrix.Event
			if ev, err = j.rooms.Draft(proposal, state.Join{Reason: reason}); err == nil {
				err = j.sendLeave(ctx, server, ev)
			}
			if err == nil {
				return ev, nil
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		refusal = weightier(refusal, err)
	}
	if refusal == nil {
		refusal = ErrNoServer
	}
	return nil, fmt.Errorf("leave %s: %w", room, refusal)
}

// sendLeave sends a leave.
//
// Spec: SS send_leave (v2), and v1 for servers that do not know it.
func (j *Joiner) sendLeave(ctx context.Context, server matrix.ServerName, ev *matrix.Event) error {
	q := Request{
		Method: http.MethodPut, Path: memberPath("v2", "send_leave", ev), Body: jsontext.Value(ev.JSON()),
		Timeout: makeTimeout, Insist: true,
	}
	err := j.ask(ctx, server, q, nil)
	if unknownEndpoint(err) {
		q.Path = memberPath("v1", "send_leave", ev)
		err = j.ask(ctx, server, q, nil)
	}
	return err
}

// Outside returns the servers that may be in a room that a user was invited to or has
// knocked on, as far as is known from that.
func (j *Joiner) Outside(room matrix.RoomID, user matrix.UserID) (servers []matrix.ServerName, err error) {
	err = j.store.View(func(tx *store.Tx) error {
		m, known, err := tx.LocalMembership(tx.UserNum(user), tx.RoomNum(room))
		if err == nil && known {
			servers = outsideServers(m)
		}
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return servers, err
}
