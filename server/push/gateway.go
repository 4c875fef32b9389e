package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"hearth/store"
)

// A Notice is what one event means to one user.
type Notice struct {
	Rule *Rule // that decided; nil: none did, or the event is none of the user's business
	Read bool  // the user has read it
}

// Sources are the function values through which a Gateway sees rooms as the users
// see them.
type Sources struct {
	// Notices returns what tells the notices of a room's events to a user.
	Notices func(tx *store.Tx, user store.UserNum, room store.RoomNum) (func(*store.StoredEvent) (Notice, error), error)
	// Invite returns the invite of a user to a room that this server is not in, and
	// what it means to the user; nil where there is none.
	Invite func(tx *store.Tx, user store.UserNum, room store.RoomNum) (*store.StoredEvent, Notice, error)
	// Unread counts the events of all rooms that a user was notified of and has not
	// read.
	Unread func(tx *store.Tx, user store.UserNum) (int, error)
}

// A Gateway sends notifications to the push gateways that users have named. Every
// pusher is a cursor on the stream, which is stored: what it has to send is found
// when it is sent, so nothing queues up, and a restart loses nothing. What was sent
// in the last seconds before a crash may be sent again, which push gateways know by
// the event's ID.
//
// Spec: Push Gateway API, Homeserver behaviour.
type Gateway struct {
	store   *store.Store
	client  *http.Client
	log     *slog.Logger
	sources Sources
	now     func() time.Time
	backoff func(failures int) time.Duration
	ready   chan struct{} // holds one when tasks may be ready

	mu    sync.Mutex // guards the fields below and those of every task
	tasks map[target]*task
	queue []*task // that are ready, each once
}

// A target is one pusher.
type target struct {
	user store.UserNum
	id   store.PusherID
}

// A task is what is known of a pusher besides its record.
type task struct {
	target
	cursor  store.Position // looked at up to here; 0: not known yet
	saved   store.Position // what the record says
	sent    bool           // something was sent since the record says so
	badge   int            // the count that was sent last; -1: none
	count   bool           // the count may be another
	queued  bool           // it is in the queue
	running bool           // a worker has it
	again   bool           // something happened while a worker has it
	retry   *time.Timer    // after a failure, until it fires
	failed  int            // how often, in a row
	since   time.Time      // when that began
}

const (
	// workers is how many requests to push gateways are under way at a time.
	workers = 6
	// lookAtOnce is how many entries of the stream are looked at for a pusher in one
	// View.
	lookAtOnce = 500
	// saveInterval is how often cursors are stored.
	saveInterval = 10 * time.Second
	// saveLag is how far a cursor may be ahead of what is stored while it has sent
	// nothing: each write costs the disk.
	saveLag = 2000
	// maxIdle is how many pushers that have nothing to do are remembered.
	maxIdle = 256
	// lastSave is how long storing the cursors may take at the end.
	lastSave = 5 * time.Second
	// patience is how long a task whose push gateway fails goes on trying; then what
	// it has not sent by then is given up.
	patience = 24 * time.Hour
)

// NewGateway returns a gateway that sends with a client. It does nothing before
// [Gateway.Run].
func NewGateway(st *store.Store, client *http.Client, log *slog.Logger) *Gateway {
	return &Gateway{
		store: st, client: client, log: log, now: time.Now, backoff: backoff,
		ready: make(chan struct{}, 1), tasks: make(map[target]*task),
	}
}

// Run sends notifications until ctx ends. It returns ctx's error, or that of the
// store.
func (g *Gateway) Run(ctx context.Context, sources Sources) error {
	g.sources = sources
	defer g.stopRetries()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return g.watch(ctx) })
	group.Go(func() error { return g.runSave(ctx) })
	for range workers {
		group.Go(func() error { return g.work(ctx) })
	}
	err := group.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSave)
	defer cancel()
	return errors.Join(err, g.save(last, true))
}

// watch follows the stream and wakes the pushers that it concerns.
func (g *Gateway) watch(ctx context.Context) error {
	after := g.store.Position()
	err := g.store.View(func(tx *store.Tx) error {
		return tx.AllPushers(func(user store.UserNum, id store.PusherID) (bool, error) {
			g.wake(target{user, id}, false)
			return true, nil
		})
	})
	if err == nil {
		err = g.store.Follow(ctx, after, g.note, nil)
	}
	return fmt.Errorf("watch for notifications: %w", err)
}

// note wakes the pushers that one entry of the stream concerns.
func (g *Gateway) note(tx *store.Tx, c store.Change) error {
	switch {
	case c.Event != 0:
		return g.wakeRoom(tx, c.Room)
	case c.IsReceipt():
		return g.wakeUser(tx, c.User, true)
	case c.IsMembership():
		return g.wakeUser(tx, c.User, false)
	}
	return nil
}

// wake makes a pusher look for what it has to send; count says that the number of
// unread events may have changed.
func (g *Gateway) wake(at target, count bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.tasks[at]
	if t == nil {
		t = &task{target: at, badge: -1}
		g.tasks[at] = t
	}
	t.count = t.count || count
	switch {
	case t.running:
		t.again = true
	case t.retry == nil:
		g.enqueue(t)
	}
}

// enqueue makes a task ready. Call it with mu held.
func (g *Gateway) enqueue(t *task) {
	if t.queued {
		return
	}
	t.queued = true
	g.queue = append(g.queue, t)
	g.signal()
}

// signal wakes a worker.
func (g *Gateway) signal() {
	select {
	case g.ready <- struct{}{}:
	default:
	}
}

// take returns the next task that is ready, nil for none, and wakes the next worker
// if there is more.
func (g *Gateway) take() *task {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.queue) == 0 {
		g.queue = nil
		return nil
	}
	t := g.queue[0]
	g.queue = g.queue[1:]
	t.queued, t.running, t.again = false, true, false
	if len(g.queue) > 0 {
		g.signal()
	}
	return t
}

// work runs tasks until ctx ends.
func (g *Gateway) work(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-g.ready:
		}
		for t := g.take(); t != nil; t = g.take() {
			err := g.deliver(ctx, t)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			g.rest(t, err)
		}
	}
}

// rest ends a worker's turn at a task: it runs again if something happened
// meanwhile, and later if it failed.
func (g *Gateway) rest(t *task, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t.running = false
	if err == nil {
		t.failed = 0
		if t.again {
			g.enqueue(t)
		}
		return
	}
	if t.failed++; t.failed == 1 {
		t.since = g.now()
		g.log.Warn("a push gateway does not take a notification", "user", t.user, "app", t.id.App, "err", err)
	}
	if g.now().Sub(t.since) > patience {
		t.cursor, t.sent, t.since = g.store.Position(), true, g.now()
		g.log.Warn("notifications of a day are given up", "user", t.user, "app", t.id.App, "err", err)
	}
	t.retry = time.AfterFunc(g.backoff(t.failed), func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if t.retry != nil {
			t.retry = nil
			g.enqueue(t)
		}
	})
}

// stopRetries stops what would run after the end.
func (g *Gateway) stopRetries() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.tasks {
		if t.retry != nil {
			t.retry.Stop()
			t.retry = nil
		}
	}
}

// forget drops the task of a pusher that is gone.
func (g *Gateway) forget(t *task) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tasks[t.target] == t {
		delete(g.tasks, t.target)
	}
}
