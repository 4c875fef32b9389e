package client

import (
	"sync/atomic"
	"time"
)

// memorySerials counts the changes of what lives in memory alone, typing and
// presence, so that a sync token stands between two of them. They go on from the
// time of the start, so that a token tells whether it is older than that. Who
// takes a serial holds the lock under which readers find the change: then a reader
// who knows the serial finds the change.
type memorySerials struct {
	first uint64 // the serial before all changes since the start
	last  atomic.Uint64
}

// start begins to count.
func (m *memorySerials) start(now time.Time) {
	m.first = uint64(now.UnixMilli())
	m.last.Store(m.first)
}

// take returns the serial of a new change.
func (m *memorySerials) take() uint64 { return m.last.Add(1) }

// now returns the serial of the newest change.
func (m *memorySerials) now() uint64 { return m.last.Load() }

// fromBefore says whether a serial is from before the start. The clock of a small
// board may go back, so one from the future is too. 0, of who was never here, is
// not.
func (m *memorySerials) fromBefore(since uint64) bool {
	return since != 0 && (since < m.first || since > m.now())
}
