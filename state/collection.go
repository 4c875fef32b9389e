package state

import (
	"context"
	"errors"
	"sync"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// When a room's snapshots are collected. A collection looks at all of a room, so
// that it waits until the room has forked in proportion to its size, or long
// enough.
const (
	collectEvery   = 10 * time.Minute // between two looks for rooms to collect
	collectPause   = 10 * time.Second // between two rooms
	recordsPerFork = 64               // as many records of a room are looked at for each fork
	maxLitterAge   = 6 * time.Hour    // after which a single fork is reason enough
)

// litter counts the forks that have left snapshots behind which no event refers
// to. Rooms that do not fork leave none. It is forgotten at a restart: what was
// left then goes with the room's next collection.
type litter struct {
	mu    sync.Mutex // guards rooms
	rooms map[store.RoomNum]forks
}

// forks is how often a room has forked since its last collection, and since when.
type forks struct {
	count uint64
	since time.Time
}

// add counts a fork.
func (l *litter) add(room store.RoomNum, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.rooms[room]
	if f.count++; f.count == 1 {
		f.since = now
	}
	l.rooms[room] = f
}

// take begins to count a room anew.
func (l *litter) take(room store.RoomNum) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.rooms, room)
}

// due returns the rooms for which due says so.
func (l *litter) due(due func(store.RoomNum, forks) bool) (rooms []store.RoomNum) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for room, f := range l.rooms {
		if due(room, f) {
			rooms = append(rooms, room)
		}
	}
	return rooms
}

// Run does what rooms need while nobody waits for it, until ctx ends: it ends
// purges that were cut short, and collects snapshots that nothing refers to.
func (r *Rooms) Run(ctx context.Context) error {
	for again := true; again; again = sleep(ctx, collectEvery) {
		if err := r.resumePurges(ctx); err != nil && ctx.Err() == nil {
			r.log.Error("a room cannot be purged", "err", err)
		}
		rooms, err := r.littered()
		if err != nil {
			r.log.Error("snapshots cannot be collected", "err", err)
		}
		for _, room := range rooms {
			if _, err := r.collect(ctx, room); err != nil && ctx.Err() == nil {
				r.log.Error("snapshots cannot be collected", "room", room, "err", err)
			}
			if !sleep(ctx, collectPause) {
				break
			}
		}
	}
	return ctx.Err()
}

// sleep waits and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// littered returns the rooms whose snapshots are worth a collection.
func (r *Rooms) littered() (rooms []store.RoomNum, err error) {
	now := r.now()
	err = r.store.View(func(tx *store.Tx) (err error) {
		rooms = r.litter.due(func(room store.RoomNum, f forks) bool {
			records, countErr := tx.StateRecords(room)
			err = errors.Join(err, countErr)
			return f.count*recordsPerFork >= records || now.Sub(f.since) >= maxLitterAge
		})
		return err
	})
	return rooms, err
}

// collect removes the snapshots of a room that nothing refers to, and returns how
// many records that were.
//
// A snapshot that is derived and not yet part of an event belongs to an Accept,
// which has the room to itself. So the room must be ours for the moment in which
// the collection's View begins, and no longer: Accepts that come later build on
// what the events of that View refer to, or on newer records, and neither goes.
func (r *Rooms) collect(ctx context.Context, room store.RoomNum) (removed int, err error) {
	done, err := r.beginUpkeep(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	var id matrix.RoomID
	err = r.store.View(func(tx *store.Tx) error {
		id = tx.RoomID(room)
		return nil
	})
	if err != nil {
		return 0, err
	}
	unlock := sync.OnceFunc(r.locks.own(id))
	defer unlock()
	r.litter.take(room)
	return r.store.CollectSnapshots(ctx, room, func(tx *store.Tx, use func(store.SnapshotID) error) error {
		unlock()
		seen := 0
		return tx.UsedSnapshots(room, func(snap store.SnapshotID) error {
			if seen++; seen%1024 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			return use(snap)
		})
	})
}

// beginUpkeep waits until no collection and no purge is under way; done lets the
// next one begin. A room that is purged and begins again numbers its records
// anew, which a collection must not live to see.
func (r *Rooms) beginUpkeep(ctx context.Context) (done func(), err error) {
	select {
	case r.upkeep <- struct{}{}:
		return func() { <-r.upkeep }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
