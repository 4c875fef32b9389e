package auth

import (
	"bytes"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// FuzzMembers holds the cutting of objects to what a decoder reads: if the two
// could be made to differ, an event would be judged by what it does not say.
func FuzzMembers(f *testing.F) {
	for _, text := range []string{
		`{}`, `{"a":1}`, " { \"a\" :\t[ {\"b\" : \"]}\"} , 2 ] , \"c\":null}\n", `{"a\"":"\\","\u0061\\\\":"\\\""}`,
		`{"":"","a":{"b":{"c":[[],{}]}},"d":-1.5e+7,"e":true}`, `[1]`, `"a"`, `{"a":1,}`, `{"a"}`, `{"a":`, `{"a":"`, `{"a`, `{,}`, `{"a":,}`, `{"a":}`, ``,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got := map[string]jsontext.Value{}
		for name, value := range members(text) {
			s, _ := stringOf(name)
			got[s] = value
		}
		var want map[string]jsontext.Value
		if json.Unmarshal(text, &want) != nil || want == nil {
			return // no object, or none that an Event can have; it is enough not to panic
		}
		if len(got) != len(want) {
			t.Fatalf("%d members, want %d", len(got), len(want))
		}
		for name, value := range want {
			if has, ok := property(text, name); !ok || !bytes.Equal(has, value) || !bytes.Equal(got[name], value) {
				t.Errorf("%q is %s and %s, want %s", name, got[name], has, value)
			}
		}
	})
}

// FuzzLevels holds the levels read from parts of an event to those of the whole.
func FuzzLevels(f *testing.F) {
	f.Add([]byte(`{"ban":7,"events":{"a":1,"b":2},"notifications":{"room":3},"users":{"@a:b":4,"@c:d":5},"users_default":6}`))
	f.Add([]byte(`{"\u0065vents":{"\u0061":"1"},"kick":"50","users":{"@\u0061:b":" +4 "},"users_default":1.5}`))
	f.Add([]byte(`{"events":[],"notifications":7,"users":{}}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		const user, typ = "@a:b", "a"
		for _, v := range matrix.Versions() {
			ev := &matrix.Event{Version: v, Type: typePowerLevels, Content: content}
			whole, err := ev.PowerLevels()
			if err != nil {
				continue
			}
			part, err := readLevels(nil, ev, typ, user)
			if err != nil {
				t.Fatalf("version %s: %v", v.ID, err)
			}
			for _, state := range []bool{false, true} {
				if got, want := part.Send(typ, state), whole.Send(typ, state); got != want {
					t.Errorf("version %s: sending needs %d, want %d", v.ID, got, want)
				}
			}
			if got, want := part.user(user), whole.User(user); got != want {
				t.Errorf("version %s: user has %d, want %d", v.ID, got, want)
			}
			for field := matrix.UsersDefault; field <= matrix.InviteLevel; field++ {
				got, given := part.Field(field)
				if want, is := whole.Field(field); got != want || given != is {
					t.Errorf("version %s: %v is %d, %v, want %d, %v", v.ID, field, got, given, want, is)
				}
			}
		}
	})
}
