package federation

import (
	"context"
	"sync"
	"time"
)

// Bounds of slow tries.
const (
	inboxQuick = 5 * time.Second  // after which a try counts as slow
	inboxSlow  = inboxWorkers - 2 // that may go on at a time
	// inboxLeast is after which a slow try makes way for another one.
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
	yield context.CancelFunc
	ended bool
}

// watch ends a try by yield if it becomes slow while it may not. done must be called at
// its end.
func (s *slowTries) watch(yield context.CancelFunc) (done func()) {
	try := &slowTry{yield: yield}
	timer := time.AfterFunc(inboxQuick, func() { s.enter(try, time.Now()) })
	return func() {
		timer.Stop()
		s.leave(try)
	}
}

func (s *slowTries) enter(try *slowTry, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case try.ended:
		return
	case len(s.running) < inboxSlow:
	case now.Sub(s.running[0].began) < inboxLeast:
		try.yield()
		return
	default:
		s.running[0].yield()
		s.running = s.running[1:]
	}
	try.began = now
	s.running = append(s.running, try)
}

func (s *slowTries) leave(try *slowTry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	try.ended = true
	for i, r := range s.running {
		if r == try {
			s.running = append(s.running[:i:i], s.running[i+1:]...)
			return
		}
	}
}
