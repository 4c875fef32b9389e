package state

import (
	"crypto/ed25519"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// Whatever another server says of a room, what is kept of it can be told to clients:
// an array of events with the four properties, whose last is the invite.
func FuzzStrippedState(f *testing.F) {
	f.Add(uint8(11), []byte(`[{"type":"m.room.create","state_key":"","sender":"@a:far.example","content":{"room_version":"12"},"auth_events":[],"prev_events":[],"depth":1,"hashes":{},"origin_server_ts":1,"signatures":{}}]`))
	f.Add(uint8(10), []byte(`[{"type":"m.room.name","state_key":"","sender":"@a:far.example","content":{"name":"\u0000"}},7]`))
	f.Add(uint8(0), []byte(`[{"type":"m.room.name","state_key":"","sender":"@a:far.example","content":{},"event_id":"$x:y","room_id":"!r:far.example"}]`))
	key := matrix.SigningKey{ID: "ed25519:test", Private: ed25519.NewKeyFromSeed(make([]byte, 32))}
	f.Fuzz(func(t *testing.T, version uint8, list []byte) {
		versions := matrix.Versions()
		target := string(bob)
		draft := matrix.Draft{Room: "!r:far.example", Sender: "@a:far.example", Type: "m.room.member", StateKey: &target, Content: []byte(`{"membership":"invite"}`)}
		invite, err := draft.Build(versions[int(version)%len(versions)], matrix.Placing{Depth: 2}, "far.example", key)
		if err != nil {
			t.Fatal(err)
		}
		var raw []jsontext.Value
		if json.Unmarshal(list, &raw) != nil {
			raw = []jsontext.Value{list}
		}
		trust := func(*matrix.Event) error { return nil }
		array, err := InviteState(invite, raw, trust)
		if (array == nil) != (err != nil) {
			t.Fatalf("%s and %v", array, err)
		}
		for _, array := range []jsontext.Value{array, KnockState(invite, raw, trust)} {
			if array == nil {
				continue
			}
			var events []map[string]jsontext.Value
			if err := json.Unmarshal(array, &events); err != nil {
				t.Fatalf("%v in %s", err, array)
			}
			for _, ev := range events {
				if len(ev) != 4 || ev["content"].Kind() != '{' || ev["sender"] == nil || ev["state_key"] == nil || ev["type"] == nil {
					t.Errorf("clients get %v", ev)
				}
			}
			if last := events[len(events)-1]; string(last["state_key"]) != string(quote(target)) {
				t.Errorf("the last is %v", last)
			}
		}
	})
}
