package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// Finish makes the state of the events that were put with State and joins the room:
// join is the user's own event, with all the signatures that it needs, and stands on
// what is not here. Whoever looks sees all of the room after it, and nothing of it
// before. The join must pass the rules by what it cites and by the state: what does
// not is an [auth.Error], and what cannot be a room's state wraps ErrGivenState.
// Of a room that we were in before, the timeline stays and goes on with the join.
func (im *Import) Finish(ctx context.Context, join *matrix.Event) error {
	slices.SortFunc(im.given, func(a, b givenEvent) int { return cmp.Compare(a.slot, b.slot) })
	for i := 1; i < len(im.given); i++ {
		if a, b := im.given[i-1], im.given[i]; a.slot == b.slot && a.num != b.num {
			return fmt.Errorf("the state of %s has two events in one place: %w", im.id, ErrGivenState)
		}
	}
	im.given = slices.Compact(im.given)
	defer im.rooms.locks.own(im.id)()
	state, err := im.snapshot(ctx)
	if err != nil {
		return fmt.Errorf("state of %s: %w", im.id, err)
	}
	err = im.rooms.store.View(func(tx *store.Tx) error { return im.admit(tx, join, state) })
	if err != nil {
		return err
	}
	return im.rooms.store.Update(ctx, func(tx *store.Tx) error {
		if err := im.mayGoOn(tx); err != nil {
			return err
		}
		rm, err := im.enter(tx, state)
		if err != nil {
			return err
		}
		entered, err := rm.append(join, state, store.TxnID{})
		if err != nil {
			return err
		}
		rm.head.Entered = entered.Num
		if err := rm.close(); err != nil {
			return err
		}
		_, err = tx.EndJoin(im.num)
		return err
	})
}

// snapshot makes the snapshot of the state, in writes of bounded size.
func (im *Import) snapshot(ctx context.Context) (snap store.SnapshotID, err error) {
	im.rooms.litter.add(im.num, im.rooms.now())
	step := func(fn func(tx *store.Tx) error) {
		if err != nil {
			return
		}
		err = im.rooms.store.Update(ctx, func(tx *store.Tx) error {
			if err := im.mayGoOn(tx); err != nil {
				return err
			}
			return fn(tx)
		})
	}
	step(func(tx *store.Tx) (err error) {
		snap, err = tx.NewSnapshot(im.num, 0)
		return err
	})
	var changes []store.StateChange
	for some := range slices.Chunk(im.given, stateStep) {
		changes = changes[:0]
		for _, g := range some {
			changes = append(changes, store.StateChange{Slot: g.slot, Event: g.num})
		}
		step(func(tx *store.Tx) error { return tx.GrowSnapshot(im.num, snap, changes...) })
	}
	step(func(tx *store.Tx) error { return tx.SealSnapshot(im.num, snap) })
	return snap, err
}

// admit holds the join to what it cites and to the state, which must have the event
// that the room began with.
func (im *Import) admit(tx *store.Tx, join *matrix.Event, state store.SnapshotID) error {
	create, err := EventAt(tx, im.num, state, "m.room.create", "")
	if err != nil {
		return err
	}
	if create == nil {
		return fmt.Errorf("the state of %s has no m.room.create: %w", im.id, ErrGivenState)
	}
	refusal, err := im.judge(tx, join)
	if err := errors.Join(refusal, err); err != nil {
		return fmt.Errorf("join %s: %w", im.id, err)
	}
	return auth.Check(join, func(typ, key string) (*matrix.Event, error) {
		ev, err := EventAt(tx, im.num, state, typ, key)
		if ev == nil || err != nil {
			return nil, err
		}
		return ev.Event, nil
	})
}

// enter gives the room the state that was given as its current one, with all that is
// counted and noted beside it.
func (im *Import) enter(tx *store.Tx, state store.SnapshotID) (*room, error) {
	head, err := tx.Head(im.num)
	if errors.Is(err, store.ErrNotFound) {
		head = store.Head{Version: im.version}
		err = tx.PutHead(im.num, head)
	}
	if err != nil {
		return nil, err
	}
	head.Current, head.Joined, head.Invited = state, 0, 0
	rm := &room{rooms: im.rooms, tx: tx, num: im.num, id: im.id, head: head, changed: true}
	servers := make(map[store.ServerNum]uint64)
	for _, g := range im.given {
		switch g.member &^ localMember {
		case joinedMember:
			rm.head.Joined++
		case invitedMember:
			rm.head.Invited++
		}
		if g.server != 0 {
			servers[g.server]++
		}
	}
	if err := im.countServers(tx, servers); err != nil {
		return nil, err
	}
	return rm, im.settleLocals(rm)
}

// countServers notes which servers are in the room, and no others.
func (im *Import) countServers(tx *store.Tx, servers map[store.ServerNum]uint64) error {
	var gone []store.ServerNum
	err := tx.RoomServers(im.num, func(server store.ServerNum, _ uint64) (bool, error) {
		if servers[server] == 0 {
			gone = append(gone, server)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	for _, server := range gone {
		if err := tx.PutRoomServer(im.num, server, 0); err != nil {
			return err
		}
	}
	for server, joined := range servers {
		if err := tx.PutRoomServer(im.num, server, joined); err != nil {
			return err
		}
	}
	return nil
}

// settleLocals records what the room has become to local users by the state.
func (im *Import) settleLocals(rm *room) error {
	in := make(map[store.EventNum]bool)
	for _, g := range im.given {
		if g.member&localMember != 0 {
			in[g.num] = true
		}
	}
	known := make(map[store.EventNum]bool)
	var gone []store.EventNum // member events of which the state has no successor
	users := make(map[matrix.UserID]bool)
	for num := range in {
		ev, err := rm.tx.Event(rm.num, num)
		if err != nil {
			return err
		}
		users[matrix.UserID(*ev.StateKey)] = true
	}
	err := rm.tx.LocalMembers(rm.num, func(user store.UserNum, _ matrix.Membership) (bool, error) {
		m, _, err := rm.tx.LocalMembership(user, rm.num)
		switch {
		case err != nil || m.Event == 0:
		case in[m.Event] && m.Stripped == nil:
			known[m.Event] = true
		case !users[rm.tx.UserID(user)]:
			gone = append(gone, m.Event)
		}
		return true, err
	})
	if err != nil {
		return err
	}
	for _, num := range gone {
		if err := rm.settleLocal(num, 0); err != nil {
			return err
		}
	}
	for _, g := range im.given {
		if !in[g.num] || known[g.num] {
			continue
		}
		if err := rm.settleLocal(0, g.num); err != nil {
			return err
		}
	}
	return nil
}

// EndJoin ends a join that has failed, and removes what it brought here of a room
// that is not known otherwise. A join that is over already is no error.
func (r *Rooms) EndJoin(ctx context.Context, num store.RoomNum) error {
	var purge bool
	err := r.store.Update(ctx, func(tx *store.Tx) (err error) {
		purge, err = tx.EndJoin(num)
		return err
	})
	if err != nil || !purge {
		return err
	}
	return r.finishPurge(ctx, num, nil)
}
