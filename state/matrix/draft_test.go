package matrix

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestBuild(t *testing.T) {
	key := vectorKey(t)
	for _, v := range Versions() {
		e := build(t, v, Draft{Type: "m.room.message", Content: []byte(` {"msgtype":"m.text", "body":"h\u00e9llo"} `)})
		if e.Room != "!room:example.org" || e.Sender != "@alice:example.org" || e.IsState() || e.Depth != 7 ||
			e.OriginServerTS != 1700000000000 || string(e.Content) != `{"body":"héllo","msgtype":"m.text"}` {
			t.Errorf("version %s: %+v", v.ID, e)
		}
		if p := placing(v); !slices.Equal(e.PrevEvents, p.Prev) || !slices.Equal(e.AuthEvents, p.Auth) {
			t.Errorf("version %s: prev %v, auth %v", v.ID, e.PrevEvents, e.AuthEvents)
		}
		if canonical, err := CanonicalFor(v, e.JSON()); err != nil || string(canonical) != string(e.JSON()) {
			t.Errorf("version %s: not canonical: %s, %v", v.ID, e.JSON(), err)
		}
		if !e.VerifyContentHash() {
			t.Errorf("version %s: the content hash does not fit", v.ID)
		}
		if err := e.VerifySignature("example.org", key.ID, key.public()); err != nil {
			t.Errorf("version %s: %v", v.ID, err)
		}
		if hash, err := ContentHash(v, e.JSON()); err != nil || !strings.Contains(string(e.JSON()), encodeBase64(hash[:])) {
			t.Errorf("version %s: %v", v.ID, err)
		}
	}
}

func TestBuildHashPairs(t *testing.T) {
	v := version(t, "2")
	e := build(t, v, Draft{Type: "m.room.message", Content: []byte(`{}`)})
	pair := `["$two:example.org",{"sha256":"` + encodeBase64([]byte(strings.Repeat("t", 32))) + `"}]`
	if strings.Count(string(e.JSON()), pair) != 2 {
		t.Errorf("no %s twice in %s", pair, e.JSON())
	}
}

// The ID of an event of versions 1 and 2 is that of its draft, as the hash is later.
func TestBuildGivenID(t *testing.T) {
	v := version(t, "2")
	e := build(t, v, Draft{Type: "m.room.message", Content: []byte(`{}`)})
	if server, ok := e.ID.Server(); !ok || server != "example.org" || len(e.ID) != len("$:example.org")+24 {
		t.Errorf("ID %s", e.ID)
	}
	same := build(t, v, Draft{Type: "m.room.message", Content: []byte(`{ }`)})
	other := build(t, v, Draft{Type: "m.room.message", Content: []byte(`{"body":""}`)})
	if same.ID != e.ID || other.ID == e.ID {
		t.Errorf("%s, of the same draft %s, of another %s", e.ID, same.ID, other.ID)
	}
}

func TestBuildCreate(t *testing.T) {
	for _, v := range Versions() {
		e := state(t, v, "m.room.create", `{"room_version":"`+v.ID+`"}`)
		if v.RoomIDIsHash == (e.Room == "!room:example.org") || v.RoomIDIsHash == strings.Contains(string(e.JSON()), "room_id") {
			t.Errorf("version %s: %s in %s", v.ID, e.Room, e.JSON())
		}
	}
}

func TestBuildRedaction(t *testing.T) {
	for _, v := range Versions() {
		e := build(t, v, Draft{Type: "m.room.redaction", Redacts: "$target", Content: []byte(`{"reason":"r","redacts":"$other","z":1}`)})
		if e.Redacts != "$target" {
			t.Errorf("version %s: %q", v.ID, e.Redacts)
		}
		if inside := strings.Contains(string(e.Content), `"redacts":"$target"`); inside != v.RedactsInContent {
			t.Errorf("version %s: %s", v.ID, e.JSON())
		}
	}
}

func TestBuildCapsDepth(t *testing.T) {
	for _, v := range Versions() {
		d := Draft{Room: "!a:b", Sender: "@a:b", Type: "X", Content: []byte(`{}`)}
		e, err := d.Build(v, Placing{Depth: 1<<63 - 1}, "b", vectorKey(t))
		if err != nil || e.Depth != v.MaxDepth {
			t.Errorf("version %s: %+v, %v", v.ID, e, err)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	long, wide := strings.Repeat("x", 256), strings.Repeat("💥", 64) // 256 bytes each
	for _, tt := range []struct {
		draft Draft
		want  error
	}{
		{Draft{Content: []byte(`[]`)}, ErrBadJSON},
		{Draft{Content: []byte(`{`)}, ErrNotJSON},
		{Draft{}, ErrNotJSON},
		{Draft{Content: []byte(`{"a":1.5}`)}, ErrBadJSON},
		{Draft{Content: []byte(`{"a":1,"a":2}`)}, ErrBadJSON},
		{Draft{Content: []byte(`{}`), Type: long}, ErrTooLarge},
		{Draft{Content: []byte(`{}`), StateKey: &long}, ErrTooLarge},
		{Draft{Content: []byte(`{}`), Type: wide}, ErrTooLarge},
		{Draft{Content: []byte(`{}`), StateKey: &wide}, ErrTooLarge},
		{Draft{Content: []byte(`{"body":"` + strings.Repeat("x", MaxEventBytes) + `"}`)}, ErrTooLarge},
	} {
		tt.draft.Room, tt.draft.Sender = "!a:b", "@a:b"
		for _, id := range []string{"10", "11"} {
			if e, err := tt.draft.Build(version(t, id), Placing{}, "b", vectorKey(t)); !errors.Is(err, tt.want) {
				t.Errorf("version %s, %.80v: %v, %v, want %v", id, tt.draft, e, err, tt.want)
			}
		}
	}
}
