package server

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// Memory is given back once after a burst, when the process has become quiet, and
// not again while nothing is allocated.
func TestIdle(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // no collections but ours
	i := newIdle()
	releases := 0
	release := i.release
	i.release = func() { releases++; release() }
	clock := time.Unix(1_800_000_000, 0)
	look := func(after time.Duration) int {
		clock = clock.Add(after)
		before := releases
		i.look(clock)
		return releases - before
	}
	runtime.GC()
	look(0)
	garbage = make([]byte, 8*idleWorth)
	garbage = nil
	if look(idleQuiet-time.Second) != 0 {
		t.Error("memory is given back in the middle of a burst")
	}
	if look(2*time.Second) != 1 {
		t.Error("no memory is given back after a burst")
	}
	for range 20 {
		if look(idleQuiet) != 0 {
			t.Error("memory is given back where there is none")
		}
	}
	if n := testing.AllocsPerRun(10, func() { i.look(clock) }); n > 0 {
		t.Errorf("a look allocates %v times", n)
	}
}

// garbage keeps the compiler from leaving an allocation out.
var garbage []byte
