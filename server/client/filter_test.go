package client

import (
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state/matrix"
)

// testEvent is an event as filters look at it.
func testEvent(room, typ, sender, content string) *matrix.Event {
	return &matrix.Event{
		Room: matrix.RoomID(room), Type: typ, Sender: matrix.UserID(sender), Content: jsontext.Value(content),
	}
}

func TestRoomEventFilter(t *testing.T) {
	text := testEvent("!a:x", "m.room.message", "@bob:x", `{"body":"hi"}`)
	image := testEvent("!a:x", "m.room.message", "@eve:x", `{"body":"hi","url":"mxc://x/y"}`)
	name := testEvent("!b", "m.room.name", "@bob:x", `{"name":"n","url":null}`)
	for _, c := range []struct {
		filter            string
		text, image, name bool
	}{
		{`{}`, true, true, true},
		{`{"types":null,"rooms":null,"senders":null}`, true, true, true},
		{`{"types":[]}`, false, false, false},
		{`{"senders":[]}`, false, false, false},
		{`{"rooms":[]}`, false, false, false},
		{`{"not_types":[],"not_rooms":[],"not_senders":[]}`, true, true, true},
		{`{"types":["m.room.message"]}`, true, true, false},
		{`{"types":["m.room.*"]}`, true, true, true},
		{`{"types":["*.name","org.example"]}`, false, false, true},
		{`{"types":["m*.message"]}`, true, true, false},
		{`{"types":["*"],"not_types":["*name"]}`, true, true, false},
		{`{"types":["m.room.name"],"not_types":["m.room.*"]}`, false, false, false},
		{`{"senders":["@bob:x"]}`, true, false, true},
		{`{"senders":["@bob:x","@eve:x"],"not_senders":["@bob:x"]}`, false, true, false},
		{`{"not_senders":["@eve:x"]}`, true, false, true},
		{`{"rooms":["!a:x"]}`, true, true, false},
		{`{"rooms":["!a:x","!b"],"not_rooms":["!a:x"]}`, false, false, true},
		{`{"contains_url":true}`, false, true, true},
		{`{"contains_url":false}`, true, false, false},
		{`{"unknown":{"deep":[1]},"limit":3,"lazy_load_members":true}`, true, true, true},
	} {
		f, err := ParseRoomEventFilter([]byte(c.filter))
		if err != nil {
			t.Errorf("%s: %v", c.filter, err)
			continue
		}
		got := [3]bool{f.MatchEvent(text), f.MatchEvent(image), f.MatchEvent(name)}
		if want := [3]bool{c.text, c.image, c.name}; got != want {
			t.Errorf("%s lets through text, image, name: %v, want %v", c.filter, got, want)
		}
	}
}

// What has no sender, such as a receipt, is never from one that is wanted.
func TestFilterWithoutSender(t *testing.T) {
	f, err := ParseRoomEventFilter([]byte(`{"senders":["@bob:x"],"types":["m.receipt"]}`))
	if err != nil {
		t.Fatal(err)
	}
	if f.MatchIn("!a:x", "m.receipt", "") {
		t.Error("an event without a sender passes a list of senders")
	}
}

func TestFilterLimit(t *testing.T) {
	for filter, want := range map[string]int{`{}`: 10, `{"limit":3}`: 3, `{"limit":0}`: 0, `{"limit":5000}`: 100} {
		f, err := ParseRoomEventFilter([]byte(filter))
		if err != nil {
			t.Errorf("%s: %v", filter, err)
		} else if got := f.Most(10, 100); got != want {
			t.Errorf("%s: %d events, want %d", filter, got, want)
		}
	}
}

func TestFilterRelations(t *testing.T) {
	children := func(yield func(matrix.UserID, string) bool) {
		_ = yield("@bob:x", "m.thread") && yield("@eve:x", "m.reference")
	}
	for filter, want := range map[string]bool{
		`{}`:                                    true,
		`{"related_by_rel_types":["m.thread"]}`: true,
		`{"related_by_rel_types":["m.annotation"]}`:                                false,
		`{"related_by_rel_types":[]}`:                                              false,
		`{"related_by_senders":["@eve:x"]}`:                                        true,
		`{"related_by_senders":["@ann:x"]}`:                                        false,
		`{"related_by_senders":["@eve:x"],"related_by_rel_types":["m.thread"]}`:    false,
		`{"related_by_senders":["@eve:x"],"related_by_rel_types":["m.reference"]}`: true,
	} {
		f, err := ParseRoomEventFilter([]byte(filter))
		if err != nil {
			t.Fatal(err)
		}
		if got := f.MatchRelated(iter.Seq2[matrix.UserID, string](children)); got != want {
			t.Errorf("%s: %t, want %t", filter, got, want)
		}
	}
}

func TestFilterRefused(t *testing.T) {
	long := strings.Repeat("a", 300)
	for filter, want := range map[string]*api.Error{
		`{"room":`:                                        api.ErrNotJSON,
		`[]`:                                              api.ErrBadJSON,
		`7`:                                               api.ErrBadJSON,
		`{"room":7}`:                                      api.ErrBadJSON,
		`{"room":{"timeline":{"limit":-1}}}`:              api.ErrBadJSON,
		`{"room":{"timeline":{"limit":"ten"}}}`:           api.ErrBadJSON,
		`{"room":{"timeline":{"limit":1e99}}}`:            api.ErrBadJSON,
		`{"room":{"timeline":{"types":[7]}}}`:             api.ErrBadJSON,
		`{"presence":{"senders":["bob"]}}`:                api.ErrBadJSON,
		`{"room":{"not_rooms":["#alias:x"]}}`:             api.ErrBadJSON,
		`{"event_format":"morse"}`:                        api.ErrBadJSON,
		`{"account_data":{"types":["` + long + `"]}}`:     api.ErrBadJSON,
		`{"event_fields":{"a":1}}`:                        api.ErrBadJSON,
		strings.Repeat(" ", maxFilterBytes) + `{}`:        api.ErrTooLarge,
		`{"presence":{"types":[` + manyTypes(257) + `]}}`: api.ErrBadJSON,
	} {
		if _, err := ParseFilter([]byte(filter)); !errors.Is(err, want) {
			t.Errorf("%.60s: %v, want %s", filter, err, want.Code)
		}
	}
}

func manyTypes(n int) string {
	types := make([]string, n)
	for i := range types {
		types[i] = fmt.Sprintf(`"t%d"`, i)
	}
	return strings.Join(types, ",")
}

func TestTrim(t *testing.T) {
	const event = `{"type":"m.room.message","content":{"body":"b","m.relates_to":{"rel_type":"m.thread","event_id":"$e"},"a\\b":1},"sender":"@bob:x","unsigned":{"age":5}}`
	for _, c := range []struct{ fields, want string }{
		{`[]`, `{}`},
		{`["type","sender"]`, `{"type":"m.room.message","sender":"@bob:x"}`},
		{`["content.body","unsigned.age.x"]`, `{"content":{"body":"b"},"unsigned":{}}`},
		{`["content.m\\.relates_to.event_id"]`, `{"content":{"m.relates_to":{"event_id":"$e"}}}`},
		{`["content.a\\\\b"]`, `{"content":{"a\\b":1}}`},
		{`["content.body","content"]`, `{"content":{"body":"b","m.relates_to":{"rel_type":"m.thread","event_id":"$e"},"a\\b":1}}`},
		{`["nothing.at.all"]`, `{}`},
	} {
		f, err := ParseFilter([]byte(`{"event_fields":` + c.fields + `}`))
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Trim(jsontext.Value(event))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v, want %s", c.fields, got, err, c.want)
		}
	}
	whole, err := new(Filter).Trim(jsontext.Value(event))
	if err != nil || string(whole) != event {
		t.Errorf("no event_fields: %s, %v", whole, err)
	}
}

func TestMatchPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "abc", true}, {"a*c", "abbc", true},
		{"a*c", "ac", true}, {"a*c", "ab", false}, {"*a*b*", "xxaxxbxx", true}, {"*a*b*", "ba", false},
		{"a**b", "ab", true}, {"ab*", "a", false}, {"?", "a", false}, {"[a]", "a", false},
	} {
		if got := matchPattern(c.pattern, c.s); got != c.want {
			t.Errorf("%q matches %q: %t", c.pattern, c.s, got)
		}
	}
}

// Whatever a filter is, it is refused as a standard error or works.
func FuzzFilter(f *testing.F) {
	f.Add(`{"room":{"timeline":{"limit":10,"types":["m.*"],"contains_url":true,"related_by_senders":["@a:b"]},"rooms":["!a:b"]},"event_fields":["content.a\\.b",""],"event_format":"federation"}`)
	f.Add(`{"presence":{"senders":[]},"account_data":null}`)
	event := jsontext.Value(`{"type":"m.room.message","content":{"body":"b","a.b":{"c":1}},"":{"":0}}`)
	f.Fuzz(func(t *testing.T, text string) {
		filter, err := ParseFilter([]byte(text))
		if err != nil {
			var refused *api.Error
			if !errors.As(err, &refused) || refused.Status >= 500 {
				t.Fatalf("%v", err)
			}
			return
		}
		ev := testEvent("!a:b", "m.room.message", "@a:b", `{"url":1}`)
		filter.Room.Timeline.MatchEvent(ev)
		filter.Presence.Match("m.presence", "@a:b")
		filter.Room.Wants("!a:b")
		if n := filter.Room.Timeline.Most(10, 100); n < 0 || n > 100 {
			t.Errorf("wants %d events", n)
		}
		trimmed, err := filter.Trim(event)
		if err != nil || !trimmed.IsValid() {
			t.Errorf("trimmed to %s, %v", trimmed, err)
		}
	})
}
