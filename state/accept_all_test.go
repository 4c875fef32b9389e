package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// Many events at once become what they become one by one.
func TestAcceptAllIsAcceptForEach(t *testing.T) {
	for _, version := range []string{"1", "6", "11", "12"} {
		t.Run(version, func(t *testing.T) {
			forked := growForks(newHouse(t), version, 9, 60)
			one, all := newHouse(t), newHouse(t)
			var want []Verdict
			for _, ev := range forked.events {
				want = append(want, one.accept(ev))
			}
			got, err := all.rooms.AcceptAll(context.Background(), forked.events)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("verdicts %d, one by one %d: %v", got, want, err)
			}
			for _, ev := range forked.events {
				a, b := all.stateBefore(ev.ID), one.stateBefore(ev.ID)
				for key := range merged(a, b) {
					if a[key] != b[key] {
						t.Errorf("before %s %v is %s, one by one %s", ev.ID, key, a[key], b[key])
					}
				}
			}
		})
	}
}

// What comes before an event that cannot be taken stays, and the rooms of a list
// may alternate.
func TestAcceptAllEndsAtAnError(t *testing.T) {
	from := newHouse(t)
	var events []*matrix.Event
	var lists [][]*matrix.Event
	for range 2 {
		room := from.create(Creation{Creator: alice, Preset: PresetPublic, Version: "11"})
		from.must(from.join(room, bob))
		lists = append(lists, from.all(room))
	}
	for i := range lists[0] {
		events = append(events, lists[0][i], lists[1][i])
	}
	missing := len(events) - 3
	given := slices.Delete(slices.Clone(events), missing-2, missing-1) // of the same room as the third from the end
	to := newHouse(t)
	verdicts, err := to.rooms.AcceptAll(context.Background(), given)
	var lacks *MissingError
	if !errors.As(err, &lacks) || len(verdicts) != missing-1 {
		t.Errorf("%d verdicts and %v, want %d and what is missing", len(verdicts), err, missing-1)
	}
	verdicts, err = to.rooms.AcceptAll(context.Background(), events)
	if err != nil || len(verdicts) != len(events) {
		t.Fatalf("the second time: %d verdicts, %v", len(verdicts), err)
	}
	for i, verdict := range verdicts {
		known := i < missing && i != missing-2
		if known != (verdict == Known) {
			t.Errorf("event %d: verdict %d", i, verdict)
		}
	}
}

// A list that ends between its writes can be handed in again.
func TestAcceptAllIsCutShort(t *testing.T) {
	forked := growForks(newHouse(t), "12", 5, 150)
	h := newHouse(t)
	done := 0
	for n := int64(0); done < len(forked.events); n = 1 {
		f := fuse{context.Background(), new(atomic.Int64)}
		f.left.Store(n)
		verdicts, err := h.rooms.AcceptAll(f, forked.events[done:])
		if done += len(verdicts); done < len(forked.events) && !errors.Is(err, context.Canceled) {
			t.Fatalf("%d of %d events: %v", done, len(forked.events), err)
		}
		if slices.Contains(verdicts, Known) {
			t.Fatal("an event without a verdict was taken")
		}
	}
}

// Forks that differ too much for the writer to wait are resolved without it, as
// one among many events and alone, and those that differ beyond all bounds are
// refused.
func TestWideForks(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: "12"})
	base := h.all(room)
	var list []*matrix.Event
	width := 2 * briefBounds.slots
	tips := make([]*matrix.Event, 2)
	for side := range tips {
		tips[side] = base[len(base)-1]
		for n := range width {
			key := fmt.Sprint(n)
			draft := matrix.Draft{Sender: alice, Type: "m.x", StateKey: &key, Content: fmt.Appendf(nil, `{"side":%d}`, side)}
			tips[side] = h.build(room, tips[side:side+1], int64(100+n), draft)
			list = append(list, tips[side])
		}
	}
	list = append(list, h.build(room, tips, 1000, matrix.Draft{Sender: alice, Type: "m.merge", Content: []byte(`{}`)}))
	verdicts, err := h.rooms.AcceptAll(context.Background(), list)
	if err != nil || len(verdicts) != len(list) || slices.ContainsFunc(verdicts, func(v Verdict) bool { return v != Accepted }) {
		t.Fatalf("verdicts %d: %v", verdicts, err)
	}
	state := h.stateBefore(list[len(list)-1].ID)
	for n := range width {
		if got, want := state[auth.Key{Type: "m.x", StateKey: fmt.Sprint(n)}], list[width+n].ID; got != want {
			t.Errorf("key %d: %s, want the newer %s", n, got, want)
		}
	}
	h.must(h.store.View(func(tx *store.Tx) error {
		m := resolution{tx: tx, room: tx.RoomNum(room), version: base[0].Version, cache: new(eventCache), bounds: briefBounds}
		for _, tip := range tips {
			_, num, _ := tx.EventByID(tip.ID)
			ev, err := tx.Event(m.room, num)
			if err != nil {
				return err
			}
			m.snapshots = append(m.snapshots, ev.Before)
		}
		if _, err := m.resolve(); !errors.Is(err, ErrTangled) {
			t.Errorf("%d slots within bounds of %d: %v", width, briefBounds.slots, err)
		}
		return nil
	}))
}
