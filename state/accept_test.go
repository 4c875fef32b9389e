package state

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
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
	ev, err := draft.Build(version, placing, "home.example", h.rooms.key)
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
func (h *house) stateBefore(id matrix.EventID) map[auth.Key]matrix.EventID {
	h.Helper()
	state := make(map[auth.Key]matrix.EventID)
	ev := h.event(id)
	h.must(h.store.View(func(tx *store.Tx) error {
		return tx.WalkState(ev.RoomNum, ev.Before, store.StateAll, func(_ store.Slot, num store.EventNum) (bool, error) {
			ev, err := tx.Event(ev.RoomNum, num)
			if err == nil {
				state[auth.Key{Type: ev.Type, StateKey: *ev.StateKey}] = ev.ID
			}
			return true, err
		})
	}))
	return state
}

// The state before an event depends on its ancestors alone, so every order of
// arrival that respects them must give the same.
func TestArrivalOrderDoesNotMatter(t *testing.T) {
	for _, version := range []string{"1", "2", "6", "10", "11", "12"} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("%s/%d", version, seed), func(t *testing.T) {
				forked := growForks(newHouse(t), version, seed, 40)
				var want map[auth.Key]matrix.EventID
				for order := range uint64(3) {
					h := newHouse(t)
					for _, ev := range causalShuffle(forked.events, order) {
						if _, err := h.rooms.Accept(context.Background(), ev); err != nil {
							t.Fatal(err)
						}
					}
					got := h.stateBefore(forked.events[len(forked.events)-1].ID)
					if want == nil {
						want = got
					}
					for key := range merged(want, got) {
						if want[key] != got[key] {
							t.Errorf("order %d: %v is %q, first it was %q", order, key, got[key], want[key])
						}
					}
				}
			})
		}
	}
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
