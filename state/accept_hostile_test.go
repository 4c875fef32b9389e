package state

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// build makes an event on any events of a room, cited as its current state says.
func (h *house) build(room matrix.RoomID, prev []*matrix.Event, depth int64, draft matrix.Draft) *matrix.Event {
	h.Helper()
	placing := matrix.Placing{Depth: depth}
	for _, ev := range prev {
		placing.Prev = append(placing.Prev, ev.ID)
	}
	var version *matrix.Version
	h.must(h.store.View(func(tx *store.Tx) error {
		num, head, err := Head(tx, room)
		if err != nil {
			return err
		}
		version = head.Version
		for _, key := range auth.Needed(version, draft.Type, draft.Sender, draft.StateKey, draft.Content) {
			ev, err := EventAt(tx, num, head.Current, key.Type, key.StateKey)
			if err != nil {
				return err
			}
			if ev != nil {
				placing.Auth = append(placing.Auth, ev.ID)
			}
		}
		return nil
	}))
	draft.Room, draft.OriginServerTS = room, h.rooms.now().UnixMilli()
	ev, err := draft.Build(version, placing, "home.example", h.rooms.Key())
	h.must(err)
	return ev
}

func (h *house) accept(ev *matrix.Event) Verdict {
	h.Helper()
	verdict, err := h.rooms.Accept(context.Background(), ev)
	h.must(err)
	return verdict
}

func (h *house) head(room matrix.RoomID) (head store.Head) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) (err error) {
		_, head, err = Head(tx, room)
		return err
	}))
	return head
}

// Who has read the stream up to a position has seen every event below it: an
// event that takes its time to be accepted must not appear at a place that
// readers have passed.
func TestForksAppearInOrder(t *testing.T) {
	forked := growForks(newHouse(t), "11", 3, 40)
	h := newHouse(t)
	for _, ev := range forked.events[:8] {
		h.accept(ev)
	}
	var done atomic.Bool
	var watched = make(chan error)
	go func() { watched <- h.watchOrder(forked.id, &done) }()
	for _, ev := range forked.events[8:] {
		h.accept(ev)
	}
	done.Store(true)
	h.must(<-watched)
}

// watchOrder moves the stream on and looks for events that appear behind its
// back, until done.
func (h *house) watchOrder(room matrix.RoomID, done *atomic.Bool) error {
	seen, events := store.Position(0), 0
	for !done.Load() {
		err := h.store.Update(context.Background(), func(tx *store.Tx) error {
			user, err := tx.PutUserNum(alice)
			if err != nil {
				return err
			}
			return tx.PutAccountData(user, store.AccountData{Type: "m.x", Content: []byte(`{}`)})
		})
		if err != nil {
			return err
		}
		err = h.store.View(func(tx *store.Tx) error {
			below := 0
			err := tx.Timeline(tx.RoomNum(room), 0, func(ev *store.StoredEvent) (bool, error) {
				if ev.Num.Position() <= seen {
					below++
				}
				return true, nil
			})
			if below > events && seen > 0 {
				return fmt.Errorf("%d events up to position %d, where there were %d", below, seen, events)
			}
			seen, events = tx.Position(), 0
			if err != nil {
				return err
			}
			return tx.Timeline(tx.RoomNum(room), 0, func(*store.StoredEvent) (bool, error) { events++; return true, nil })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// fuse is a context that ends when it has been asked so many times.
type fuse struct {
	context.Context
	left *atomic.Int64
}

func (f fuse) Err() error {
	if f.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// An acceptance that ends between its writes, as by a crash, leaves nothing
// wrong, and the event can be accepted later.
func TestAcceptIsCutShort(t *testing.T) {
	forked := growForks(newHouse(t), "11", 5, 30)
	h := newHouse(t)
	for _, ev := range forked.events {
		for n := range int64(5) {
			f := fuse{context.Background(), new(atomic.Int64)}
			f.left.Store(n)
			if _, err := h.rooms.Accept(f, ev); err == nil {
				break
			}
			if n == 1 && len(ev.PrevEvents) > 1 {
				h.must(h.store.Check(context.Background(), func(fault string) { t.Errorf("cut short: %s", fault) }))
			}
		}
		h.accept(ev)
	}
}

// Events whose prev_events are odd have their state from what they name, once,
// and that in their own room.
func TestOddPrevEvents(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: "11"})
	h.must(h.join(room, bob))
	base := h.all(room)
	tip := base[len(base)-1]
	message := matrix.Draft{Sender: bob, Type: "m.room.message", Content: []byte(`{}`)}
	topic := matrix.Draft{Sender: alice, Type: "m.room.topic", StateKey: new(string), Content: []byte(`{"topic":"t"}`)}

	if got := h.accept(h.build(room, nil, 5, message)); got != Rejected {
		t.Errorf("an event without prev events: verdict %d", got)
	}
	other := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: "11"})
	foreign := h.all(other)[0]
	if got := h.accept(h.build(room, []*matrix.Event{tip, foreign}, 50, message)); got != Rejected {
		t.Errorf("an event behind one of another room: verdict %d", got)
	}
	cites := h.build(room, []*matrix.Event{tip}, 50, message)
	placing := matrix.Placing{Prev: cites.PrevEvents, Auth: append([]matrix.EventID{foreign.ID}, cites.AuthEvents[1:]...), Depth: 50}
	message.Room = room
	cites, err := message.Build(cites.Version, placing, "home.example", h.rooms.Key())
	h.must(err)
	if got := h.accept(cites); got != Rejected {
		t.Errorf("an event that cites one of another room: verdict %d", got)
	}

	first, second := h.build(room, []*matrix.Event{tip}, 60, topic), h.build(room, []*matrix.Event{tip}, 61, message)
	h.accept(first)
	h.accept(second)
	twice := h.build(room, []*matrix.Event{second, second}, 62, message)
	h.accept(twice)
	if _, has := h.stateBefore(twice.ID)[auth.Key{Type: "m.room.topic"}]; has {
		t.Error("an event that names one of two extremities twice has the state behind the other")
	}
	if n := len(h.head(room).Extremities); n != 2 {
		t.Errorf("%d extremities, want 2", n)
	}
}

// The depth that an event claims is anything; the head's is that of the
// extremities, which the check at the end of each test compares.
func TestDepthOfForks(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: "11"})
	base := h.all(room)
	message := matrix.Draft{Sender: alice, Type: "m.room.message", Content: []byte(`{}`)}
	high := h.build(room, base[len(base)-1:], 1<<50, message)
	h.accept(high)
	low := h.build(room, base[len(base)-1:], 3, message)
	h.accept(low)
	h.accept(h.build(room, []*matrix.Event{high}, 4, message))
	if got := h.head(room).Depth; got != 4 {
		t.Errorf("the head has depth %d, want 4", got)
	}
}

// Forks without end do not make a head without end, and the oldest of them still
// has its say in the room's state.
func TestManyForks(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: "11"})
	h.must(h.join(room, bob))
	base := h.all(room)
	tip := base[len(base)-1:]
	key := string(bob)
	ban := matrix.Draft{Sender: alice, Type: "m.room.member", StateKey: &key, Content: []byte(`{"membership":"ban"}`)}
	h.accept(h.build(room, tip, 50, ban))
	for i := range 2 * maxPrevEvents {
		h.accept(h.build(room, tip, 50, matrix.Draft{Sender: alice, Type: "m.x", StateKey: new(string), Content: fmt.Appendf(nil, `{"n":%d}`, i)}))
	}
	head := h.head(room)
	if n := len(head.Extremities); n > maxPrevEvents {
		t.Errorf("%d extremities", n)
	}
	h.must(h.store.View(func(tx *store.Tx) error {
		ev, err := Current(tx, room, "m.room.member", key)
		if err == nil {
			if member, err := ev.Member(); err != nil || member.Membership != matrix.Ban {
				t.Errorf("bob is %q: %v", member.Membership, err)
			}
		}
		return err
	}))
}
