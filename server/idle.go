package server

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// When memory is given back to the system. Go's collector runs when the heap has
// doubled, or every two minutes, and hands pages back slowly: what a burst has
// used would stay with the process.
const (
	idleLook  = 10 * time.Second
	idleQuiet = 30 * time.Second // without a collection: the burst is over
	idleWorth = 1 << 20          // bytes that a collection must be worth
)

// What of the runtime's figures tells how much there is to give back.
const (
	metricCycles  = "/gc/cycles/total:gc-cycles"
	metricLive    = "/gc/heap/live:bytes"
	metricObjects = "/memory/classes/heap/objects:bytes"
	metricFree    = "/memory/classes/heap/free:bytes"
)

// idle watches the heap and gives memory back once the process has become quiet.
// It costs nothing while nothing is allocated.
type idle struct {
	samples []metrics.Sample
	cycles  uint64    // collections so far, when last looked at
	since   time.Time // when that number was first seen
	release func()    // collects, and gives free pages back
}

func newIdle() *idle {
	return &idle{
		samples: []metrics.Sample{{Name: metricCycles}, {Name: metricLive}, {Name: metricObjects}, {Name: metricFree}},
		release: giveBack,
	}
}

// giveBack collects and gives free pages back. The stacks of waiting goroutines
// halve once a collection, and those of long polls have grown to four times what
// the wait needs.
func giveBack() {
	runtime.GC()
	debug.FreeOSMemory()
}

// run looks after the heap until ctx ends.
func (i *idle) run(ctx context.Context) error {
	ticks := time.NewTicker(idleLook)
	defer ticks.Stop()
	for {
		select {
		case now := <-ticks.C:
			i.look(now)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look gives memory back if no collection has run for idleQuiet and enough has been
// allocated since the last one, or is free and still with the process.
func (i *idle) look(now time.Time) {
	metrics.Read(i.samples)
	cycles, live, objects, free := i.value(0), i.value(1), i.value(2), i.value(3)
	if cycles != i.cycles || i.since.IsZero() {
		i.cycles, i.since = cycles, now
		return
	}
	if now.Sub(i.since) < idleQuiet || objects < live+idleWorth && free < idleWorth {
		return
	}
	i.release()
	i.since = time.Time{} // the collection was ours: count from the next look
}

func (i *idle) value(n int) uint64 { return i.samples[n].Value.Uint64() }
