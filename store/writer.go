package store

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Bounds of a group of writes. A larger transaction would cost more heap than
// it saves in commits: 250 random puts are some 10 MB of pages.
const (
	maxQueue      = 1024             // writes that wait, before Update itself waits
	maxGroup      = 128              // writes in one commit
	maxGroupBytes = 192 << 10        // bytes put by a group before it is committed
	maxPatience   = time.Second      // the longest a patient write gathers company
	patientFull   = maxGroup * 3 / 4 // as many waiting writes end the gathering early
)

// maxReserve is the end of a bounded database file that only Reclaim may use:
// what is to be deleted from a full file needs some pages first.
const maxReserve = 8 << 20

// A write is one closure on its way into a commit.
type write struct {
	ctx      context.Context
	fn       func(*Tx) error
	patience time.Duration // how long it may wait for company
	reclaims bool          // it gives more room back than it takes
	err      error
	pos      Position
	turn     chan bool // true: lead the next group; false: answered
}

// queue is the line of writes. There is no writer goroutine: the first in an
// idle line leads, commits a group for all who have come, and hands the lead
// to the next in line.
type queue struct {
	slots   chan struct{} // one for each write that may wait
	hurry   chan struct{} // ends a patient leader's gathering
	mu      sync.Mutex    // guards the fields below
	waiting []*write
	leading bool
	closed  bool
	idle    chan struct{} // closed when closed and nobody leads
}

func (q *queue) init() {
	q.slots = make(chan struct{}, maxQueue)
	q.hurry = make(chan struct{}, 1)
	q.idle = make(chan struct{})
}

// Update runs fn in a write transaction and returns after its commit is on
// disk, or with the reason why nothing of it is. fn may run more than once
// (when another write of its group fails), so it sets results afresh each
// time and has no effect but on tx. Several Updates may share one commit, made
// by any of their goroutines: fn returns or panics, but never ends its
// goroutine. A ctx that ends before fn has begun leaves it out.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	_, err := s.update(&write{ctx: ctx, fn: fn})
	return err
}

// UpdateAt is Update that also returns the position at which the stream stood
// after the commit: at or after every change that fn made.
func (s *Store) UpdateAt(ctx context.Context, fn func(*Tx) error) (Position, error) {
	return s.update(&write{ctx: ctx, fn: fn})
}

// UpdatePatiently is Update for work nobody watches: it may gather for up to
// patience until others want to commit, so that they share one.
func (s *Store) UpdatePatiently(ctx context.Context, patience time.Duration, fn func(*Tx) error) error {
	_, err := s.update(&write{ctx: ctx, fn: fn, patience: min(patience, maxPatience)})
	return err
}

// Reclaim is UpdatePatiently for a small write that deletes more than it puts.
// It succeeds where the database is full and every other write fails.
func (s *Store) Reclaim(ctx context.Context, patience time.Duration, fn func(*Tx) error) error {
	_, err := s.update(&write{ctx: ctx, fn: fn, patience: min(patience, maxPatience), reclaims: true})
	return err
}

func (s *Store) update(w *write) (Position, error) {
	q := &s.queue
	select {
	case q.slots <- struct{}{}:
		defer func() { <-q.slots }()
	case <-w.ctx.Done():
		return 0, fmt.Errorf("wait for the writer: %w", w.ctx.Err())
	}
	w.turn = make(chan bool, 1)
	lead, err := q.join(w)
	if err != nil {
		return 0, err
	}
	if lead || <-w.turn {
		s.lead(w.patience)
	}
	return w.pos, w.err
}

// join puts w in line and says whether it leads at once.
func (q *queue) join(w *write) (lead bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false, fmt.Errorf("write: %w", ErrClosed)
	}
	q.waiting = append(q.waiting, w)
	if !q.leading {
		q.leading = true
		return true, nil
	}
	if q.pressing() {
		q.endGathering()
	}
	return false, nil
}

// lead commits one group, whose first member is the caller's own write, and
// passes the lead on.
func (s *Store) lead(patience time.Duration) {
	q := &s.queue
	q.gather(patience)
	q.mu.Lock()
	group := q.waiting[:min(len(q.waiting), maxGroup)]
	q.mu.Unlock()

	done := s.commitGroup(group)

	q.mu.Lock()
	rest := append([]*write(nil), q.waiting[done:]...)
	q.waiting = rest
	switch {
	case len(rest) > 0:
		rest[0].turn <- true
	case q.closed:
		close(q.idle)
		q.leading = false
	default:
		q.leading = false
	}
	q.mu.Unlock()
	for _, w := range group[1:done] {
		w.turn <- false
	}
}

// gather waits up to patience for company, or until someone is in a hurry.
func (q *queue) gather(patience time.Duration) {
	select {
	case <-q.hurry: // meant for an earlier leader
	default:
	}
	q.mu.Lock()
	pressing := q.pressing()
	q.mu.Unlock()
	if patience <= 0 || pressing {
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-q.hurry:
	case <-timer.C:
	}
}

// pressing says whether a commit should not wait any longer. q.mu is held.
func (q *queue) pressing() bool {
	if q.closed || len(q.waiting) >= patientFull {
		return true
	}
	return slices.ContainsFunc(q.waiting, func(w *write) bool { return w.patience <= 0 })
}

// endGathering lets a patient leader go ahead.
func (q *queue) endGathering() {
	select {
	case q.hurry <- struct{}{}:
	default:
	}
}

// close refuses new writes and waits for those in line.
func (q *queue) close() {
	q.mu.Lock()
	first := !q.closed
	q.closed = true
	if first && !q.leading {
		close(q.idle)
	}
	q.mu.Unlock()
	q.endGathering()
	<-q.idle
}

// commitGroup runs the writes of a group in one transaction, as many as fit
// its bounds but at least one, and sets each one's err. It returns how many
// from the front of the group are done. A write that fails after it has put
// something costs a fresh run of the others, without it.
func (s *Store) commitGroup(group []*write) (done int) {
	failed := make(map[*write]bool)
	for {
		done, again := s.tryGroup(group, failed)
		if !again {
			return done
		}
	}
}

func (s *Store) tryGroup(group []*write, failed map[*write]bool) (done int, again bool) {
	btx, err := s.bolt.Begin(true)
	if err != nil {
		for _, w := range group {
			if !failed[w] {
				w.err = fmt.Errorf("begin a write: %w", closedError(err))
			}
		}
		return len(group), false
	}
	tx := &Tx{store: s, bolt: btx}
	reclaims := group[0].reclaims
	s.allowSize(reclaims)
	for done < len(group) && (done == 0 || tx.wrote < maxGroupBytes) {
		w := group[done]
		if w.reclaims != reclaims {
			break
		}
		done++
		if failed[w] {
			continue
		}
		before := tx.wrote
		touched := len(tx.touched)
		if w.err = tx.run(w); w.err == nil {
			continue
		}
		failed[w] = true
		tx.touched = tx.touched[:touched]
		if tx.wrote != before {
			_ = btx.Rollback() // nothing of the group is kept; it runs again
			return 0, true
		}
	}
	s.finish(tx, group[:done], failed)
	return done, false
}

// allowSize sets how large the write that has begun may make the file.
func (s *Store) allowSize(reclaims bool) {
	if s.maxSize == 0 {
		return
	}
	s.bolt.MaxSize = s.maxSize
	if !reclaims {
		s.bolt.MaxSize -= min(maxReserve, s.maxSize/8)
	}
}

// run calls a write's closure; a panic in it becomes the write's error.
func (tx *Tx) run(w *write) (err error) {
	if err := w.ctx.Err(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	defer func() {
		if p := recover(); p != nil {
			tx.wrote++ // whatever it did must go
			err = fmt.Errorf("panic in a write: %v\n%s", p, debug.Stack())
		}
	}()
	return w.fn(tx)
}

// finish commits, or rolls back when there is nothing to commit, and then
// tells the waiting readers.
func (s *Store) finish(tx *Tx, group []*write, failed map[*write]bool) {
	pos := Position(tx.in(bucketStream).Sequence())
	var err error
	if tx.wrote == 0 {
		err = tx.bolt.Rollback()
	} else {
		err = commitError(tx.bolt)
	}
	for _, w := range group {
		if failed[w] {
			continue
		}
		w.pos = pos
		if err != nil {
			w.err = err
		}
	}
	if err == nil && tx.wrote > 0 {
		s.position.Store(uint64(pos))
		s.news.publish(tx.touched)
	}
}

// commitError commits and says in our own words what went wrong. A panic of the
// database, as on a file that is damaged, fails the commit and not the process.
func commitError(btx *bolt.Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			_ = btx.Rollback()
			err = fmt.Errorf("panic in a commit: %v\n%s", p, debug.Stack())
		}
	}()
	err = btx.Commit()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrMaxSizeReached), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("commit: %w: %w", ErrFull, err)
	default:
		return fmt.Errorf("commit: %w", err)
	}
}
