package push

import (
	"testing"

	"github.com/go-json-experiment/json"
)

// FuzzRule reads what a client may send as a rule, and holds it against an event.
// What passes the check comes back from the store as it was.
func FuzzRule(f *testing.F) {
	f.Add([]byte(`{"actions":["notify",{"set_tweak":"highlight"}],"pattern":"cake*lie"}`), []byte(`{"body":"the cake is a lie"}`))
	f.Add([]byte(`{"actions":[],"conditions":[{"kind":"event_match","key":"content.a\\.b","pattern":"*","x":[1]}]}`), []byte(`{"a.b":"c"}`))
	f.Add([]byte(`{"actions":[],"conditions":[{"kind":"event_property_contains","key":"content.a","value":null}]}`), []byte(`{"a":[null,7]}`))
	f.Add([]byte(`{"actions":[],"conditions":[{"kind":"event_property_is","key":"content.a.b","value":-7},{"kind":"room_member_count","is":">=2"}]}`), []byte(`{"a":{"b":-7}}`))
	f.Add([]byte(`{"actions":[],"conditions":[{"kind":"contains_display_name"},{"kind":"sender_notification_permission","key":"room"}]}`), []byte(`{"body":"Alice"}`))
	f.Fuzz(func(t *testing.T, text, content []byte) {
		var body Rule
		if json.Unmarshal(text, &body) != nil {
			return
		}
		body.ID, body.Default = "fuzzed", false
		ev := message("m.room.message", string(content))
		c := &Context{User: alice, Members: 2, DisplayName: "Alice", MayNotify: func(string) bool { return true }}
		for _, kind := range Kinds {
			rule := body
			if rule.Check(kind) != nil {
				continue
			}
			var s Saved
			if err := s.Put(kind, rule, "", ""); err != nil {
				t.Fatal(err)
			}
			stored, err := s.Encode()
			if err != nil {
				continue
			}
			var back Saved
			if err := json.Unmarshal(stored, &back); err != nil {
				t.Fatalf("%v\n%s", err, stored)
			}
			rules := back.Rules(alice)
			if got, want := canonical(t, rules), canonical(t, s.Rules(alice)); got != want {
				t.Errorf("came back as\n%s\nwant\n%s", got, want)
			}
			if r := rules.Match(ev, c); r != nil {
				r.Notifies()
			}
		}
	})
}
