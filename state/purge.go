package state

import (
	"context"
	"errors"
	"fmt"

	"hearth/state/matrix"
	"hearth/store"
)

// A PurgeProgress says how far a purge has come.
type PurgeProgress struct {
	Left    matrix.UserID // a local user who has just left the room, or ""
	Removed int           // records removed so far
}

// Purge makes all local users leave a room and removes everything that is stored
// of it. It calls progress as it goes on, often. From the moment when all have
// left, nobody finds the room any more; when the rest is cut short, by ctx or a
// crash, [Rooms.Run] or another Purge goes on with it. A room that is not known
// here is ErrUnknownRoom.
func (r *Rooms) Purge(ctx context.Context, id matrix.RoomID, progress func(PurgeProgress)) error {
	num, err := r.giveUp(ctx, id, func(user matrix.UserID) { progress(PurgeProgress{Left: user}) })
	if err != nil {
		return fmt.Errorf("purge %s: %w", id, err)
	}
	return r.finishPurge(ctx, num, func(removed int) { progress(PurgeProgress{Removed: removed}) })
}

// giveUp makes local users leave a room and the room unknown. Nobody can come in
// between the two.
func (r *Rooms) giveUp(ctx context.Context, id matrix.RoomID, left func(matrix.UserID)) (store.RoomNum, error) {
	unlock := r.locks.own(id)
	defer unlock()
	var num store.RoomNum
	var users []matrix.UserID
	err := r.store.View(func(tx *store.Tx) (err error) {
		num = tx.RoomNum(id)
		users, err = present(tx, num)
		return err
	})
	for _, user := range users {
		if err != nil {
			return 0, err
		}
		if err = r.evict(ctx, id, user); err == nil {
			left(user)
		}
	}
	for more := err == nil; more && err == nil; {
		err = r.store.Update(ctx, func(tx *store.Tx) (err error) {
			more, err = tx.BeginPurge(num)
			return err
		})
	}
	if errors.Is(err, store.ErrNotFound) {
		err = refuse(ErrUnknownRoom, "This server does not know the room %s", id)
	}
	return num, err
}

// present returns the local users who have something to leave; none in a room
// without a head.
func present(tx *store.Tx, num store.RoomNum) (users []matrix.UserID, err error) {
	if _, err := tx.Head(num); errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	err = tx.LocalMembers(num, func(user store.UserNum, m matrix.Membership) (bool, error) {
		switch m {
		case matrix.Join, matrix.Invite, matrix.Knock:
			users = append(users, tx.UserID(user))
		}
		return true, nil
	})
	return users, err
}

// evict makes a user leave a room whose lock the caller holds.
func (r *Rooms) evict(ctx context.Context, id matrix.RoomID, user matrix.UserID) error {
	return r.store.Update(ctx, func(tx *store.Tx) error {
		rm, err := r.open(tx, id)
		if err != nil {
			return err
		}
		if _, err := rm.addMember(user, user, memberContent{Membership: matrix.Leave}); err != nil {
			return fmt.Errorf("%s cannot leave: %w", user, err)
		}
		return rm.close()
	})
}

// finishPurge removes what is left of a room that is being purged.
func (r *Rooms) finishPurge(ctx context.Context, num store.RoomNum, progress func(removed int)) error {
	done, err := r.beginUpkeep(ctx)
	if err != nil {
		return err
	}
	defer done()
	r.litter.take(num)
	return r.store.PurgeRoom(ctx, num, progress)
}

// resumePurges goes on with purges that were cut short.
func (r *Rooms) resumePurges(ctx context.Context) error {
	var rooms []store.RoomNum
	err := r.store.View(func(tx *store.Tx) error {
		return tx.Purges(func(room store.RoomNum) (bool, error) {
			rooms = append(rooms, room)
			return true, nil
		})
	})
	for _, room := range rooms {
		err = errors.Join(err, r.finishPurge(ctx, room, nil))
	}
	return err
}
