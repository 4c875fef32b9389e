package state

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// Config is what Rooms needs; all but Now, Carry and Log are required.
type Config struct {
	Store  *store.Store
	Server matrix.ServerName
	Key    matrix.SigningKey // signs this server's events until [Rooms.SetKey]
	// DefaultVersion is the version of rooms whose creator asks for none. If
	// empty, matrix.DefaultVersion.
	DefaultVersion string
	// Now is the clock. If nil, time.Now is used.
	Now func() time.Time
	// Carry copies what a local user keeps for himself about a room, such as tags,
	// to the room that replaces it. It is called within the write by which he
	// comes to be in the new one, maybe more than once, and leaves alone what he
	// has set there. If nil, nothing is copied.
	Carry func(tx *store.Tx, user store.UserNum, from, to store.RoomNum) error
	// Log tells what went wrong where nobody waits for an answer. If nil, it is
	// not told.
	Log *slog.Logger
}

// Rooms is all rooms that this server takes part in. Its methods may be
// called by several goroutines at once.
type Rooms struct {
	store  *store.Store
	server matrix.ServerName
	key    atomic.Pointer[matrix.SigningKey]
	// defaultVersion is that of rooms whose creator asks for none.
	defaultVersion string
	now            func() time.Time
	carry          func(tx *store.Tx, user store.UserNum, from, to store.RoomNum) error
	log            *slog.Logger
	outside        Outside
	locks          roomLocks
	litter         litter
	upkeep         chan struct{} // holds one while snapshots are collected or a room is purged
}

// New returns the rooms of a store.
func New(c Config) *Rooms {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.DefaultVersion == "" {
		c.DefaultVersion = matrix.DefaultVersion
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	r := &Rooms{
		store:          c.Store,
		server:         c.Server,
		defaultVersion: c.DefaultVersion,
		now:            c.Now,
		carry:          c.Carry,
		log:            c.Log,
		litter:         litter{rooms: make(map[store.RoomNum]forks)},
		upkeep:         make(chan struct{}, 1),
		locks:          roomLocks{rooms: make(map[matrix.RoomID]*roomLock)},
	}
	r.SetKey(c.Key)
	return r
}

// Key returns the key that signs this server's events.
func (r *Rooms) Key() matrix.SigningKey { return *r.key.Load() }

// SetKey makes key the one that signs this server's events from now on.
func (r *Rooms) SetKey(key matrix.SigningKey) { r.key.Store(&key) }

// DefaultVersion returns the version of rooms whose creator asks for none.
func (r *Rooms) DefaultVersion() string { return r.defaultVersion }

// isLocal says whether a user belongs to this server.
func (r *Rooms) isLocal(user matrix.UserID) bool { return user.Server() == r.server }

// change runs fn on a room that is known here, in one write. Local events may
// be drafted by several callers at once: the store's writer puts them in
// order. An event from elsewhere has the room to itself.
func (r *Rooms) change(ctx context.Context, id matrix.RoomID, fn func(*room) error) error {
	unlock := r.locks.share(id)
	defer unlock()
	return r.store.Update(ctx, func(tx *store.Tx) error {
		rm, err := r.open(tx, id)
		if err != nil {
			return err
		}
		if err := fn(rm); err != nil {
			return err
		}
		return rm.close()
	})
}

// changeAsMember is change for deeds that only a member can do: a room that is
// not known here is refused as one that the user is not in, so that nobody
// learns which rooms there are.
func (r *Rooms) changeAsMember(ctx context.Context, id matrix.RoomID, fn func(*room) error) error {
	err := r.change(ctx, id, fn)
	if errors.Is(err, ErrUnknownRoom) {
		return refuse(ErrForbidden, "You are not in the room %s", id)
	}
	return err
}

// roomLocks holds a lock for each room that is being worked on, and none for
// the others.
type roomLocks struct {
	mu    sync.Mutex // guards rooms and the users field of each lock
	rooms map[matrix.RoomID]*roomLock
}

type roomLock struct {
	sync.RWMutex
	users int // how many hold or want the lock; at 0 it leaves the map
}

// share lets local drafts of one room come in side by side.
func (l *roomLocks) share(id matrix.RoomID) (unlock func()) {
	lock := l.take(id)
	lock.RLock()
	return func() {
		lock.RUnlock()
		l.drop(id, lock)
	}
}

// own keeps a room to the caller alone.
func (l *roomLocks) own(id matrix.RoomID) (unlock func()) {
	lock := l.take(id)
	lock.Lock()
	return func() {
		lock.Unlock()
		l.drop(id, lock)
	}
}

func (l *roomLocks) take(id matrix.RoomID) *roomLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	lock := l.rooms[id]
	if lock == nil {
		lock = &roomLock{}
		l.rooms[id] = lock
	}
	lock.users++
	return lock
}

func (l *roomLocks) drop(id matrix.RoomID, lock *roomLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lock.users--; lock.users == 0 {
		delete(l.rooms, id)
	}
}
