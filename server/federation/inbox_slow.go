package federation

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Bounds of slow tries.
const (
	inboxQuick = 5 * time.Second  // after which a try counts as slow
	inboxSlow  = inboxWorkers - 2 // that may go on at a time
	// inboxLeast is after which a slow try makes way for another one, at first.
	inboxLeast = time.Minute
)

// slowTries are the tries under way that take long, as some server is slow to answer or
// means to hold us up. They may be so many that others always find a worker; when one
// more becomes slow, the oldest makes way, once it has had its turn, or else that one.
type slowTries struct {
	mu      sync.Mutex // guards all
	running []*slowTry // the oldest first
}

type slowTry struct {
	began time.Time
	least time.Duration // how long it may go on in any case, once it is slow
	yield context.CancelFunc
	ended bool
}

// watch ends a try by yield if it becomes slow while it may not, or has been for at least
// some time when another one becomes slow. done must be called at its end.
func (s *slowTries) watch(yield context.CancelFunc, least time.Duration) (done func()) {
	try := &slowTry{yield: yield, least: least}
	timer := time.AfterFunc(inboxQuick, func() { s.enter(try, time.Now()) })
	return func() {
		timer.Stop()
		s.leave(try)
	}
}

func (s *slowTries) enter(try *slowTry, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if try.ended {
		return
	}
	if len(s.running) == inboxSlow {
		i := slices.IndexFunc(s.running, func(r *slowTry) bool { return now.Sub(r.began) >= r.least })
		if i < 0 {
			try.yield()
			return
		}
		s.running[i].yield()
		s.running = slices.Delete(s.running, i, i+1)
	}
	try.began = now
	s.running = append(s.running, try)
}

func (s *slowTries) leave(try *slowTry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	try.ended = true
	s.running = slices.DeleteFunc(s.running, func(r *slowTry) bool { return r == try })
}
