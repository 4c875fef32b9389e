package push

import (
	"fmt"
	"strings"
	"testing"

	"hearth/state/matrix"
)

const (
	alice = matrix.UserID("@alice:hearth.test")
	bob   = matrix.UserID("@bob:hearth.test")
)

// message returns an event of bob's.
func message(typ, content string) *matrix.Event {
	return &matrix.Event{Type: typ, Sender: bob, Room: "!room:hearth.test", ID: "$event", Content: []byte(content)}
}

// stateEvent returns a state event of bob's.
func stateEvent(typ, key, content string) *matrix.Event {
	ev := message(typ, content)
	ev.StateKey = &key
	return ev
}

// Each predefined rule has events that it decides about, and what then happens.
func TestPredefinedRules(t *testing.T) {
	text := message("m.room.message", `{"body":"hi","msgtype":"m.text"}`)
	mention := message("m.room.message", `{"body":"hi","m.mentions":{"user_ids":["@bob:hearth.test","@alice:hearth.test"]}}`)
	everybody := message("m.room.message", `{"body":"hi","m.mentions":{"room":true}}`)
	for name, tc := range map[string]struct {
		ev      *matrix.Event
		members uint64
		weak    bool // bob may not notify the room
		rule    string
		effect  string
	}{
		"notice":                   {ev: message("m.room.message", `{"body":"hi","msgtype":"m.notice"}`), rule: ".m.rule.suppress_notices"},
		"invite":                   {ev: stateEvent("m.room.member", string(alice), `{"membership":"invite"}`), rule: ".m.rule.invite_for_me", effect: "notify"},
		"invite of somebody else":  {ev: stateEvent("m.room.member", "@carol:hearth.test", `{"membership":"invite"}`), rule: ".m.rule.member_event"},
		"kick":                     {ev: stateEvent("m.room.member", string(alice), `{"membership":"leave"}`), rule: ".m.rule.member_event"},
		"mention":                  {ev: mention, rule: ".m.rule.is_user_mention", effect: "highlight"},
		"mention in an encrypted":  {ev: message("m.room.encrypted", string(mention.Content)), rule: ".m.rule.is_user_mention", effect: "highlight"},
		"mention that is no list":  {ev: message("m.room.message", `{"m.mentions":{"user_ids":"@alice:hearth.test"}}`), rule: ".m.rule.message", effect: "notify"},
		"mention of others":        {ev: message("m.room.message", `{"m.mentions":{"user_ids":["@alice:hearth.tes","@bob:hearth.test"]}}`), rule: ".m.rule.message", effect: "notify"},
		"mention in the text only": {ev: message("m.room.message", `{"body":"@alice:hearth.test alice @room"}`), rule: ".m.rule.message", effect: "notify"},
		"room mention":             {ev: everybody, rule: ".m.rule.is_room_mention", effect: "highlight"},
		"room mention of the weak": {ev: everybody, weak: true, rule: ".m.rule.message", effect: "notify"},
		"room mention as text":     {ev: message("m.room.message", `{"m.mentions":{"room":"true"}}`), rule: ".m.rule.message", effect: "notify"},
		"tombstone":                {ev: stateEvent("m.room.tombstone", "", `{}`), rule: ".m.rule.tombstone", effect: "highlight"},
		"tombstone with a key":     {ev: stateEvent("m.room.tombstone", "x", `{}`)},
		"tombstone without a key":  {ev: message("m.room.tombstone", `{}`)},
		"reaction":                 {ev: message("m.reaction", `{"m.relates_to":{"rel_type":"m.annotation"}}`), rule: ".m.rule.reaction"},
		"server ACL":               {ev: stateEvent("m.room.server_acl", "", `{}`), rule: ".m.rule.room.server_acl"},
		"edit":                     {ev: message("m.room.message", `{"body":"* hi","m.relates_to":{"rel_type":"m.replace"}}`), rule: ".m.rule.suppress_edits"},
		"edit with a mention":      {ev: message("m.room.message", `{"m.mentions":{"user_ids":["@alice:hearth.test"]},"m.relates_to":{"rel_type":"m.replace"}}`), rule: ".m.rule.is_user_mention", effect: "highlight"},
		"call":                     {ev: message("m.call.invite", `{}`), rule: ".m.rule.call", effect: "notify"},
		"encrypted of two":         {ev: message("m.room.encrypted", `{}`), members: 2, rule: ".m.rule.encrypted_room_one_to_one", effect: "notify"},
		"message of two":           {ev: text, members: 2, rule: ".m.rule.room_one_to_one", effect: "notify"},
		"message of three":         {ev: text, members: 3, rule: ".m.rule.message", effect: "notify"},
		"encrypted of three":       {ev: message("m.room.encrypted", `{}`), members: 3, rule: ".m.rule.encrypted", effect: "notify"},
		"state":                    {ev: stateEvent("m.room.topic", "", `{"topic":"x"}`)},
		"unknown type":             {ev: message("m.unknown", `{"body":"hi"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			c := &Context{User: alice, Members: tc.members, MayNotify: func(key string) bool { return key == "room" && !tc.weak }}
			rules := new(Saved).Rules(alice)
			if got, effect := decides(rules, tc.ev, c); got != tc.rule || effect != tc.effect {
				t.Errorf("%q %q decides, want %q %q", got, effect, tc.rule, tc.effect)
			}
			rules.Rule(Override, ".m.rule.master").Enabled = true
			if got, effect := decides(rules, tc.ev, c); got != ".m.rule.master" || effect != "" {
				t.Errorf("with the master rule, %q %q decides", got, effect)
			}
			own := *tc.ev
			own.Sender = alice
			if got := rules.Match(&own, c); got != nil {
				t.Errorf("an event of one's own: %q decides", got.ID)
			}
		})
	}
}

// decides returns the rule that decides about an event and what it does.
func decides(rules *Ruleset, ev *matrix.Event, c *Context) (rule, effect string) {
	r := rules.Match(ev, c)
	if r == nil {
		return "", ""
	}
	switch notify, highlight := r.Notifies(); {
	case highlight:
		return r.ID, "highlight"
	case notify:
		return r.ID, "notify"
	}
	return r.ID, ""
}

func TestConditions(t *testing.T) {
	ev := stateEvent("m.test", "Key", `{
		"body": "An exciting triple-whammy, Alice B.!", "topic": "Lunch plans", "text": "a\"b\\c", "n": 7, "big": 9007199254740991,
		"half": 1.5, "yes": true, "no": false, "nothing": null, "list": ["a", 7, true, null, ["a"], {"b": 1}], "empty": [], "object": {"a.b": {"c\\d": "deep", "": "bare"}, "e": "f"},
		"m.federate": true, "back\\slash": "x", "a\\xb": "y", "": {"": "nameless"}
	}`)
	c := &Context{User: alice, Members: 10, DisplayName: "alice b.", MayNotify: func(key string) bool { return key == "room" }}
	for text, want := range map[string]bool{
		// event_match on whole values.
		`{"kind":"event_match","key":"content.topic","pattern":"lunc?*"}`:      true,
		`{"kind":"event_match","key":"content.topic","pattern":"lunc"}`:        false,
		`{"kind":"event_match","key":"content.topic","pattern":"*PLANS"}`:      true,
		`{"kind":"event_match","key":"content.missing","pattern":"*"}`:         false,
		`{"kind":"event_match","key":"content.nothing","pattern":"*"}`:         false,
		`{"kind":"event_match","key":"content.n","pattern":"*"}`:               false,
		`{"kind":"event_match","key":"content.list","pattern":"*"}`:            false,
		`{"kind":"event_match","key":"content.object","pattern":"*"}`:          false,
		`{"kind":"event_match","key":"content","pattern":"*"}`:                 false,
		`{"kind":"event_match","key":"content.text","pattern":"A\"B\\C"}`:      true,
		`{"kind":"event_match","key":"type","pattern":"M.*"}`:                  true,
		`{"kind":"event_match","key":"sender","pattern":"@bob:*"}`:             true,
		`{"kind":"event_match","key":"room_id","pattern":"!room:hearth.test"}`: true,
		`{"kind":"event_match","key":"event_id","pattern":"$event"}`:           true,
		`{"kind":"event_match","key":"state_key","pattern":"key"}`:             true,
		`{"kind":"event_match","key":"state_key","pattern":""}`:                false,
		`{"kind":"event_match","key":"redacts","pattern":"*"}`:                 false,
		`{"kind":"event_match","key":"origin_server_ts","pattern":"*"}`:        false,
		`{"kind":"event_match","key":"","pattern":"*"}`:                        false,
		`{"kind":"event_match","key":"content.topic"}`:                         false,
		`{"kind":"event_match","pattern":"*"}`:                                 false,
		// event_match on the words of the body.
		`{"kind":"event_match","key":"content.body","pattern":"ex*ple"}`:   true,
		`{"kind":"event_match","key":"content.body","pattern":"exciting"}`: true,
		`{"kind":"event_match","key":"content.body","pattern":"excit"}`:    false,
		`{"kind":"event_match","key":"content.body","pattern":"cit*"}`:     false,
		`{"kind":"event_match","key":"content.body","pattern":"WHAMMY"}`:   true,
		`{"kind":"event_match","key":"content.body","pattern":"alice b"}`:  true,
		// Paths.
		`{"kind":"event_match","key":"content.object.a\\.b.c\\\\d","pattern":"deep"}`: true,
		`{"kind":"event_match","key":"content.object.a\\.b.","pattern":"bare"}`:       true,
		`{"kind":"event_match","key":"content.object.a.b","pattern":"*"}`:             false,
		`{"kind":"event_match","key":"content.object.e.f","pattern":"*"}`:             false,
		`{"kind":"event_match","key":"content..","pattern":"nameless"}`:               true,
		`{"kind":"event_match","key":"content.back\\\\slash","pattern":"x"}`:          true,
		`{"kind":"event_match","key":"content.back\\slash","pattern":"x"}`:            true,
		`{"kind":"event_match","key":"content.a\\xb","pattern":"y"}`:                  true,
		`{"kind":"event_match","key":"unsigned.age","pattern":"*"}`:                   false,
		// event_property_is.
		`{"kind":"event_property_is","key":"content.m\\.federate","value":true}`:        true,
		`{"kind":"event_property_is","key":"content.m\\.federate","value":"true"}`:      false,
		`{"kind":"event_property_is","key":"content.m\\.federate","value":1}`:           false,
		`{"kind":"event_property_is","key":"content.no","value":false}`:                 true,
		`{"kind":"event_property_is","key":"content.no","value":true}`:                  false,
		`{"kind":"event_property_is","key":"content.nothing","value":null}`:             true,
		`{"kind":"event_property_is","key":"content.missing","value":null}`:             false,
		`{"kind":"event_property_is","key":"content.nothing"}`:                          false,
		`{"kind":"event_property_is","key":"content.n","value":7}`:                      true,
		`{"kind":"event_property_is","key":"content.n","value":8}`:                      false,
		`{"kind":"event_property_is","key":"content.n","value":"7"}`:                    false,
		`{"kind":"event_property_is","key":"content.big","value":9007199254740991}`:     true,
		`{"kind":"event_property_is","key":"content.half","value":1.5}`:                 false,
		`{"kind":"event_property_is","key":"content.topic","value":"Lunch plans"}`:      true,
		`{"kind":"event_property_is","key":"content.topic","value":"lunch plans"}`:      false,
		`{"kind":"event_property_is","key":"content.topic","value":"Lunch\u0020plans"}`: true,
		`{"kind":"event_property_is","key":"type","value":"m.test"}`:                    true,
		`{"kind":"event_property_is","key":"content.list","value":["a"]}`:               false,
		`{"kind":"event_property_is","key":"content.empty","value":[]}`:                 false,
		`{"kind":"event_property_is","key":"content.object.e","value":"f"}`:             true,
		// event_property_contains.
		`{"kind":"event_property_contains","key":"content.list","value":"a"}`:            true,
		`{"kind":"event_property_contains","key":"content.list","value":"A"}`:            false,
		`{"kind":"event_property_contains","key":"content.list","value":7}`:              true,
		`{"kind":"event_property_contains","key":"content.list","value":true}`:           true,
		`{"kind":"event_property_contains","key":"content.list","value":false}`:          false,
		`{"kind":"event_property_contains","key":"content.list","value":null}`:           true,
		`{"kind":"event_property_contains","key":"content.list","value":["a"]}`:          false,
		`{"kind":"event_property_contains","key":"content.list","value":{"b":1}}`:        false,
		`{"kind":"event_property_contains","key":"content.empty","value":null}`:          false,
		`{"kind":"event_property_contains","key":"content.topic","value":"Lunch plans"}`: false,
		`{"kind":"event_property_contains","key":"content.missing","value":"a"}`:         false,
		// The rest.
		`{"kind":"contains_display_name"}`:                          true,
		`{"kind":"room_member_count","is":"10"}`:                    true,
		`{"kind":"room_member_count","is":"==10"}`:                  true,
		`{"kind":"room_member_count","is":"==9"}`:                   false,
		`{"kind":"room_member_count","is":"<11"}`:                   true,
		`{"kind":"room_member_count","is":"<10"}`:                   false,
		`{"kind":"room_member_count","is":">9"}`:                    true,
		`{"kind":"room_member_count","is":">10"}`:                   false,
		`{"kind":"room_member_count","is":"<=10"}`:                  true,
		`{"kind":"room_member_count","is":"<=9"}`:                   false,
		`{"kind":"room_member_count","is":">=10"}`:                  true,
		`{"kind":"room_member_count","is":">=11"}`:                  false,
		`{"kind":"room_member_count","is":"=10"}`:                   false,
		`{"kind":"room_member_count","is":"!=9"}`:                   false,
		`{"kind":"room_member_count","is":"-10"}`:                   false,
		`{"kind":"room_member_count","is":"10 "}`:                   false,
		`{"kind":"room_member_count","is":"99999999999999999999"}`:  false,
		`{"kind":"room_member_count","is":"<"}`:                     false,
		`{"kind":"room_member_count"}`:                              false,
		`{"kind":"sender_notification_permission","key":"room"}`:    true,
		`{"kind":"sender_notification_permission","key":"other"}`:   false,
		`{"kind":"org.example.unknown","key":"type","pattern":"*"}`: false,
		`{}`: false,
	} {
		rules := readRules(t, fmt.Sprintf(`{"override":[{"rule_id":"r","enabled":true,"actions":[],"conditions":[%s]}]}`, text))
		if got := rules.Match(ev, c) != nil; got != want {
			t.Errorf("%s holds: %v, want %v", text, got, want)
		}
	}
}

func TestConditionsWithoutWhatTheyAskFor(t *testing.T) {
	ev := message("m.room.message", `{"body":"hi"}`)
	rules := readRules(t, `{"override":[
		{"rule_id":"name","enabled":true,"actions":[],"conditions":[{"kind":"contains_display_name"}]},
		{"rule_id":"power","enabled":true,"actions":[],"conditions":[{"kind":"sender_notification_permission","key":"room"}]},
		{"rule_id":"state","enabled":true,"actions":[],"conditions":[{"kind":"event_match","key":"state_key","pattern":"*"}]}
	]}`)
	if r := rules.Match(ev, &Context{User: alice}); r != nil {
		t.Errorf("%s matches", r.ID)
	}
}

// A redaction's target stands beside the content in all versions, for rules too.
func TestRedactsProperty(t *testing.T) {
	ev := message("m.room.redaction", `{}`)
	ev.Redacts = "$target"
	rules := readRules(t, `{"override":[{"rule_id":"r","enabled":true,"actions":[],"conditions":[{"kind":"event_property_is","key":"redacts","value":"$target"}]}]}`)
	if rules.Match(ev, &Context{User: alice}) == nil {
		t.Error("redacts is not found")
	}
}

func TestDisplayName(t *testing.T) {
	rules := readRules(t, `{"override":[{"rule_id":"r","enabled":true,"actions":[],"conditions":[{"kind":"contains_display_name"}]}]}`)
	for _, tc := range []struct {
		name, body string
		want       bool
	}{
		{"Alice", "hello alice", true},
		{"Alice", "hello ALICE, you", true},
		{"Alice", "malice", false},
		{"Alice", "alice_", false},
		{"Alice", "alices alice's", true},
		{"*", "anything", false},
		{"*", "a * b", true},
		{"Åsa", "hej åsa!", true},
		{"", "anything", false},
	} {
		ev := message("m.room.message", fmt.Sprintf(`{"body":%q}`, tc.body))
		if got := rules.Match(ev, &Context{User: alice, DisplayName: tc.name}) != nil; got != tc.want {
			t.Errorf("%q in %q: %v, want %v", tc.name, tc.body, got, tc.want)
		}
	}
}

// The kinds of rules are asked in their order, and in each the rules in theirs.
func TestOrder(t *testing.T) {
	rule := func(id, more string) string {
		return fmt.Sprintf(`{"rule_id":%q,"enabled":true,"actions":[]%s}`, id, more)
	}
	all := []string{
		rule("override 1", `,"conditions":[]`), rule("override 2", `,"conditions":[]`),
		rule("content 1", `,"pattern":"hi"`), rule("content 2", `,"pattern":"h?"`),
		rule("!room:hearth.test", ""), rule(string(bob), ""),
		rule("underride 1", `,"conditions":[]`), rule("underride 2", `,"conditions":[]`),
	}
	rules := readRules(t, fmt.Sprintf(`{"override":[%s,%s],"content":[%s,%s],"room":[%s],"sender":[%s],"underride":[%s,%s]}`,
		all[0], all[1], all[2], all[3], all[4], all[5], all[6], all[7]))
	ev := message("m.room.message", `{"body":"hi"}`)
	for _, want := range all {
		r := rules.Match(ev, &Context{User: alice})
		if r == nil || !strings.Contains(want, r.ID) {
			t.Fatalf("%v decides, want %s", r, want)
		}
		r.Enabled = false
	}
	if r := rules.Match(ev, &Context{User: alice}); r != nil {
		t.Errorf("%s decides though all rules are off", r.ID)
	}
}

// Content rules look at the body of whatever has one.
func TestContentRules(t *testing.T) {
	rules := readRules(t, `{"content":[{"rule_id":"cake","enabled":true,"actions":[],"pattern":"cake*lie"}]}`)
	for content, want := range map[string]bool{
		`{"body":"The cake is a LIE."}`: true,
		`{"body":"pancake, a lie"}`:     false,
		`{"body":"cake"}`:               false,
		`{"body":7}`:                    false,
		`{"topic":"cake lie"}`:          false,
	} {
		for _, typ := range []string{"m.room.message", "m.sticker"} {
			if got := rules.Match(message(typ, content), &Context{User: alice}) != nil; got != want {
				t.Errorf("%s %s: %v, want %v", typ, content, got, want)
			}
		}
	}
}

func TestNotifies(t *testing.T) {
	for text, want := range map[string][2]bool{
		`[]`:                         {false, false},
		`["notify"]`:                 {true, false},
		`["dont_notify"]`:            {false, false},
		`["coalesce"]`:               {false, false},
		`["notify","dont_notify"]`:   {true, false},
		`["org.example.x","notify"]`: {true, false},
		`["notify",{"set_tweak":"sound","value":"default"}]`:                           {true, false},
		`["notify",{"set_tweak":"highlight"}]`:                                         {true, true},
		`["notify",{"set_tweak":"highlight","value":true}]`:                            {true, true},
		`["notify",{"set_tweak":"highlight","value":false}]`:                           {true, false},
		`["notify",{"set_tweak":"highlight","value":"true"}]`:                          {true, false},
		`[{"set_tweak":"highlight"},"notify"]`:                                         {true, true},
		`[{"set_tweak":"highlight"}]`:                                                  {false, false},
		`["notify",{"set_tweak":7}]`:                                                   {true, false},
		`["notify",{"org.example":1}]`:                                                 {true, false},
		`["notify",{"set_tweak":"highlight"},{"set_tweak":"highlight","value":false}]`: {true, false},
	} {
		r := readRules(t, fmt.Sprintf(`{"room":[{"rule_id":"r","actions":%s}]}`, text)).Rule(Room, "r")
		notify, highlight := r.Notifies()
		if got := [2]bool{notify, highlight}; got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}
