package state

import (
	"context"
	"errors"
	"maps"
	"sync/atomic"
	"testing"
	"time"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// number returns the store's number of a room.
func (h *house) number(room matrix.RoomID) (num store.RoomNum) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) error {
		num = tx.RoomNum(room)
		return nil
	}))
	return num
}

// states returns the state before each event of a room's timeline, and the
// current one under "".
func (h *house) states(room matrix.RoomID) map[matrix.EventID]map[auth.Key]matrix.EventID {
	h.Helper()
	states := make(map[matrix.EventID]map[auth.Key]matrix.EventID)
	for _, ev := range h.all(room) {
		states[ev.ID] = h.stateBefore(ev.ID)
	}
	return states
}

// A room that forks leaves snapshots behind that nothing refers to. They go, and
// no state changes; a room that has none is left as it is.
func TestCollect(t *testing.T) {
	for _, version := range []string{"1", "11", "12"} {
		h := newHouse(t)
		room := growForks(h, version, 7, 50).id
		plain := h.create(Creation{Creator: alice, Preset: PresetPrivate})
		want := h.states(room)
		if rooms, err := h.rooms.littered(); err != nil || len(rooms) != 1 || rooms[0] != h.number(room) {
			t.Fatalf("rooms to collect: %v, %v", rooms, err)
		}
		removed, err := h.rooms.collect(t.Context(), h.number(room))
		h.must(err)
		if removed == 0 {
			t.Errorf("version %s: a room of forks has no garbage", version)
		}
		if rooms, err := h.rooms.littered(); err != nil || len(rooms) != 0 {
			t.Errorf("rooms to collect after that: %v, %v", rooms, err)
		}
		for _, id := range []matrix.RoomID{room, plain} {
			if removed, err = h.rooms.collect(t.Context(), h.number(id)); removed != 0 || err != nil {
				t.Errorf("version %s: %d records removed where nothing is to collect: %v", version, removed, err)
			}
		}
		if got := h.states(room); !maps.EqualFunc(got, want, maps.Equal) {
			t.Errorf("version %s: states have changed", version)
		}
	}
}

// Events are accepted and drafted while the room is collected again and again.
// What they build on stays: Check finds every snapshot that an event refers to.
func TestCollectMeanwhile(t *testing.T) {
	grown := newHouse(t)
	events := growForks(grown, "12", 11, 60).events
	h := newHouse(t)
	accept := func(ev *matrix.Event) {
		_, err := h.rooms.Accept(context.Background(), ev)
		h.must(err)
	}
	order := causalShuffle(events, 3)
	accept(order[0])
	ctx, stop := context.WithCancel(t.Context())
	var removed atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		rounds := 0
		for ; ctx.Err() == nil; rounds++ {
			n, err := h.rooms.collect(ctx, h.number(events[0].Room))
			if err != nil && ctx.Err() == nil {
				t.Errorf("collect: %v", err)
			}
			removed.Add(int64(n))
		}
		t.Logf("%d records removed in %d collections", removed.Load(), rounds)
	}()
	for _, ev := range order[1:] {
		accept(ev)
	}
	for deadline := time.Now().Add(time.Minute); removed.Load() == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	stop()
	<-ended
	if removed.Load() == 0 {
		t.Error("nothing was collected")
	}
	_, err := h.rooms.collect(context.Background(), h.number(events[0].Room))
	h.must(err)
	for _, ev := range events {
		if stored := h.event(ev.ID); stored.Rejected || stored.SoftFailed {
			continue
		}
		if got, want := h.stateBefore(ev.ID), grown.stateBefore(ev.ID); !maps.Equal(got, want) {
			t.Errorf("state before %s: %v, want %v", ev.ID, got, want)
		}
	}
}

// When a room is collected: by its forks and its size, or after hours.
func TestLitter(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPrivate})
	for range 200 {
		_, err := h.set(room, alice, "m.room.topic", "", `{"topic":"`+time.Now().String()+`"}`)
		h.must(err)
	}
	num := h.number(room)
	due := func() bool {
		rooms, err := h.rooms.littered()
		h.must(err)
		return len(rooms) == 1 && rooms[0] == num
	}
	if h.rooms.litter.add(num, h.rooms.now()); due() {
		t.Error("a room of 200 changes is collected after one fork")
	}
	for range 10 {
		h.rooms.litter.add(num, h.rooms.now())
	}
	if !due() {
		t.Error("a room of 200 changes is not collected after eleven forks")
	}
	h.rooms.litter.take(num)
	if due() {
		t.Error("a room is collected that has not forked")
	}
	if h.rooms.litter.add(num, h.rooms.now().Add(-maxLitterAge)); !due() {
		t.Error("a room is not collected that forked hours ago")
	}
}

// Run ends with its context, and first goes on with what was cut short.
func TestRunResumesPurges(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPrivate})
	num := h.number(room)
	h.must(h.change(room, alice, alice, matrix.Leave))
	h.must(h.store.Update(t.Context(), func(tx *store.Tx) error {
		_, err := tx.BeginPurge(num)
		return err
	}))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- h.rooms.Run(ctx) }()
	for purging := true; purging; time.Sleep(time.Millisecond) {
		h.must(h.store.View(func(tx *store.Tx) error {
			purging = false
			return tx.Purges(func(store.RoomNum) (bool, error) {
				purging = true
				return false, nil
			})
		}))
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v", err)
	}
}
