package server

import (
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"
)

// idleWatch is an idle with a clock of its own that counts what it does.
type idleWatch struct {
	*idle
	clock    time.Time
	releases int
}

// watchIdle returns one that has looked once. No collections run but its own.
func watchIdle(t *testing.T) *idleWatch {
	percent := debug.SetGCPercent(-1)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	w := &idleWatch{idle: newIdle(), clock: time.Unix(1_800_000_000, 0)}
	release := w.release
	w.release = func() { w.releases++; release() }
	giveBack()
	w.after(0)
	return w
}

// after looks after a while and returns how often memory was given back.
func (w *idleWatch) after(d time.Duration) int {
	w.clock = w.clock.Add(d)
	before := w.releases
	w.look(w.clock)
	return w.releases - before
}

// Memory is given back once after a burst, when the process has become quiet, and
// not again while nothing is allocated.
func TestIdle(t *testing.T) {
	w := watchIdle(t)
	for _, burst := range []struct {
		size  int
		quiet time.Duration
	}{{2 * idleMuch, idleLook}, {2 * idleWorth, idleQuiet}} {
		runtime.GC() // the last one
		w.after(idlePause)
		garbage = make([]byte, burst.size)
		garbage = nil
		if w.after(idleLook) != 0 {
			t.Errorf("%d bytes are given back in the middle of a burst", burst.size)
		}
		if burst.quiet > idleLook && w.after(burst.quiet-2*idleLook) != 0 {
			t.Errorf("%d bytes are given back too soon", burst.size)
		}
		if w.after(idleLook) != 1 {
			t.Errorf("%d bytes are not given back", burst.size)
		}
		for range 20 {
			if w.after(idleQuiet) != 0 {
				t.Error("memory is given back where there is none")
			}
		}
	}
	if n := testing.AllocsPerRun(10, func() { w.look(w.clock) }); n > 0 {
		t.Errorf("a look allocates %v times", n)
	}
}

// What many goroutines leave behind as they end is given back too, and bursts that
// follow each other closely do not have one collection each.
func TestIdleGoroutines(t *testing.T) {
	w := watchIdle(t)
	w.after(idlePause)
	before := runtime.NumGoroutine()
	var parked, ended sync.WaitGroup
	parked.Add(1)
	for range 2 * idleMuch / idleStack {
		ended.Go(parked.Wait)
	}
	w.after(idleLook)
	w.after(idlePause) // what it took to start them
	w.after(idleLook)  // from where it counts, if that was given back only now
	w.releases = 0
	parked.Done()
	ended.Wait()
	for runtime.NumGoroutine() > before { // they have said that they end, and have yet to
		runtime.Gosched()
	}
	// What else runs in this process may have allocated meanwhile: the first look may find
	// no calm.
	if w.after(idleLook) != 1 && w.after(idlePause) != 1 {
		t.Error("what goroutines left behind is not given back")
	}
	garbage = make([]byte, 2*idleMuch)
	garbage = nil
	if w.after(idleLook) != 0 || w.after(idleLook) != 0 {
		t.Error("memory is given back twice within the pause")
	}
	if w.after(idlePause) != 1 {
		t.Error("memory is not given back after the pause")
	}
}

// garbage keeps the compiler from leaving an allocation out.
var garbage []byte
