package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// peer is a house as the other server of a Source.
type peer struct {
	*house
	gap   int                                     // how many events Missing gives at most
	lies  map[matrix.EventID]*matrix.Event        // events that are not in its store
	state func([]matrix.EventID) []matrix.EventID // what it makes of the IDs of a state
	fails int                                     // how many events it gives before it fails; 0: it does not

	asked   []matrix.EventID // by Events
	gave    []matrix.EventID // to those
	gaps    int              // calls of Missing
	states  int              // calls of StateIDs
	pending func()           // called while a request is under way
}

var errCut = errors.New("the line was cut")

func (p *peer) source() Source {
	return Source{Missing: p.missing, Events: p.events, StateIDs: p.stateIDs}
}

func (p *peer) find(id matrix.EventID) *matrix.Event {
	if ev := p.lies[id]; ev != nil {
		return ev
	}
	var found *matrix.Event
	p.must(p.store.View(func(tx *store.Tx) error {
		room, num, ok := tx.EventByID(id)
		if !ok {
			return nil
		}
		ev, err := tx.Event(room, num)
		if err == nil {
			found = ev.Event
		}
		return err
	}))
	return found
}

func (p *peer) wait() {
	if p.pending != nil {
		p.pending()
	}
}

func (p *peer) missing(_ context.Context, ask MissingEvents, take func(*matrix.Event) error) error {
	p.gaps++
	p.wait()
	queue, seen := slices.Clone(ask.Latest), make(map[matrix.EventID]bool)
	for _, id := range ask.Earliest {
		seen[id] = true
	}
	for given := 0; len(queue) > 0; queue = queue[1:] {
		ev := p.find(queue[0])
		if ev == nil {
			continue
		}
		for _, id := range ev.PrevEvents {
			old := p.find(id)
			if seen[id] || old == nil || given == min(p.gap, ask.Limit) {
				continue
			}
			seen[id] = true
			given++
			queue = append(queue, id)
			if err := take(old); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *peer) events(_ context.Context, _ matrix.RoomID, ids []matrix.EventID, take func(*matrix.Event) error) error {
	p.asked = append(p.asked, ids...)
	p.wait()
	for _, id := range ids {
		if p.fails > 0 {
			if p.fails--; p.fails == 0 {
				return errCut
			}
		}
		if ev := p.find(id); ev != nil {
			p.gave = append(p.gave, id)
			if err := take(ev); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *peer) stateIDs(_ context.Context, _ matrix.RoomID, before matrix.EventID, take func(matrix.EventID) error) error {
	p.states++
	p.wait()
	var ids []matrix.EventID
	for _, id := range p.stateBefore(before) {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	if p.state != nil {
		ids = p.state(ids)
	}
	for _, id := range ids {
		if err := take(id); err != nil {
			return err
		}
	}
	return nil
}

// current returns the current state of a room, by key.
func (h *house) current(room matrix.RoomID) map[auth.Key]matrix.EventID {
	h.Helper()
	state := make(map[auth.Key]matrix.EventID)
	h.must(h.store.View(func(tx *store.Tx) error {
		num, head, err := Head(tx, room)
		if err != nil {
			return err
		}
		return tx.WalkState(num, head.Current, store.StateAll, func(_ store.Slot, at store.EventNum) (bool, error) {
			ev, err := tx.Event(num, at)
			if err == nil {
				state[auth.Key{Type: ev.Type, StateKey: *ev.StateKey}] = ev.ID
			}
			return true, err
		})
	}))
	return state
}

func sameState(t *testing.T, what string, got, want map[auth.Key]matrix.EventID) {
	t.Helper()
	for key := range merged(got, want) {
		if got[key] != want[key] {
			t.Errorf("%s: %v is %q, want %q", what, key, got[key], want[key])
		}
	}
}

func (h *house) acceptFrom(p *peer, events ...*matrix.Event) []Verdict {
	h.Helper()
	verdicts, err := h.rooms.AcceptFrom(context.Background(), events, p.source())
	h.must(err)
	return verdicts
}

// ground takes an event below which nothing is known, with the state before it: so begins
// what is taken of a gap that is not told whole.
func (h *house) ground(p *peer, ev *matrix.Event) {
	h.Helper()
	g := gathering{rooms: h.rooms, from: p.source(), asked: make(map[matrix.EventID]bool), left: maxFetched, rounds: maxRounds}
	states := 1
	unfit, err := g.takeGround(context.Background(), ev.Room, []matrix.EventID{ev.ID}, &states)
	h.must(cmp.Or(unfit, err))
	if states != 0 || h.event(ev.ID).Outlier {
		h.Fatalf("%s came without a state", ev.ID)
	}
}

// startRoom makes a room in a house of which another knows the beginning, and fills
// it with state and messages that the other has not seen.
func startRoom(t *testing.T, version string, topics int) (from *peer, to *house, events []*matrix.Event, shared int) {
	t.Helper()
	h := newHouse(t)
	from, to = &peer{house: h, gap: 1 << 20, lies: make(map[matrix.EventID]*matrix.Event)}, newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: version, Topic: "first"})
	h.must(h.join(room, bob))
	shared = len(h.all(room))
	for i := range topics {
		_, err := h.set(room, alice, "m.room.topic", "", fmt.Sprintf(`{"topic":"%d"}`, i))
		h.must(err)
		_, err = h.set(room, bob, "m.room.member", string(bob), fmt.Sprintf(`{"membership":"join","displayname":"%d"}`, i))
		h.must(err)
		h.send(room, bob, "m.room.message", `{"body":"x"}`)
	}
	h.must(h.join(room, carol))
	h.must(h.rooms.Leave(context.Background(), room, bob, ""))
	h.send(room, carol, "m.room.message", `{"body":"last"}`)
	events = h.all(room)
	_, err := to.rooms.AcceptAll(context.Background(), events[:shared])
	to.must(err)
	return from, to, events, shared
}

func last(events []*matrix.Event) *matrix.Event { return events[len(events)-1] }

// A gap is filled by its events where the other server gives them all, and else by
// the event below those that it gives, with the state before that.
func TestGap(t *testing.T) {
	for _, version := range []string{"1", "6", "11", "12"} {
		for _, tc := range []struct {
			name   string
			gap    int // events that Missing gives; of them gap are accepted below the last
			states int
		}{
			{"by its events", 1 << 20, 0},
			{"by a state below some events", 4, 1},
			{"by a state below one event", 1, 1},
		} {
			t.Run(version+"/"+tc.name, func(t *testing.T) {
				from, to, events, shared := startRoom(t, version, 5)
				from.gap = tc.gap
				got := to.acceptFrom(from, last(events))
				if !slices.Equal(got, []Verdict{Accepted}) || from.gaps != 1 || from.states != tc.states {
					t.Errorf("verdicts %d by %d gaps and %d states", got, from.gaps, from.states)
				}
				sameState(t, "current", to.current(last(events).Room), from.current(last(events).Room))
				sameState(t, "before", to.stateBefore(last(events).ID), from.stateBefore(last(events).ID))
				want := shared + min(tc.gap+tc.states, len(events)-shared-1) + 1
				if n := len(to.timeline(last(events).Room)); n != want {
					t.Errorf("%d events in the timeline, want %d", n, want)
				}
				for id, n := range counts(from.asked) {
					if n > 1 {
						t.Errorf("%s was asked for %d times", id, n)
					}
				}
			})
		}
	}
}

func counts(ids []matrix.EventID) map[matrix.EventID]int {
	n := make(map[matrix.EventID]int)
	for _, id := range ids {
		n[id]++
	}
	return n
}

// A room that was delivered in part, and the rest of it by its last event, is the
// room that was delivered whole.
func TestPartialDeliveryDoesNotMatter(t *testing.T) {
	for _, version := range []string{"1", "2", "6", "10", "11", "12"} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%s/%d", version, seed), func(t *testing.T) {
				h := newHouse(t)
				forked := growForks(h, version, seed, 60)
				from, to := &peer{house: h, gap: 1 << 20}, newHouse(t)
				part := forked.events[:10+int(seed)*7]
				_, err := to.rooms.AcceptAll(context.Background(), part)
				to.must(err)
				rest := slices.Clone(forked.events[len(part):])
				to.acceptFrom(from, last(rest))
				slices.Reverse(rest) // for what the last one does not stand on
				to.acceptFrom(from, rest...)
				if from.states > 0 || len(from.asked) > 0 {
					t.Errorf("%d states and %d events were asked for", from.states, len(from.asked))
				}
				for _, ev := range forked.events {
					sameState(t, string(ev.ID), to.stateBefore(ev.ID), h.stateBefore(ev.ID))
				}
				sameState(t, "current", to.current(forked.id), h.current(forked.id))
			})
		}
	}
}

// Events that come in the wrong order need no other server.
func TestReversedListIsItsOwnGap(t *testing.T) {
	from, to, events, shared := startRoom(t, "12", 5)
	from.gap = 0
	list := slices.Clone(events[shared:])
	slices.Reverse(list)
	verdicts := to.acceptFrom(from, list...)
	if verdicts[0] != Accepted || slices.ContainsFunc(verdicts[1:], func(v Verdict) bool { return v != Known }) || from.gaps+from.states > 0 {
		t.Errorf("verdicts %d, %d gaps, %d states", verdicts, from.gaps, from.states)
	}
}

// A call that is cut short keeps what came, and the next asks for the rest alone.
func TestFetchingIsResumed(t *testing.T) {
	from, to, events, _ := startRoom(t, "11", 6)
	from.gap = 1
	from.must(from.rooms.Leave(context.Background(), last(events).Room, carol, ""))
	for i := range 10 {
		from.must(from.join(last(events).Room, matrix.UserID(fmt.Sprintf("@u%d:home.example", i))))
	}
	end := matrix.EventID(from.send(last(events).Room, alice, "m.room.message", `{}`))
	before := to.head(last(events).Room)
	from.fails = 6
	_, err := to.rooms.AcceptFrom(context.Background(), []*matrix.Event{from.find(end)}, from.source())
	var lacks *MissingError
	if !errors.Is(err, errCut) || !errors.Is(err, ErrFetch) || !errors.As(err, &lacks) || !strings.Contains(err.Error(), string(lacks.Events[0])) {
		t.Fatalf("the cut line: %v", err)
	}
	if after := to.head(last(events).Room); after.Current != before.Current || after.Latest != before.Latest {
		t.Errorf("the head was %+v and is %+v", before, after)
	}
	kept := slices.DeleteFunc(slices.Clone(from.gave), func(id matrix.EventID) bool { return !to.has(id) })
	from.asked = nil
	if got := to.acceptFrom(from, from.find(end)); got[0] != Accepted {
		t.Errorf("verdict %d", got)
	}
	if again := slices.ContainsFunc(kept, func(id matrix.EventID) bool { return slices.Contains(from.asked, id) }); again || len(kept) < 2 {
		t.Errorf("%v had come, and %v were asked for", kept, from.asked)
	}
	sameState(t, "current", to.current(last(events).Room), from.current(last(events).Room))
}

// While requests are under way others send in the room, and a context that ends
// ends the call.
func TestFetchingHoldsNothing(t *testing.T) {
	for _, gap := range []int{1, 1 << 20} {
		from, to, events, _ := startRoom(t, "12", 5)
		from.gap = gap
		room, sent := last(events).Room, 0
		from.pending = func() {
			to.send(room, alice, "m.room.message", `{"body":"meanwhile"}`)
			_, err := to.set(room, alice, "m.room.name", "", fmt.Sprintf(`{"name":"%d"}`, sent))
			to.must(err)
			sent += 2
		}
		if got := to.acceptFrom(from, last(events)); got[0] != Accepted {
			t.Errorf("verdict %d", got)
		}
		if sent == 0 || len(to.head(room).Extremities) != 2 {
			t.Errorf("%d events meanwhile, extremities %d", sent, to.head(room).Extremities)
		}
		state := to.current(room)
		if _, named := state[auth.Key{Type: "m.room.name"}]; !named || state[auth.Key{Type: "m.room.topic"}] != from.current(room)[auth.Key{Type: "m.room.topic"}] {
			t.Errorf("the state is %v", state)
		}
	}
	from, to, events, _ := startRoom(t, "12", 5)
	ctx, cancel := context.WithCancel(context.Background())
	from.gap, from.pending = 1, cancel
	if _, err := to.rooms.AcceptFrom(ctx, events[len(events)-1:], from.source()); !errors.Is(err, context.Canceled) {
		t.Errorf("the context has ended: %v", err)
	}
}

// A given state has what our state has not, lacks what ours has, and may differ in
// more places than one write holds.
func TestGivenStateIsTheOthersState(t *testing.T) {
	h := newHouse(t)
	from, to := &peer{house: h, gap: 1}, newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: "12"})
	_, err := to.rooms.AcceptAll(context.Background(), h.all(room))
	to.must(err)
	for i := range stateStep + 10 {
		_, err := h.set(room, alice, "m.x", fmt.Sprint(i), `{}`)
		h.must(err)
	}
	end := from.find(h.send(room, alice, "m.room.message", `{}`))
	for _, typ := range []string{"m.x", "m.y"} {
		_, err = to.set(room, alice, typ, "ours", `{}`)
		to.must(err)
	}
	if got := to.acceptFrom(from, end); got[0] != Accepted || from.states != 1 {
		t.Errorf("verdict %d by %d states", got, from.states)
	}
	sameState(t, "before", to.stateBefore(end.ID), h.stateBefore(end.ID))
	state := to.current(room)
	for key := range h.current(room) {
		if state[key] == "" {
			t.Errorf("the current state lacks %v", key)
		}
	}
	if state[auth.Key{Type: "m.y", StateKey: "ours"}] == "" {
		t.Error("the current state lacks what is ours")
	}
}

// A room that is purged while a request is under way is not known any more, and one
// that has begun anew since is another, with which no state of the old one is compared.
func TestFetchingIsOverWhenTheRoomIsPurged(t *testing.T) {
	for _, gap := range []int{1, 3} {
		for stage := range 5 { // the request during which it happens
			for _, anew := range []bool{false, true} {
				t.Run(fmt.Sprintf("gap %d/request %d/anew %t", gap, stage, anew), func(t *testing.T) {
					from, to, events, shared := startRoom(t, "12", 5)
					from.gap = gap
					room, requests := last(events).Room, 0
					from.pending = func() {
						if requests++; requests != stage+1 {
							return
						}
						to.must(to.rooms.Purge(context.Background(), room, func(PurgeProgress) {}))
						if anew {
							_, err := to.rooms.AcceptAll(context.Background(), events[:shared/2])
							to.must(err)
						}
					}
					verdicts, err := to.rooms.AcceptFrom(context.Background(), events[len(events)-1:], from.source())
					switch {
					case requests <= stage:
						t.Skip("so many requests are not needed")
					case anew && err == nil:
						sameState(t, "before", to.stateBefore(last(events).ID), from.stateBefore(last(events).ID))
					case anew && !errors.Is(err, ErrGivenState):
						t.Errorf("verdicts %d, %v", verdicts, err)
					case !anew && !errors.Is(err, ErrUnknownRoom):
						t.Errorf("verdicts %d, %v", verdicts, err)
					}
					// The next call begins anew as well.
					from.pending = nil
					_, err = to.rooms.AcceptAll(context.Background(), events[:shared])
					to.must(err)
					to.acceptFrom(from, last(events))
					sameState(t, "current", to.current(room), from.current(room))
				})
			}
		}
	}
}
