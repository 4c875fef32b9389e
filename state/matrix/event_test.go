package matrix

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
)

// minimal is an event of version v that Parse accepts, with the members in change
// replaced; an empty replacement takes the member out.
func minimal(v *Version, change map[string]string) string {
	members := [][2]string{
		{"auth_events", `[]`}, {"content", `{}`}, {"depth", `1`}, {"hashes", `{}`}, {"origin_server_ts", `1`},
		{"prev_events", `[]`}, {"room_id", `"!x:domain"`}, {"sender", `"@a:domain"`}, {"signatures", `{}`}, {"type", `"X"`},
		{"event_id", ``}, {"state_key", ``}, {"unsigned", ``}, {"redacts", ``}, {"other", ``},
	}
	if v.EventIDs == EventIDGiven {
		members[10][1] = `"$x:domain"`
	}
	var b strings.Builder
	for _, m := range members {
		value, changed := change[m[0]]
		if !changed {
			value = m[1]
		}
		if value != "" {
			fmt.Fprintf(&b, ",%q:%s", m[0], value)
		}
	}
	return "{" + b.String()[1:] + "}"
}

func TestParse(t *testing.T) {
	for _, v := range Versions() {
		auth, prev := `["$a","$b/+"]`, `["$c"]`
		if v.EventIDs == EventIDGiven {
			auth, prev = `[["$a:domain",{"sha256":"x"}],["$b:domain",{}]]`, `[["$c:domain",{}]]`
		}
		src := []byte(minimal(v, map[string]string{
			"auth_events": auth, "prev_events": prev, "content": `{"b":1,"a":2}`, "depth": "7", "state_key": `"k\u00e9y"`,
			"type": `"m.room.name"`, "origin_server_ts": "1700000000000", "other": `[{"x":null}]`,
		}))
		e, err := Parse(v, src)
		if err != nil {
			t.Errorf("version %s: %v", v.ID, err)
			continue
		}
		if e.Version != v || e.Room != "!x:domain" || e.Sender != "@a:domain" || e.Type != "m.room.name" ||
			e.StateKey == nil || *e.StateKey != "kéy" || string(e.Content) != `{"b":1,"a":2}` || e.Depth != 7 ||
			e.OriginServerTS != 1700000000000 || len(e.AuthEvents) != 2 || len(e.PrevEvents) != 1 {
			t.Errorf("version %s: %+v", v.ID, e)
		}
		if !strings.HasPrefix(string(e.AuthEvents[1]), "$b") || !strings.HasPrefix(string(e.PrevEvents[0]), "$c") {
			t.Errorf("version %s: auth %v, prev %v", v.ID, e.AuthEvents, e.PrevEvents)
		}
		if len(e.JSON()) != len(src) || &e.JSON()[0] != &src[0] {
			t.Errorf("version %s: the bytes were not kept: %s", v.ID, e.JSON())
		}
		if !e.IsState() || !e.Is("m.room.name", "kéy") || e.Is("m.room.name", "") || e.Is("m.room.topic", "kéy") {
			t.Errorf("version %s: Is is wrong", v.ID)
		}
	}
}

// The ID is the reference hash, in the base64 of the version; in 1 and 2 it is in
// the event.
func TestEventIDs(t *testing.T) {
	for _, v := range Versions() {
		slashes := 0
		for i := range 40 {
			src := minimal(v, map[string]string{"depth": fmt.Sprint(i)})
			e, err := Parse(v, []byte(src))
			if err != nil {
				t.Fatalf("version %s: %v", v.ID, err)
			}
			if v.EventIDs == EventIDGiven {
				if e.ID != "$x:domain" {
					t.Errorf("version %s: %s", v.ID, e.ID)
				}
				continue
			}
			slashes += strings.Count(string(e.ID), "/") + strings.Count(string(e.ID), "+")
			hash, err := ReferenceHash(v, []byte(src))
			if err != nil || hash.eventID(v.EventIDs) != e.ID || len(e.ID) != 44 {
				t.Errorf("version %s: %s, %v", v.ID, e.ID, err)
			}
			if own, err := e.ReferenceHash(); err != nil || own != hash {
				t.Errorf("version %s: %x, %v", v.ID, own, err)
			}
			trusted, err := ParseTrusted(v, []byte(src), e.ID)
			if err != nil || trusted.ID != e.ID {
				t.Errorf("version %s: trusted %+v, %v", v.ID, trusted, err)
			}
		}
		if (slashes > 0) != (v.EventIDs == EventIDHash) {
			t.Errorf("version %s: %d characters of standard base64", v.ID, slashes)
		}
	}
}

// unsigned, signatures and the order of members say nothing about the ID; what
// redaction keeps does.
func TestIDDependsOn(t *testing.T) {
	v := version(t, "11")
	id := func(change map[string]string) EventID {
		e, err := Parse(v, []byte(minimal(v, change)))
		if err != nil {
			t.Fatal(err)
		}
		return e.ID
	}
	plain := id(nil)
	for _, same := range []map[string]string{
		{"unsigned": `{"age":1}`}, {"signatures": `{"domain":{}}`}, {"other": `1`}, {"content": `{"body":"x"}`},
	} {
		if id(same) != plain {
			t.Errorf("the ID depends on %v", same)
		}
	}
	for _, other := range []map[string]string{
		{"hashes": `{"sha256":"x"}`}, {"depth": `2`}, {"state_key": `""`}, {"event_id": `"$x"`},
	} {
		if id(other) == plain {
			t.Errorf("the ID does not depend on %v", other)
		}
	}
}

func TestRoomIDIsHash(t *testing.T) {
	v := version(t, "12")
	src := []byte(minimal(v, map[string]string{"type": `"m.room.create"`, "state_key": `""`, "room_id": ""}))
	create, err := Parse(v, src)
	if err != nil || string(create.Room) != "!"+string(create.ID[1:]) || len(create.Room) != 44 {
		t.Fatalf("%+v, %v", create, err)
	}
	trusted, err := ParseTrusted(v, src, create.ID)
	if err != nil || trusted.Room != create.Room {
		t.Errorf("%+v, %v", trusted, err)
	}
	for _, change := range []map[string]string{
		{"type": `"m.room.create"`, "state_key": `""`}, {"type": `"m.room.name"`, "room_id": ""},
	} {
		if e, err := Parse(v, []byte(minimal(v, change))); !errors.Is(err, ErrBadJSON) {
			t.Errorf("%v: %+v, %v", change, e, err)
		}
	}
	before := version(t, "11")
	if _, err := Parse(before, []byte(minimal(before, map[string]string{"type": `"m.room.create"`, "room_id": ""}))); !errors.Is(err, ErrBadJSON) {
		t.Errorf("version 11 without room_id: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	ids := func(n int, format EventIDFormat) string {
		one := `"$a"`
		if format == EventIDGiven {
			one = `["$a:domain",{}]`
		}
		return "[" + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + "]"
	}
	for _, v := range Versions() {
		deepest := fmt.Sprint(v.MaxDepth)
		for _, change := range []map[string]string{
			{"depth": deepest}, {"depth": "0"}, {"type": `""`}, {"content": `{"body":"` + strings.Repeat("x", 60000) + `"}`},
			{"type": `"` + strings.Repeat("x", 255) + `"`}, {"state_key": `"` + strings.Repeat("x", 255) + `"`},
			{"auth_events": ids(10, v.EventIDs)}, {"prev_events": ids(20, v.EventIDs)}, {"sender": `"@:domain"`},
		} {
			if _, err := Parse(v, []byte(minimal(v, change))); err != nil {
				t.Errorf("version %s, %.80v: %v", v.ID, change, err)
			}
		}
		for _, tt := range []struct {
			change map[string]string
			want   error
		}{
			{map[string]string{"auth_events": ``}, ErrBadJSON},
			{map[string]string{"prev_events": ``}, ErrBadJSON},
			{map[string]string{"content": ``}, ErrBadJSON},
			{map[string]string{"depth": ``}, ErrBadJSON},
			{map[string]string{"hashes": ``}, ErrBadJSON},
			{map[string]string{"origin_server_ts": ``}, ErrBadJSON},
			{map[string]string{"room_id": ``}, ErrBadJSON},
			{map[string]string{"sender": ``}, ErrBadJSON},
			{map[string]string{"signatures": ``}, ErrBadJSON},
			{map[string]string{"type": ``}, ErrBadJSON},
			{map[string]string{"content": `[]`}, ErrBadJSON},
			{map[string]string{"content": `{`}, ErrNotJSON},
			{map[string]string{"content": `{"a":1,"a":1}`}, ErrBadJSON},
			{map[string]string{"depth": `-1`}, ErrBadJSON},
			{map[string]string{"depth": `"1"`}, ErrBadJSON},
			{map[string]string{"depth": `1.0`}, ErrBadJSON},
			{map[string]string{"depth": `9223372036854775808`}, ErrBadJSON},
			{map[string]string{"origin_server_ts": `"1"`}, ErrBadJSON},
			{map[string]string{"room_id": `"x:domain"`}, ErrBadJSON},
			{map[string]string{"room_id": `1`}, ErrBadJSON},
			{map[string]string{"sender": `"a:domain"`}, ErrBadID},
			{map[string]string{"sender": `"@a:` + strings.Repeat("x", 255) + `"`}, ErrBadID},
			{map[string]string{"type": `1`}, ErrBadJSON},
			{map[string]string{"type": `"` + strings.Repeat("x", 256) + `"`}, ErrTooLarge},
			{map[string]string{"type": `"` + strings.Repeat("💥", 256) + `"`}, ErrTooLarge},
			{map[string]string{"state_key": `"` + strings.Repeat("💥", 256) + `"`}, ErrTooLarge},
			// Of identifiers the bytes are counted, not the characters.
			{map[string]string{"sender": `"@` + strings.Repeat("💥", 64) + `:domain"`}, ErrBadID},
			{map[string]string{"state_key": `null`}, ErrBadJSON},
			{map[string]string{"hashes": `1`}, ErrBadJSON},
			{map[string]string{"signatures": `[]`}, ErrBadJSON},
			{map[string]string{"auth_events": `{}`}, ErrBadJSON},
			{map[string]string{"auth_events": `[1]`}, ErrBadJSON},
			{map[string]string{"auth_events": `[["a",{}]]`}, ErrBadJSON},
			{map[string]string{"prev_events": `[["$a:domain"]]`}, ErrBadJSON},
			{map[string]string{"prev_events": `[["$a:domain",{},{}]]`}, ErrBadJSON},
			{map[string]string{"prev_events": `[["$a:domain","x"]]`}, ErrBadJSON},
			{map[string]string{"auth_events": ids(11, v.EventIDs)}, ErrBadJSON},
			{map[string]string{"prev_events": ids(21, v.EventIDs)}, ErrBadJSON},
			{map[string]string{"content": `{"body":"` + strings.Repeat("x", 65536) + `"}`}, ErrTooLarge},
			{map[string]string{"content": `{"body":"` + strings.Repeat("x", maxPDUBytes) + `"}`}, ErrTooLarge},
		} {
			if e, err := Parse(v, []byte(minimal(v, tt.change))); !errors.Is(err, tt.want) {
				t.Errorf("version %s, %.80v: %v, %v, want %v", v.ID, tt.change, e, err, tt.want)
			}
		}
		for _, text := range []string{``, `null`, `[]`, `"x"`} {
			if e, err := Parse(v, []byte(text)); err == nil {
				t.Errorf("version %s, %s: %+v", v.ID, text, e)
			}
		}
	}
}

func TestParseRefusesByVersion(t *testing.T) {
	for _, tt := range []struct {
		first, last int // refused in these versions, accepted in the others
		change      map[string]string
	}{
		{6, 12, map[string]string{"content": `{"a":1.5}`}},
		{6, 12, map[string]string{"content": `{"a":-0}`}},
		{6, 12, map[string]string{"content": `{"a":1e3}`}},
		{11, 12, map[string]string{"type": `"` + strings.Repeat("é", 128) + `"`}},
		{11, 12, map[string]string{"state_key": `"` + strings.Repeat("💥", 255) + `"`}},
		{6, 12, map[string]string{"content": `{"a":9007199254740992}`}},
		{6, 12, map[string]string{"depth": fmt.Sprint(int64(math.MaxInt64))}},
		{1, 2, map[string]string{"event_id": ``}},
		{1, 2, map[string]string{"event_id": `"$x"`}},
		{1, 2, map[string]string{"event_id": `"$x:a b"`}},
		{1, 2, map[string]string{"prev_events": `["$a"]`}},
		{3, 12, map[string]string{"prev_events": `[["$a:domain",{}]]`}},
	} {
		for i, v := range Versions() {
			_, err := Parse(v, []byte(minimal(v, tt.change)))
			refused := errors.Is(err, ErrBadJSON) || errors.Is(err, ErrTooLarge)
			if want := i+1 >= tt.first && i+1 <= tt.last; refused != want || (err != nil) != want {
				t.Errorf("version %s, %.80v: %v", v.ID, tt.change, err)
			}
		}
	}
}

func TestRedacts(t *testing.T) {
	for _, v := range Versions() {
		for _, tt := range []struct {
			change map[string]string
			top    EventID // to version 10
			inside EventID // from 11 on
		}{
			{map[string]string{"type": `"m.room.redaction"`, "redacts": `"$a"`, "content": `{"redacts":"$b"}`}, "$a", "$b"},
			{map[string]string{"type": `"m.room.redaction"`}, "", ""},
			{map[string]string{"type": `"m.room.redaction"`, "redacts": `1`, "content": `{"redacts":"x"}`}, "", ""},
			{map[string]string{"type": `"m.room.message"`, "redacts": `"$a"`, "content": `{"redacts":"$b"}`}, "", ""},
		} {
			want := tt.top
			if v.RedactsInContent {
				want = tt.inside
			}
			e, err := Parse(v, []byte(minimal(v, tt.change)))
			if err != nil || e.Redacts != want {
				t.Errorf("version %s, %v: %+v, %v, want %q", v.ID, tt.change, e, err, want)
			}
		}
	}
}

// unsigned goes wherever it stands, and everything else keeps its bytes.
func TestUnsignedGoes(t *testing.T) {
	v := version(t, "4")
	const rest = `"auth_events":[],"depth":1,"hashes":{},"origin_server_ts":1,"prev_events":[],"room_id":"!x:domain","sender":"@a:domain","signatures":{},"type":"X"`
	for _, tt := range []struct{ in, want string }{
		{`{"unsigned":{"age":1},` + rest + `,"content":{"a":1}}`, `{` + rest + `,"content":{"a":1}}`},
		{`{ "content" : {"a":1} , "unsigned" : 1 , ` + rest + `}`, `{ "content" : {"a":1} ,  ` + rest + `}`},
		{`{` + rest + `,"content":{"a":1} , "unsigned":{"content":{"a":2}} }`, `{` + rest + `,"content":{"a":1}  }`},
		{`{"content":{"a":1},` + rest + `}`, `{"content":{"a":1},` + rest + `}`},
		{`{` + rest + "\n,\"\\u0075nsigned\"\t:\r[]\t,\"content\":{\"a\":1}}", `{` + rest + "\n,\"content\":{\"a\":1}}"},
	} {
		e, err := Parse(v, []byte(tt.in))
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		if string(e.JSON()) != tt.want || string(e.Content) != `{"a":1}` {
			t.Errorf("%s:\n got %s, content %s\nwant %s", tt.in, e.JSON(), e.Content, tt.want)
		}
		if again, err := Parse(v, e.JSON()); err != nil || again.ID != e.ID {
			t.Errorf("%s: again %+v, %v", tt.in, again, err)
		}
	}
}

// The limit holds for canonical JSON without unsigned; what is longer only in
// writing comes out short.
func TestEventSize(t *testing.T) {
	for _, v := range []*Version{version(t, "1"), version(t, "12")} {
		empty := len(minimal(v, map[string]string{"content": `{"body":""}`}))
		body := strings.Repeat("x", MaxEventBytes-empty)
		largest := minimal(v, map[string]string{"content": `{"body":"` + body + `"}`})
		e, err := Parse(v, []byte(largest))
		if err != nil || len(e.JSON()) != MaxEventBytes || string(e.JSON()) != largest {
			t.Errorf("version %s: the largest event: %v", v.ID, err)
		}
		if _, err := Parse(v, []byte(minimal(v, map[string]string{"content": `{"body":"x` + body + `"}`}))); !errors.Is(err, ErrTooLarge) {
			t.Errorf("version %s: one byte more: %v", v.ID, err)
		}
		for _, change := range []map[string]string{
			{"content": `{"body":"` + body + `"}`, "unsigned": `"` + body + `"`},
			{"content": `{  "body":"` + body + `"}` + strings.Repeat(" ", 99)},
			{"content": `{"body":"` + strings.Repeat(`\u0078`, len(body)) + `"}`},
		} {
			e, err := Parse(v, []byte(minimal(v, change)))
			if err != nil {
				t.Errorf("version %s: %v", v.ID, err)
				continue
			}
			if len(e.JSON()) > MaxEventBytes || !bytes.Contains(e.Content, []byte(body)) {
				t.Errorf("version %s: %d bytes, %.50s", v.ID, len(e.JSON()), e.Content)
			}
		}
	}
	// 1e15 is longer in canonical form.
	v := version(t, "1")
	fractions := `[` + strings.Repeat(`1e15,`, 8000) + `1]`
	if _, err := Parse(v, []byte(minimal(v, map[string]string{"content": `{"a":` + fractions + `}`}))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("fractions: %v", err)
	}
}

// Whatever comes, an event that is accepted is consistent with itself.
func FuzzParse(f *testing.F) {
	for _, v := range Versions() {
		f.Add(uint8(0), []byte(minimal(v, nil)))
		f.Add(uint8(len(v.ID)), build(f, v, Draft{Type: "m.room.message", Content: []byte(`{"body":"hello"}`)}).JSON())
		f.Add(uint8(11), []byte(minimal(v, map[string]string{"unsigned": `{"a":1}`, "type": `"m.room.create"`, "room_id": ``})))
	}
	f.Fuzz(func(t *testing.T, n uint8, pdu []byte) {
		v := Versions()[int(n)%12]
		e, err := Parse(v, pdu)
		if err != nil {
			if !errors.Is(err, ErrNotJSON) && !errors.Is(err, ErrBadJSON) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		again, err := Parse(v, e.JSON())
		if err != nil || again.ID != e.ID || !bytes.Equal(again.JSON(), e.JSON()) || !bytes.Equal(again.Content, e.Content) {
			t.Fatalf("read again: %+v, %v, was %+v", again, err, e)
		}
		trusted, err := ParseTrusted(v, e.JSON(), e.ID)
		if err != nil || !reflect.DeepEqual(trusted, again) {
			t.Fatalf("trusted: %+v, %v, was %+v", trusted, err, again)
		}
		canonical, err := CanonicalFor(v, e.JSON())
		if err != nil {
			t.Fatalf("not canonical: %v", err)
		}
		same, err := Parse(v, canonical)
		if err != nil || same.ID != e.ID {
			t.Fatalf("canonical: %+v, %v, was %+v", same, err, e)
		}
		redacted, err := e.RedactedCopy()
		if err != nil || redacted.Room != e.Room || redacted.Sender != e.Sender || redacted.Depth != e.Depth {
			t.Fatalf("redacted: %+v, %v, was %+v", redacted, err, e)
		}
		if hashed, err := Parse(v, redacted.JSON()); err != nil || hashed.ID != e.ID {
			t.Fatalf("redacted: %+v, %v, was %+v", hashed, err, e)
		}
		_, _ = e.Signatures()
		_, _ = e.Member()
		_, _ = e.PowerLevels()
		_, _, _ = e.JoinRule()
		_, _ = e.CreateContent()
		_ = e.RequiredSigners()
		_ = e.Creators()
		_ = e.HistoryVisibility()
		_, _ = e.Relation()
		_ = e.VerifyContentHash()
	})
}
