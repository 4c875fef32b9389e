package auth_test

import "hearth/state/auth"

// eventCases are the rules for events of every type but those with rules of their
// own.
var eventCases = []ruleCase{
	{rule: auth.NotJoined, name: "stranger", text: "You are not in this room", run: func(r *room) error {
		return r.crowd().check(r.message(eve))
	}},
	{rule: auth.NotJoined, name: "invited", run: func(r *room) error {
		r.crowd().member(eve, "invite")
		return r.check(r.message(eve))
	}},
	{rule: auth.NotJoined, name: "left", run: func(r *room) error {
		r.crowd().member(carol, "leave")
		return r.check(r.message(carol))
	}},
	{rule: auth.NotJoined, name: "creator who left", run: func(r *room) error {
		r.member(alice, "leave")
		return r.check(r.message(alice))
	}},
	{rule: auth.NotJoined, name: "member", ok: true, run: func(r *room) error { return r.crowd().check(r.message(carol)) }},

	{rule: auth.ThirdPartyInviteLevel, name: "below", text: "You need power level 30 to invite, yours is 20", run: func(r *room) error {
		r.crowd().levels(`{"invite":30,"users":{"@dave:d.example":20}}`)
		return r.check(r.event(dave, "m.room.third_party_invite", key("token"), `{}`))
	}},
	{rule: auth.ThirdPartyInviteLevel, name: "at, whatever state needs", ok: true, run: func(r *room) error {
		r.crowd().levels(`{"events":{"m.room.third_party_invite":100},"invite":20,"state_default":100,"users":{"@dave:d.example":20}}`)
		return r.check(r.event(dave, "m.room.third_party_invite", key("@x"), `{}`))
	}},

	{rule: auth.RequiredLevel, name: "state by default", text: "You need power level 50 to send m.room.name, yours is 20",
		run: func(r *room) error { return r.crowd().check(r.event(dave, "m.room.name", key(""), `{}`)) }},
	{rule: auth.RequiredLevel, name: "state without levels", run: func(r *room) error {
		r.member(bob, "join")
		return r.check(r.event(bob, "m.room.name", key(""), `{}`))
	}},
	{rule: auth.RequiredLevel, name: "message without levels", ok: true, run: func(r *room) error {
		r.member(bob, "join")
		return r.check(r.message(bob))
	}},
	{rule: auth.RequiredLevel, name: "creator without levels", ok: true, run: func(r *room) error {
		return r.check(r.event(alice, "m.room.name", key(""), `{}`))
	}},
	{rule: auth.RequiredLevel, name: "creator whom levels leave out", on: unprivileged, run: func(r *room) error {
		return r.crowd().check(r.event(alice, "m.room.name", key(""), `{}`))
	}},
	{rule: auth.RequiredLevel, name: "message above events_default", run: func(r *room) error {
		r.crowd().levels(`{"events_default":10,"users_default":9}`)
		return r.check(r.message(carol))
	}},
	{rule: auth.RequiredLevel, name: "message at events_default", ok: true, run: func(r *room) error {
		r.crowd().levels(`{"events_default":10,"users_default":10}`)
		return r.check(r.message(carol))
	}},
	{rule: auth.RequiredLevel, name: "named type", run: func(r *room) error {
		r.crowd().levels(`{"events":{"m.room.message":1}}`)
		return r.check(r.message(carol))
	}},
	{rule: auth.RequiredLevel, name: "named type below the default", ok: true, run: func(r *room) error {
		r.crowd().levels(`{"events":{"m.room.name":0}}`)
		return r.check(r.event(carol, "m.room.name", key(""), `{}`))
	}},
	{rule: auth.RequiredLevel, name: "own level below users_default", run: func(r *room) error {
		r.crowd().levels(`{"users":{"@carol:c.example":-1}}`)
		return r.check(r.message(carol))
	}},

	{rule: auth.ForeignStateKey, name: "another user's", text: `State with the key "@carol:c.example" can only be set by that user`,
		run: func(r *room) error {
			return r.crowd().check(r.event(bob, "org.example.status", key(string(carol)), `{}`))
		}},
	{rule: auth.ForeignStateKey, name: "begins with @", run: func(r *room) error {
		return r.crowd().check(r.event(bob, "org.example.status", key("@"), `{}`))
	}},
	{rule: auth.ForeignStateKey, name: "own", ok: true, run: func(r *room) error {
		return r.crowd().check(r.event(bob, "org.example.status", key(string(bob)), `{}`))
	}},
	{rule: auth.ForeignStateKey, name: "no @", ok: true, run: func(r *room) error {
		return r.crowd().check(r.event(bob, "org.example.status", key("bob"), `{}`))
	}},
	{rule: auth.ForeignStateKey, name: "m.room.aliases once it is like others", ok: true, run: func(r *room) error {
		return r.crowd().check(r.event(bob, "m.room.aliases", key("b.example"), `{}`))
	}},
}
