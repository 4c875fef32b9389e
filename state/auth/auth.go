// Package auth is the authorization rules: may this event happen in a room in
// that state? It has the rules of room versions 1 to 12 in one body of code, as
// most rules are the same in all of them under different numbers. Each check
// quotes its rule with the numbers it has in the versions; where the versions
// differ in what they say, a field of [matrix.Version] decides.
//
// To find a rule by its number, search for the number: the quotes are marked as
// "v8-11 4.3.2", for rule 4.3.2 of versions 8 to 11, and a test holds them to be
// complete. Or look in the table in reason.go for the row that has the number in
// the version's column; the row's name stands at the check.
//
// The package is pure: state comes through a function, nothing is kept between
// two calls, and there is no clock, disk, network or log. It checks neither
// hashes nor signatures of events, with one exception that is a rule of its own:
// the signature inside a third-party invite. Rule 4.2.1 of versions 8 to 11 and
// 5.2.1 of version 12, the signature of the server that authorised a restricted
// join, belongs to the signature checks ([matrix.Event.RequiredSigners]).
//
// Specification: rooms, v1.md to v12.md, "Authorisation rules"; server-server
// API, "Authorization rules", "Auth events selection" and "Rejection".
package auth

import (
	"fmt"

	"hearth/state/matrix"
)

// The event types that the rules speak of.
const (
	typeCreate           = "m.room.create"
	typeMember           = "m.room.member"
	typePowerLevels      = "m.room.power_levels"
	typeJoinRules        = "m.room.join_rules"
	typeThirdPartyInvite = "m.room.third_party_invite"
	typeAliases          = "m.room.aliases"
	typeRedaction        = "m.room.redaction"
)

// State answers with the state event for a type and state key, or nil, nil when
// there is none. Its errors come back from the checks wrapped, never as an
// [*Error].
type State func(typ, stateKey string) (*matrix.Event, error)

// Check applies the rules of ev's room version to ev in a room in that state. It
// returns nil when the event is allowed, an [*Error] when it is not, and any
// other error when state failed. The rules about auth_events are those of
// [CheckAuthEvents].
//
// state must hold what [Needed] selects for ev, and m.room.create also in
// version 12.
func Check(ev *matrix.Event, state State) error {
	if ev.Type == typeCreate {
		return checkCreate(ev)
	}
	c := check{ev: ev, v: ev.Version, state: state}
	if err := c.room(); err != nil {
		return err
	}
	switch {
	case ev.Type == typeAliases && c.v.AliasesAuthorized:
		return c.aliases()
	case ev.Type == typeMember:
		return c.member()
	}
	if err := c.senderJoined(NotJoined); err != nil {
		return err
	}
	if ev.Type == typeThirdPartyInvite {
		return c.thirdPartyInviteLevel()
	}
	if err := c.requiredLevel(); err != nil {
		return err
	}
	if err := c.stateKey(); err != nil {
		return err
	}
	switch {
	case ev.Type == typePowerLevels:
		return c.powerLevels()
	case ev.Type == typeRedaction && c.v.RedactionsAuthorized:
		return c.redaction()
	}
	// v1-2 12, v3-5 11, v6-11 10, v12 11: "Otherwise, allow."
	return nil
}

// check is one event before the rules, with what has been looked up for it.
type check struct {
	ev    *matrix.Event
	v     *matrix.Version
	state State

	create *matrix.Event // set by room
}

// get looks up a state event; nil, nil when there is none.
func (c *check) get(typ, stateKey string) (*matrix.Event, error) {
	ev, err := c.state(typ, stateKey)
	if err != nil {
		return nil, fmt.Errorf("authorise %s: state %s %q: %w", c.ev.ID, typ, stateKey, err)
	}
	return ev, nil
}

func (c *check) refuse(why Reason, format string, args ...any) error {
	return refuse(c.ev, why, format, args...)
}

// room applies the rules about the room as a whole.
func (c *check) room() error {
	create, err := c.get(typeCreate, "")
	if err != nil {
		return err
	}
	// NoCreate. v12 2: "If the event's `room_id` is not an event ID for an accepted
	// (not rejected) `m.room.create` event, with the sigil `!` instead of `$`,
	// reject."
	// v1-11 2.4: "If there is no `m.room.create` event among the entries, reject",
	// which must hold for any state, whatever it was taken from.
	if create == nil {
		return c.refuse(NoCreate, "This room does not exist")
	}
	if c.v.RoomIDIsHash && create.Room != c.ev.Room {
		return c.refuse(NoCreate, "The event is for another room")
	}
	c.create = create
	return c.federated()
}

func (c *check) federated() error {
	// NotFederated. v1-11 3, v12 4: "If the `content` of the `m.room.create` event
	// in the room state has the property `m.federate` set to `false`, and the
	// `sender` domain of the event does not match the `sender` domain of the create
	// event, reject."
	home := c.create.Sender.Server()
	if c.ev.Sender.Server() == home || federates(c.create) {
		return nil
	}
	return c.refuse(NotFederated, "This room is only for users of %s", home)
}

func (c *check) aliases() error {
	ev := c.ev
	// AliasesNoStateKey. v1-5 4.1: "If event has no `state_key`, reject."
	if ev.StateKey == nil {
		return c.refuse(AliasesNoStateKey, "An event of type m.room.aliases needs a state key")
	}
	// AliasesOtherServer. v1-5 4.2: "If sender's domain doesn't match `state_key`,
	// reject."
	if *ev.StateKey != string(ev.Sender.Server()) {
		return c.refuse(AliasesOtherServer, "You can only list the aliases of your own server, %s",
			ev.Sender.Server())
	}
	// v1-5 4.3: "Otherwise, allow."
	return nil
}

// senderJoined refuses for that reason unless the sender is in the room.
//
// NotJoined. v1-5 6, v6-11 5, v12 6: "If the `sender`'s current membership state
// is not `join`, reject." The rules for invites, kicks and bans say the same.
func (c *check) senderJoined(why Reason) error {
	m, err := c.membership(c.ev.Sender)
	if err != nil {
		return err
	}
	if m != matrix.Join {
		return c.refuse(why, "You are not in this room")
	}
	return nil
}

func (c *check) thirdPartyInviteLevel() error {
	l, err := c.levels(c.ev.Sender)
	if err != nil {
		return err
	}
	// ThirdPartyInviteLevel. v1-5 7.1, v6-11 6.1, v12 7.1: "Allow if and only if
	// `sender`'s current power level is greater than or equal to the *invite
	// level*."
	if mine := l.user(c.ev.Sender); mine < l.Invite {
		return c.refuse(ThirdPartyInviteLevel, "You need power level %d to invite, yours is %d", l.Invite, mine)
	}
	return nil
}

func (c *check) requiredLevel() error {
	l, err := c.levels(c.ev.Sender)
	if err != nil {
		return err
	}
	// RequiredLevel. v1-5 8, v6-11 7, v12 8: "If the event type's *required power
	// level* is greater than the `sender`'s power level, reject."
	required, mine := l.Send(c.ev.Type, c.ev.IsState()), l.user(c.ev.Sender)
	if required > mine {
		return c.refuse(RequiredLevel, "You need power level %d to send %s, yours is %d",
			required, c.ev.Type, mine)
	}
	return nil
}

func (c *check) stateKey() error {
	key := c.ev.StateKey
	// ForeignStateKey. v1-5 9, v6-11 8, v12 9: "If the event has a `state_key` that
	// starts with an `@` and does not match the `sender`, reject."
	if key != nil && len(*key) > 0 && (*key)[0] == '@' && *key != string(c.ev.Sender) {
		return c.refuse(ForeignStateKey, "State with the key %s can only be set by that user", quote(*key))
	}
	return nil
}
