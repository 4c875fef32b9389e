package auth

import (
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// Key is the place of a state event in a room's state.
type Key struct{ Type, StateKey string }

// Needed selects the places in a room's state whose events, where there are any,
// are the auth_events of an event with that type, sender, state key (nil for a
// message) and content. There are at most seven, none twice. In version 12
// m.room.create is not among them. Specification: server-server API, "Auth events
// selection".
func Needed(v *matrix.Version, typ string, sender matrix.UserID, stateKey *string, content jsontext.Value) []Key {
	if typ == typeCreate {
		return nil // "The `auth_events` for the `m.room.create` event in a room is empty"
	}
	keys := make([]Key, 0, 7)
	// "Depending on the room version, the `m.room.create` event."
	if !v.RoomIDIsHash {
		keys = append(keys, Key{typeCreate, ""})
	}
	// "The current `m.room.power_levels` event, if any. The sender's current
	// `m.room.member` event, if any."
	keys = append(keys, Key{typePowerLevels, ""}, Key{typeMember, string(sender)})
	if typ == typeMember && stateKey != nil {
		keys = appendMemberKeys(keys, v, *stateKey, content)
	}
	return keys
}

// appendMemberKeys adds what "If type is `m.room.member`" adds.
func appendMemberKeys(keys []Key, v *matrix.Version, target string, raw jsontext.Value) []Key {
	add := func(k Key) {
		if !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	// "The target's current `m.room.member` event, if any."
	add(Key{typeMember, target})
	content, err := (&matrix.Event{Version: v, Type: typeMember, StateKey: &target, Content: raw}).Member()
	if err != nil {
		return keys
	}
	// "If `membership` is `join`, `invite` or `knock`, the current
	// `m.room.join_rules` event, if any."
	switch content.Membership {
	case matrix.Join, matrix.Invite, matrix.Knock:
		add(Key{typeJoinRules, ""})
	}
	// "If membership is `invite` and `content` contains a `third_party_invite`
	// property, the current `m.room.third_party_invite` event with `state_key`
	// matching `content.third_party_invite.signed.token`, if any."
	if content.Membership == matrix.Invite {
		signed, _ := property(content.ThirdPartyInvite, "signed")
		token, _ := property(signed, "token")
		if key, ok := stringOf(token); ok {
			add(Key{typeThirdPartyInvite, key})
		}
	}
	// "If `membership` is `join`, `content.join_authorised_via_users_server` is
	// present, and the room version supports restricted rooms, then the
	// `m.room.member` event with `state_key` matching
	// `content.join_authorised_via_users_server`."
	if content.Membership == matrix.Join && content.AuthorisedVia != "" && v.RestrictedJoins {
		add(Key{typeMember, string(content.AuthorisedVia)})
	}
	return keys
}
