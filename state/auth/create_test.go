package auth_test

import (
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// created is the room's own create event with other content.
func (r *room) created(content string) *matrix.Event {
	return with(r.create, func(ev *matrix.Event) { ev.Content = jsontext.Value(content) })
}

var createCases = []ruleCase{
	{rule: auth.CreateHasPrev, name: "after another event", run: func(r *room) error {
		return r.check(with(r.create, func(ev *matrix.Event) { ev.PrevEvents = []matrix.EventID{"$other:a.example"} }))
	}},
	{rule: auth.CreateHasPrev, name: "first", ok: true, run: func(r *room) error { return r.check(r.create) }},

	{rule: auth.CreateRoomID, name: "on another server", text: `A room on "b.example" can only be created there`,
		run: func(r *room) error {
			return r.check(with(r.create, func(ev *matrix.Event) { ev.Room = "!room:b.example" }))
		}},
	{rule: auth.CreateRoomID, name: "without a server", run: func(r *room) error {
		return r.check(with(r.create, func(ev *matrix.Event) { ev.Room = "!room" }))
	}},
	{rule: auth.CreateRoomID, name: "on the sender's server", ok: true, run: func(r *room) error {
		return r.check(r.create)
	}},

	{rule: auth.CreateUnknownVersion, name: "unknown", text: `There is no room version "99"`,
		run: func(r *room) error { return r.check(r.created(`{"room_version":"99","creator":"@alice:a.example"}`)) }},
	{rule: auth.CreateUnknownVersion, name: "a number", run: func(r *room) error {
		return r.check(r.created(`{"creator":"@alice:a.example","room_version":1}`))
	}},
	{rule: auth.CreateUnknownVersion, name: "null", run: func(r *room) error {
		return r.check(r.created(`{"creator":"@alice:a.example","room_version":null}`))
	}},
	{rule: auth.CreateUnknownVersion, name: "absent", ok: true, run: func(r *room) error {
		return r.check(r.created(`{"creator":"@alice:a.example"}`))
	}},
	{rule: auth.CreateUnknownVersion, name: "with escapes", ok: true, run: func(r *room) error {
		return r.check(r.created(`{"creator":"@alice:a.example","room\u005fversion":"\u0031"}`))
	}},

	{rule: auth.CreateNoCreator, name: "no creator", run: func(r *room) error { return r.check(r.created(`{}`)) }},
	{rule: auth.CreateNoCreator, name: "creator", ok: true, run: func(r *room) error {
		return r.check(r.created(`{"creator":"@bob:b.example"}`))
	}},
}

var roomCases = []ruleCase{
	{rule: auth.NoCreate, name: "empty state", run: func(r *room) error {
		return auth.Check(r.message(alice), func(string, string) (*matrix.Event, error) { return nil, nil })
	}},
	{rule: auth.NoCreate, name: "created", ok: true, run: func(r *room) error { return r.check(r.message(alice)) }},

	{rule: auth.NotFederated, name: "other server", extra: `,"m.federate":false`,
		text: "This room is only for users of a.example",
		run:  func(r *room) error { r.joinRule("public"); return r.check(r.change(bob, bob, "join")) }},
	{rule: auth.NotFederated, name: "same server", extra: `,"m.federate":false`, ok: true,
		run: func(r *room) error { r.joinRule("public"); return r.check(r.change(anna, anna, "join")) }},
	{rule: auth.NotFederated, name: "federated", extra: `,"m.federate":true`, ok: true,
		run: func(r *room) error { r.joinRule("public"); return r.check(r.change(bob, bob, "join")) }},
	{rule: auth.NotFederated, name: "not a boolean", extra: `,"m.federate":"false"`, ok: true,
		run: func(r *room) error { r.joinRule("public"); return r.check(r.change(bob, bob, "join")) }},

	{rule: auth.AliasesNoStateKey, name: "message", run: func(r *room) error {
		return r.check(r.event(alice, "m.room.aliases", nil, `{}`))
	}},
	{rule: auth.AliasesNoStateKey, name: "state", ok: true, run: func(r *room) error {
		return r.check(r.event(alice, "m.room.aliases", key("a.example"), `{}`))
	}},
	{rule: auth.AliasesOtherServer, name: "other server", run: func(r *room) error {
		return r.check(r.event(alice, "m.room.aliases", key("b.example"), `{}`))
	}},
	{rule: auth.AliasesOtherServer, name: "nobody of the server is in the room", ok: true, run: func(r *room) error {
		return r.check(r.event(bob, "m.room.aliases", key("b.example"), `{}`))
	}},
}

func roomIDIsHash(v *matrix.Version) bool { return v.RoomIDIsHash }
