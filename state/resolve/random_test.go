package resolve

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
)

var (
	roomCount = flag.Uint64("resolve.rooms", 1200, "how many random rooms TestRandomRooms makes")
	firstSeed = flag.Uint64("resolve.seed", 0, "seed of the first of them; the others follow")
)

// Bounds of one random room.
const (
	maxRoomEvents   = 60
	maxRoomForks    = 4
	maxRoomFailures = 5 // seeds that fail before the test gives up
)

// In rooms of random deeds, forks and lies, Resolve ends where the literal
// algorithm does, whatever the order of the forks, and resolving the result with
// itself changes nothing. A room that fails is made again, event for event, by
// the flags that the failure names; a hundred thousand of them are
//
//	go test ./state/resolve -run TestRandomRooms -resolve.rooms 100000 -timeout 0
func TestRandomRooms(t *testing.T) {
	var sum tally
	failures := 0
	for seed := *firstSeed; seed < *firstSeed+*roomCount; seed++ {
		r := newRandomRoom(t, seed)
		if r.run(); r.fault != "" {
			t.Errorf("-resolve.seed %d -resolve.rooms 1: version %s: %s", seed, r.version.ID, r.fault)
			if failures++; failures == maxRoomFailures {
				break
			}
		}
		sum.add(r)
	}
	t.Logf("%+v", sum)
	if *roomCount >= 1000 && slices.Contains(sum.each(), 0) {
		t.Errorf("the rooms are not what they should be: %+v", sum)
	}
}

// tally counts what happened in random rooms.
type tally struct {
	Rooms, Events, Resolutions, Conflicts, Bans, Demotions, JoinRules, Rejected, Lies, Detours int
}

func (s *tally) add(r *randomRoom) {
	s.Rooms++
	s.Events += len(r.events)
	s.Resolutions += r.resolutions
	s.Conflicts += r.conflicts
	s.Bans += r.bans
	s.Demotions += r.demotions
	s.JoinRules += r.joinRules
	s.Rejected += len(r.rejected)
	s.Lies += r.lies
	s.Detours += r.detours
}

func (s *tally) each() []int {
	return []int{s.Resolutions, s.Conflicts, s.Bans, s.Demotions, s.JoinRules, s.Rejected, s.Lies}
}

// randomRoom is a room in which everything happens at random.
type randomRoom struct {
	*room
	random *rand.Rand
	forks  []fork
	past   []state // what was the state of some fork
	fault  string  // what is wrong, if anything

	resolutions, conflicts, bans, demotions, joinRules, lies int
}

// fork is one of the ends of a room's history.
type fork struct {
	state
	depth int64
}

// newRandomRoom makes the room of a seed: each algorithm has a third of them.
func newRandomRoom(t *testing.T, seed uint64) *randomRoom {
	version := "1"
	switch seed % 3 {
	case 1:
		version = fmt.Sprint(2 + seed/3%10)
	case 2:
		version = "12"
	}
	r, s := newRoom(t, version)
	members(r, s)
	return &randomRoom{
		room: r, random: rand.New(rand.NewPCG(seed, 7)),
		forks: []fork{{s, r.depth}}, past: []state{maps.Clone(s)},
	}
}

// run lets things happen until the room is full, and has all forks meet.
func (r *randomRoom) run() {
	size := maxRoomEvents/4 + r.random.IntN(maxRoomEvents*3/4+1)
	for tries := 0; tries < 4*size && len(r.events) < size && r.fault == ""; tries++ {
		at := r.random.IntN(len(r.forks))
		switch dice := r.random.IntN(40); {
		case dice < 4 && len(r.forks) < maxRoomForks:
			r.forks = append(r.forks, fork{maps.Clone(r.forks[at].state), r.forks[at].depth})
		case dice < 6 && len(r.forks) > 1:
			r.meet(at)
		case dice == 6:
			r.lie(&r.forks[at])
		default:
			r.deed(&r.forks[at])
		}
	}
	r.resolveAll(r.forks)
}

// meet has two forks meet in one.
func (r *randomRoom) meet(at int) {
	last := len(r.forks) - 1
	if at == last {
		at--
	}
	one, two := r.forks[at], r.forks[last]
	r.forks = r.forks[:last]
	r.forks[at] = fork{r.resolveAll([]fork{one, two}), max(one.depth, two.depth)}
}

// resolveAll compares the two ways of resolving forks, and returns the state.
func (r *randomRoom) resolveAll(forks []fork) state {
	states := make([]state, len(forks))
	for i := range forks {
		states[i] = forks[i].state
	}
	conflicted, _ := r.split(states)
	r.resolutions++
	r.conflicts += len(conflicted)
	want, got := r.literal(states), r.resolve(states...)
	if !maps.Equal(got, want) {
		r.fault = fmt.Sprintf("\n got %v\nwant %v", r.describe(got), r.describe(want))
		return want
	}
	if r.detours > 0 && r.version.StateResolution == matrix.StateResolutionV21 {
		r.fault = "an auth chain leaves the conflicted set and comes back, which the subgraph makes impossible"
	}
	r.random.Shuffle(len(states), func(i, j int) { states[i], states[j] = states[j], states[i] })
	if again := r.resolve(states...); !maps.Equal(again, got) {
		r.fault = fmt.Sprintf("shuffled:\n got %v\nwant %v", r.describe(again), r.describe(got))
	}
	if again := r.resolve(got, got); !maps.Equal(again, got) {
		r.fault = "resolving the result changes it"
	}
	return want
}

// lie has a fork claim that some of its state is older than it is.
func (r *randomRoom) lie(f *fork) {
	old := r.past[r.random.IntN(len(r.past))]
	keys := slices.SortedFunc(maps.Keys(old), compareKeys)
	for range 1 + r.random.IntN(3) {
		key := keys[r.random.IntN(len(keys))]
		f.state[key] = old[key]
	}
	r.lies++
}

// deed has a random user do something on a fork. Where the rules do not allow it,
// it does not happen, or is a rejected event, which some server takes nonetheless.
func (r *randomRoom) deed(f *fork) {
	users := []matrix.UserID{alice, bob, carol, eve}
	who, whom := users[r.random.IntN(len(users))], users[r.random.IntN(len(users))]
	typ, stateKey, content := r.choose(f, who, whom)
	r.depth, r.tick = f.depth, int64(r.random.IntN(4)-1)*500 // clocks differ
	name := fmt.Sprintf("%d: %s %s %s %s", len(r.events), who, typ, stateKey, content)
	made := len(r.events)
	e := r.make(f.state, name, who, typ, stateKey, content)
	if len(r.events) == made {
		return // two forks in the same moment did the same
	}
	if auth.Check(e, r.in(f.state)) != nil {
		if r.random.IntN(8) > 0 {
			delete(r.events, e.ID)
			delete(r.names, e.ID)
			return
		}
		r.rejected[e.ID] = true
		if r.random.IntN(2) == 0 {
			return
		}
	}
	key := auth.Key{Type: typ, StateKey: stateKey}
	r.count(e, r.events[f.state[key]])
	f.state[key], f.depth = e.ID, e.Depth
	if r.random.IntN(4) == 0 {
		r.past = append(r.past, maps.Clone(f.state))
	}
}

// choose returns what somebody does.
func (r *randomRoom) choose(f *fork, who, whom matrix.UserID) (typ, stateKey, content string) {
	pick := func(from ...string) string { return from[r.random.IntN(len(from))] }
	switch r.random.IntN(8) {
	case 0, 1:
		levels := fmt.Sprintf(`"%s":%s,"%s":%s`, bob, pick("0", "50", "100"), carol, pick("0", "25", "50"))
		if !r.version.PrivilegedCreators {
			levels += fmt.Sprintf(`,"%s":%s`, alice, pick("100", "100", "100", "50"))
		}
		return typePowerLevels, "", fmt.Sprintf(`{"ban":%s,"state_default":%s,"users":{%s}}`, pick("25", "50"), pick("0", "50"), levels)
	case 2:
		return typeJoinRules, "", fmt.Sprintf(`{"join_rule":%q}`, pick("public", "invite", "knock"))
	case 3, 4:
		return typeMember, string(whom), fmt.Sprintf(`{"membership":%q}`, pick("leave", "ban", "invite"))
	case 5:
		return typeMember, string(who), fmt.Sprintf(`{"membership":%q}`, pick("join", "join", "leave", "knock"))
	case 6:
		return "m.room.name", "", `{}`
	}
	return "m.room.topic", "", `{}`
}

// count notes what an event is that took the place of another, or of nothing.
func (r *randomRoom) count(e, old *matrix.Event) {
	switch e.Type {
	case typeJoinRules:
		r.joinRules++
	case typeMember:
		if c, err := e.Member(); err == nil && c.Membership == matrix.Ban {
			r.bans++
		}
	case typePowerLevels:
		next, err := e.PowerLevels()
		if err != nil || old == nil {
			return
		}
		if was, err := old.PowerLevels(); err == nil && (next.User(bob) < was.User(bob) || next.User(carol) < was.User(carol)) {
			r.demotions++
		}
	}
}
