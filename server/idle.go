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
	idleLook  = 2 * time.Second
	idleCalm  = 256 << 10        // bytes allocated between two looks: the burst is over
	idleWorth = 1 << 20          // bytes that a collection must be worth
	idleQuiet = 30 * time.Second // without a collection, for so little
	idleMuch  = 4 << 20          // bytes that are worth one at once
	idlePause = 10 * time.Second // from one of our collections to the next, in any case
	idleStack = 8 << 10          // bytes that a goroutine which ended has left behind
)

// What of the runtime's figures tells how much there is to give back.
const (
	metricCycles     = "/gc/cycles/total:gc-cycles"
	metricLive       = "/gc/heap/live:bytes"
	metricObjects    = "/memory/classes/heap/objects:bytes"
	metricFree       = "/memory/classes/heap/free:bytes"
	metricAllocated  = "/gc/heap/allocs:bytes"
	metricGoroutines = "/sched/goroutines:goroutines"
	metricStacks     = "/memory/classes/heap/stacks:bytes"
)

// idle watches the heap and gives memory back once the process has become quiet.
// It costs nothing while nothing is allocated.
type idle struct {
	samples    []metrics.Sample
	cycles     uint64    // collections so far, when last looked at
	since      time.Time // when that number was first seen
	allocated  uint64    // bytes allocated so far, when last looked at
	goroutines uint64    // the most there were since the last collection
	stacks     uint64    // bytes of stacks after the last of our collections
	released   time.Time // when memory was given back last
	release    func()    // collects, and gives free pages back
}

func newIdle() *idle {
	i := &idle{release: giveBack}
	for _, name := range []string{metricCycles, metricLive, metricObjects, metricFree, metricAllocated, metricGoroutines, metricStacks} {
		i.samples = append(i.samples, metrics.Sample{Name: name})
	}
	return i
}

// giveBack collects and gives free pages back. It collects twice: what is pooled
// outlives one collection, and the stacks of waiting goroutines, which halve at
// each, have grown in a long poll to four times what the wait needs.
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

// look gives memory back if the burst is over that has used it: soon where it is
// much, and where it is little once no collection has run for idleQuiet.
func (i *idle) look(now time.Time) {
	metrics.Read(i.samples)
	cycles, allocated, goroutines := i.value(0), i.value(4), i.value(5)
	calm := allocated-i.allocated <= idleCalm
	i.allocated = allocated
	if i.since.IsZero() {
		i.stacks = i.value(6)
	}
	if cycles != i.cycles || i.since.IsZero() {
		i.cycles, i.since, i.goroutines = cycles, now, goroutines
	}
	i.goroutines = max(i.goroutines, goroutines)
	worth := i.worth(goroutines)
	if !calm || worth < idleWorth || now.Sub(i.released) < idlePause || worth < idleMuch && now.Sub(i.since) < idleQuiet {
		return
	}
	i.release()
	i.released, i.since = now, time.Time{} // the collection was ours: count from the next look
}

// worth is how many bytes a collection would give back, more or less: what was
// allocated since the last one, as if none of it were in use, what is free and still
// with the process, what goroutines have left behind that ended, and by how much the
// stacks have grown since we collected.
func (i *idle) worth(goroutines uint64) uint64 {
	live, objects, free, stacks := i.value(1), i.value(2), i.value(3), i.value(6)
	return free + max(objects, live) - live + (i.goroutines-goroutines)*idleStack + max(stacks, i.stacks) - i.stacks
}

func (i *idle) value(n int) uint64 { return i.samples[n].Value.Uint64() }
