package auth_test

import (
	"hearth/state/auth"
	"hearth/state/matrix"
)

// Versions that have a thing, and that do not.
func knocking(v *matrix.Version) bool          { return v.Knocking }
func noKnocking(v *matrix.Version) bool        { return !v.Knocking }
func restricted(v *matrix.Version) bool        { return v.RestrictedJoins }
func noRestricted(v *matrix.Version) bool      { return !v.RestrictedJoins }
func knockRestricted(v *matrix.Version) bool   { return v.KnockRestricted }
func noKnockRestricted(v *matrix.Version) bool { return !v.KnockRestricted }
func creatorInContent(v *matrix.Version) bool  { return v.CreatorInContent }
func privileged(v *matrix.Version) bool        { return v.PrivilegedCreators }
func unprivileged(v *matrix.Version) bool      { return !v.PrivilegedCreators }

// moderated is a room where bob has power level 50 and dave 20, all else default.
const moderated = `{"users":{"@bob:b.example":50,"@dave:d.example":20}}`

// crowd makes the room moderated and puts bob, carol and dave into it.
func (r *room) crowd() *room {
	r.levels(moderated)
	for _, user := range []matrix.UserID{bob, carol, dave} {
		r.member(user, "join")
	}
	return r
}

// joins puts the room under a join rule, bob into a membership, "" for none, and
// checks his join.
func joins(rule, membership string, extra ...string) func(r *room) error {
	return func(r *room) error {
		if rule != "" {
			r.joinRule(rule)
		}
		if membership != "" {
			r.member(bob, membership)
		}
		return r.check(r.change(bob, bob, "join", extra...))
	}
}

// vouched is bob's join into a restricted room on the word of carol, who has that
// membership and level while inviting needs 10.
func vouched(rule, membership string, level string) func(r *room) error {
	return func(r *room) error {
		r.joinRule(rule)
		r.levels(`{"invite":10,"users":{"@carol:c.example":` + level + `}}`)
		r.member(carol, membership)
		return r.check(r.change(bob, bob, "join", `,"join_authorised_via_users_server":"@carol:c.example"`))
	}
}

// firstJoin is a join right after the create event.
func firstJoin(sender, target matrix.UserID) func(r *room) error {
	return func(r *room) error {
		delete(r.events, auth.Key{Type: "m.room.member", StateKey: string(alice)})
		r.last = r.create
		return r.check(r.change(sender, target, "join"))
	}
}

var joinCases = []ruleCase{
	{rule: auth.MemberMalformed, name: "no state key", run: func(r *room) error {
		return r.check(r.event(alice, "m.room.member", nil, `{"membership":"join"}`))
	}},
	{rule: auth.MemberMalformed, name: "no membership", run: func(r *room) error {
		return r.check(r.event(alice, "m.room.member", key(string(alice)), `{"displayname":"Alice"}`))
	}},
	{rule: auth.MemberMalformed, name: "membership is no string", run: func(r *room) error {
		return r.check(r.event(alice, "m.room.member", key(string(alice)), `{"membership":["join"]}`))
	}},
	{rule: auth.MemberMalformed, name: "odd profile", ok: true, run: func(r *room) error {
		return r.check(r.change(alice, alice, "join", `,"avatar_url":{},"displayname":5,"is_direct":"x","reason":[]`))
	}},
	{rule: auth.MembershipUnknown, name: "unknown", text: `There is no membership "away" in this room's version`,
		run: func(r *room) error { return r.check(r.change(alice, alice, "away")) }},
	{rule: auth.MembershipUnknown, name: "knock before there was one", on: noKnocking, run: func(r *room) error {
		r.joinRule("knock")
		return r.check(r.change(bob, bob, "knock"))
	}},
	{rule: auth.MembershipUnknown, name: "known", ok: true, run: func(r *room) error {
		return r.check(r.change(alice, alice, "leave"))
	}},

	{rule: auth.MemberUnsigned, name: "by nobody", run: joins("public", "", `,"join_authorised_via_users_server":"carol"`)},
	{rule: auth.MemberUnsigned, name: "by null", run: joins("public", "", `,"join_authorised_via_users_server":null`)},
	{rule: auth.MemberUnsigned, name: "in a leave", run: func(r *room) error {
		return r.check(r.change(alice, alice, "leave", `,"join_authorised_via_users_server":1`))
	}},
	{rule: auth.MemberUnsigned, name: "by a user", ok: true,
		run: joins("public", "", `,"join_authorised_via_users_server":"@carol:c.example"`)},
	{rule: auth.JoinRefused, name: "nothing to authorise before there was", on: noRestricted, ok: true,
		run: joins("public", "", `,"join_authorised_via_users_server":1`)},

	{rule: auth.JoinNotOneself, name: "another", text: `You cannot make "@bob:b.example" join`,
		run: func(r *room) error { r.joinRule("public"); return r.check(r.change(alice, bob, "join")) }},
	{rule: auth.JoinNotOneself, name: "first join of another than the creator", run: firstJoin(alice, bob)},
	{rule: auth.JoinNotOneself, name: "creator's first join, sent by another", ok: true, run: firstJoin(bob, alice)},
	{rule: auth.JoinNotOneself, name: "oneself", ok: true, run: joins("public", "")},

	{rule: auth.JoinBanned, name: "banned, public", text: "You are banned from this room", run: joins("public", "ban")},
	{rule: auth.JoinBanned, name: "banned, invite", run: joins("invite", "ban")},
	{rule: auth.JoinBanned, name: "banned, restricted", on: restricted, run: func(r *room) error {
		r.member(bob, "ban")
		return vouched("restricted", "join", "10")(r)
	}},
	{rule: auth.JoinBanned, name: "left", ok: true, run: joins("public", "leave")},

	{rule: auth.JoinRefused, name: "first join of the creator", ok: true, run: firstJoin(alice, alice)},
	{rule: auth.JoinRefused, name: "first join of another", run: firstJoin(bob, bob)},
	{rule: auth.JoinRefused, name: "creator later", run: func(r *room) error {
		r.member(alice, "leave")
		return r.check(r.change(alice, alice, "join"))
	}},
	{rule: auth.JoinRefused, name: "creator by content", ok: true, on: creatorInContent, run: func(r *room) error {
		r.put(with(r.create, func(ev *matrix.Event) { ev.Content = []byte(`{"creator":"@bob:b.example"}`) }))
		return firstJoin(bob, bob)(r)
	}},
	{rule: auth.JoinRefused, name: "sender who is not creator by content", on: creatorInContent, run: func(r *room) error {
		r.put(with(r.create, func(ev *matrix.Event) { ev.Content = []byte(`{"creator":"@bob:b.example"}`) }))
		return firstJoin(alice, alice)(r)
	}},
	{rule: auth.JoinRefused, name: "creator in content of no meaning", on: func(v *matrix.Version) bool { return !v.CreatorInContent },
		extra: `,"creator":"@bob:b.example"`, run: firstJoin(bob, bob)},

	{rule: auth.JoinRefused, name: "invite, stranger", text: "You need an invite to join this room", run: joins("invite", "")},
	{rule: auth.JoinRefused, name: "no rule, stranger", run: joins("", "")},
	{rule: auth.JoinRefused, name: "no rule, invited", ok: true, run: joins("", "invite")},
	{rule: auth.JoinRefused, name: "invite, left", run: joins("invite", "leave")},
	{rule: auth.JoinRefused, name: "invite, knocked", on: knocking, run: joins("invite", "knock")},
	{rule: auth.JoinRefused, name: "invite, invited", ok: true, run: joins("invite", "invite")},
	{rule: auth.JoinRefused, name: "invite, joined", ok: true, run: joins("invite", "join")},
	{rule: auth.JoinRefused, name: "public", ok: true, run: joins("public", "")},
	{rule: auth.JoinRefused, name: "private, invited", run: joins("private", "invite")},
	{rule: auth.JoinRefused, name: "rule is no string", run: func(r *room) error {
		r.put(r.event(alice, "m.room.join_rules", key(""), `{"join_rule":["public"]}`))
		return joins("", "invite")(r)
	}},
	{rule: auth.JoinRefused, name: "rule without a rule, invited", ok: true, run: func(r *room) error {
		r.put(r.event(alice, "m.room.join_rules", key(""), `{}`))
		return joins("", "invite")(r)
	}},
	{rule: auth.JoinRefused, name: "knock, stranger", run: joins("knock", "")},
	{rule: auth.JoinRefused, name: "knock, invited", ok: true, on: knocking, run: joins("knock", "invite")},
	{rule: auth.JoinRefused, name: "knock before there was, invited", on: noKnocking, run: joins("knock", "invite")},
	{rule: auth.JoinRefused, name: "restricted before there was, invited", on: noRestricted, run: joins("restricted", "invite")},
	{rule: auth.JoinRefused, name: "knock_restricted before there was, invited", on: noKnockRestricted,
		run: joins("knock_restricted", "invite")},

	{rule: auth.JoinUnauthorised, name: "stranger",
		text: "You need an invite, or to be in a room whose members may join this one", run: joins("restricted", "")},
	{rule: auth.JoinUnauthorised, name: "invited", ok: true, run: joins("restricted", "invite")},
	{rule: auth.JoinUnauthorised, name: "joined", ok: true, run: joins("restricted", "join")},
	{rule: auth.JoinUnauthorised, name: "vouched", ok: true, run: vouched("restricted", "join", "10")},
	{rule: auth.JoinUnauthorised, name: "vouched by one who left", text: "@carol:c.example let you join but is not in the room",
		run: vouched("restricted", "leave", "10")},
	{rule: auth.JoinUnauthorised, name: "vouched by one who may not invite",
		text: "@carol:c.example let you join, for which they need power level 10 but have 9",
		run:  vouched("restricted", "join", "9")},
	{rule: auth.JoinUnauthorised, name: "knock_restricted, stranger", on: knockRestricted, run: joins("knock_restricted", "")},
	{rule: auth.JoinUnauthorised, name: "knock_restricted, invited", ok: true, on: knockRestricted,
		run: joins("knock_restricted", "invite")},
	{rule: auth.JoinUnauthorised, name: "knock_restricted, vouched", ok: true, on: knockRestricted,
		run: vouched("knock_restricted", "join", "10")},
}

// changes checks that sender may give target a membership in a moderated room.
func changes(sender, target matrix.UserID, membership string) func(r *room) error {
	return func(r *room) error { return r.crowd().check(r.change(sender, target, membership)) }
}

// changesFrom is changes with target in a membership before.
func changesFrom(before string, sender, target matrix.UserID, membership string) func(r *room) error {
	return func(r *room) error {
		r.crowd().member(target, before)
		return r.check(r.change(sender, target, membership))
	}
}

const eve matrix.UserID = "@eve:e.example"

var inviteCases = []ruleCase{
	{rule: auth.InviteNotJoined, name: "stranger", text: "You are not in this room", run: changes(eve, anna, "invite")},
	{rule: auth.InviteNotJoined, name: "invited", run: changesFrom("invite", eve, eve, "invite")},
	{rule: auth.InviteNotJoined, name: "joined", ok: true, run: changes(carol, eve, "invite")},
	{rule: auth.InvitePointless, name: "joined already", text: `"@dave:d.example" is already in this room`,
		run: changes(bob, dave, "invite")},
	{rule: auth.InvitePointless, name: "banned", text: `"@eve:e.example" is banned from this room`,
		run: changesFrom("ban", bob, eve, "invite")},
	{rule: auth.InvitePointless, name: "oneself", run: changes(bob, bob, "invite")},
	{rule: auth.InvitePointless, name: "left", ok: true, run: changesFrom("leave", bob, eve, "invite")},
	{rule: auth.InvitePointless, name: "invited already", ok: true, run: changesFrom("invite", bob, eve, "invite")},
	{rule: auth.InvitePointless, name: "knocked", ok: true, on: knocking, run: changesFrom("knock", bob, eve, "invite")},
	{rule: auth.InviteLevel, name: "below", text: "You need power level 21 to invite, yours is 20", run: func(r *room) error {
		r.crowd().levels(`{"invite":21,"users":{"@dave:d.example":20}}`)
		return r.check(r.change(dave, eve, "invite"))
	}},
	{rule: auth.InviteLevel, name: "at", ok: true, run: func(r *room) error {
		r.crowd().levels(`{"invite":20,"users":{"@dave:d.example":20}}`)
		return r.check(r.change(dave, eve, "invite"))
	}},
	{rule: auth.InviteLevel, name: "by default", ok: true, run: func(r *room) error {
		r.member(carol, "join")
		return r.check(r.change(carol, eve, "invite"))
	}},
	{rule: auth.InviteLevel, name: "power levels have no say", ok: true, run: func(r *room) error {
		r.crowd().levels(`{"events":{"m.room.member":100},"state_default":100}`)
		return r.check(r.change(carol, eve, "invite"))
	}},
}

var leaveCases = []ruleCase{
	{rule: auth.LeaveNotIn, name: "stranger", text: "You are not in this room", run: changes(eve, eve, "leave")},
	{rule: auth.LeaveNotIn, name: "left already", run: changesFrom("leave", eve, eve, "leave")},
	{rule: auth.LeaveNotIn, name: "banned", text: "You are banned from this room", run: changesFrom("ban", eve, eve, "leave")},
	{rule: auth.LeaveNotIn, name: "knock before there was", on: noKnocking, run: changesFrom("knock", eve, eve, "leave")},
	{rule: auth.LeaveNotIn, name: "joined", ok: true, run: changes(carol, carol, "leave")},
	{rule: auth.LeaveNotIn, name: "invited", ok: true, run: changesFrom("invite", eve, eve, "leave")},
	{rule: auth.LeaveNotIn, name: "knocked", ok: true, on: knocking, run: changesFrom("knock", eve, eve, "leave")},
	{rule: auth.KickNotJoined, name: "stranger", run: changes(eve, carol, "leave")},
	{rule: auth.KickNotJoined, name: "joined", ok: true, run: changes(bob, carol, "leave")},
	{rule: auth.UnbanLevel, name: "below ban", text: "You need power level 60 to unban, yours is 50", run: func(r *room) error {
		r.crowd().levels(`{"ban":60,"users":{"@bob:b.example":50}}`)
		r.member(eve, "ban")
		return r.check(r.change(bob, eve, "leave"))
	}},
	{rule: auth.UnbanLevel, name: "at ban", ok: true, run: changesFrom("ban", bob, eve, "leave")},
	{rule: auth.KickLevel, name: "unban below kick", text: "You need power level 60 to unban, yours is 50", run: func(r *room) error {
		r.crowd().levels(`{"kick":60,"users":{"@bob:b.example":50}}`)
		r.member(eve, "ban")
		return r.check(r.change(bob, eve, "leave"))
	}},
	{rule: auth.KickLevel, name: "below", text: "You need power level 50 to kick, yours is 20", run: changes(dave, carol, "leave")},
	{rule: auth.KickLevel, name: "no level", text: "You need power level 50 to kick, yours is 0", run: changes(carol, dave, "leave")},
	{rule: auth.KickLevel, name: "above but not above the other", run: func(r *room) error {
		r.crowd().levels(`{"kick":20,"users":{"@bob:b.example":50,"@dave:d.example":20}}`)
		return r.check(r.change(dave, bob, "leave"))
	}, text: `You cannot kick "@bob:b.example", whose power level 50 is not below yours, 20`},
	{rule: auth.KickLevel, name: "equal", run: func(r *room) error {
		r.crowd().levels(`{"users":{"@bob:b.example":50,"@dave:d.example":50}}`)
		return r.check(r.change(dave, bob, "leave"))
	}},
	{rule: auth.KickLevel, name: "at", ok: true, run: changes(bob, dave, "leave")},
	{rule: auth.KickLevel, name: "invite taken back", ok: true, run: changesFrom("invite", bob, eve, "leave")},
	{rule: auth.KickLevel, name: "creator, without levels", on: unprivileged, run: func(r *room) error {
		r.member(bob, "join")
		return r.check(r.change(bob, alice, "leave"))
	}},
	{rule: auth.KickLevel, name: "by the creator, without levels", ok: true, run: func(r *room) error {
		r.member(bob, "join")
		return r.check(r.change(alice, bob, "leave"))
	}},
	{rule: auth.KickLevel, name: "additional creators before there were", on: unprivileged,
		extra: `,"additional_creators":["@carol:c.example"]`, run: changes(carol, dave, "leave")},
}

var banCases = []ruleCase{
	{rule: auth.BanNotJoined, name: "stranger", run: changes(eve, carol, "ban")},
	{rule: auth.BanNotJoined, name: "joined", ok: true, run: changes(bob, carol, "ban")},
	{rule: auth.BanLevel, name: "below", text: "You need power level 50 to ban, yours is 20", run: changes(dave, carol, "ban")},
	{rule: auth.BanLevel, name: "equal", text: `You cannot ban "@bob:b.example", whose power level 50 is not below yours, 50`,
		run: func(r *room) error {
			r.crowd().levels(`{"users":{"@bob:b.example":50,"@dave:d.example":50}}`)
			return r.check(r.change(dave, bob, "ban"))
		}},
	{rule: auth.BanLevel, name: "oneself", run: changes(bob, bob, "ban")},
	{rule: auth.BanLevel, name: "at", ok: true, run: changes(bob, dave, "ban")},
	{rule: auth.BanLevel, name: "stranger is banned", ok: true, run: changes(bob, eve, "ban")},
	{rule: auth.BanLevel, name: "again", ok: true, run: changesFrom("ban", bob, eve, "ban")},
}

// knocks is joins for a knock.
func knocks(rule, membership string) func(r *room) error {
	return func(r *room) error {
		if rule != "" {
			r.joinRule(rule)
		}
		if membership != "" {
			r.member(bob, membership)
		}
		return r.check(r.change(bob, bob, "knock"))
	}
}

var knockCases = []ruleCase{
	{rule: auth.KnockJoinRule, name: "invite", text: "This room does not take requests to join", run: knocks("invite", "")},
	{rule: auth.KnockJoinRule, name: "no rule", run: knocks("", "")},
	{rule: auth.KnockJoinRule, name: "public", run: knocks("public", "")},
	{rule: auth.KnockJoinRule, name: "restricted", run: knocks("restricted", "")},
	{rule: auth.KnockJoinRule, name: "knock_restricted before there was", on: noKnockRestricted, run: knocks("knock_restricted", "")},
	{rule: auth.KnockJoinRule, name: "knock", ok: true, run: knocks("knock", "")},
	{rule: auth.KnockJoinRule, name: "knock_restricted", ok: true, on: knockRestricted, run: knocks("knock_restricted", "")},
	{rule: auth.KnockNotOneself, name: "for another", run: func(r *room) error {
		r.joinRule("knock")
		return r.check(r.change(alice, bob, "knock"))
	}},
	{rule: auth.KnockNotOneself, name: "oneself", ok: true, run: knocks("knock", "")},
	{rule: auth.KnockRefused, name: "banned", text: "You are banned from this room", run: knocks("knock", "ban")},
	{rule: auth.KnockRefused, name: "invited", text: "You are invited to this room already", run: knocks("knock", "invite")},
	{rule: auth.KnockRefused, name: "joined", text: "You are in this room already", run: knocks("knock", "join")},
	{rule: auth.KnockRefused, name: "left", ok: true, run: knocks("knock", "leave")},
	{rule: auth.KnockRefused, name: "again", ok: true, run: knocks("knock", "knock")},
}
