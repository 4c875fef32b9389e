package auth_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// The cases of MSC4291, "Room IDs as hashes of the create event", that are rules,
// and those of MSC4307, "Validate that auth_events are in the correct room", which
// overlaps with it and holds in every version.
func TestMSC4291(t *testing.T) { runCases(t, msc4291Cases) }

func TestMSC4307(t *testing.T) { runCases(t, msc4307Cases) }

var msc4291Cases = []ruleCase{
	// "If the event's `room_id` is not an event ID for an accepted (not rejected)
	// `m.room.create` event, with the sigil `$` replaced with sigil `!`, reject."
	{rule: auth.NoCreate, name: "state of another room", on: roomIDIsHash, run: func(r *room) error {
		other := newRoom(r.t, r.v, `,"m.other":1`)
		return auth.Check(r.message(alice), other.state)
	}},
	{rule: auth.NoCreate, name: "create event was rejected", on: roomIDIsHash, run: func(r *room) error {
		return r.checkAuth(r.crowd().message(carol), nil, r.create)
	}},
	{rule: auth.NoCreate, name: "create event of another room", on: roomIDIsHash, run: func(r *room) error {
		m := r.crowd().message(carol)
		r.put(newRoom(r.t, r.v, `,"m.other":1`).create)
		return r.checkAuth(m, nil)
	}},
	{rule: auth.NoCreate, name: "room ID of an event that is no create event", on: roomIDIsHash, run: func(r *room) error {
		m := r.crowd().message(carol)
		room := matrix.RoomID("!" + r.get("m.room.power_levels", "").ID[1:])
		return r.checkAuth(with(m, func(ev *matrix.Event) { ev.Room = room }), nil)
	}},
	{rule: auth.NoCreate, name: "room ID with a server, as before", on: roomIDIsHash, run: func(r *room) error {
		m := r.crowd().message(carol)
		return r.checkAuth(with(m, func(ev *matrix.Event) { ev.Room += ":a.example" }), nil)
	}},
	{rule: auth.NoCreate, name: "the room's own", on: roomIDIsHash, ok: true, run: asSelected},

	// "MUST NOT contain the create event ID. This is already implied by the `room_id`
	// field."
	{rule: auth.AuthExcess, name: "create event", on: roomIDIsHash, run: func(r *room) error {
		return r.checkAuth(citing(r.crowd().message(carol), r.create), nil)
	}},
	// "Remove auth rule 2.4 (“If there is no `m.room.create` event among the entries,
	// reject.”)"
	{rule: auth.CreateHasPrev, name: "no create event among the entries", on: roomIDIsHash, ok: true, run: asSelected},
	// "Change auth rule 1.2 (“If the domain of the `room_id` does not match the domain of
	// the sender, reject.”)": the ID has none.
	{rule: auth.CreateHasPrev, name: "a room ID without a server", on: roomIDIsHash, ok: true, run: func(r *room) error {
		if _, has := r.create.Room.Server(); has {
			return errors.New("the room ID has a server")
		}
		return r.check(r.create)
	}},
}

var msc4307Cases = []ruleCase{
	// "If any `auth_event` has a `room_id` which does not match that of the event being
	// authorised, reject."
	{rule: auth.AuthOtherRoom, name: "levels", run: func(r *room) error {
		m := r.crowd().message(carol)
		r.put(with(r.get("m.room.power_levels", ""), func(ev *matrix.Event) { ev.Room = "!other:a.example" }))
		return r.checkAuth(m, nil)
	}},
	{rule: auth.AuthOtherRoom, name: "membership of a room that is real", run: func(r *room) error {
		m := r.crowd().message(carol)
		other := newRoom(r.t, r.v, `,"m.other":1`)
		other.id = "!other:a.example"
		if r.v.RoomIDIsHash {
			other.id = other.create.Room
		}
		joined := other.member(carol, "join")
		own := slices.Index(m.AuthEvents, r.get("m.room.member", string(carol)).ID)
		m = with(m, func(ev *matrix.Event) {
			ev.AuthEvents = slices.Clone(ev.AuthEvents)
			ev.AuthEvents[own] = joined.ID
		})
		return r.checkAuth(m, []*matrix.Event{joined})
	}},
	{rule: auth.AuthOtherRoom, name: "same room", ok: true, run: asSelected},
}

// "We redescribe the room ID to be the event ID of the room's `m.room.create` event
// with the room ID sigil `!` instead of the event ID sigil `$`." Two rooms that begin
// differently have two IDs, and the create event says none.
func TestMSC4291RoomID(t *testing.T) {
	for _, v := range matrix.Versions() {
		create := newRoom(t, v).create
		derived := matrix.RoomID("!" + create.ID[1:])
		if got := create.Room == derived; got != v.RoomIDIsHash {
			t.Errorf("version %s: room %s of create event %s", v.ID, create.Room, create.ID)
		}
		if got := strings.Contains(string(create.JSON()), `"room_id"`); got == v.RoomIDIsHash {
			t.Errorf("version %s: %s", v.ID, create.JSON())
		}
		if !v.RoomIDIsHash {
			continue
		}
		if len(create.Room) != 44 {
			t.Errorf("version %s: %s is not ! and 43 characters", v.ID, create.Room)
		}
		if other := newRoom(t, v, `,"m.other":1`).create; other.Room == create.Room {
			t.Errorf("version %s: two rooms are %s", v.ID, other.Room)
		}
		// "If the create event has a `room_id`, reject": it cannot even be read.
		named := strings.Replace(string(create.JSON()), "{", `{"room_id":"`+string(create.Room)+`",`, 1)
		if _, err := matrix.Parse(v, []byte(named)); !errors.Is(err, matrix.ErrBadJSON) {
			t.Errorf("version %s: a create event with a room ID: %v", v.ID, err)
		}
	}
}
