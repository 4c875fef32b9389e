package push

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// The actions of the predefined rules.
var (
	nothing   = []jsontext.Value{}
	notify    = actions(`"notify"`)
	sound     = actions(`"notify"`, `{"set_tweak":"sound","value":"default"}`)
	ring      = actions(`"notify"`, `{"set_tweak":"sound","value":"ring"}`)
	loud      = actions(`"notify"`, `{"set_tweak":"sound","value":"default"}`, `{"set_tweak":"highlight"}`)
	highlight = actions(`"notify"`, `{"set_tweak":"highlight"}`)
)

func actions(texts ...string) []jsontext.Value {
	list := make([]jsontext.Value, len(texts))
	for i, text := range texts {
		list[i] = jsontext.Value(text)
	}
	return list
}

// defaults are the predefined rules for a user, as of version 1.17 of the
// specification.
//
// Spec: CS Push Notifications, Predefined Rules.
func defaults(user matrix.UserID) *Ruleset {
	return &Ruleset{
		Override: []Rule{
			{ID: ".m.rule.master", Default: true, Conditions: []Condition{}, Actions: nothing},
			predefined(".m.rule.suppress_notices", nothing, is("content.msgtype", "m.notice")),
			predefined(".m.rule.invite_for_me", sound,
				is("type", "m.room.member"), is("content.membership", "invite"), is("state_key", string(user))),
			predefined(".m.rule.member_event", nothing, is("type", "m.room.member")),
			predefined(".m.rule.is_user_mention", loud,
				Condition{Kind: "event_property_contains", Key: `content.m\.mentions.user_ids`, Value: quote(string(user))}),
			predefined(".m.rule.is_room_mention", highlight,
				Condition{Kind: "event_property_is", Key: `content.m\.mentions.room`, Value: jsontext.Value("true")},
				Condition{Kind: "sender_notification_permission", Key: "room"}),
			predefined(".m.rule.tombstone", highlight, is("type", "m.room.tombstone"), is("state_key", "")),
			predefined(".m.rule.reaction", nothing, is("type", "m.reaction")),
			predefined(".m.rule.room.server_acl", nothing, is("type", "m.room.server_acl"), is("state_key", "")),
			predefined(".m.rule.suppress_edits", nothing,
				Condition{Kind: "event_property_is", Key: `content.m\.relates_to.rel_type`, Value: quote("m.replace")}),
		},
		Underride: []Rule{
			predefined(".m.rule.call", ring, is("type", "m.call.invite")),
			predefined(".m.rule.encrypted_room_one_to_one", sound, two(), is("type", "m.room.encrypted")),
			predefined(".m.rule.room_one_to_one", sound, two(), is("type", "m.room.message")),
			predefined(".m.rule.message", notify, is("type", "m.room.message")),
			predefined(".m.rule.encrypted", notify, is("type", "m.room.encrypted")),
		},
	}
}

func predefined(id string, actions []jsontext.Value, conditions ...Condition) Rule {
	return Rule{ID: id, Default: true, Enabled: true, Conditions: conditions, Actions: actions}
}

// is is a condition that a property matches a pattern.
func is(key, pattern string) Condition {
	return Condition{Kind: "event_match", Key: key, Pattern: &pattern}
}

// two is a condition that the room has two members.
func two() Condition { return Condition{Kind: "room_member_count", Is: "2"} }

// quote is a string as JSON; one that is no text becomes one that matches nothing.
func quote(s string) jsontext.Value {
	b, err := json.Marshal(s)
	if err != nil {
		return jsontext.Value(`""`)
	}
	return b
}
