// What waits for connections to end waits for as long at each run.
//
//go:debug randautoseed=0
package server

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"hearth/state/matrix"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "simulate this seed alone")
	simFirst = flag.Uint64("sim.first", 2, "the first of several seeds")
	simSeeds = flag.Uint64("sim.seeds", 10, "how many seeds to simulate")
	simLog   = flag.Bool("sim.log", false, "show what the servers log")
)

// Three to eight servers live through cut links, delays, skewed clocks, lost and
// repeated transactions and crashes. When all is well again, they have the same
// state in every room that they share, and nothing that was acknowledged is lost.
func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		simulate(t, *simSeed)
		return
	}
	for seed := *simFirst; seed < *simFirst+*simSeeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { simulate(t, seed) })
	}
}

// simulate lives through one seed, nearly the same each time: all randomness is the seed's,
// time is virtual, of the goroutines that could run at one moment one runs at a time, and no
// collection of garbage interrupts it. It tells the digest of what the servers told each
// other. What Go's runtime leaves to chance is above all which of several timers fires first
// that were set for one moment; e2e/simulation.sh takes that away, has each seed lived
// through twice, and compares.
func simulate(t *testing.T, seed uint64) {
	cryptotest.SetGlobalRandom(t, seed)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	synctest.Test(t, func(t *testing.T) {
		f := newFabric(t, seed)
		if *simLog {
			f.log = prefixed{t}
		}
		w := newWorld(t, seed, f)
		w.patient = true
		for n := range 3 + w.rand.IntN(6) {
			skew := time.Duration(w.rand.IntN(120)-60) * time.Second
			if w.rand.IntN(10) == 0 {
				skew *= 300 // a board without a clock
			}
			s := newSimulated(t, f, n, skew)
			if *simLog {
				s.log = prefixed{t}
			}
			w.settle(s)
		}
		w.live()
		t.Logf("seed %d: digest %016x", seed, f.digest)
		time.Sleep(10 * time.Minute) // what was under way as the servers ended
	})
}

// A world is one simulation.
type world struct {
	t       *testing.T
	seed    uint64
	rand    *rand.Rand
	net     links
	homes   []*home
	began   time.Time
	pace    time.Duration // of life
	patient bool          // hours cost nothing
	rooms   []*shared
	sent    []deed         // what was acknowledged
	notes   map[string]int // to-device messages that were acknowledged, and for whom
	whom    map[string]*inhabitant
	tally   map[string]int // of what was tried, by outcome
	crossed int            // deliveries to other servers that had to be made
	returns int            // how often somebody had to come back
}

// links are what connects hosts.
type links interface {
	setCut(a, b host, cut bool)
	settle() // mends all, for good
}

// A home is a host with its users.
type home struct {
	host
	users []*inhabitant
	among map[*shared]map[string]any // who is in the rooms, as it last said
	out   map[*shared]time.Time      // when it was last seen to have nobody there
}

// A shared room is one that somebody has made.
type shared struct {
	id      matrix.RoomID
	version string
	maker   *inhabitant
	entered []*inhabitant // who has joined at some time, the maker first
	// replaced: it was upgraded. Nobody may speak there any more, so that nothing
	// brings together what has come apart.
	replaced bool
}

func newWorld(t *testing.T, seed uint64, net links) *world {
	return &world{
		t: t, seed: seed, rand: rand.New(rand.NewPCG(seed, 5)), net: net, began: time.Now(), pace: time.Second,
		notes: make(map[string]int), whom: make(map[string]*inhabitant), tally: make(map[string]int),
	}
}

// settle starts a host and gives it users.
func (w *world) settle(h host) {
	h.start()
	at := &home{host: h, among: make(map[*shared]map[string]any), out: make(map[*shared]time.Time)}
	for n := range 1 + w.rand.IntN(2) {
		at.users = append(at.users, inhabit(w.t, h, fmt.Sprintf("u%d", n)))
	}
	w.homes = append(w.homes, at)
}

// live lets the world have its time, heals it, and judges it.
func (w *world) live() {
	for range 60 + w.rand.IntN(90) {
		w.step()
	}
	w.heal()
	w.judge()
}

// step does one thing and lets some time pass.
func (w *world) step() {
	switch n := w.rand.IntN(100); {
	case n < 10:
		a, b := pick(w.rand, w.homes), pick(w.rand, w.homes)
		if a != b {
			w.net.setCut(a.host, b.host, n < 6)
		}
	case n < 14:
		if s := pick(w.rand, w.homes); w.patient && w.rand.IntN(12) == 0 {
			w.miss(s)
		} else {
			w.crash(s)
		}
	case len(w.rooms) == 0 || n < 17:
		w.makeRoom()
	case n < 22:
		w.whisper()
	case n < 25:
		w.chatter()
	default:
		w.act()
	}
	time.Sleep(time.Duration(w.rand.IntN(8000)) * w.pace / 1000)
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

func (w *world) server() string { return string(pick(w.rand, w.homes).name()) }

func (w *world) user() *inhabitant { return pick(w.rand, pick(w.rand, w.homes).users) }

// crash ends a server in the middle of what it does. It comes back some time later.
func (w *world) crash(s *home) {
	s.crash()
	time.Sleep(time.Duration(w.rand.IntN(60)) * w.pace)
	s.start()
}

// miss has a server miss hours or days, and more than is asked for at once.
func (w *world) miss(s *home) {
	s.crash()
	for range w.rand.IntN(160) {
		if u := w.user(); len(w.rooms) > 0 && w.home(u) != s {
			w.say(u, pick(w.rand, w.rooms))
		}
		time.Sleep(time.Duration(w.rand.IntN(1000)) * w.pace)
	}
	s.start()
}

// home returns where a user lives.
func (w *world) home(u *inhabitant) *home {
	return w.homes[slices.IndexFunc(w.homes, func(h *home) bool { return h.host == u.home })]
}
