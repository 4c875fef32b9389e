package state

import (
	"context"
	"errors"
	"slices"
	"testing"

	"hearth/state/matrix"
	"hearth/store"
)

// A purge takes everybody out of a room and removes it; what else there is stays.
func TestPurge(t *testing.T) {
	h := newHouse(t)
	kept := h.create(Creation{Creator: alice, Preset: PresetPublic})
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, Invite: []matrix.UserID{carol}})
	h.must(h.join(room, bob))
	sent := h.send(room, bob, "m.room.message", `{"body":"x"}`)
	var left []matrix.UserID
	removed := 0
	h.must(h.rooms.Purge(t.Context(), room, func(p PurgeProgress) {
		if p.Left != "" {
			left = append(left, p.Left)
		}
		removed = max(removed, p.Removed)
	}))
	slices.Sort(left)
	if !slices.Equal(left, []matrix.UserID{alice, bob, carol}) || removed == 0 {
		t.Errorf("%v left, %d records removed", left, removed)
	}
	h.must(h.store.View(func(tx *store.Tx) error {
		if _, _, err := Head(tx, room); !errors.Is(err, ErrUnknownRoom) {
			t.Errorf("head of the room: %v", err)
		}
		if _, _, known := tx.EventByID(sent); known {
			t.Error("its events are known")
		}
		for _, user := range []matrix.UserID{alice, bob, carol} {
			m, known, err := tx.LocalMembership(tx.UserNum(user), tx.RoomNum(room))
			if err != nil || !known || m.Membership != matrix.Leave {
				t.Errorf("%s: %+v, %v", user, m, err)
			}
		}
		rooms, err := Joined(tx, tx.UserNum(alice))
		if !slices.Equal(rooms, []matrix.RoomID{kept}) {
			t.Errorf("alice is in %v", rooms)
		}
		return err
	}))
	if err := h.join(room, bob); err == nil {
		t.Error("bob joins a room that is gone")
	}
	for _, id := range []matrix.RoomID{room, "!nowhere:home.example"} {
		if err := h.rooms.Purge(t.Context(), id, func(PurgeProgress) {}); !errors.Is(err, ErrUnknownRoom) {
			t.Errorf("purge of %s: %v", id, err)
		}
	}
}

// A purge that was cut short is gone on with by the next.
func TestPurgeCutShort(t *testing.T) {
	h := newHouse(t)
	room := growForks(h, "12", 5, 30).id
	ctx, cancel := context.WithCancel(t.Context())
	err := h.rooms.Purge(ctx, room, func(p PurgeProgress) {
		if p.Removed > 0 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cut short: %v", err)
	}
	if _, err := h.set(room, alice, "m.room.topic", "", `{}`); !errors.Is(err, ErrForbidden) {
		t.Errorf("an event for a room that is half gone: %v", err)
	}
	h.must(h.rooms.Purge(t.Context(), room, func(PurgeProgress) {}))
	if err := h.rooms.Purge(t.Context(), room, func(PurgeProgress) {}); !errors.Is(err, ErrUnknownRoom) {
		t.Errorf("once more: %v", err)
	}
}
