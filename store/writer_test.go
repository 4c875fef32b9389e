package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hearth/state/matrix"
)

// blockWriter makes the writer busy until the returned function is called, so
// that writes gather behind it.
func blockWriter(t *testing.T, s *Store) (release func()) {
	t.Helper()
	busy, free, done := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		done <- s.Update(context.Background(), func(*Tx) error {
			close(busy)
			<-free
			return nil
		})
	}()
	<-busy
	return func() {
		close(free)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// enqueue starts a write and returns when it stands in line.
func enqueue(s *Store, ctx context.Context, fn func(*Tx) error) <-chan error {
	s.queue.mu.Lock()
	before := len(s.queue.waiting)
	s.queue.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- s.Update(ctx, fn) }()
	for {
		s.queue.mu.Lock()
		after := len(s.queue.waiting)
		s.queue.mu.Unlock()
		if after > before || len(done) > 0 {
			return done
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// putUser is a write that can be told from others afterwards.
func putUser(i int) func(*Tx) error {
	return func(tx *Tx) error {
		_, err := tx.PutUserNum(matrix.UserID(fmt.Sprintf("@user%d:%s", i, testServer)))
		return err
	}
}

func hasUser(t *testing.T, s *Store, i int) (has bool) {
	t.Helper()
	view(t, s, func(tx *Tx) error {
		has = tx.UserNum(matrix.UserID(fmt.Sprintf("@user%d:%s", i, testServer))) != 0
		return nil
	})
	return has
}

// Writes that wait while another commits share the next commit, in the order
// in which they came.
func TestGroupCommit(t *testing.T) {
	s := openTest(t)
	release := blockWriter(t, s)
	var order []int
	var done []<-chan error
	for i := range 50 {
		done = append(done, enqueue(s, t.Context(), func(tx *Tx) error {
			order = append(order, i)
			return putUser(i)(tx)
		}))
	}
	before := txid(t, s)
	release()
	for _, d := range done {
		if err := <-d; err != nil {
			t.Error(err)
		}
	}
	if !slices.IsSorted(order) || len(order) != 50 {
		t.Errorf("order %d", order)
	}
	if n := txid(t, s) - before; n != 1 {
		t.Errorf("%d commits for one group", n)
	}
}

// txid counts commits.
func txid(t *testing.T, s *Store) (id int) {
	t.Helper()
	view(t, s, func(tx *Tx) error {
		id = tx.bolt.ID()
		return nil
	})
	return id
}

// Of a group, the writes that fail leave nothing and the others everything.
func TestFailingWritesOfAGroup(t *testing.T) {
	s := openTest(t)
	fault := errors.New("fault")
	release := blockWriter(t, s)
	cancelled, cancel := context.WithCancel(t.Context())
	defer cancel()
	fails := func(i int) (ctx context.Context, want error, fail func()) {
		switch i % 5 {
		case 1:
			return t.Context(), fault, func() {}
		case 2:
			return t.Context(), nil, func() { panic("at the disco") }
		case 3:
			return cancelled, context.Canceled, func() {}
		}
		return t.Context(), nil, nil
	}
	done := make([]<-chan error, 40)
	for i := range done {
		ctx, want, fail := fails(i)
		done[i] = enqueue(s, ctx, func(tx *Tx) error {
			if err := putUser(i)(tx); err != nil {
				return err
			}
			if fail != nil {
				fail()
			}
			return want
		})
	}
	cancel()
	release()
	for i, d := range done {
		_, want, fail := fails(i)
		err := <-d
		switch {
		case fail == nil && err != nil:
			t.Errorf("write %d: %v", i, err)
		case want != nil && !errors.Is(err, want):
			t.Errorf("write %d: %v, want %v", i, err, want)
		case i%5 == 2 && (err == nil || !strings.Contains(err.Error(), "at the disco")):
			t.Errorf("write %d: %v, want the panic", i, err)
		}
		if has := hasUser(t, s, i); has != (fail == nil) {
			t.Errorf("write %d is stored: %t", i, has)
		}
	}
}

// A write that fails before it has put anything does not cost the others a
// second run.
func TestHarmlessFailure(t *testing.T) {
	s := openTest(t)
	release := blockWriter(t, s)
	runs := 0
	first := enqueue(s, t.Context(), func(tx *Tx) error { runs++; return putUser(1)(tx) })
	second := enqueue(s, t.Context(), func(*Tx) error { return ErrNotFound })
	release()
	if err := <-first; err != nil || runs != 1 {
		t.Errorf("%d runs, error %v", runs, err)
	}
	if err := <-second; !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// A write that changes nothing commits nothing.
func TestEmptyWrite(t *testing.T) {
	s := openTest(t)
	before := txid(t, s)
	update(t, s, func(*Tx) error { return nil })
	if n := txid(t, s) - before; n != 0 {
		t.Errorf("%d commits", n)
	}
}

// A large write is a group of its own.
func TestGroupIsBounded(t *testing.T) {
	s := openTest(t)
	release := blockWriter(t, s)
	before := txid(t, s)
	var done []<-chan error
	for i := range 4 {
		done = append(done, enqueue(s, t.Context(), func(tx *Tx) error {
			return tx.put(bucketUser, append(keyOf(0, uiaSession), byte(i)), make([]byte, maxGroupBytes))
		}))
	}
	release()
	for _, d := range done {
		if err := <-d; err != nil {
			t.Error(err)
		}
	}
	if n := txid(t, s) - before; n != 4 {
		t.Errorf("%d commits for 4 large writes", n)
	}
}

// Patient writes wait for company; a hurried one takes them along at once, whether it
// stands in line already or comes while they wait.
func TestPatience(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := openTest(t)
			release := blockWriter(t, s)
			before, start := txid(t, s), time.Now()
			var wg sync.WaitGroup
			for i := range 5 {
				wg.Go(func() {
					if err := s.UpdatePatiently(t.Context(), time.Second, putUser(i)); err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait() // all stand in line
			hurried := func() { update(t, s, putUser(5)) }
			if !late {
				wg.Go(hurried)
				synctest.Wait()
			}
			release()
			if late {
				synctest.Wait() // the first of them gathers the others
				wg.Go(hurried)
			}
			wg.Wait()
			if took := time.Since(start); took > 0 {
				t.Errorf("took %s, late is %t", took, late)
			}
			if n := txid(t, s) - before; n != 1 {
				t.Errorf("%d commits, late is %t", n, late)
			}
		})
	}
}

// A patient write that no company comes to waits for as long as it said, but not for ever.
func TestPatienceAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t)
		for patience, want := range map[time.Duration]time.Duration{30 * time.Millisecond: 30 * time.Millisecond, time.Hour: maxPatience} {
			start := time.Now()
			if err := s.UpdatePatiently(t.Context(), patience, putUser(6)); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took != want {
				t.Errorf("with a patience of %s it took %s", patience, took)
			}
		}
	})
}

// Close lets the writes in line finish and refuses later ones; nobody hangs.
func TestClose(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	release := blockWriter(t, s)
	var done []<-chan error
	for i := range 10 {
		done = append(done, enqueue(s, t.Context(), putUser(i)))
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	for isClosed := false; !isClosed; time.Sleep(time.Millisecond) {
		s.queue.mu.Lock()
		isClosed = s.queue.closed
		s.queue.mu.Unlock()
	}
	if err := s.Update(t.Context(), putUser(99)); !errors.Is(err, ErrClosed) {
		t.Errorf("write after Close: %v", err)
	}
	release()
	for _, d := range done {
		if err := <-d; err != nil {
			t.Error(err)
		}
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := s.View(func(*Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
	s = openDir(t, dir)
	defer closeStore(t, s)
	checkStore(t, s)
	for i := range 10 {
		if !hasUser(t, s, i) {
			t.Errorf("write %d is lost", i)
		}
	}
}

// Many goroutines write and read at once; what one has been told is stored is
// there for every read that begins later, and counters lose nothing.
func TestConcurrentWrites(t *testing.T) {
	s := openTest(t)
	const writers, each = 8, 60
	var acknowledged atomic.Int64
	key := append(keyOf(0, uiaSession), "count"...)
	count := func(tx *Tx) int64 {
		r := reader{b: tx.get(bucketUser, key)}
		return r.varint()
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				fails := (w+i)%7 == 0
				err := s.Update(t.Context(), func(tx *Tx) error {
					n := count(tx)
					if err := tx.put(bucketUser, key, binary.AppendVarint(nil, n+1)); err != nil {
						return err
					}
					if fails {
						return ErrNotFound
					}
					return nil
				})
				if fails != errors.Is(err, ErrNotFound) || !fails && err != nil {
					t.Errorf("write: %v", err)
				}
				if !fails {
					acknowledged.Add(1)
				}
			}
		})
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			least := acknowledged.Load()
			view(t, s, func(tx *Tx) error {
				if n := count(tx); n < least {
					t.Errorf("a read sees %d of %d acknowledged writes", n, least)
				}
				return nil
			})
			time.Sleep(time.Millisecond)
		}
	})
	wg.Wait()
	close(stop)
	readers.Wait()
	view(t, s, func(tx *Tx) error {
		if n := count(tx); n != acknowledged.Load() {
			t.Errorf("counted %d, acknowledged %d", n, acknowledged.Load())
		}
		return nil
	})
	update(t, s, func(tx *Tx) error { return tx.delete(bucketUser, key) })
}

// More writers than the line is long: all get through.
func TestLongQueue(t *testing.T) {
	s := openTest(t)
	var wg sync.WaitGroup
	for i := range maxQueue + 200 {
		wg.Go(func() {
			if err := s.Update(t.Context(), putUser(i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	view(t, s, func(tx *Tx) error {
		if n := tx.in(bucketNumber).Sequence(); n != maxQueue+200 {
			t.Errorf("%d users", n)
		}
		return nil
	})
}

// The position that UpdateAt returns covers all that the write did.
func TestUpdateAt(t *testing.T) {
	s := openTest(t)
	for i := range 3 {
		pos, err := s.UpdateAt(t.Context(), func(tx *Tx) error {
			user, err := tx.PutUserNum(alice)
			if err != nil {
				return err
			}
			for range i {
				if _, err := tx.appendChange(Change{Kind: streamProfile, User: user}); err != nil {
					return err
				}
			}
			return nil
		})
		if want := Position(i * (i + 1) / 2); err != nil || pos != want || s.Position() != want {
			t.Errorf("position %d, store at %d, want %d: %v", pos, s.Position(), want, err)
		}
	}
}

func TestWait(t *testing.T) {
	s := openTest(t)
	change := func(tx *Tx) error {
		user, err := tx.PutUserNum(alice)
		if err != nil {
			return err
		}
		_, err = tx.appendChange(Change{Kind: streamProfile, User: user})
		return err
	}
	type answer struct {
		pos Position
		err error
	}
	answers := make(chan answer)
	for range 3 {
		go func() {
			pos, err := s.Wait(context.Background(), 0)
			answers <- answer{pos, err}
		}()
	}
	update(t, s, change)
	for range 3 {
		if a := <-answers; a.pos != 1 || a.err != nil {
			t.Errorf("woke at %d: %v", a.pos, a.err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.Wait(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait without news: %v", err)
	}
}

func TestWatch(t *testing.T) {
	s := openTest(t)
	var user, other UserNum
	update(t, s, func(tx *Tx) (err error) {
		if user, err = tx.PutUserNum(alice); err != nil {
			return err
		}
		other, err = tx.PutUserNum(bob)
		return err
	})
	watch, quiet := s.Watch(user), s.Watch(other)
	done := make(chan error)
	go func() { done <- watch.Wait(context.Background()) }()
	update(t, s, func(tx *Tx) error {
		tx.Touch(user)
		_, err := tx.appendChange(Change{Kind: streamProfile, User: user})
		return err
	})
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := watch.Wait(t.Context()); err != nil {
		t.Errorf("a watch that has seen news: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := quiet.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("another user's watch: %v", err)
	}
	s.Touch(other)
	if err := quiet.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	failed := s.Watch(user)
	_ = s.Update(t.Context(), func(tx *Tx) error { tx.Touch(user); return ErrNotFound })
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := failed.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a failed write was news: %v", err)
	}
}

// Those who wait learn that the store closes.
func TestCloseWakes(t *testing.T) {
	s := openDir(t, t.TempDir())
	checkStore(t, s)
	answers := make(chan error)
	watch := s.Watch(7)
	go func() { _, err := s.Wait(context.Background(), 0); answers <- err }()
	go func() { answers <- watch.Wait(context.Background()) }()
	time.Sleep(10 * time.Millisecond)
	closeStore(t, s)
	for range 2 {
		if err := <-answers; !errors.Is(err, ErrClosed) {
			t.Errorf("woke with %v", err)
		}
	}
	if err := s.Watch(8).Wait(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("watch after Close: %v", err)
	}
}
