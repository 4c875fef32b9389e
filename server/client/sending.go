package client

import (
	"context"
	"sync"
	"time"
)

// maxSendingWait is how long a sync waits for the answers to the device's own
// requests. They are on their way already: they have been committed.
const maxSendingWait = 100 * time.Millisecond

// sending knows which devices have requests under way that make events. A client
// shows a message as its own by the event ID that the answer to its request
// gives; if its /sync brings the event first, it has to guess, and matrix-js-sdk
// fails to in threads: it shows the message as not sent. So a sync waits for
// these answers, which are ready at the same moment. The zero value is ready.
//
// Spec: CS room events, unsigned.transaction_id: what a client tells them apart by.
type sending struct {
	mu      sync.Mutex // guards devices
	devices map[deviceName]*sendingDevice
}

// sendingDevice is a device with requests under way.
type sendingDevice struct {
	requests int
	none     chan struct{} // closed once they are all answered
}

// begin notes that a device has a request under way. Call end once it is answered.
func (s *sending) begin(device deviceName) (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[device]
	if d == nil {
		if s.devices == nil {
			s.devices = make(map[deviceName]*sendingDevice)
		}
		d = &sendingDevice{none: make(chan struct{})}
		s.devices[device] = d
	}
	d.requests++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if d.requests--; d.requests == 0 {
			delete(s.devices, device)
			close(d.none)
		}
	}
}

// settle waits for the answers to a device's requests, for a moment at most.
func (s *sending) settle(ctx context.Context, device deviceName) {
	s.mu.Lock()
	d := s.devices[device]
	s.mu.Unlock()
	if d == nil {
		return
	}
	timer := time.NewTimer(maxSendingWait)
	defer timer.Stop()
	select {
	case <-d.none:
	case <-timer.C:
	case <-ctx.Done():
	}
}
