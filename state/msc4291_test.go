package state

import (
	"slices"
	"testing"
	"time"

	"hearth/state/matrix"
)

// The cases of MSC4291, "Room IDs as hashes of the create event", that are about the
// rooms made here; its rules are in package auth. That `predecessor.event_id` is left
// out of a room whose ID the tombstone names is in [TestUpgrade].
func TestMSC4291(t *testing.T) {
	for _, v := range matrix.Versions() {
		h := newHouse(t)
		room := h.create(Creation{Creator: alice, Preset: PresetPrivate, Version: v.ID, Invite: []matrix.UserID{bob}})
		h.must(h.join(room, bob))
		h.send(room, bob, "m.room.message", `{"body":"hi"}`)
		events := h.all(room)
		create := events[0]
		if got := room == matrix.RoomID("!"+create.ID[1:]); got != v.RoomIDIsHash {
			t.Errorf("version %s: room %s of create event %s", v.ID, room, create.ID)
		}
		for _, ev := range events[1:] {
			// "As the `room_id` is the create event ID, and all `auth_events` cite an
			// `m.room.create` event, the `auth_events` no longer specify the create event ID."
			if cites := slices.Contains(ev.AuthEvents, create.ID); cites == v.RoomIDIsHash {
				t.Errorf("version %s: %s cites the create event: %v", v.ID, ev.Type, cites)
			}
			if ev.Room != room {
				t.Errorf("version %s: %s is of %s", v.ID, ev.Type, ev.Room)
			}
		}
	}
}

// "Servers may accidentally create the same room if a client creates >1 room in a
// single millisecond." Here two equal rooms of one millisecond are two.
func TestMSC4291EqualRooms(t *testing.T) {
	h := newHouse(t)
	now := h.rooms.now()
	h.rooms.now = func() time.Time { return now }
	one := h.create(Creation{Creator: alice, Preset: PresetPrivate})
	two := h.create(Creation{Creator: alice, Preset: PresetPrivate})
	if one == two {
		t.Errorf("both rooms are %s", one)
	}
}
