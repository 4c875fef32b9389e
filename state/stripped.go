package state

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// strippedTypes are the state events that tell who is not in a room what it is.
// Spec: CS Stripped state.
var strippedTypes = []string{
	"m.room.create", "m.room.name", "m.room.avatar", "m.room.topic",
	"m.room.join_rules", "m.room.canonical_alias", "m.room.encryption",
}

// Bounds on the stripped state that another server sends. Servers send the types
// above and few of their own, some kilobytes; all of it is in every answer that tells
// a client of the invite.
const (
	maxStrippedEvents = 64
	maxStrippedBytes  = 4 * matrix.MaxEventBytes
)

var (
	// ErrBadStripped: the stripped state that came with an invite is not what the
	// specification asks for. Spec: SS invite, which answers M_INVALID_PARAM.
	ErrBadStripped = errors.New("bad stripped state")
	// ErrNoCreate: there is no m.room.create in it, an [ErrBadStripped] too. MSC4311
	// answered M_MISSING_PARAM; the specification makes no difference any more.
	ErrNoCreate = fmt.Errorf("%w: no m.room.create", ErrBadStripped)
	// ErrNotInvite: what came as an invite is none, or none for a user of this server.
	// Spec: SS invite, which answers M_INVALID_PARAM.
	ErrNotInvite = errors.New("no invite")
)

// StrippedEvents returns what an invited or knocking user is told of a room: of the
// state at a snapshot the events of some types, m.room.create first, and the
// membership of who invited him, unless he knocks. His own member event is not
// among them. Over federation, as the invite_room_state of an invite and the
// knock_room_state of a knock, they are PDUs, as [matrix.Event.JSON] has them;
// clients get them in their [StrippedForm]. Spec: CS Stripped state; SS Inviting to
// a room, Knocking upon a room; MSC4311.
func StrippedEvents(tx *store.Tx, room store.RoomNum, at store.SnapshotID, sender, user matrix.UserID) ([]*matrix.Event, error) {
	keys := make([]auth.Key, 0, len(strippedTypes)+1)
	for _, typ := range strippedTypes {
		keys = append(keys, auth.Key{Type: typ})
	}
	if sender != user {
		keys = append(keys, auth.Key{Type: "m.room.member", StateKey: string(sender)})
	}
	events := make([]*matrix.Event, 0, len(keys))
	for _, key := range keys {
		ev, err := EventAt(tx, room, at, key.Type, key.StateKey)
		if err != nil {
			return nil, fmt.Errorf("stripped state: %w", err)
		}
		if ev != nil {
			events = append(events, ev.Event)
		}
	}
	return events, nil
}

// StrippedState returns what clients are told of an invite or a knock: the stripped
// state that came with it, or the room's own as it was sent, and the user's own
// member event behind it. Spec: CS Syncing, invite_state and knock_state.
func StrippedState(tx *store.Tx, m store.LocalMembership) ([]jsontext.Value, error) {
	if m.Stripped != nil {
		var events []jsontext.Value
		if err := json.Unmarshal(m.Stripped, &events); err != nil {
			return nil, fmt.Errorf("stripped state that came: %w", err)
		}
		return events, nil
	}
	own, err := tx.Event(m.Room, m.Event)
	if err != nil {
		return nil, err
	}
	events, err := StrippedEvents(tx, m.Room, own.Before, own.Sender, matrix.UserID(*own.StateKey))
	if err != nil {
		return nil, err
	}
	forms := make([]jsontext.Value, 0, len(events)+1)
	for _, ev := range append(events, own.Event) {
		forms = append(forms, StrippedForm(ev))
	}
	return forms, nil
}

// StrippedForm is a state event as clients see it who are not in the room: "Stripped
// state events can only have the `sender`, `type`, `state_key` and `content`
// properties present." Spec: CS Stripped state.
func StrippedForm(ev *matrix.Event) jsontext.Value {
	b := append([]byte(`{"content":`), ev.Content...)
	for _, member := range [...][2]string{
		{`,"sender":`, string(ev.Sender)}, {`,"state_key":`, *ev.StateKey}, {`,"type":`, ev.Type},
	} {
		// The only error there is would be broken UTF-8, which no event holds.
		b, _ = jsontext.AppendQuote(append(b, member[0]...), member[1])
	}
	return append(b, '}')
}

// CheckInvite holds an event that the server origin sent as an invite, for this
// server to sign, to what keeps this server "from accidentally signing non-invite
// events from a malicious server". The signatures are the caller's to check. Errors
// are of the kind [ErrNotInvite]. Spec: SS invite (v2).
func CheckInvite(ev *matrix.Event, origin, server matrix.ServerName) error {
	// "The event type is not `m.room.member`." "The `state_key` is not a user ID on
	// the receiving server."
	if ev.Type != "m.room.member" || ev.StateKey == nil {
		return refuse(ErrNotInvite, "The event is no membership")
	}
	if user, err := matrix.ParseUserID(*ev.StateKey); err != nil || user.Server() != server {
		return refuse(ErrNotInvite, "The invite is not for a user of %s", server)
	}
	// "The `membership` field inside the event content is not `invite`."
	if member, err := ev.Member(); err != nil || member.Membership != matrix.Invite {
		return refuse(ErrNotInvite, "The membership is not that of an invite")
	}
	// "The event sender is not a user ID on the origin server."
	if ev.Sender.Server() != origin {
		return refuse(ErrNotInvite, "%s is not a user of %s", ev.Sender, origin)
	}
	return nil
}

// InviteState checks the invite_room_state that came with an invite and returns it
// for [store.LocalMembership], in the form for clients and with the invite at its
// end. verify checks the signatures of one event, as on any that comes from
// elsewhere; it is called at most once for each of the first 64.
//
// From version 12 on the first fault refuses the invite, with an error of the kind
// [ErrBadStripped]: "servers SHOULD rather than MAY respond to such requests" with
// an error, for the create event alone says which room it is. Before, faulty events
// are left out. Events in the form for clients pass as well, but for the create event
// of version 12: there are servers that send no other as a PDU, and what they tell
// does no more than describe the room. Spec: SS invite (v2); MSC4311.
func InviteState(invite *matrix.Event, list []jsontext.Value, verify func(*matrix.Event) error) (jsontext.Value, error) {
	r := receivedState{own: invite, verify: verify}
	fault := r.read(list)
	if invite.Version.RoomIDIsHash {
		if fault != nil {
			return nil, refuse(ErrBadStripped, "The stripped state of the invite is faulty: %v", fault)
		}
		if !r.created {
			return nil, refuse(ErrNoCreate, "The stripped state of the invite lacks m.room.create")
		}
	}
	return r.forClients(), nil
}

// KnockState is InviteState for the knock_room_state with which a server answered a
// knock. The knock is made, whatever came: "Entries which are improperly signed or
// formatted SHOULD be removed by the server". Spec: SS send_knock; MSC4311.
func KnockState(knock *matrix.Event, list []jsontext.Value, verify func(*matrix.Event) error) jsontext.Value {
	r := receivedState{own: knock, verify: verify}
	_ = r.read(list) // says only what was left out
	return r.forClients()
}

// receivedState is the stripped state that came with a member event of a room that
// we are not in.
type receivedState struct {
	own    *matrix.Event // the invite or knock
	verify func(*matrix.Event) error

	taken   []auth.Key
	forms   []jsontext.Value // of the events that were taken
	bytes   int              // of forms
	created bool             // m.room.create is among them
}

// read takes what is sound and returns the first fault.
func (r *receivedState) read(list []jsontext.Value) (fault error) {
	for i, raw := range list {
		if i == maxStrippedEvents {
			return cmp.Or(fault, fmt.Errorf("there are more than %d events", maxStrippedEvents))
		}
		if err := r.take(raw); err != nil {
			fault = cmp.Or(fault, fmt.Errorf("event %d: %w", i, err))
		}
	}
	return fault
}

// take takes one event, if it is sound and the first of its type and state key.
func (r *receivedState) take(raw jsontext.Value) error {
	ev, err := r.event(raw)
	if err != nil {
		return err
	}
	key := auth.Key{Type: ev.Type, StateKey: *ev.StateKey}
	switch {
	case r.own.Is(key.Type, key.StateKey):
		return nil // comes at the end
	case slices.Contains(r.taken, key):
		return fmt.Errorf("a second %s", ev.Type)
	}
	form := StrippedForm(ev)
	if r.bytes+len(form) > maxStrippedBytes {
		return fmt.Errorf("there are more than %d bytes", maxStrippedBytes)
	}
	r.taken, r.forms, r.bytes = append(r.taken, key), append(r.forms, form), r.bytes+len(form)
	r.created = r.created || ev.Is("m.room.create", "")
	return nil
}

// event reads one event and checks it.
func (r *receivedState) event(raw jsontext.Value) (*matrix.Event, error) {
	v := r.own.Version
	ev, err := matrix.Parse(v, slices.Clone(raw))
	if err != nil {
		if old, ok := readStripped(v, raw); ok && !(v.RoomIDIsHash && old.Is("m.room.create", "")) {
			return old, nil
		}
		return nil, err // "One or more entries are not formatted according to the room's version."
	}
	if !ev.IsState() {
		return nil, fmt.Errorf("%s is no state event", ev.Type)
	}
	// "One or more events does not reside in the same room as the invite. Note: Some
	// room versions may require calculating the room ID for an event": Parse did.
	if ev.Room != r.own.Room {
		return nil, fmt.Errorf("%s is of the room %s", ev.Type, ev.Room)
	}
	if ev.Is("m.room.create", "") {
		if err := checkCreation(ev); err != nil {
			return nil, err
		}
	}
	// "One or more events fails a signature check."
	if err := r.verify(ev); err != nil {
		return nil, fmt.Errorf("%s: %w", ev.Type, err)
	}
	if !ev.VerifyContentHash() {
		if ev, err = ev.RedactedCopy(); err != nil {
			return nil, err
		}
	}
	return ev, nil
}

// checkCreation checks that a room can have begun with an event, in the version by
// which the event was read.
func checkCreation(ev *matrix.Event) error {
	nothing := func(string, string) (*matrix.Event, error) { return nil, nil }
	if err := auth.Check(ev, nothing); err != nil {
		return err
	}
	content, err := ev.CreateContent()
	if err != nil {
		return err
	}
	if content.RoomVersion != ev.Version.ID {
		return fmt.Errorf("m.room.create is of version %q", content.RoomVersion)
	}
	return nil
}

// readStripped reads an event in the form for clients, as servers sent all of them
// before PDUs were asked for, and some still send most.
func readStripped(v *matrix.Version, raw jsontext.Value) (*matrix.Event, bool) {
	var form struct {
		Type       string         `json:"type"`
		StateKey   *string        `json:"state_key"`
		Sender     string         `json:"sender"`
		Content    jsontext.Value `json:"content"`
		Signatures jsontext.Value `json:"signatures"` // of a PDU, which passes as one or not at all
	}
	if json.Unmarshal(raw, &form) != nil || form.Type == "" || form.StateKey == nil || form.Content.Kind() != '{' || form.Signatures != nil {
		return nil, false
	}
	sender, err := matrix.ParseUserID(form.Sender)
	if err != nil {
		return nil, false
	}
	return &matrix.Event{Version: v, Type: form.Type, StateKey: form.StateKey, Sender: sender, Content: form.Content}, true
}

// forClients is the JSON array of what was taken, with the member event at its end.
func (r *receivedState) forClients() jsontext.Value {
	array := []byte{'['}
	for _, form := range r.forms {
		array = append(append(array, form...), ',')
	}
	return append(append(array, StrippedForm(r.own)...), ']')
}
