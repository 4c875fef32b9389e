package federation

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"hearth/state/matrix"
)

// maxTurns is how many transactions of one server may be here, of which one is
// handled: a server that sends another one before it has the answer has given up on
// the first, or plays.
const maxTurns = 3

// turns has the transactions of each server handled one by one, and the events of not
// too many of all servers taken at a time. While others are asked for keys nobody
// waits but who sent what they are for.
type turns struct {
	all      *semaphore.Weighted
	fetching *semaphore.Weighted
	mu       sync.Mutex // guards of and the users of each turn
	of       map[matrix.ServerName]*turn
}

// maxFetching is how many joins, knocks and leaves may wait for what they lack.
const maxFetching = 2

type turn struct {
	free  *semaphore.Weighted
	users int
}

func newTurns() *turns {
	return &turns{
		all: semaphore.NewWeighted(maxTransactions), fetching: semaphore.NewWeighted(maxFetching),
		of: make(map[matrix.ServerName]*turn),
	}
}

// take waits until a server's transaction may be handled, and returns what ends it.
// The error is errBusy where that takes too long, or ctx's.
func (t *turns) take(ctx context.Context, server matrix.ServerName) (end func(), err error) {
	own := t.join(server)
	if own == nil {
		return nil, errBusy
	}
	if err := acquire(ctx, own.free); err != nil {
		t.leave(server, own)
		return nil, err
	}
	return func() {
		own.free.Release(1)
		t.leave(server, own)
	}, nil
}

// work waits until events may be taken, and returns what ends it. In between no other
// server is asked for anything. Errors are those of take.
func (t *turns) work(ctx context.Context) (end func(), err error) {
	if err := acquire(ctx, t.all); err != nil {
		return nil, err
	}
	return func() { t.all.Release(1) }, nil
}

// fetch returns what ends the fetching of what an event lacks that did not come by a
// transaction. The error is errBusy where others do that.
func (t *turns) fetch() (end func(), err error) {
	if !t.fetching.TryAcquire(1) {
		return nil, errBusy
	}
	return func() { t.fetching.Release(1) }, nil
}

// acquire takes one of a semaphore, unless that takes too long.
func acquire(ctx context.Context, free *semaphore.Weighted) error {
	wait, cancel := context.WithTimeout(ctx, maxTransactionWait)
	defer cancel()
	err := free.Acquire(wait, 1)
	if err != nil && ctx.Err() == nil {
		err = errBusy
	}
	return err
}

// join returns a server's turn, nil where too many wait for it.
func (t *turns) join(server matrix.ServerName) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.of[server]
	if own == nil {
		own = &turn{free: semaphore.NewWeighted(1)}
		t.of[server] = own
	}
	if own.users == maxTurns {
		return nil
	}
	own.users++
	return own
}

func (t *turns) leave(server matrix.ServerName, own *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if own.users--; own.users == 0 {
		delete(t.of, server)
	}
}
