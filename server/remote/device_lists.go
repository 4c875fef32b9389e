package remote

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"hearth/state/matrix"
	"hearth/store"
)

// DeviceLists is the copy that is kept here of the devices and keys of other
// servers' users. It asks their servers for what is not here, follows what they tell
// of changes, and fetches anew what missed one.
//
// What is kept is of users who share a room with a user of ours, as their servers
// tell us of changes. A list is good where it was fetched after they began to share
// a room that they have shared ever since: so nobody has to watch who comes and goes.
// Who is asked for without sharing a room is asked for anew each time.
//
// A change is told to our users once it is here, so that who asks then finds it.
//
// Spec: SS Device Management, End-to-End Encryption.
type DeviceLists struct {
	config DeviceListsConfig
	store  *store.Store
	wake   chan struct{}       // holds one element where there is something to fetch
	asking *semaphore.Weighted // of the requests of users that are under way

	mu      sync.Mutex                 // guards the fields below
	flights map[matrix.UserID]*flight  // lists that are being fetched
	failed  map[matrix.ServerName]bool // servers that did not give a list lately; true: they have spoken since
	started bool                       // whether every list on the to-do list was due once
}

// DeviceListsConfig is what DeviceLists need; Store and Ask are required.
type DeviceListsConfig struct {
	Store *store.Store
	// Ask makes a request, as [Network.Do] does.
	Ask func(ctx context.Context, dest matrix.ServerName, q Request, answer any) error
	// Now is the clock. If nil, time.Now.
	Now func() time.Time
	// Log takes what goes wrong where nobody waits. If nil, nothing is logged.
	Log *slog.Logger
}

// flight is one list that is being fetched.
type flight struct {
	done  chan struct{} // closed when it has been
	dirty bool          // whether its server has told of a change meanwhile
}

const (
	// maxAsking is how many requests of users for keys may be under way. Each may
	// hold an answer of maxKeysAnswer bytes.
	maxAsking = 8
	// maxKeysAnswer bounds an answer with keys.
	maxKeysAnswer = 2 << 20
	// sweepDevices is how often lists are looked for that nobody needs any more.
	sweepDevices = time.Hour
)

// NewDeviceLists returns the lists in a store. Let [DeviceLists.Run] run as long as
// they are used.
func NewDeviceLists(config DeviceListsConfig) *DeviceLists {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	return &DeviceLists{
		config: config, store: config.Store,
		wake: make(chan struct{}, 1), asking: semaphore.NewWeighted(maxAsking),
		flights: make(map[matrix.UserID]*flight), failed: make(map[matrix.ServerName]bool),
	}
}

// Run fetches, until ctx ends, the lists that missed a change, and removes those of
// users who share no room with ours any more.
func (l *DeviceLists) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.runResync(ctx) })
	group.Go(func() error { return l.runSweep(ctx) })
	return group.Wait()
}

// Heard notes that a server is there: what it did not give before is asked for
// again. It does not block.
func (l *DeviceLists) Heard(server matrix.ServerName) {
	l.mu.Lock()
	heard, failed := l.failed[server]
	if failed {
		l.failed[server] = true
	}
	l.mu.Unlock()
	if failed && !heard {
		l.wakeUp()
	}
}

func (l *DeviceLists) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// take begins to fetch the lists of users whom nobody is fetching, and returns those,
// and what is under way for the others.
func (l *DeviceLists) take(users []wantedKeys) (mine []wantedKeys, others []*flight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, u := range users {
		if !u.share.ok() { // nothing is kept, so nobody can wait for it
			mine = append(mine, u)
		} else if under := l.flights[u.user]; under != nil {
			others = append(others, under)
		} else {
			l.flights[u.user] = &flight{done: make(chan struct{})}
			mine = append(mine, u)
		}
	}
	return mine, others
}

// release ends what take began.
func (l *DeviceLists) release(users []wantedKeys) {
	l.mu.Lock()
	for _, u := range users {
		if f := l.flights[u.user]; f != nil && u.share.ok() {
			close(f.done)
			delete(l.flights, u.user)
		}
	}
	l.mu.Unlock()
	l.wakeUp()
}

// touch notes that a change of a user's list has come while it may be being
// fetched. It is called before the store is changed, and dirty within the write.
func (l *DeviceLists) touch(user matrix.UserID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.flights[user]; f != nil {
		f.dirty = true
	}
}

// dirty says whether a change has come since the list began to be fetched.
func (l *DeviceLists) dirty(user matrix.UserID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.flights[user]
	return f == nil || f.dirty
}

// isTaken says whether a user's list is being fetched.
func (l *DeviceLists) isTaken(user matrix.UserID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flights[user] != nil
}
