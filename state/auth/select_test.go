package auth_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/auth"
	"hearth/state/matrix"
)

func TestNeeded(t *testing.T) {
	const thirdParty = `{"membership":"invite","third_party_invite":{"signed":{"mxid":"@eve:e.example","token":"abc"}}}`
	const vouchedFor = `{"join_authorised_via_users_server":"@carol:c.example","membership":"join"}`
	for _, c := range []struct {
		name     string
		typ      string
		stateKey *string
		content  string
		on       func(*matrix.Version) bool
		want     string // beside create and power levels; users by their first letter
	}{
		{name: "message", typ: "m.room.message", content: `{}`, want: "b"},
		{name: "state", typ: "m.room.name", stateKey: key(""), content: `{}`, want: "b"},
		{name: "own join", typ: "m.room.member", stateKey: key(string(bob)), content: `{"membership":"join"}`, want: "b rules"},
		{name: "own leave", typ: "m.room.member", stateKey: key(string(bob)), content: `{"membership":"leave"}`, want: "b"},
		{name: "own knock", typ: "m.room.member", stateKey: key(string(bob)), content: `{"membership":"knock"}`, want: "b rules"},
		{name: "kick", typ: "m.room.member", stateKey: key(string(eve)), content: `{"membership":"leave"}`, want: "b e"},
		{name: "ban", typ: "m.room.member", stateKey: key(string(eve)), content: `{"membership":"ban"}`, want: "b e"},
		{name: "invite", typ: "m.room.member", stateKey: key(string(eve)), content: `{"membership":"invite"}`, want: "b e rules"},
		{name: "third party", typ: "m.room.member", stateKey: key(string(eve)), content: thirdParty, want: "b e rules abc"},
		{name: "third party in a join", typ: "m.room.member", stateKey: key(string(bob)),
			content: strings.Replace(thirdParty, "invite", "join", 1), want: "b rules"},
		{name: "third party of odd form", typ: "m.room.member", stateKey: key(string(eve)),
			content: `{"membership":"invite","third_party_invite":{"signed":{"token":7}}}`, want: "b e rules"},
		{name: "vouched for", typ: "m.room.member", stateKey: key(string(bob)), content: vouchedFor, on: restricted, want: "b rules c"},
		{name: "vouched for before there was", typ: "m.room.member", stateKey: key(string(bob)), content: vouchedFor, on: noRestricted, want: "b rules"},
		{name: "vouched for in a leave", typ: "m.room.member", stateKey: key(string(bob)),
			content: strings.Replace(vouchedFor, `"join"`, `"leave"`, 1), want: "b"},
		{name: "vouched for by oneself", typ: "m.room.member", stateKey: key(string(bob)),
			content: strings.Replace(vouchedFor, string(carol), string(bob), 1), want: "b rules"},
		{name: "no state", typ: "m.room.member", content: `{"membership":"join"}`, want: "b"},
		{name: "no membership", typ: "m.room.member", stateKey: key(string(eve)), content: `{}`, want: "b e"},
		{name: "no object", typ: "m.room.member", stateKey: key(string(eve)), content: `[`, want: "b e"},
	} {
		for _, v := range matrix.Versions() {
			if c.on != nil && !c.on(v) {
				continue
			}
			want := []auth.Key{{Type: "m.room.power_levels"}}
			if !v.RoomIDIsHash {
				want = append([]auth.Key{{Type: "m.room.create"}}, want...)
			}
			for place := range strings.FieldsSeq(c.want) {
				want = append(want, map[string]auth.Key{
					"b": {Type: "m.room.member", StateKey: string(bob)}, "e": {Type: "m.room.member", StateKey: string(eve)},
					"c": {Type: "m.room.member", StateKey: string(carol)}, "rules": {Type: "m.room.join_rules"},
					"abc": {Type: "m.room.third_party_invite", StateKey: "abc"},
				}[place])
			}
			got := auth.Needed(v, c.typ, bob, c.stateKey, jsontext.Value(c.content))
			if !slices.Equal(got, want) {
				t.Errorf("%s, version %s: %v, want %v", c.name, v.ID, got, want)
			}
		}
	}
	for _, v := range matrix.Versions() {
		if got := auth.Needed(v, "m.room.create", alice, key(""), jsontext.Value(`{}`)); len(got) > 0 {
			t.Errorf("create event, version %s: %v", v.ID, got)
		}
	}
}
