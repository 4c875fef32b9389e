package auth_test

import (
	"encoding/base64"
	"errors"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// fuzzTypes are the types with rules, and one of each kind without.
var fuzzTypes = []string{
	"m.room.create", "m.room.member", "m.room.power_levels", "m.room.join_rules", "m.room.third_party_invite",
	"m.room.aliases", "m.room.redaction", "m.room.message", "m.room.name",
}

// FuzzCheck puts content of any kind into an event of each type, and into the
// state that the event is checked on. Whatever it is, the answer is yes or a
// refusal with a rule and a text.
func FuzzCheck(f *testing.F) {
	for _, content := range []string{
		`{}`, `{"membership":"join"}`, `{"membership":"invite","third_party_invite":{"signed":{"mxid":"@eve:e.example","token":"token"}}}`,
		`{"join_authorised_via_users_server":"@bob:b.example","membership":"join"}`, moderated, `{"join_rule":"restricted"}`,
		`{"public_key":"AAAA","public_keys":[{"public_key":"AAAA"}]}`, `{"additional_creators":["@bob:b.example"],"m.federate":false}`,
		`{"users":{"@bob:b.example":"50","@eve:e.example":1e400}}`, `{"ban":1.5,"events":{"x":null}}`, `[`, `{"a":`, "\x00", `null`, ``,
	} {
		for i := range fuzzTypes {
			f.Add(content, moderated, uint8(i), uint8(i))
		}
	}
	var rooms []*room
	for _, v := range matrix.Versions() {
		rooms = append(rooms, newRoom(f, v).offered(single(base64.RawStdEncoding)))
	}
	f.Fuzz(func(t *testing.T, content, other string, version, who uint8) {
		r := rooms[int(version)%len(rooms)]
		base := *r.last
		users := []matrix.UserID{alice, bob, carol, dave, eve, ""}
		sender, target := users[int(who)%len(users)], users[int(who)/len(users)%len(users)]
		for _, typ := range fuzzTypes {
			for _, stateKey := range []*string{nil, key(""), key(string(target)), key(other)} {
				ev := with(&base, func(ev *matrix.Event) {
					ev.Sender, ev.Type, ev.StateKey, ev.Content = sender, typ, stateKey, jsontext.Value(content)
					ev.Redacts = matrix.EventID(other)
				})
				r.answers(t, ev, r.state)
				r.answers(t, ev, r.stateWith(other))
			}
		}
	})
}

// stateWith is the room's state with that content in all of its events.
func (r *room) stateWith(content string) auth.State {
	return func(typ, stateKey string) (*matrix.Event, error) {
		ev := r.events[auth.Key{Type: typ, StateKey: stateKey}]
		if ev == nil {
			return nil, nil
		}
		return with(ev, func(ev *matrix.Event) { ev.Content = jsontext.Value(content) }), nil
	}
}

// answers checks that each question about ev has an answer.
func (r *room) answers(t *testing.T, ev *matrix.Event, state auth.State) {
	for _, err := range []error{
		auth.Check(ev, state),
		r.checkAuth(ev, nil),
	} {
		var refusal *auth.Error
		if err != nil && (!errors.As(err, &refusal) || refusal.Rule == "" || refusal.Text == "") {
			t.Errorf("%s %q in version %s: %v", ev.Type, ev.Content, r.v.ID, err)
		}
	}
	_, _ = auth.MayRedact(ev, with(ev, func(other *matrix.Event) { other.ID = ev.Redacts }), state)
	if keys := auth.Needed(ev.Version, ev.Type, ev.Sender, ev.StateKey, ev.Content); len(keys) > 7 {
		t.Errorf("%s %q needs %v", ev.Type, ev.Content, keys)
	}
	auth.UserPower(r.create, ev, ev.Sender)
}
