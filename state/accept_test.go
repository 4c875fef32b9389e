package state

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// forkedRoom is a room whose history forks at random: the events in an order in
// which each comes behind what it stands on.
type forkedRoom struct {
	id     matrix.RoomID
	events []*matrix.Event
}

// growForks makes a room of n random events: every one stands on one to three of
// the newest, whether others stand on those already or not. They are made by
// accepting them, as their auth events depend on the state where they stand.
func growForks(h *house, version string, seed uint64, n int) forkedRoom {
	h.Helper()
	rnd := rand.New(rand.NewPCG(seed, 1))
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: version})
	for _, user := range []matrix.UserID{bob, carol} {
		h.must(h.join(room, user))
	}
	_, err := h.set(room, alice, "m.room.power_levels", "", powerLevels0(version, 60, 40))
	h.must(err)
	forked := forkedRoom{id: room, events: h.all(room)}
	for len(forked.events) < n {
		h.graft(&forked, rnd, randomDraft(rnd, version))
	}
	h.graftOn(&forked, leaves(forked.events), matrix.Draft{Sender: alice, Type: "m.merge", Content: []byte(`{}`)})
	return forked
}

// powerLevels0 gives bob and carol levels; alice is the creator.
func powerLevels0(version string, bobs, carols int) string {
	v, _ := matrix.VersionByID(version)
	users := fmt.Sprintf(`%q:%d,%q:%d`, bob, bobs, carol, carols)
	if !v.PrivilegedCreators {
		users += fmt.Sprintf(`,%q:100`, alice)
	}
	return `{"users":{` + users + `},"events":{"m.room.topic":30}}`
}

func randomDraft(rnd *rand.Rand, version string) matrix.Draft {
	sender := []matrix.UserID{alice, alice, bob, carol}[rnd.IntN(4)]
	target := []matrix.UserID{bob, carol}[rnd.IntN(2)]
	state := func(typ, key, content string) matrix.Draft {
		return matrix.Draft{Sender: sender, Type: typ, StateKey: &key, Content: []byte(content)}
	}
	switch rnd.IntN(8) {
	case 0:
		return state("m.room.power_levels", "", powerLevels0(version, rnd.IntN(80), rnd.IntN(80)))
	case 1:
		return state("m.room.member", string(target), `{"membership":"ban"}`)
	case 2:
		return state("m.room.member", string(target), `{"membership":"leave"}`)
	case 3:
		return state("m.room.member", string(sender), fmt.Sprintf(`{"membership":"join","displayname":"%d"}`, rnd.IntN(9)))
	case 4:
		return state("m.room.join_rules", "", []string{`{"join_rule":"public"}`, `{"join_rule":"invite"}`}[rnd.IntN(2)])
	case 5, 6:
		return state("m.room.topic", "", fmt.Sprintf(`{"topic":"%d"}`, rnd.IntN(99)))
	}
	return matrix.Draft{Sender: sender, Type: "m.room.message", Content: []byte(`{"body":"x"}`)}
}

// graft adds a draft on some of the newest events, if the rules allow it there.
func (h *house) graft(f *forkedRoom, rnd *rand.Rand, draft matrix.Draft) {
	h.Helper()
	newest := f.events[max(0, len(f.events)-6):]
	var prev []*matrix.Event
	for range 1 + rnd.IntN(3) {
		if ev := newest[rnd.IntN(len(newest))]; !slices.Contains(prev, ev) {
			prev = append(prev, ev)
		}
	}
	h.graftOn(f, prev, draft)
}

func (h *house) graftOn(f *forkedRoom, prev []*matrix.Event, draft matrix.Draft) {
	h.Helper()
	version := prev[0].Version
	a := acceptance{rooms: h.rooms, ctx: context.Background(), cache: new(eventCache)}
	var placing matrix.Placing
	h.must(h.store.View(func(tx *store.Tx) (err error) {
		a.num, a.head, err = Head(tx, f.id)
		for _, ev := range prev {
			_, num, _ := tx.EventByID(ev.ID)
			a.prev = append(a.prev, num)
			placing.Prev = append(placing.Prev, ev.ID)
			placing.Depth = max(placing.Depth, ev.Depth+1)
		}
		return err
	}))
	before, err := a.before()
	h.must(err)
	h.must(h.store.View(func(tx *store.Tx) error {
		for _, key := range auth.Needed(version, draft.Type, draft.Sender, draft.StateKey, draft.Content) {
			ev, err := EventAt(tx, a.num, before, key.Type, key.StateKey)
			if err != nil {
				return err
			}
			if ev != nil {
				placing.Auth = append(placing.Auth, ev.ID)
			}
		}
		return nil
	}))
	if version.EventIDs == matrix.EventIDGiven {
		placing.PrevHashes = make([]matrix.Hash, len(placing.Prev))
		placing.AuthHashes = make([]matrix.Hash, len(placing.Auth))
	}
	draft.Room, draft.OriginServerTS = f.id, h.rooms.now().UnixMilli()
	ev, err := draft.Build(version, placing, "home.example", h.rooms.Key())
	h.must(err)
	_, err = h.rooms.Accept(context.Background(), ev)
	h.must(err)
	f.events = append(f.events, ev) // rejected or not: others may stand on it
}

// all returns the events of a room's timeline.
func (h *house) all(room matrix.RoomID) (events []*matrix.Event) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) error {
		return tx.Timeline(tx.RoomNum(room), 0, func(ev *store.StoredEvent) (bool, error) {
			events = append(events, ev.Event)
			return true, nil
		})
	}))
	return events
}

// leaves returns the events that no other stands on, the newest 20.
func leaves(events []*matrix.Event) []*matrix.Event {
	covered := make(map[matrix.EventID]bool)
	for _, ev := range events {
		for _, id := range ev.PrevEvents {
			covered[id] = true
		}
	}
	var list []*matrix.Event
	for _, ev := range events {
		if !covered[ev.ID] {
			list = append(list, ev)
		}
	}
	return list[max(0, len(list)-maxPrevEvents):]
}

// causalShuffle returns the events in another order in which each still comes
// behind what it stands on and cites.
func causalShuffle(events []*matrix.Event, seed uint64) []*matrix.Event {
	rnd := rand.New(rand.NewPCG(seed, 2))
	rest, done := slices.Clone(events), make(map[matrix.EventID]bool)
	var order []*matrix.Event
	for len(rest) > 0 {
		var ready []int
		for i, ev := range rest {
			if !slices.ContainsFunc(slices.Concat(ev.PrevEvents, ev.AuthEvents), func(id matrix.EventID) bool { return !done[id] }) {
				ready = append(ready, i)
			}
		}
		i := ready[rnd.IntN(len(ready))]
		done[rest[i].ID] = true
		order = append(order, rest[i])
		rest = slices.Delete(rest, i, i+1)
	}
	return order
}

// stateBefore returns the state before an event, by key.
func (h *house) stateBefore(id matrix.EventID) (state map[auth.Key]matrix.EventID) {
	h.Helper()
	ev := h.event(id)
	h.must(h.store.View(func(tx *store.Tx) (err error) {
		state, err = stateAt(tx, ev.RoomNum, ev.Before)
		return err
	}))
	return state
}

// stateAt returns the state that a snapshot holds.
func stateAt(tx *store.Tx, room store.RoomNum, snap store.SnapshotID) (map[auth.Key]matrix.EventID, error) {
	state := make(map[auth.Key]matrix.EventID)
	err := tx.WalkState(room, snap, store.StateAll, func(_ store.Slot, num store.EventNum) (bool, error) {
		ev, err := tx.Event(room, num)
		if err == nil {
			state[auth.Key{Type: ev.Type, StateKey: *ev.StateKey}] = ev.ID
		}
		return true, err
	})
	return state, err
}

// arrival is what has become of a room's events, by the order in which they came.
type arrival struct {
	before   map[matrix.EventID]map[auth.Key]matrix.EventID // the state before each event
	rejected map[matrix.EventID]bool
	aside    map[matrix.EventID]bool // rejected and soft-failed ones

	current map[auth.Key]matrix.EventID
	ends    []matrix.EventID // the forward extremities
}

// arrived reads what has become of the events.
func (h *house) arrived(f forkedRoom) arrival {
	h.Helper()
	a := arrival{
		before:   make(map[matrix.EventID]map[auth.Key]matrix.EventID),
		rejected: make(map[matrix.EventID]bool), aside: make(map[matrix.EventID]bool),
	}
	for _, ev := range f.events {
		stored := h.event(ev.ID)
		a.before[ev.ID], a.rejected[ev.ID], a.aside[ev.ID] = h.stateBefore(ev.ID), stored.Rejected, stored.Num.Aside()
	}
	h.must(h.store.View(func(tx *store.Tx) error {
		num, head, err := Head(tx, f.id)
		if err != nil {
			return err
		}
		for _, end := range head.Extremities {
			id, err := tx.EventID(num, end)
			if err != nil {
				return err
			}
			a.ends = append(a.ends, id)
		}
		a.current, err = stateAt(tx, num, head.Current)
		return err
	}))
	return a
}

// arrive accepts events in an order, one by one.
func (h *house) arrive(events []*matrix.Event) {
	h.Helper()
	for _, ev := range events {
		h.accept(ev)
	}
}

// arriveStopped accepts events in an order, some at once. At random places the
// server is stopped or killed, once in a while between the writes of one event.
func (h *house) arriveStopped(events []*matrix.Event, rnd *rand.Rand) (stops int) {
	h.Helper()
	for len(events) > 0 {
		some := events[:min(len(events), 1+rnd.IntN(12))]
		ctx := fuse{context.Background(), new(atomic.Int64)}
		ctx.left.Store(1 << 40)
		if rnd.IntN(3) == 0 {
			ctx.left.Store(rnd.Int64N(4))
		}
		verdicts, err := h.rooms.AcceptAll(ctx, some)
		if err != nil && !errors.Is(err, context.Canceled) {
			h.Fatal(err)
		}
		events = events[len(verdicts):]
		if err != nil || rnd.IntN(3) == 0 {
			h.restart(rnd.IntN(2) == 0)
			stops++
		}
	}
	return stops
}

// restart begins anew with what the store holds: as it closes, or as the files
// are at this moment, which is what a process that is killed leaves.
func (h *house) restart(killed bool) {
	h.Helper()
	dir := h.store.Dir()
	if killed {
		left := h.TempDir()
		h.must(os.CopyFS(left, os.DirFS(dir)))
		dir = left
	}
	h.must(h.store.Close())
	h.open(dir)
}

var arrivalSeeds = flag.Int("state.arrivals", 2, "random rooms of each version whose events arrive in other orders")

// The state before an event depends on its ancestors alone, and so does whether it
// is rejected: every order of arrival that respects them must give the same. Of
// one order all must be the same, however the server stops in between.
func TestArrivalOrderDoesNotMatter(t *testing.T) {
	for i, version := range []string{"1", "2", "6", "10", "11", "12"} {
		rejected, failed, stops := 0, 0, 0
		for n := range *arrivalSeeds {
			seed := uint64(n*6 + i) // no two versions have the same rooms
			t.Run(fmt.Sprintf("%s/%d", version, seed), func(t *testing.T) {
				grown := newHouse(t)
				forked := growForks(grown, version, seed, 40)
				want := grown.arrived(forked)
				for order := range uint64(3) {
					events := causalShuffle(forked.events, order)
					plain, stopped := newHouse(t), newHouse(t)
					plain.arrive(events)
					stops += stopped.arriveStopped(events, rand.New(rand.NewPCG(seed, order)))
					got, again := plain.arrived(forked), stopped.arrived(forked)
					if !reflect.DeepEqual(got, again) {
						t.Errorf("order %d: with stops it becomes %v, else %v", order, again, got)
					}
					for _, ev := range forked.events {
						for key := range merged(want.before[ev.ID], got.before[ev.ID]) {
							if want, got := want.before[ev.ID][key], got.before[ev.ID][key]; want != got {
								t.Errorf("order %d: before %s %v is %q, first it was %q", order, ev.ID, key, got, want)
							}
						}
						if want.rejected[ev.ID] != got.rejected[ev.ID] {
							t.Errorf("order %d: %s is rejected: %v, first it was %v", order, ev.ID, got.rejected[ev.ID], want.rejected[ev.ID])
						}
						rejected, failed = rejected+count(got.rejected[ev.ID]), failed+count(got.aside[ev.ID] && !got.rejected[ev.ID])
					}
				}
			})
		}
		t.Logf("version %s: %d stops, %d events rejected, %d soft-failed", version, stops, rejected, failed)
	}
}

func count(is bool) int {
	if is {
		return 1
	}
	return 0
}

func merged(a, b map[auth.Key]matrix.EventID) map[auth.Key]bool {
	keys := make(map[auth.Key]bool)
	for key := range a {
		keys[key] = true
	}
	for key := range b {
		keys[key] = true
	}
	return keys
}

func TestAcceptVerdicts(t *testing.T) {
	ctx := context.Background()
	from, to := newHouse(t), newHouse(t)
	room := from.create(Creation{Creator: alice, Preset: PresetPublic, Version: "11"})
	from.must(from.join(room, bob))
	base := from.all(room)
	var missing *MissingError
	if _, err := to.rooms.Accept(ctx, base[1]); !errors.Is(err, ErrUnknownRoom) {
		t.Errorf("an event of an unknown room: %v", err)
	}
	for i, ev := range base {
		if i > 0 && i+1 < len(base) {
			if _, err := to.rooms.Accept(ctx, base[i+1]); !errors.As(err, &missing) {
				t.Errorf("event %d before %d: %v", i+1, i, err)
			}
		}
		for _, want := range []Verdict{Accepted, Known} {
			if got, err := to.rooms.Accept(ctx, ev); got != want || err != nil {
				t.Errorf("event %d: verdict %d and %v, want %d", i, got, err, want)
			}
		}
	}
	// Bob's message stands before the ban that has come meanwhile.
	forked := forkedRoom{id: room, events: base}
	from.must(from.change(room, alice, bob, matrix.Ban))
	ban := from.all(room)[len(base)]
	if got, err := to.rooms.Accept(ctx, ban); got != Accepted || err != nil {
		t.Fatalf("the ban: %d, %v", got, err)
	}
	late := matrix.Draft{Sender: bob, Type: "m.room.message", Content: []byte(`{"body":"late"}`)}
	from.graftOn(&forked, base[len(base)-1:], late)
	if got, err := to.rooms.Accept(ctx, forked.events[len(base)]); got != SoftFailed || err != nil {
		t.Errorf("a message from before the ban: %d, %v", got, err)
	}
	// And this one stands behind it.
	from.graftOn(&forked, []*matrix.Event{ban}, late)
	if got := from.event(forked.events[len(base)+1].ID); !got.Rejected {
		t.Error("a message from behind the ban was not rejected")
	}
	if got := to.timeline(room); len(got) != len(base)+1 {
		t.Errorf("the timeline is %v", got)
	}
}
