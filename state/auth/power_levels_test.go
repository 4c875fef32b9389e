package auth_test

import (
	"strings"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
)

func integers(v *matrix.Version) bool        { return v.IntegerPowerLevels }
func noIntegers(v *matrix.Version) bool      { return !v.IntegerPowerLevels }
func fractions(v *matrix.Version) bool       { return !v.StrictJSON }
func notifications(v *matrix.Version) bool   { return v.NotificationLevels }
func noNotifications(v *matrix.Version) bool { return !v.NotificationLevels }

// changesLevels checks dave's step from one content of m.room.power_levels to the
// next. He has level 50 unless from has users, which is enough to send the event.
func changesLevels(from, to string) func(r *room) error {
	return func(r *room) error {
		r.member(dave, "join")
		r.levels(withDave(from))
		return r.check(r.power(dave, to))
	}
}

// withDave adds dave's level to a content, unless it has users of its own.
func withDave(content string) string {
	if !strings.Contains(content, `"users":`) {
		content = strings.Replace(content, "{", `{"users":{"@dave:d.example":50},`, 1)
	}
	return strings.Replace(content, ",}", "}", 1)
}

// firstLevels checks alice's first m.room.power_levels.
func firstLevels(content string) func(r *room) error {
	return func(r *room) error { return r.check(r.power(alice, content)) }
}

const daveAt50 = `{"users":{"@dave:d.example":50}}`

var powerFormCases = []ruleCase{
	{rule: auth.PowerLevelMalformed, name: "string", text: "The level ban must be an integer", run: firstLevels(`{"ban":"50"}`)},
	{rule: auth.PowerLevelMalformed, name: "null", run: firstLevels(`{"invite":null}`)},
	{rule: auth.PowerLevelMalformed, name: "object", run: firstLevels(`{"users_default":{}}`)},
	{rule: auth.PowerLevelMalformed, name: "integers", ok: true, run: firstLevels(
		`{"ban":-1,"events_default":0,"invite":3,"kick":4,"redact":5,"state_default":6,"unknown":"7","users_default":9007199254740991}`)},
	{rule: auth.PowerEntryMalformed, name: "string", text: "The levels in events must be integers",
		run: firstLevels(`{"events":{"m.room.name":"50"}}`)},
	{rule: auth.PowerEntryMalformed, name: "array", run: firstLevels(`{"events":[]}`)},
	{rule: auth.PowerEntryMalformed, name: "null", run: firstLevels(`{"notifications":null}`)},
	{rule: auth.PowerEntryMalformed, name: "notifications", run: firstLevels(`{"notifications":{"room":true}}`)},
	{rule: auth.PowerEntryMalformed, name: "integers", ok: true,
		run: firstLevels(`{"events":{"m.room.name":50},"notifications":{"room":20}}`)},

	{rule: auth.PowerUserMalformed, name: "not a user ID", run: firstLevels(`{"users":{"bob":50}}`)},
	{rule: auth.PowerUserMalformed, name: "array", run: firstLevels(`{"users":[]}`)},
	{rule: auth.PowerUserMalformed, name: "null", run: firstLevels(`{"users":null}`)},
	{rule: auth.PowerUserMalformed, name: "boolean level", run: firstLevels(`{"users":{"@bob:b.example":true}}`)},
	{rule: auth.PowerUserMalformed, name: "text", run: firstLevels(`{"users":{"@bob:b.example":"high"}}`)},
	{rule: auth.PowerUserMalformed, name: "number in text", on: integers, run: firstLevels(`{"users":{"@bob:b.example":"50"}}`)},
	{rule: auth.PowerUserMalformed, name: "number in text", on: noIntegers, ok: true,
		run: firstLevels(`{"users":{"@bob:b.example":" +0050 "}}`)},
	{rule: auth.PowerUserMalformed, name: "fraction in text", on: noIntegers, run: firstLevels(`{"users":{"@bob:b.example":"50.5"}}`)},
	{rule: auth.PowerUserMalformed, name: "fraction", on: fractions, ok: true, run: firstLevels(`{"users":{"@bob:b.example":50.57}}`)},
	{rule: auth.PowerUserMalformed, name: "integers", ok: true, run: firstLevels(`{"users":{"@bob:b.example":50,"@Old Name:c.example":-3}}`)},
	{rule: auth.PowerUserMalformed, name: "none", ok: true, run: firstLevels(`{}`)},
	{rule: auth.PowerUserMalformed, name: "other levels of odd form", on: noIntegers, ok: true,
		run: firstLevels(`{"ban":"high","events":[],"kick":null,"notifications":7}`)},
	{rule: auth.PowerUserMalformed, name: "state of odd form", run: func(r *room) error {
		r.put(with(r.levels(`{}`), func(ev *matrix.Event) { ev.Content = []byte(`{"users":7}`) }))
		return r.check(r.message(alice))
	}},
}

var powerCases = []ruleCase{
	{rule: auth.PowerLevelAboveOld, name: "changed", text: "You need power level 60 to change ban, yours is 50",
		run: changesLevels(`{"ban":60,"state_default":50}`, withDave(`{"ban":40,"state_default":50}`))},
	{rule: auth.PowerLevelAboveOld, name: "removed", run: changesLevels(`{"kick":60}`, daveAt50)},
	{rule: auth.PowerLevelAboveOld, name: "raised", run: changesLevels(`{"redact":60}`, withDave(`{"redact":70}`))},
	{rule: auth.PowerLevelAboveOld, name: "untouched", ok: true,
		run: changesLevels(`{"ban":60,"kick":60,"redact":70}`, withDave(`{"ban":60,"kick":60,"redact":70}`))},
	{rule: auth.PowerLevelAboveOld, name: "at", ok: true, run: changesLevels(`{"invite":50}`, daveAt50)},
	{rule: auth.PowerLevelAboveOld, name: "the same in text", on: noIntegers, ok: true,
		run: changesLevels(`{"ban":60}`, withDave(`{"ban":"60"}`))},
	{rule: auth.PowerLevelAboveNew, name: "raised", text: "You cannot set users_default to 51, above your own power level 50",
		run: changesLevels(`{"users_default":0}`, withDave(`{"users_default":51}`))},
	{rule: auth.PowerLevelAboveNew, name: "added", run: changesLevels(`{}`, withDave(`{"events_default":51}`))},
	{rule: auth.PowerLevelAboveNew, name: "default written down", ok: true,
		run: changesLevels(`{}`, withDave(`{"ban":50,"kick":50,"redact":50,"state_default":50}`))},
	{rule: auth.PowerLevelAboveNew, name: "at", ok: true, run: changesLevels(`{"invite":0}`, withDave(`{"invite":50}`))},
	{rule: auth.PowerLevelAboveNew, name: "no levels before", ok: true, run: firstLevels(`{"ban":1000}`)},

	{rule: auth.PowerEntryAboveOld, name: "lowered", text: `You need power level 60 to change the level for "m.x" in events, yours is 50`,
		run: changesLevels(`{"events":{"m.x":60}}`, withDave(`{"events":{"m.x":40}}`))},
	{rule: auth.PowerEntryAboveOld, name: "removed", run: changesLevels(`{"events":{"m.x":60}}`, daveAt50)},
	{rule: auth.PowerEntryAboveOld, name: "untouched", ok: true,
		run: changesLevels(`{"events":{"m.x":60}}`, withDave(`{"events":{"m.x":60,"m.y":1}}`))},
	{rule: auth.PowerEntryAboveOld, name: "at", ok: true, run: changesLevels(`{"events":{"m.x":50}}`, daveAt50)},
	{rule: auth.PowerEntryAboveOld, name: "notifications", on: notifications,
		run: changesLevels(`{"notifications":{"room":60}}`, daveAt50)},
	{rule: auth.PowerEntryAboveOld, name: "notifications before they counted", on: noNotifications, ok: true,
		run: changesLevels(`{"notifications":{"room":60}}`, withDave(`{"notifications":{"room":70}}`))},
	{rule: auth.PowerEntryAboveNew, name: "added", run: changesLevels(`{}`, withDave(`{"events":{"m.x":51}}`)),
		text: `You cannot set the level for "m.x" in events to 51, above your own power level 50`},
	{rule: auth.PowerEntryAboveNew, name: "raised", run: changesLevels(`{"events":{"m.x":5}}`, withDave(`{"events":{"m.x":51}}`))},
	{rule: auth.PowerEntryAboveNew, name: "at", ok: true, run: changesLevels(`{}`, withDave(`{"events":{"m.x":50}}`))},
	{rule: auth.PowerEntryAboveNew, name: "notifications", on: notifications,
		run: changesLevels(`{}`, withDave(`{"notifications":{"room":51}}`))},
	{rule: auth.PowerEntryAboveNew, name: "notifications at", on: notifications, ok: true,
		run: changesLevels(`{}`, withDave(`{"notifications":{"room":50}}`))},

	{rule: auth.PowerUserAboveOld, name: "equal is lowered", text: "You need a power level above 50 to change that of @bob:b.example, yours is 50",
		run: changesLevels(`{"users":{"@bob:b.example":50,"@dave:d.example":50}}`, `{"users":{"@bob:b.example":0,"@dave:d.example":50}}`)},
	{rule: auth.PowerUserAboveOld, name: "equal is removed",
		run: changesLevels(`{"users":{"@bob:b.example":50,"@dave:d.example":50}}`, daveAt50)},
	{rule: auth.PowerUserAboveOld, name: "equal is untouched", ok: true,
		run: changesLevels(`{"users":{"@bob:b.example":50,"@dave:d.example":50}}`, `{"ban":1,"users":{"@bob:b.example":50,"@dave:d.example":50}}`)},
	{rule: auth.PowerUserAboveOld, name: "lower is removed", ok: true,
		run: changesLevels(`{"users":{"@bob:b.example":49,"@dave:d.example":50}}`, daveAt50)},
	{rule: auth.PowerUserAboveOld, name: "oneself is lowered", ok: true,
		run: changesLevels(daveAt50, `{"users":{"@dave:d.example":10}}`)},
	{rule: auth.PowerUserAboveOld, name: "oneself is removed", ok: true, run: changesLevels(daveAt50, `{}`)},
	{rule: auth.PowerUserAboveNew, name: "oneself", text: "You cannot give @dave:d.example power level 51, above your own 50",
		run: changesLevels(daveAt50, `{"users":{"@dave:d.example":51}}`)},
	{rule: auth.PowerUserAboveNew, name: "another", run: changesLevels(daveAt50, `{"users":{"@bob:b.example":51,"@dave:d.example":50}}`)},
	{rule: auth.PowerUserAboveNew, name: "up to the own", ok: true,
		run: changesLevels(daveAt50, `{"users":{"@bob:b.example":50,"@dave:d.example":50}}`)},
	{rule: auth.PowerUserAboveNew, name: "by users_default", run: func(r *room) error {
		r.member(dave, "join")
		r.levels(`{"state_default":0,"users_default":20}`)
		return r.check(r.power(dave, `{"state_default":0,"users":{"@bob:b.example":21},"users_default":20}`))
	}},
}

func TestUserPower(t *testing.T) {
	for _, v := range matrix.Versions() {
		r := newRoom(t, v, `,"additional_creators":["@bob:b.example"]`)
		want := func(levels *matrix.Event, user matrix.UserID, old, privileged int64) {
			t.Helper()
			if v.PrivilegedCreators {
				old = privileged
			}
			if got := auth.UserPower(r.create, levels, user); got != old {
				t.Errorf("version %s: power of %s is %d, want %d", v.ID, user, got, old)
			}
		}
		want(nil, alice, 100, auth.Infinite)
		want(nil, bob, 0, auth.Infinite)
		want(nil, carol, 0, 0)
		levels := r.levels(`{"users":{"@carol:c.example":30},"users_default":5}`)
		want(levels, alice, 5, auth.Infinite)
		want(levels, bob, 5, auth.Infinite)
		want(levels, carol, 30, 30)
		want(levels, dave, 5, 5)
		if got := auth.UserPower(nil, nil, alice); got != 0 {
			t.Errorf("version %s: power in no room is %d", v.ID, got)
		}
		odd := with(levels, func(ev *matrix.Event) { ev.Content = []byte(`{"users":[]}`) })
		if got := auth.UserPower(nil, odd, alice); got != 0 {
			t.Errorf("version %s: power by unreadable levels is %d", v.ID, got)
		}
	}
}
