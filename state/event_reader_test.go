package state

import (
	"context"
	"errors"
	"slices"
	"testing"

	"hearth/state/matrix"
	"hearth/store"
)

// What is read a few at a time is what one View would have read, and both ways to
// find an auth chain find what the events say.
func TestEventReader(t *testing.T) {
	for _, version := range []string{"2", "11", "12"} {
		t.Run(version, func(t *testing.T) {
			h := newHouse(t)
			f := growForks(h, version, 7, 120)
			w := newWholeRoom(h, f)
			r, err := NewEventReader(h.store, f.id)
			h.must(err)
			var befores []store.SnapshotID
			h.must(h.store.View(func(tx *store.Tx) error {
				return tx.UsedSnapshots(r.room, func(snap store.SnapshotID) error {
					befores = append(befores, snap)
					return nil
				})
			}))
			for _, snap := range befores {
				h.compareReader(r, w, snap)
			}
		})
	}
}

// compareReader reads a snapshot and its auth chain.
func (h *house) compareReader(r *EventReader, w *wholeRoom, snap store.SnapshotID) {
	h.Helper()
	ctx := context.Background()
	nums, err := r.State(ctx, snap)
	h.must(err)
	want := make(map[matrix.EventID]bool)
	h.must(h.store.View(func(tx *store.Tx) error {
		state, err := stateAt(tx, r.room, snap)
		if len(state) != len(nums) {
			h.Fatalf("a state of %d events, want %d", len(nums), len(state))
		}
		for _, id := range state {
			w.chain(id, want)
		}
		return err
	}))
	descended, err := r.descendChain(ctx, nums)
	h.must(err)
	scanned, err := r.scanChain(ctx, nums)
	h.must(err)
	if snap == 0 || len(nums) == 1 {
		scanned = descended // nothing is cited, of which scanChain is never asked
	}
	for way, chain := range map[string][]store.EventNum{"descended": descended, "scanned": scanned} {
		w.same(way, h.readIDs(r, chain), want)
	}
	var events []matrix.EventID
	h.must(r.Events(ctx, nums, func(ev *store.StoredEvent) error {
		events = append(events, ev.ID)
		return nil
	}))
	if ids := h.readIDs(r, nums); !slices.Equal(ids, events) {
		h.Errorf("the state is %s by IDs and %s by events", ids, events)
	}
}

func (h *house) readIDs(r *EventReader, nums []store.EventNum) (ids []matrix.EventID) {
	h.Helper()
	h.must(r.IDs(context.Background(), nums, func(id matrix.EventID) error {
		ids = append(ids, id)
		return nil
	}))
	return ids
}

// A room that is purged and begins again is not the one that was read.
func TestEventReaderEndsWithItsRoom(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic})
	r, err := NewEventReader(h.store, room)
	h.must(err)
	events := h.all(room)
	h.must(h.rooms.Purge(t.Context(), room, func(PurgeProgress) {}))
	h.arrive(events)
	if _, err := r.State(context.Background(), 1); !errors.Is(err, errBegunAnew) {
		t.Errorf("%v, want %v", err, errBegunAnew)
	}
}
