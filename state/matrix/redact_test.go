package matrix

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// fullEvent has every member that some version keeps and some that none keeps.
func fullEvent(typ, content string) string {
	return `{"auth_events":[],"content":` + content + `,"depth":1,"event_id":"$x:domain","hashes":{},"membership":"join",` +
		`"origin":"domain","origin_server_ts":1,"other":{"a":1},"prev_events":[],"prev_state":[],"redacts":"$y:domain",` +
		`"room_id":"!x:domain","sender":"@a:domain","signatures":{},"state_key":"","type":"` + typ + `","unsigned":{"age":1}}`
}

func TestRedactEvent(t *testing.T) {
	for i, v := range Versions() {
		want := `{"auth_events":[],"content":{},"depth":1,"event_id":"$x:domain","hashes":{},"membership":"join",` +
			`"origin":"domain","origin_server_ts":1,"prev_events":[],"prev_state":[],` +
			`"room_id":"!x:domain","sender":"@a:domain","signatures":{},"state_key":"","type":"m.room.message"}`
		if i+1 >= 11 {
			want = `{"auth_events":[],"content":{},"depth":1,"event_id":"$x:domain","hashes":{},` +
				`"origin_server_ts":1,"prev_events":[],` +
				`"room_id":"!x:domain","sender":"@a:domain","signatures":{},"state_key":"","type":"m.room.message"}`
		}
		got, err := Redact(v, []byte(fullEvent("m.room.message", `{"body":"secret","membership":"join"}`)))
		if err != nil || string(got) != want {
			t.Errorf("version %s:\n got %s, %v\nwant %s", v.ID, got, err, want)
		}
	}
}

func TestRedactContent(t *testing.T) {
	member := `{"displayname":"A","join_authorised_via_users_server":"@b:domain","membership":"join","third_party_invite":{"display_name":"B","signed":{"mxid":"@a:domain","x":1}}}`
	levels := `{"ban":1,"events":{"a":1},"events_default":1,"invite":1,"kick":1,"notifications":{"room":1},"redact":1,"state_default":1,"users":{"@a:domain":1},"users_default":1,"x":1}`
	create := `{"creator":"@a:domain","m.federate":false,"room_version":"1","x":{"y":1}}`
	for _, tt := range []struct {
		typ, content string
		first, last  int
		want         string
	}{
		{"m.room.member", member, 1, 8, `{"membership":"join"}`},
		{"m.room.member", member, 9, 10, `{"join_authorised_via_users_server":"@b:domain","membership":"join"}`},
		{"m.room.member", member, 11, 12, `{"join_authorised_via_users_server":"@b:domain","membership":"join","third_party_invite":{"signed":{"mxid":"@a:domain","x":1}}}`},
		{"m.room.member", `{"membership":"invite","third_party_invite":{"a":1}}`, 11, 12, `{"membership":"invite","third_party_invite":{}}`},
		{"m.room.member", `{"membership":"invite","third_party_invite":["signed"]}`, 11, 12, `{"membership":"invite"}`},
		{"m.room.create", create, 1, 10, `{"creator":"@a:domain"}`},
		{"m.room.create", create, 11, 12, create},
		{"m.room.join_rules", `{"allow":[{"type":"x"}],"join_rule":"restricted","x":1}`, 1, 7, `{"join_rule":"restricted"}`},
		{"m.room.join_rules", `{"allow":[{"type":"x"}],"join_rule":"restricted","x":1}`, 8, 12, `{"allow":[{"type":"x"}],"join_rule":"restricted"}`},
		{"m.room.power_levels", levels, 1, 10, `{"ban":1,"events":{"a":1},"events_default":1,"kick":1,"redact":1,"state_default":1,"users":{"@a:domain":1},"users_default":1}`},
		{"m.room.power_levels", levels, 11, 12, `{"ban":1,"events":{"a":1},"events_default":1,"invite":1,"kick":1,"redact":1,"state_default":1,"users":{"@a:domain":1},"users_default":1}`},
		{"m.room.aliases", `{"aliases":["#a:domain"],"x":1}`, 1, 5, `{"aliases":["#a:domain"]}`},
		{"m.room.aliases", `{"aliases":["#a:domain"],"x":1}`, 6, 12, `{}`},
		{"m.room.history_visibility", `{"history_visibility":"joined","x":1}`, 1, 12, `{"history_visibility":"joined"}`},
		{"m.room.redaction", `{"reason":"spam","redacts":"$a"}`, 1, 10, `{}`},
		{"m.room.redaction", `{"reason":"spam","redacts":"$a"}`, 11, 12, `{"redacts":"$a"}`},
		{"m.room.name", `{"name":"A"}`, 1, 12, `{}`},
		{"m.room.third_party_invite", `{"public_key":"A"}`, 1, 12, `{}`},
	} {
		for _, v := range Versions()[tt.first-1 : tt.last] {
			got, err := Redact(v, []byte(fullEvent(tt.typ, tt.content)))
			if err != nil || !strings.Contains(string(got), `"content":`+tt.want+`,"depth"`) {
				t.Errorf("%s in version %s: %s, %v\nwant content %s", tt.typ, v.ID, got, err, tt.want)
			}
		}
	}
}

// Redacting twice is redacting once; the ID and the signatures hold; the content
// hash does not.
func TestRedactKeepsID(t *testing.T) {
	room := ""
	for _, v := range Versions() {
		for _, d := range []Draft{
			{Type: "m.room.message", Content: []byte(`{"body":"hello"}`)},
			{Type: "m.room.create", StateKey: &room, Content: []byte(`{"creator":"@alice:example.org","x":1}`)},
			{Type: "m.room.redaction", Redacts: "$target", Content: []byte(`{"reason":"spam"}`)},
		} {
			e := build(t, v, d)
			once, err := Redact(v, e.JSON())
			if err != nil {
				t.Fatal(err)
			}
			twice, err := Redact(v, once)
			if err != nil || !bytes.Equal(once, twice) {
				t.Errorf("version %s, %s: twice is not once: %s, %v", v.ID, d.Type, twice, err)
			}
			again, err := Parse(v, once)
			if err != nil || again.ID != e.ID || again.Room != e.Room {
				t.Errorf("version %s, %s: %s in %s became %+v, %v", v.ID, d.Type, e.ID, e.Room, again, err)
			}
			if !e.VerifyContentHash() {
				t.Errorf("version %s, %s: the content hash does not fit", v.ID, d.Type)
			}
			whole := v.redaction.wholeCreate && d.Type == "m.room.create"
			if again.VerifyContentHash() != whole {
				t.Errorf("version %s, %s: the content hash of the redacted event: fits is %v", v.ID, d.Type, !whole)
			}
			if redacted, err := e.RedactedCopy(); err != nil || redacted.ID != e.ID || !bytes.Equal(redacted.JSON(), once) {
				t.Errorf("version %s, %s: RedactedCopy: %+v, %v", v.ID, d.Type, redacted, err)
			}
		}
	}
}

func TestRedactRefuses(t *testing.T) {
	for _, tt := range []struct {
		json string
		want error
	}{
		{``, ErrNotJSON}, {`[]`, ErrBadJSON}, {`{}`, ErrBadJSON}, {`{"type":"m.room.message"}`, ErrBadJSON},
		{`{"content":[],"type":"a"}`, ErrBadJSON}, {`{"content":{},"type":1}`, ErrBadJSON}, {`{"content":{}}`, ErrBadJSON},
	} {
		if _, err := Redact(version(t, "12"), []byte(tt.json)); !errors.Is(err, tt.want) {
			t.Errorf("Redact(%s): %v, want %v", tt.json, err, tt.want)
		}
		if _, err := ReferenceHash(version(t, "12"), []byte(tt.json)); !errors.Is(err, tt.want) {
			t.Errorf("ReferenceHash(%s): %v, want %v", tt.json, err, tt.want)
		}
	}
}
