package push

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// readRules reads a set of rules as it is stored.
func readRules(t testing.TB, text string) *Ruleset {
	t.Helper()
	rules := new(Ruleset)
	if err := json.Unmarshal([]byte(text), rules); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return rules
}

// predefinedJSON is the predefined rules word for word as the specification has
// them. Spec: CS Predefined Rules.
const predefinedJSON = `{"content":[],"room":[],"sender":[],
"override":[
{"rule_id":".m.rule.master","default":true,"enabled":false,"conditions":[],"actions":[]},
{"rule_id":".m.rule.suppress_notices","default":true,"enabled":true,"conditions":[{"kind":"event_match","key":"content.msgtype","pattern":"m.notice"}],"actions":[]},
{"rule_id":".m.rule.invite_for_me","default":true,"enabled":true,"conditions":[{"key":"type","kind":"event_match","pattern":"m.room.member"},{"key":"content.membership","kind":"event_match","pattern":"invite"},{"key":"state_key","kind":"event_match","pattern":"@alice:hearth.test"}],"actions":["notify",{"set_tweak":"sound","value":"default"}]},
{"rule_id":".m.rule.member_event","default":true,"enabled":true,"conditions":[{"key":"type","kind":"event_match","pattern":"m.room.member"}],"actions":[]},
{"rule_id":".m.rule.is_user_mention","default":true,"enabled":true,"conditions":[{"kind":"event_property_contains","key":"content.m\\.mentions.user_ids","value":"@alice:hearth.test"}],"actions":["notify",{"set_tweak":"sound","value":"default"},{"set_tweak":"highlight"}]},
{"rule_id":".m.rule.is_room_mention","default":true,"enabled":true,"conditions":[{"kind":"event_property_is","key":"content.m\\.mentions.room","value":true},{"kind":"sender_notification_permission","key":"room"}],"actions":["notify",{"set_tweak":"highlight"}]},
{"rule_id":".m.rule.tombstone","default":true,"enabled":true,"conditions":[{"kind":"event_match","key":"type","pattern":"m.room.tombstone"},{"kind":"event_match","key":"state_key","pattern":""}],"actions":["notify",{"set_tweak":"highlight"}]},
{"rule_id":".m.rule.reaction","default":true,"enabled":true,"conditions":[{"kind":"event_match","key":"type","pattern":"m.reaction"}],"actions":[]},
{"rule_id":".m.rule.room.server_acl","default":true,"enabled":true,"conditions":[{"kind":"event_match","key":"type","pattern":"m.room.server_acl"},{"kind":"event_match","key":"state_key","pattern":""}],"actions":[]},
{"rule_id":".m.rule.suppress_edits","default":true,"enabled":true,"conditions":[{"kind":"event_property_is","key":"content.m\\.relates_to.rel_type","value":"m.replace"}],"actions":[]}],
"underride":[
{"rule_id":".m.rule.call","default":true,"enabled":true,"conditions":[{"key":"type","kind":"event_match","pattern":"m.call.invite"}],"actions":["notify",{"set_tweak":"sound","value":"ring"}]},
{"rule_id":".m.rule.encrypted_room_one_to_one","default":true,"enabled":true,"conditions":[{"kind":"room_member_count","is":"2"},{"kind":"event_match","key":"type","pattern":"m.room.encrypted"}],"actions":["notify",{"set_tweak":"sound","value":"default"}]},
{"rule_id":".m.rule.room_one_to_one","default":true,"enabled":true,"conditions":[{"kind":"room_member_count","is":"2"},{"kind":"event_match","key":"type","pattern":"m.room.message"}],"actions":["notify",{"set_tweak":"sound","value":"default"}]},
{"rule_id":".m.rule.message","default":true,"enabled":true,"conditions":[{"kind":"event_match","key":"type","pattern":"m.room.message"}],"actions":["notify"]},
{"rule_id":".m.rule.encrypted","default":true,"enabled":true,"conditions":[{"kind":"event_match","key":"type","pattern":"m.room.encrypted"}],"actions":["notify"]}]}`

// canonical is v as JSON with its members in order.
func canonical(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	text := jsontext.Value(b)
	if err := text.Canonicalize(); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestPredefinedRulesAreThoseOfTheSpecification(t *testing.T) {
	got, want := canonical(t, new(Saved).Rules(alice)), canonical(t, jsontext.Value(predefinedJSON))
	if got != want {
		t.Errorf("the rules are\n%s\nwant\n%s", got, want)
	}
}

// ids are the rule IDs of a kind, those that are off in brackets.
func ids(s *Saved, kind Kind) string {
	var all []string
	for _, r := range *s.Rules(alice).list(kind) {
		if r.Default && r.ID != ".m.rule.master" {
			continue
		}
		if r.Enabled {
			all = append(all, r.ID)
		} else {
			all = append(all, "("+r.ID+")")
		}
	}
	return strings.Join(all, " ")
}

func TestPut(t *testing.T) {
	var s Saved
	for i, step := range []struct {
		id, before, after string
		err               error
		want              string
	}{
		{id: "a", want: "a"},
		{id: "b", want: "b a"},
		{id: "c", after: "b", want: "b c a"},
		{id: "d", before: "a", want: "b c d a"},
		{id: "e", before: "b", want: "e b c d a"},
		{id: "f", after: "a", want: "e b c d a f"},
		{id: "c", want: "e b c d a f"},                                          // an old rule keeps its place
		{id: "e", after: "f", want: "b c d a f e"},                              // or goes where it is asked to
		{id: "e", before: "c", want: "b e c d a f"},                             //
		{id: "g", before: "c", after: "f", want: "b e g c d a f"},               // before wins
		{id: "x", before: "none", err: ErrUnknownNeighbour},                     //
		{id: "x", after: "none", err: ErrUnknownNeighbour},                      //
		{id: "x", before: ".m.rule.suppress_notices", err: ErrUnknownNeighbour}, //
		{id: "x", after: ".m.rule.master", err: ErrUnknownNeighbour},            //
		{id: "a", before: "a", err: ErrUnknownNeighbour},                        //
		{id: "x", before: "none", after: "a", err: ErrUnknownNeighbour},         //
		{id: "y", want: "y b e g c d a f"},                                      //
	} {
		if err := s.Put(Content, Rule{ID: step.id}, step.before, step.after); !errors.Is(err, step.err) {
			t.Fatalf("step %d: %v, want %v", i, err, step.err)
		}
		if got := ids(&s, Content); step.err == nil && got != step.want {
			t.Fatalf("step %d: %s, want %s", i, got, step.want)
		}
	}
	if err := s.Put("nonsense", Rule{ID: "a"}, "", ""); !errors.Is(err, ErrUnknownRule) {
		t.Errorf("a rule of no kind: %v", err)
	}
}

func TestChanges(t *testing.T) {
	var s Saved
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.Put(Override, Rule{ID: "mine", Actions: nothing}, "", ""))
	if got := ids(&s, Override); got != "(.m.rule.master) mine" {
		t.Errorf("override rules: %s", got)
	}
	must(s.SetEnabled(Override, "mine", false))
	must(s.SetEnabled(Override, ".m.rule.master", true))
	if got := ids(&s, Override); got != ".m.rule.master (mine)" {
		t.Errorf("override rules: %s", got)
	}
	must(s.Put(Override, Rule{ID: "mine", Actions: notify}, "", "")) // a changed rule stays off
	if r := s.Rules(alice).Rule(Override, "mine"); r.Enabled || len(r.Actions) != 1 {
		t.Errorf("the changed rule is %+v", r)
	}
	must(s.SetActions(Override, "mine", sound))
	must(s.SetActions(Underride, ".m.rule.message", nothing))
	must(s.SetEnabled(Underride, ".m.rule.message", false))
	rules := s.Rules(alice)
	if r := rules.Rule(Override, "mine"); len(r.Actions) != 2 {
		t.Errorf("the actions are %s", r.Actions)
	}
	if r := rules.Rule(Underride, ".m.rule.message"); r.Enabled || r.Actions == nil || len(r.Actions) != 0 || !r.Default {
		t.Errorf("the predefined rule is %+v", r)
	}
	if r := new(Saved).Rules(alice).Rule(Underride, ".m.rule.message"); !r.Enabled || len(r.Actions) != 1 {
		t.Errorf("another user's predefined rule is %+v", r)
	}
	for name, err := range map[string]error{
		"enable an unknown rule":   s.SetEnabled(Override, "none", true),
		"enable in another kind":   s.SetEnabled(Content, "mine", true),
		"enable in no kind":        s.SetEnabled("nonsense", "mine", true),
		"unknown rule's actions":   s.SetActions(Underride, ".m.rule.none", nothing),
		"delete a predefined rule": s.Delete(Underride, ".m.rule.message"),
		"delete in another kind":   s.Delete(Room, "mine"),
		"delete in no kind":        s.Delete("nonsense", "mine"),
	} {
		if !errors.Is(err, ErrUnknownRule) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(s.Delete(Override, "mine"))
	if err := s.Delete(Override, "mine"); !errors.Is(err, ErrUnknownRule) {
		t.Errorf("delete it again: %v", err)
	}
}

// What is stored comes back as it was, with all that a condition held, and means
// the same.
func TestSavedRoundTrip(t *testing.T) {
	conditions := `[{"kind":"event_match","key":"content.body","pattern":"","org.example":{"a":[1,null]}},` +
		`{"kind":"event_property_is","key":"content.x","value":null},` +
		`{"kind":"org.example.unknown","is":"maybe","other":7}]`
	var s Saved
	rule := Rule{ID: "mine", Actions: loud}
	if err := json.Unmarshal([]byte(conditions), &rule.Conditions); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		s.Put(Override, rule, "", ""),
		s.Put(Room, Rule{ID: "!room:hearth.test", Actions: nothing}, "", ""),
		s.SetEnabled(Room, "!room:hearth.test", false),
		s.SetActions(Underride, ".m.rule.call", nothing),
	); err != nil {
		t.Fatal(err)
	}
	stored, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var back Saved
	if err := json.Unmarshal(stored, &back); err != nil {
		t.Fatal(err)
	}
	if got, want := canonical(t, back.Rules(alice)), canonical(t, s.Rules(alice)); got != want {
		t.Errorf("the rules came back as\n%s\nwant\n%s", got, want)
	}
	if got, want := canonical(t, back.Rules(alice).Rule(Override, "mine").Conditions), canonical(t, jsontext.Value(conditions)); got != want {
		t.Errorf("the conditions came back as\n%s\nwant\n%s", got, want)
	}
}

func TestBounds(t *testing.T) {
	var s Saved
	for i := range maxRules {
		if err := s.Put(Kinds[i%len(Kinds)], Rule{ID: fmt.Sprint(i), Actions: nothing}, "", ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Encode(); err != nil {
		t.Error(err)
	}
	if err := s.Put(Room, Rule{ID: "more", Actions: nothing}, "", ""); !errors.Is(err, ErrTooMany) {
		t.Errorf("one rule more: %v", err)
	}
	if err := s.Put(Override, Rule{ID: "0", Actions: notify}, "", ""); err != nil {
		t.Errorf("an old rule: %v", err)
	}
	huge := jsontext.Value(`{"set_tweak":"x","value":"` + strings.Repeat("x", maxSavedBytes) + `"}`)
	if err := s.SetActions(Underride, ".m.rule.call", []jsontext.Value{huge}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Encode(); !errors.Is(err, ErrTooMany) {
		t.Errorf("a huge action: %v", err)
	}
}

func TestCheck(t *testing.T) {
	long := func(n int) *string { s := strings.Repeat("x", n); return &s }
	for name, tc := range map[string]struct {
		kind Kind
		rule Rule
		ok   bool
	}{
		"override":             {Override, Rule{ID: "x", Actions: nothing}, true},
		"content":              {Content, Rule{ID: "x", Actions: nothing, Pattern: long(maxPattern)}, true},
		"no ID":                {Override, Rule{Actions: nothing}, false},
		"a dot":                {Override, Rule{ID: ".x", Actions: nothing}, false},
		"a slash":              {Override, Rule{ID: "a/b", Actions: nothing}, false},
		"a backslash":          {Override, Rule{ID: `a\b`, Actions: nothing}, false},
		"a long ID":            {Override, Rule{ID: *long(maxID + 1), Actions: nothing}, false},
		"no actions":           {Override, Rule{ID: "x"}, false},
		"many actions":         {Override, Rule{ID: "x", Actions: make([]jsontext.Value, maxActions+1)}, false},
		"an action of no form": {Override, Rule{ID: "x", Actions: actions(`7`)}, false},
		"no pattern":           {Content, Rule{ID: "x", Actions: nothing}, false},
		"a long pattern":       {Content, Rule{ID: "x", Actions: nothing, Pattern: long(maxPattern + 1)}, false},
		"a long condition":     {Underride, Rule{ID: "x", Actions: nothing, Conditions: []Condition{{Kind: "event_match", Pattern: long(maxPattern + 1)}}}, false},
		"many conditions":      {Underride, Rule{ID: "x", Actions: nothing, Conditions: make([]Condition, maxConditions+1)}, false},
	} {
		err := tc.rule.Check(tc.kind)
		if (err == nil) != tc.ok || err != nil && !errors.Is(err, ErrBadRule) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What does not belong to the kind goes.
	pattern := "x"
	for kind, want := range map[Kind]string{
		Override:  `{"actions":[],"conditions":[],"default":false,"enabled":false,"rule_id":"x"}`,
		Content:   `{"actions":[],"default":false,"enabled":false,"pattern":"x","rule_id":"x"}`,
		Room:      `{"actions":[],"default":false,"enabled":false,"rule_id":"x"}`,
		Sender:    `{"actions":[],"default":false,"enabled":false,"rule_id":"x"}`,
		Underride: `{"actions":[],"conditions":[],"default":false,"enabled":false,"rule_id":"x"}`,
	} {
		r := Rule{ID: "x", Actions: nothing, Pattern: &pattern}
		if kind == Room || kind == Sender || kind == Content {
			r.Conditions = []Condition{{Kind: "event_match"}}
		}
		if err := r.Check(kind); err != nil || canonical(t, r) != want {
			t.Errorf("%s: %s, %v, want %s", kind, canonical(t, r), err, want)
		}
	}
}
