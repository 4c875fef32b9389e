package remote

import (
	"errors"
	"time"
)

const (
	// smallCircle is for how many servers something is at most that lets one of them
	// be tried again before its time. In larger rooms there is always one that is away.
	smallCircle = 20
	// newsWait and newsCut are how long a server is left alone then: that long, and
	// this part of its absence.
	newsWait = time.Second
	newsCut  = 64
)

// wait lets a destination wait that failed, until a time. s.mu is held.
func (s *Sender) wait(d *destination, until time.Time) {
	d.until = until
	if d.name != "" {
		s.waiting[d.name] = d
	}
	var timer *time.Timer
	timer = time.AfterFunc(until.Sub(s.now()), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if d.retry == timer {
			s.endWait(d)
			s.enqueue(d)
		}
	})
	d.retry = timer
}

// endWait ends the wait of a destination. s.mu is held.
func (s *Sender) endWait(d *destination) {
	if d.retry != nil {
		d.retry.Stop()
		d.retry, d.until = nil, time.Time{}
		delete(s.waiting, d.name)
	}
}

// hasten has a destination that waits tried soon, as there is news for it: who speaks
// does not want to wait as long for a server that may be back as what is old does. One
// that asked to be left alone is. s.mu is held.
func (s *Sender) hasten(d *destination) {
	var answer *Error
	if d.retry == nil || errors.As(d.err, &answer) && answer.wait > 0 {
		return
	}
	absent := time.Duration(0)
	if !d.failing.IsZero() {
		absent = d.tried.Sub(d.failing)
	}
	if until := d.tried.Add(max(newsWait, absent/newsCut)); until.Before(d.until) {
		s.endWait(d)
		d.news = true
		s.wait(d, until)
	}
}
