package push

import (
	"fmt"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

func TestCopyRoom(t *testing.T) {
	about := func(id, room string) string {
		return `{"rule_id":"` + id + `","default":false,"enabled":false,"conditions":[{"kind":"event_match","key":"room_id","pattern":"` + room + `"}],"actions":[]}`
	}
	room := func(id, actions string) string {
		return `{"rule_id":"` + id + `","default":false,"enabled":true,"actions":` + actions + `}`
	}
	for _, tt := range []struct{ name, kind, before, after string }{
		{"a room rule", "room", room("!a:x", `["notify"]`), room("!a:x", `["notify"]`) + "," + room("!b", `["notify"]`)},
		{"one that is there stays", "room", room("!a:x", `["notify"]`) + "," + room("!b", `[]`), room("!a:x", `["notify"]`) + "," + room("!b", `[]`)},
		{"another room's", "room", room("!c:x", `[]`), room("!c:x", `[]`)},
		{"by condition", "override", about("!a:x", "!a:x"), about("!a:x", "!a:x") + "," + about("!b", "!b")},
		{"another name", "underride", about("mute", "!a:x"), about("mute", "!a:x") + "," + about("!b", "!b")},
		{"part of a name", "underride", about("mute !a:x", "!a:x"), about("mute !a:x", "!a:x") + "," + about("mute !b", "!b")},
		{"a condition on another room", "override", about("!a:x", "!c:x"), about("!a:x", "!c:x")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var saved Saved
			stored := fmt.Sprintf(`{"own":{%q:[%s]}}`, tt.kind, tt.before)
			if err := json.Unmarshal([]byte(stored), &saved); err != nil {
				t.Fatal(err)
			}
			copied := saved.CopyRoom("!a:x", "!b")
			if copied != (tt.before != tt.after) {
				t.Errorf("copied is %t", copied)
			}
			got, err := json.Marshal(*saved.Own.list(Kind(tt.kind)), json.Deterministic(true))
			if err != nil {
				t.Fatal(err)
			}
			if want := "[" + tt.after + "]"; string(got) != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
			if saved.CopyRoom("!a:x", "!b") {
				t.Error("copied again")
			}
		})
	}
}

// A user who has as many rules as he may keeps them, and gets no more.
func TestCopyRoomBounded(t *testing.T) {
	var saved Saved
	if err := saved.Put(Room, Rule{ID: "!a:x", Actions: []jsontext.Value{}}, "", ""); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < maxRules; i++ {
		if err := saved.Put(Room, Rule{ID: fmt.Sprintf("!room%d:x", i)}, "", ""); err != nil {
			t.Fatal(err)
		}
	}
	if saved.CopyRoom("!a:x", "!b") || saved.count() != maxRules {
		t.Errorf("%d rules", saved.count())
	}
}
