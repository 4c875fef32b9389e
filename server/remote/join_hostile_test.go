package remote

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/auth"
	"hearth/state/matrix"
)

// What others make of an answer is an error, or left out, and nothing stays behind.
func TestJoinHostileAnswers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*residentAnswer)
		joins  bool
	}{
		{"as it is", func(*residentAnswer) {}, true},
		{"no create", func(a *residentAnswer) {
			a.State, a.Auth = without(a.State, "m.room.create"), without(a.Auth, "m.room.create")
		}, false},
		{"create in the chain alone", func(a *residentAnswer) { a.State = without(a.State, "m.room.create") }, false},
		{"no state", func(a *residentAnswer) { a.State = nil }, false},
		{"no join rules", func(a *residentAnswer) {
			a.State, a.Auth = without(a.State, "m.room.join_rules"), without(a.Auth, "m.room.join_rules")
		}, false},
		{"no name", func(a *residentAnswer) { a.State = without(a.State, "m.room.name") }, true},
		{"all twice", func(a *residentAnswer) { a.State, a.Auth = append(a.State, a.State...), append(a.Auth, a.Auth...) }, true},
		{"no chain", func(a *residentAnswer) { a.Auth = []jsontext.Value{} }, true},
		{"unsigned name", func(a *residentAnswer) { spoil(a.State, "m.room.name", `"there.test":{`, `"thera.test":{`) }, true},
		{"changed name", func(a *residentAnswer) { spoil(a.State, "m.room.name", `"name":"room"`, `"name":"rome"`) }, true},
		{"unsigned create", func(a *residentAnswer) {
			spoil(a.State, "m.room.create", `"there.test":{`, `"thera.test":{`)
			spoil(a.Auth, "m.room.create", `"there.test":{`, `"thera.test":{`)
		}, false},
		{"another room", func(a *residentAnswer) { spoil(a.State, "m.room.name", `"!`, `"!x`) }, true},
		{"no objects", func(a *residentAnswer) {
			a.State = append(a.State, []byte("7"), []byte("[]"), []byte(`"x"`), []byte("{}"))
		}, true},
		{"huge event", func(a *residentAnswer) {
			a.State = append(a.State, []byte(`{"x":"`+strings.Repeat("x", 1<<20)+`"}`))
		}, false},
		{"deep event", func(a *residentAnswer) {
			a.State = append(a.State, []byte(strings.Repeat("[", 5000)+strings.Repeat("]", 5000)))
		}, true},
		{"a name twice", func(a *residentAnswer) {
			a.State = append(a.State, []byte(`{"type":"m.room.member","type":"m.room.member"}`))
		}, true},
		{"half a character", func(a *residentAnswer) {
			a.Auth = append(a.Auth, []byte(`{"type":"\ud800"}`))
		}, true},
		{"no Unicode", func(a *residentAnswer) {
			a.State = append(a.State, []byte("{\"type\":\"\xff\"}"))
		}, true},
		{"long junk", func(a *residentAnswer) {
			a.More = []byte(`{"junk":[` + strings.Repeat(`{"a":[1,2,3]},`, 100_000) + `1]}`)
		}, true},
		{"members omitted", func(a *residentAnswer) { a.More = []byte(`{"members_omitted":true}`) }, false},
		{"members not omitted", func(a *residentAnswer) { a.More = []byte(`{"members_omitted":false,"servers_in_room":["x"]}`) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := world{here: newHomestead(t, here), there: newHomestead(t, there)}
			room := w[there].create("10", 5)
			w[there].change = tt.change
			j, _ := w.joiner(w[here])
			err := j.Join(t.Context(), state.Join{Room: room, User: erin}, []matrix.ServerName{there})
			if (err == nil) != tt.joins {
				t.Errorf("joined: %v", err)
			}
			nothingLeft(t, w[here], room, tt.joins)
		})
	}
}

// A state with two events in one place is none; events of other rooms are left out;
// a room has begun once.
func TestJoinContradictions(t *testing.T) {
	v, _ := matrix.VersionByID("10")
	for _, tt := range []struct {
		name  string
		event func(first, other jsontext.Value, room matrix.RoomID) jsontext.Value
		joins bool
	}{
		{"two names", func(first, _ jsontext.Value, _ matrix.RoomID) jsontext.Value { return first }, false},
		{"another room's name", func(_, other jsontext.Value, _ matrix.RoomID) jsontext.Value { return other }, true},
		{"two beginnings", func(_, _ jsontext.Value, room matrix.RoomID) jsontext.Value {
			ev, err := matrix.Draft{
				Room: room, Sender: "@alice:there.test", Type: "m.room.create", StateKey: new(string),
				Content: jsontext.Value(`{"creator":"@alice:there.test","room_version":"10"}`),
			}.Build(v, matrix.Placing{Depth: 1}, there, keyOfServer(there))
			if err != nil {
				t.Fatal(err)
			}
			return ev.JSON()
		}, false},
	} {
		w := world{here: newHomestead(t, here), there: newHomestead(t, there)}
		room, another := w[there].create("10", 3), w[there].create("10", 0)
		first, other := w[there].event(room, "m.room.name"), w[there].event(another, "m.room.name")
		w[there].send(room, "m.room.name", new(string), `{"name":"new"}`)
		w[there].change = func(a *residentAnswer) { a.State = append(a.State, tt.event(first, other, room)) }
		j, _ := w.joiner(w[here])
		err := j.Join(t.Context(), state.Join{Room: room, User: erin}, []matrix.ServerName{there})
		if (err == nil) != tt.joins {
			t.Errorf("%s: joined: %v", tt.name, err)
		}
		nothingLeft(t, w[here], room, tt.joins)
	}
}

// Where events choose their IDs they can cite themselves and each other. Those are left
// out, and the room is not joined if it needs them.
func TestJoinOfCircles(t *testing.T) {
	for _, tt := range []struct {
		name  string
		typ   string         // of what there is in the room, and is made to stand in a circle
		cites matrix.EventID // beside what it cites; "": itself
		joins bool
	}{
		{"a name that cites itself", "m.room.name", "", true},
		{"a name in a circle of two", "m.room.name", "$two:there.test", true},
		{"a name upon a circle", "m.room.name", "$three:there.test", true},
		{"join rules in a circle", "m.room.join_rules", "$two:there.test", false},
		{"a member in a circle", "m.room.member", "$two:there.test", false},
		{"a create in a circle", "m.room.create", "$two:there.test", false},
	} {
		for _, version := range []string{"1", "2"} {
			t.Run(tt.name+"/"+version, func(t *testing.T) {
				w := world{here: newHomestead(t, here), there: newHomestead(t, there)}
				room := w[there].create(version, 0)
				v, _ := matrix.VersionByID(version)
				w[there].change = func(a *residentAnswer) {
					at := slices.IndexFunc(a.State, func(ev jsontext.Value) bool { return bytes.Contains(ev, []byte(`"type":"`+tt.typ+`"`)) })
					one := circular(t, v, a.State[at], "", tt.cites)
					two := circular(t, v, a.State[at], "$two:there.test", eventIDIn(t, v, one))
					three := circular(t, v, a.State[at], "$three:there.test", "")
					a.State[at], a.Auth = one, append(without(a.Auth, tt.typ), one, two, three)
				}
				j, _ := w.joiner(w[here])
				err := j.Join(t.Context(), state.Join{Room: room, User: erin}, []matrix.ServerName{there})
				if (err == nil) != tt.joins {
					t.Errorf("joined: %v", err)
				}
				nothingLeft(t, w[here], room, tt.joins)
				if tt.joins && w[here].current(room)[auth.Key{Type: tt.typ}] != "" {
					t.Error("what stands in a circle is in the state")
				}
			})
		}
	}
}

// circular makes of an event one that cites another, too, or itself; with an ID of its own
// unless that is empty.
func circular(t *testing.T, v *matrix.Version, pdu jsontext.Value, id matrix.EventID, cites matrix.EventID) jsontext.Value {
	t.Helper()
	id = cmp.Or(id, eventIDIn(t, v, pdu))
	var ev map[string]jsontext.Value
	err := json.Unmarshal(pdu, &ev)
	ev["event_id"] = jsontext.Value(strconv.Quote(string(id)))
	cited := fmt.Sprintf(`[%q,{}]`, cmp.Or(cites, id))
	if rest := strings.TrimPrefix(string(ev["auth_events"]), "["); rest != "]" {
		cited += "," + strings.TrimSuffix(rest, "]")
	}
	ev["auth_events"] = jsontext.Value("[" + cited + "]")
	delete(ev, "signatures")
	text, err2 := json.Marshal(ev)
	signed, err3 := matrix.HashAndSign(v, text, there, keyOfServer(there))
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	return signed
}

// eventIDIn returns the ID of an event.
func eventIDIn(t *testing.T, v *matrix.Version, pdu jsontext.Value) matrix.EventID {
	t.Helper()
	ev, err := matrix.Parse(v, slices.Clone(pdu))
	if err != nil {
		t.Fatal(err)
	}
	return ev.ID
}

// without leaves out the events of a type.
func without(list []jsontext.Value, typ string) []jsontext.Value {
	return slices.DeleteFunc(slices.Clone(list), func(ev jsontext.Value) bool { return bytes.Contains(ev, []byte(`"type":"`+typ+`"`)) })
}

// spoil replaces a part of the events of a type.
func spoil(list []jsontext.Value, typ, old, with string) {
	for i, ev := range list {
		if bytes.Contains(ev, []byte(`"type":"`+typ+`"`)) {
			list[i] = bytes.Replace(ev, []byte(old), []byte(with), 1)
		}
	}
}
