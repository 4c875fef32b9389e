package remote

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// share is how another server's user and our users are together.
type share struct {
	since  store.Position  // since when they share a room that they have shared all the time; 0: they share none
	locals []store.UserNum // who shares a room with the user now, each perhaps more than once
}

func (s share) ok() bool { return s.since != 0 }

// shareOf finds what rooms another server's user shares with ours. It looks at the
// rooms that the user's server is in.
func shareOf(tx *store.Tx, user matrix.UserID) (s share, err error) {
	server := tx.ServerNum(user.Server())
	if server == 0 || tx.UserNum(user) == 0 {
		return s, nil
	}
	err = tx.ServerRooms(server, func(room store.RoomNum) (bool, error) {
		entered, joined, err := joinedSince(tx, room, user)
		if err != nil || !joined {
			return true, err
		}
		return true, tx.LocalMembers(room, func(local store.UserNum, m matrix.Membership) (bool, error) {
			if m != matrix.Join {
				return true, nil
			}
			mine, _, err := tx.LocalMembership(local, room)
			if err != nil {
				return false, err
			}
			s.locals = append(s.locals, local)
			if since := max(entered, mine.Joined, 1); s.since == 0 || since < s.since {
				s.since = since
			}
			return true, nil
		})
	})
	if err != nil {
		return share{}, fmt.Errorf("rooms shared with %s: %w", user, err)
	}
	return s, nil
}

// joinedSince returns the position of the event by which a user is joined in a room
// now. The event may be newer than the join itself, as a new profile makes one.
func joinedSince(tx *store.Tx, room store.RoomNum, user matrix.UserID) (store.Position, bool, error) {
	if _, known := tx.Slot(room, "m.room.member", string(user)); !known {
		return 0, false, nil
	}
	head, err := tx.Head(room)
	if errors.Is(err, store.ErrNotFound) { // it is being purged
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	ev, err := state.EventAt(tx, room, head.Current, "m.room.member", string(user))
	if ev == nil || err != nil {
		return 0, false, err
	}
	content, err := ev.Member()
	return ev.Num.Position(), err == nil && content.Membership == matrix.Join, nil
}

// sweepPage is how many lists are looked at in one View.
const sweepPage = 100

// runSweep removes the lists of users who share no room with ours.
func (l *DeviceLists) runSweep(ctx context.Context) error {
	tick := time.NewTicker(sweepDevices)
	defer tick.Stop()
	for {
		if err := l.sweep(ctx); err != nil && ctx.Err() == nil {
			l.config.Log.Error("look for device lists that nobody needs", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (l *DeviceLists) sweep(ctx context.Context) error {
	for after, more := store.UserNum(0), true; more; {
		var useless []store.UserNum
		looked := 0
		err := l.store.View(func(tx *store.Tx) error {
			return tx.RemoteDeviceLists(after, func(user store.UserNum) (bool, error) {
				together, err := shareOf(tx, tx.UserID(user))
				if err == nil && !together.ok() {
					useless = append(useless, user)
				}
				after = user
				looked++
				return looked < sweepPage, err
			})
		})
		if err != nil {
			return err
		}
		more = looked == sweepPage
		for _, user := range useless {
			if err := l.store.Update(ctx, func(tx *store.Tx) error { return tx.ForgetRemoteDevices(user) }); err != nil {
				return err
			}
		}
	}
	return nil
}
