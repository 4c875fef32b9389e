package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

const (
	// transactionTimeout is how long a server may take for a transaction.
	transactionTimeout = time.Minute
	// maxRepeats is how often the same transaction is sent again; then another one is
	// made of what is to be sent by then.
	maxRepeats = 5
	// maxRefusals and refusalHope are how often and for how long a server may refuse what
	// it is sent with an error that says that it would always do so: what stands before
	// it may have a bad hour. Then it gets each part for itself, and what comes after one
	// that it still refuses.
	maxRefusals = 8
	refusalHope = time.Hour
	// maxRepeated bounds the bytes of all transactions that are to be repeated.
	maxRepeated = 4 << 20
)

// enqueue makes a destination ready if it has something to get and is neither being
// served nor waits after a failure. s.mu is held.
func (s *Sender) enqueue(d *destination) {
	if d.queued || d.running || d.retry != nil || !d.busy() {
		return
	}
	d.queued = true
	if s.answering[d.server] {
		s.proven = append(s.proven, d)
	} else {
		s.doubtful = append(s.doubtful, d)
	}
	s.signal()
}

// signal wakes a worker.
func (s *Sender) signal() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// take returns the next destination that is ready, nil for none, and wakes the next
// worker if there is more. Those that answer come first, and have some workers to
// themselves.
func (s *Sender) take() (d *destination) {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := s.config.Workers - s.config.Workers/provenShare
	switch {
	case len(s.proven) > 0:
		d, s.proven = s.proven[0], s.proven[1:]
	case len(s.doubtful) > 0 && s.doubting < most:
		d, s.doubtful = s.doubtful[0], s.doubtful[1:]
	default:
		return nil
	}
	d.queued, d.running = false, true
	if !s.answering[d.server] {
		s.doubting++
		d.doubted = true
	}
	if len(s.proven) > 0 || len(s.doubtful) > 0 && s.doubting < most {
		s.signal()
	}
	return d
}

// work serves destinations until ctx ends.
func (s *Sender) work(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ready:
		}
		for d := s.take(); d != nil; d = s.take() {
			t, err := s.serve(ctx, d)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, store.ErrClosed) {
				return err
			}
			s.rest(d, t, err)
		}
	}
}

// serve sends the next transaction to a destination: the one that failed before, or
// a new one. It returns nil where there is nothing to send.
func (s *Sender) serve(ctx context.Context, d *destination) (*transaction, error) {
	t, release, err := s.next(ctx, d)
	if t == nil || err != nil {
		return nil, err
	}
	defer release()
	var answer struct {
		PDUs map[matrix.EventID]struct {
			Error string `json:"error"`
		} `json:"pdus"`
	}
	err = s.do(ctx, d.name, Request{
		Method: http.MethodPut, Path: "/_matrix/federation/v1/send/" + t.id,
		Body: jsontext.Value(t.body), Timeout: transactionTimeout, news: d.news,
	}, &answer)
	for event, result := range answer.PDUs {
		if result.Error != "" {
			s.log.Debug("a server does not take an event", "dest", d.name, "event", event, "err", result.Error)
		}
	}
	return t, err
}

// next returns the transaction to send, and what gives its memory back: none is made
// before there is room for the largest.
func (s *Sender) next(ctx context.Context, d *destination) (t *transaction, release func(), err error) {
	weight := int64(maxTxnBytes)
	if err := s.bodies.Acquire(ctx, weight); err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	t = d.txn
	s.mu.Unlock()
	if t == nil {
		t, err = s.compose(d)
	}
	if t == nil || err != nil {
		s.bodies.Release(weight)
		return nil, nil, err
	}
	if small := int64(len(t.body)); small < weight {
		s.bodies.Release(weight - small)
		weight = small
	}
	return t, func() { s.bodies.Release(weight) }, nil
}

// rest ends a worker's turn at a destination: it is served again if it has more to
// get, and later if it failed.
func (s *Sender) rest(d *destination, t *transaction, err error) {
	pause, since := time.Duration(0), time.Time{}
	if err != nil {
		pause, since = s.pause(d), s.silence(d.name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d.running, d.news = false, false
	if d.doubted {
		d.doubted = false
		s.doubting--
		if len(s.doubtful) > 0 {
			s.signal()
		}
	}
	switch {
	case err != nil:
		if d.failing.IsZero() {
			d.failing = since // by what the network knows, also from before a restart
		}
		s.failed(d, t, err, pause)
	case t != nil:
		s.delivered(d, t)
	}
	s.enqueue(d)
}

// delivered notes that a transaction has arrived. s.mu is held.
func (s *Sender) delivered(d *destination, t *transaction) {
	s.drop(d)
	if d.failures > 0 {
		s.log.Info("a server takes transactions again", "dest", d.name, "failures", d.failures)
	}
	s.answering[d.server] = true
	d.failures, d.failing, d.err, d.absent = 0, time.Time{}, nil, false
	d.refusals, d.refusing = 0, time.Time{}
	d.pass(t)
	s.arrived = s.arrived || t.fromOutbox
	s.caughtUp = s.caughtUp || d.recorded && !d.behind()
}

// failed notes that a transaction has not arrived, and lets the destination wait.
// s.mu is held.
func (s *Sender) failed(d *destination, t *transaction, err error, pause time.Duration) {
	d.err = err
	delete(s.answering, d.server)
	if !errors.Is(err, ErrBackingOff) {
		if d.failing.IsZero() {
			d.failing = s.now()
		}
		if d.failures++; d.failures == 1 {
			s.log.Info("a server does not take a transaction", "dest", d.name, "err", err)
		}
	}
	d.absent = d.absent || !d.failing.IsZero() && s.now().Sub(d.failing) >= longAbsence
	s.drop(d)
	d.edus = nil // it would hear of what has long passed
	refused := t != nil && refuses(err)
	if refused {
		if d.refusals++; d.refusals == 1 {
			d.refusing = s.now()
		}
	}
	worn := d.refusals >= maxRefusals && s.now().Sub(d.refusing) >= refusalHope
	switch {
	case refused && t.parts > 1 && !t.singly && (worn || tooLarge(err)):
		d.singly = t.parts
		d.refusals, d.refusing = 0, time.Time{}
	case refused && worn:
		s.log.Warn("what a server refuses is left out", "dest", d.name, "err", err)
		d.failures, d.failing = 0, time.Time{}
		d.refusals, d.refusing = 0, time.Time{}
		d.pass(t)
	case t != nil && t.durable() && d.failures <= maxRepeats && s.kept+len(t.body) <= maxRepeated:
		d.txn, t.kept = t, true
		s.kept += len(t.body)
	}
	if !d.busy() {
		return
	}
	d.tried = s.now()
	s.wait(d, d.tried.Add(pause))
}

// drop forgets the transaction that is to be sent again. s.mu is held.
func (s *Sender) drop(d *destination) {
	if d.txn != nil && d.txn.kept {
		s.kept -= len(d.txn.body)
	}
	d.txn = nil
}

// refuses says whether an error is an answer that is the same for ever. One without a
// code is that of a proxy, behind which the server may be back soon; but a proxy does
// know what is too large.
func refuses(err error) bool {
	var answer *Error
	if !errors.As(err, &answer) || answer.Code == "" && !tooLarge(err) {
		return false
	}
	switch answer.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestTimeout,
		http.StatusTooManyRequests:
		return false
	}
	return answer.Status >= 400 && answer.Status < 500
}

// tooLarge says whether an error is an answer that says so.
func tooLarge(err error) bool {
	var answer *Error
	return errors.As(err, &answer) && answer.Status == http.StatusRequestEntityTooLarge
}

// pause returns how long a destination waits that has failed: as long as the network
// says, or by its own count where the server does answer, with an error. Call it
// without s.mu, in the turn of the destination.
func (s *Sender) pause(d *destination) time.Duration {
	now := s.now()
	wait := time.Duration(0)
	if d.name != "" {
		wait = s.retryAt(d.name).Sub(now)
	}
	if wait > 0 {
		return wait
	}
	s.mu.Lock()
	failures, absent := d.failures+1, time.Duration(0)
	if !d.failing.IsZero() {
		absent = now.Sub(d.failing)
	}
	s.mu.Unlock()
	return jittered(waitAfter(failures, absent), s.server, d.name, failures)
}

// stopRetries stops what would run after the end.
func (s *Sender) stopRetries() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.destinations {
		s.endWait(d)
	}
}

// transactionID returns an ID that no transaction had before.
func (s *Sender) transactionID() string { return fmt.Sprintf("%s%d", s.prefix, s.txns.Add(1)) }
