package push

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// wakeRoom wakes the pushers of those whom an event of a room may concern.
func (g *Gateway) wakeRoom(tx *store.Tx, room store.RoomNum) error {
	var users []store.UserNum
	err := tx.LocalMembers(room, func(user store.UserNum, m matrix.Membership) (bool, error) {
		if m == matrix.Join || m == matrix.Invite {
			users = append(users, user)
		}
		return true, nil
	})
	for _, user := range users {
		if err == nil {
			err = g.wakeUser(tx, user, false)
		}
	}
	return err
}

// wakeUser wakes the pushers of a user.
func (g *Gateway) wakeUser(tx *store.Tx, user store.UserNum, count bool) error {
	if !tx.HasPushers(user) {
		return nil
	}
	pushers, err := tx.Pushers(user)
	for _, p := range pushers {
		g.wake(target{user, p.PusherID}, count)
	}
	return err
}

// move notes up to where a task has looked, and whether it has sent something.
func (g *Gateway) move(t *task, to store.Position, sent bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t.cursor = max(t.cursor, to)
	t.sent = t.sent || sent
}

// position returns up to where a task has looked: what the pusher's record says at
// first, and where the pusher is a new one.
func (g *Gateway) position(t *task, p store.Pusher) store.Position {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.cursor < p.Cursor {
		t.cursor, t.saved = p.Cursor, p.Cursor
	}
	return t.cursor
}

// runSave stores cursors now and then, until ctx ends.
func (g *Gateway) runSave(ctx context.Context) error {
	tick := time.NewTicker(saveInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := g.save(ctx, false); err != nil && ctx.Err() == nil {
				g.log.Error("store how far notifications were sent", "err", err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// save stores the cursors that must not be lost, or all, and forgets pushers that
// have nothing to do where there are many.
func (g *Gateway) save(ctx context.Context, all bool) error {
	moved := g.moved(all)
	if len(moved) == 0 {
		return nil
	}
	err := g.store.Update(ctx, func(tx *store.Tx) error {
		for at, to := range moved {
			if err := tx.MovePusher(at.user, at.id, to); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cursors of pushers: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for at, to := range moved {
		if t := g.tasks[at]; t != nil {
			t.saved = to
			t.sent = t.sent && t.cursor != to
		}
	}
	return nil
}

// moved returns the cursors that are worth a write.
func (g *Gateway) moved(all bool) map[target]store.Position {
	g.mu.Lock()
	defer g.mu.Unlock()
	moved := make(map[target]store.Position)
	idle := len(g.tasks) - maxIdle
	for at, t := range g.tasks {
		switch {
		case t.cursor > t.saved && (all || t.sent || t.cursor-t.saved > saveLag):
			moved[at] = t.cursor
		case idle > 0 && !t.sent && !t.queued && !t.running && t.failed == 0:
			delete(g.tasks, at) // its record says enough
			idle--
		}
	}
	return moved
}

// Bounds of the pauses between tries.
const (
	firstPause = 2 * time.Second
	maxPause   = time.Hour
)

// backoff is how long to wait after so many failures in a row: twice as long each
// time, and never the same for all, so that they do not come back together.
func backoff(failures int) time.Duration {
	pause := min(firstPause<<min(failures-1, 16), maxPause)
	return pause/2 + rand.N(pause/2)
}
