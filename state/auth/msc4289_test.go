package auth_test

import (
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// The cases of MSC4289, "Explicitly privilege room creators", that are rules; how
// rooms are created and upgraded is in package state. Each group of cases stands
// below the sentence that states it.
func TestMSC4289(t *testing.T) { runCases(t, msc4289Cases) }

// twoCreators makes bob a creator beside alice.
const twoCreators = `,"additional_creators":["@bob:b.example"]`

// highest is the largest integer of canonical JSON.
const highest = "9007199254740991"

var msc4289Cases = []ruleCase{
	// "If the `additional_creators` field is present and is not an array of strings
	// where each string passes the same user ID validation that is applied to the
	// `sender`, reject."
	{rule: auth.CreateBadCreators, name: "an object", run: func(r *room) error {
		return r.check(r.created(`{"additional_creators":{}}`))
	}},
	{rule: auth.CreateBadCreators, name: "a string", run: func(r *room) error {
		return r.check(r.created(`{"additional_creators":"@bob:b.example"}`))
	}},
	{rule: auth.CreateBadCreators, name: "null", run: func(r *room) error {
		return r.check(r.created(`{"additional_creators":null}`))
	}},
	{rule: auth.CreateBadCreators, name: "a number among them", run: func(r *room) error {
		return r.check(r.created(`{"additional_creators":["@bob:b.example",1]}`))
	}},
	{rule: auth.CreateBadCreators, name: "not a user ID", run: func(r *room) error {
		return r.check(r.created(`{"additional_creators":["bob"]}`))
	}},
	{rule: auth.CreateBadCreators, name: "an empty one among them", run: func(r *room) error {
		return r.check(r.created(`{"additional_creators":["@bob:b.example",""]}`))
	}},
	{rule: auth.CreateBadCreators, name: "none", ok: true, run: func(r *room) error {
		return r.check(r.created(`{"additional_creators":[]}`))
	}},
	// "User IDs in `additional_creators` are NOT bound to the creator server: any valid
	// user ID may be provided." "If this proposal is too strict, it would prevent
	// historical user IDs from joining rooms with this MSC."
	{rule: auth.CreateBadCreators, name: "user IDs of other servers and of old", ok: true, run: func(r *room) error {
		return r.check(r.created(`{"additional_creators":["@bob:b.example","@Old Name:c.example"]}`))
	}},
	{rule: auth.CreateHasPrev, name: "creators of no form where there are none", on: unprivileged, ok: true, run: func(r *room) error {
		return r.check(r.created(`{"additional_creators":7,"creator":"@alice:a.example"}`))
	}},

	// "If the `users` property in `content` contains the `sender` of the
	// `m.room.create` event or any of the user IDs in the create event's
	// `additional_creators` array within `content`, reject."
	{rule: auth.PowerListsCreator, name: "sender", text: "@alice:a.example created this room and cannot be given a power level",
		run: firstLevels(`{"users":{"@alice:a.example":100}}`)},
	{rule: auth.PowerListsCreator, name: "additional", extra: twoCreators, run: firstLevels(`{"users":{"@bob:b.example":100}}`)},
	{rule: auth.PowerListsCreator, name: "the highest level", run: firstLevels(`{"users":{"@alice:a.example":` + highest + `}}`)},
	{rule: auth.PowerListsCreator, name: "demoted by oneself", run: firstLevels(`{"users":{"@alice:a.example":0}}`)},
	{rule: auth.PowerListsCreator, name: "demoted by another creator", extra: twoCreators, run: func(r *room) error {
		r.member(bob, "join")
		return r.check(r.power(bob, `{"users":{"@alice:a.example":0}}`))
	}},
	{rule: auth.PowerListsCreator, name: "when there are levels already", run: func(r *room) error {
		r.levels(`{}`)
		return r.check(r.power(alice, `{"users":{"@alice:a.example":100}}`))
	}},
	{rule: auth.PowerListsCreator, name: "others", ok: true, extra: twoCreators,
		run: firstLevels(`{"users":{"@carol:c.example":100}}`)},
	// "Instead, the `users` map will be empty"
	{rule: auth.PowerListsCreator, name: "nobody", ok: true, run: firstLevels(`{"users":{}}`)},
	{rule: auth.PowerUserMalformed, name: "creator where creators are like others", on: unprivileged, ok: true, extra: twoCreators,
		run: firstLevels(`{"users":{"@alice:a.example":100,"@bob:b.example":100}}`)},

	// "Update auth rules so that the ‘room creator’ and `additional_creators` are always
	// considered to have infinite power level."
	{rule: auth.RequiredLevel, name: "creator whom levels leave out", on: privileged, ok: true, run: func(r *room) error {
		r.crowd().levels(`{"events":{"m.room.name":` + highest + `}}`)
		return r.check(r.event(alice, "m.room.name", key(""), `{}`))
	}},
	{rule: auth.RequiredLevel, name: "additional creator whom levels leave out", on: privileged, ok: true, extra: twoCreators, run: func(r *room) error {
		r.crowd().levels(`{"events":{"m.room.name":` + highest + `}}`)
		return r.check(r.event(bob, "m.room.name", key(""), `{}`))
	}},
	{rule: auth.RequiredLevel, name: "additional creator without any levels", on: privileged, ok: true, extra: twoCreators, run: func(r *room) error {
		r.member(bob, "join")
		return r.check(r.event(bob, "m.room.name", key(""), `{}`))
	}},
	{rule: auth.RequiredLevel, name: "additional creator before there were", on: unprivileged, extra: twoCreators, run: func(r *room) error {
		r.member(bob, "join")
		return r.check(r.event(bob, "m.room.name", key(""), `{}`))
	}},
	{rule: auth.PowerLevelAboveNew, name: "by a creator", on: privileged, ok: true, run: func(r *room) error {
		r.levels(`{"ban":` + highest + `,"events":{"m.x":` + highest + `},"users":{"@bob:b.example":` + highest + `}}`)
		return r.check(r.power(alice, `{"kick":`+highest+`,"users":{"@carol:c.example":`+highest+`}}`))
	}},
	{rule: auth.JoinUnauthorised, name: "vouched by a creator", ok: true, on: privileged, run: func(r *room) error {
		r.joinRule("restricted")
		r.levels(`{"invite":` + highest + `}`)
		return r.check(r.change(bob, bob, "join", `,"join_authorised_via_users_server":"@alice:a.example"`))
	}},
	{rule: auth.InviteLevel, name: "by a creator", ok: true, on: privileged, run: func(r *room) error {
		r.levels(`{"invite":` + highest + `}`)
		return r.check(r.change(alice, bob, "invite"))
	}},
	{rule: auth.ThirdPartyInviteLevel, name: "by a creator", ok: true, on: privileged, run: func(r *room) error {
		r.levels(`{"invite":` + highest + `}`)
		return r.check(r.event(alice, "m.room.third_party_invite", key("token"), `{}`))
	}},
	// Power is no membership.
	{rule: auth.JoinRefused, name: "additional creator first", on: privileged, extra: twoCreators, run: firstJoin(bob, bob)},
	{rule: auth.NotJoined, name: "additional creator outside", on: privileged, extra: twoCreators,
		run: func(r *room) error { return r.check(r.message(bob)) }},
	{rule: auth.JoinBanned, name: "additional creator who was banned before", on: privileged, extra: twoCreators, run: joins("public", "ban")},

	// "This MSC gives the room creator(s) an ability to demote those admins". "Users
	// with MAX_INT power level are still less than creators."
	{rule: auth.PowerUserAboveOld, name: "a creator demotes the highest", ok: true, on: privileged, run: func(r *room) error {
		r.levels(`{"users":{"@bob:b.example":` + highest + `}}`)
		return r.check(r.power(alice, `{}`))
	}},
	{rule: auth.PowerUserAboveOld, name: "the highest do not demote each other", on: privileged, run: func(r *room) error {
		r.member(bob, "join")
		r.levels(`{"users":{"@bob:b.example":` + highest + `,"@carol:c.example":` + highest + `}}`)
		return r.check(r.power(bob, `{"users":{"@bob:b.example":`+highest+`}}`))
	}},
	{rule: auth.KickLevel, name: "a creator", text: `You cannot kick "@alice:a.example", who created this room`, on: privileged,
		run: func(r *room) error {
			r.crowd().levels(`{"users":{"@bob:b.example":` + highest + `}}`)
			return r.check(r.change(bob, alice, "leave"))
		}},
	{rule: auth.KickLevel, name: "one creator another", on: privileged, extra: twoCreators,
		run: func(r *room) error { r.member(bob, "join"); return r.check(r.change(alice, bob, "leave")) }},
	{rule: auth.KickLevel, name: "an additional creator the first", on: privileged, extra: twoCreators,
		run: func(r *room) error { r.member(bob, "join"); return r.check(r.change(bob, alice, "leave")) }},
	{rule: auth.KickLevel, name: "additional creator kicks the highest", ok: true, on: privileged,
		extra: `,"additional_creators":["@carol:c.example"]`, run: func(r *room) error {
			r.crowd().levels(`{"kick":` + highest + `,"users":{"@bob:b.example":` + highest + `}}`)
			return r.check(r.change(carol, bob, "leave"))
		}},
	{rule: auth.BanLevel, name: "a creator", on: privileged, run: changes(bob, alice, "ban")},
	{rule: auth.BanLevel, name: "one creator another", on: privileged, extra: twoCreators,
		run: func(r *room) error { r.member(bob, "join"); return r.check(r.change(alice, bob, "ban")) }},
	{rule: auth.BanLevel, name: "a creator who has left", on: privileged, extra: twoCreators, run: changesOf(alice, "leave", bob, "ban")},
}

// changesOf is a change by sender of a target's membership, which was was before.
func changesOf(sender matrix.UserID, was string, target matrix.UserID, to string) func(r *room) error {
	return func(r *room) error {
		r.member(target, was)
		return r.check(r.change(sender, target, to))
	}
}

// A creator's redaction is applied whatever level it needs; that of the highest user
// below the creators is not.
func TestMSC4289Redaction(t *testing.T) {
	for _, v := range matrix.Versions() {
		if !v.PrivilegedCreators {
			continue
		}
		r := newRoom(t, v, twoCreators).crowd()
		r.levels(`{"redact":` + highest + `,"users":{"@dave:d.example":9007199254740990}}`)
		carols := r.message(carol)
		for user, want := range map[matrix.UserID]bool{alice: true, bob: true, dave: false} {
			if got, err := auth.MayRedact(r.redaction(user, carols.ID), carols, r.state); got != want || err != nil {
				t.Errorf("version %s: redaction by %s: %v, %v; want %v", v.ID, user, got, err, want)
			}
		}
	}
}
