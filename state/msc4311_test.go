package state

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// The cases of MSC4311, "Ensuring the create event is available on invites".

// told is what a room tells who is invited or knocks, as PDUs, and the member event
// with which it does.
func (h *house) told(version string, to matrix.Membership) (own *matrix.Event, pdus []jsontext.Value) {
	h.Helper()
	room := h.create(Creation{
		Creator: alice, Preset: PresetPrivate, Version: version, Name: "Kitchen", Topic: "Food",
		Initial: []InitialEvent{
			{Type: "m.room.avatar", Content: []byte(`{"url":"mxc://home.example/a"}`)},
			{Type: "m.room.canonical_alias", Content: []byte(`{}`)},
			{Type: "m.room.encryption", Content: []byte(`{"algorithm":"m.megolm.v1.aes-sha2"}`)},
			{Type: "org.example.own", Content: []byte(`{}`)},
		},
	})
	sender := alice
	if to == matrix.Knock {
		sender = bob
	}
	v, _ := matrix.VersionByID(version)
	key, head := string(bob), h.head(room)
	draft := matrix.Draft{Room: room, Sender: sender, Type: "m.room.member", StateKey: &key, Content: fmt.Appendf(nil, `{"membership":%q}`, to)}
	own, err := draft.Build(v, matrix.Placing{Depth: 20}, "home.example", h.rooms.Key())
	h.must(err)
	h.must(h.store.View(func(tx *store.Tx) error {
		events, err := StrippedEvents(tx, tx.RoomNum(room), head.Current, sender, bob)
		for _, ev := range events {
			pdus = append(pdus, slices.Clone(ev.JSON()))
		}
		return err
	}))
	return own, pdus
}

// verifies checks the signatures that an event needs, with the house's key for all.
func (h *house) verifies(ev *matrix.Event) error {
	for _, server := range ev.RequiredSigners() {
		err := ev.VerifySignature(server, h.rooms.Key().ID, h.rooms.Key().Private.Public().(ed25519.PublicKey))
		if err != nil {
			return err
		}
	}
	return nil
}

// forms reads what is kept for clients: the types in their order, and the content of
// each. Nothing but the four properties may be in any of them.
func (h *house) forms(array jsontext.Value) (types []string, contents map[string]string) {
	h.Helper()
	var events []struct {
		Type     string              `json:"type"`
		StateKey *string             `json:"state_key"`
		Sender   matrix.UserID       `json:"sender"`
		Content  jsontext.Value      `json:"content"`
		Rest     map[string]struct{} `json:",embed"`
	}
	h.must(json.Unmarshal(array, &events))
	contents = make(map[string]string)
	for _, ev := range events {
		if len(ev.Rest) > 0 || ev.StateKey == nil || ev.Sender == "" {
			h.Errorf("%s for clients has %v, %v, %q", ev.Type, ev.Rest, ev.StateKey, ev.Sender)
		}
		types, contents[ev.Type+*ev.StateKey] = append(types, ev.Type), string(ev.Content)
	}
	return types, contents
}

var toldTypes = []string{
	"m.room.create", "m.room.name", "m.room.avatar", "m.room.topic",
	"m.room.join_rules", "m.room.canonical_alias", "m.room.encryption",
}

// "Over federation, servers MUST include the `m.room.create` event in the
// `invite_room_state` and `knock_room_state`. Servers MUST additionally format events
// in `invite_room_state` and `knock_room_state` as PDUs". What one server says so
// another takes, "though only the `content`, `sender`, `state_key` and `type`" reach
// clients.
func TestMSC4311RoundTrip(t *testing.T) {
	h := newHouse(t)
	for _, v := range matrix.Versions() {
		invite, pdus := h.told(v.ID, matrix.Invite)
		for _, pdu := range pdus {
			if ev, err := matrix.Parse(v, pdu); err != nil || ev.Room != invite.Room {
				t.Errorf("version %s: %s: %v", v.ID, pdu, err)
			}
		}
		array, err := InviteState(invite, pdus, h.verifies)
		h.must(err)
		types, contents := h.forms(array)
		if want := append(slices.Clone(toldTypes), "m.room.member", "m.room.member"); !slices.Equal(types, want) {
			t.Errorf("version %s: an invite tells %v, want %v", v.ID, types, want)
		}
		if contents["m.room.name"] != `{"name":"Kitchen"}` || contents["m.room.member"+string(bob)] != `{"membership":"invite"}` ||
			!strings.Contains(contents["m.room.member"+string(alice)], `"join"`) {
			t.Errorf("version %s: an invite tells %v", v.ID, contents)
		}

		knock, pdus := h.told(v.ID, matrix.Knock)
		types, _ = h.forms(KnockState(knock, pdus, h.verifies))
		if want := append(slices.Clone(toldTypes), "m.room.member"); !slices.Equal(types, want) {
			t.Errorf("version %s: a knock tells %v, want %v", v.ID, types, want)
		}
	}
}

// faults are what can be wrong with one of the events that come, and whether versions
// before 12 take the event all the same.
var faults = []struct {
	name  string
	spoil func(h *house, v *matrix.Version, pdus []jsontext.Value) []jsontext.Value
	lost  []string // types that are left out where the invite passes
}{
	{"nothing", func(_ *house, _ *matrix.Version, pdus []jsontext.Value) []jsontext.Value { return pdus }, nil},
	// "or the `m.room.create` event is missing"
	{"no create event", func(_ *house, _ *matrix.Version, pdus []jsontext.Value) []jsontext.Value { return pdus[1:] }, []string{"m.room.create"}},
	{"none at all", func(*house, *matrix.Version, []jsontext.Value) []jsontext.Value { return nil }, append(slices.Clone(toldTypes), "m.room.member")},
	// "If any of the events are not a PDU"
	{"a name that is a string", replaced(1, func(jsontext.Value) string { return `"Kitchen"` }), []string{"m.room.name"}},
	{"a name that is no JSON", replaced(1, func(jsontext.Value) string { return `{"type":"m.room.name"` }), []string{"m.room.name"}},
	{"a name without a state key", replaced(1, func(pdu jsontext.Value) string {
		return strings.Replace(string(pdu), `"state_key":"",`, "", 1)
	}), []string{"m.room.name"}},
	{"a create event without hashes", replaced(0, func(pdu jsontext.Value) string {
		return strings.Replace(string(pdu), `"hashes":`, `"no_hashes":`, 1)
	}), []string{"m.room.create"}},
	// "not for the room ID specified"
	{"a name of another room", func(h *house, v *matrix.Version, pdus []jsontext.Value) []jsontext.Value {
		_, others := h.told(v.ID, matrix.Invite)
		return append([]jsontext.Value{pdus[0], others[1]}, pdus[2:]...)
	}, []string{"m.room.name"}},
	// "servers to calculate the room ID by hashing the event"
	{"the create event of another room", func(h *house, v *matrix.Version, pdus []jsontext.Value) []jsontext.Value {
		_, others := h.told(v.ID, matrix.Invite)
		return append([]jsontext.Value{others[0]}, pdus[1:]...)
	}, []string{"m.room.create"}},
	{"two create events", func(h *house, v *matrix.Version, pdus []jsontext.Value) []jsontext.Value {
		return append(slices.Clone(pdus), pdus[0])
	}, nil},
	{"a create event of another version", func(h *house, v *matrix.Version, pdus []jsontext.Value) []jsontext.Value {
		create, err := matrix.Parse(v, pdus[0])
		h.must(err)
		content := bytes.Replace(create.Content, quote(v.ID), quote("5"), 1)
		draft := matrix.Draft{Room: create.Room, Sender: alice, Type: "m.room.create", StateKey: new(string), Content: content}
		fake, err := draft.Build(v, matrix.Placing{Depth: 1}, "home.example", h.rooms.Key())
		h.must(err)
		return append([]jsontext.Value{fake.JSON()}, pdus[1:]...)
	}, []string{"m.room.create"}},
	// "or fail signature checks"
	{"a name that nobody signed", replaced(1, func(pdu jsontext.Value) string {
		return strings.Replace(string(pdu), `"signatures":{"home.example"`, `"signatures":{"evil.example"`, 1)
	}), []string{"m.room.name"}},
	{"a message", func(h *house, v *matrix.Version, pdus []jsontext.Value) []jsontext.Value {
		create, err := matrix.Parse(v, pdus[0])
		h.must(err)
		draft := matrix.Draft{Room: create.Room, Sender: alice, Type: "m.room.message", Content: []byte(`{"body":"boo"}`)}
		message, err := draft.Build(v, matrix.Placing{Depth: 9}, "home.example", h.rooms.Key())
		h.must(err)
		return append(slices.Clone(pdus), message.JSON())
	}, nil},
	{"more than there may be", func(h *house, v *matrix.Version, pdus []jsontext.Value) []jsontext.Value {
		return append(slices.Clone(pdus), h.many(v, pdus, maxStrippedEvents, 8)...)
	}, nil},
	{"more bytes than there may be", func(h *house, v *matrix.Version, pdus []jsontext.Value) []jsontext.Value {
		return append(slices.Clone(pdus), h.many(v, pdus, 5, 60000)...)
	}, nil},
}

func replaced(i int, change func(jsontext.Value) string) func(*house, *matrix.Version, []jsontext.Value) []jsontext.Value {
	return func(_ *house, _ *matrix.Version, pdus []jsontext.Value) []jsontext.Value {
		pdus = slices.Clone(pdus)
		pdus[i] = jsontext.Value(change(pdus[i]))
		return pdus
	}
}

// many are n more state events with so many bytes of content.
func (h *house) many(v *matrix.Version, pdus []jsontext.Value, n, bytes int) (more []jsontext.Value) {
	create, err := matrix.Parse(v, pdus[0])
	h.must(err)
	for i := range n {
		key := fmt.Sprint(i)
		draft := matrix.Draft{Room: create.Room, Sender: alice, Type: "org.example.more", StateKey: &key,
			Content: fmt.Appendf(nil, `{"x":%q}`, strings.Repeat("x", bytes))}
		ev, err := draft.Build(v, matrix.Placing{Depth: 9}, "home.example", h.rooms.Key())
		h.must(err)
		more = append(more, ev.JSON())
	}
	return more
}

// "For invites to room version 12+ rooms, servers SHOULD rather than MAY respond to
// such requests with" an error. "For knocks, the server SHOULD remove any events from
// `knock_room_state` which fail the same validation check before passing the details
// along to clients."
func TestMSC4311Faults(t *testing.T) {
	for _, version := range []string{"1", "3", "6", "10", "11", "12"} {
		h := newHouse(t)
		v, _ := matrix.VersionByID(version)
		invite, pdus := h.told(version, matrix.Invite)
		for _, fault := range faults {
			t.Run(version+"/"+fault.name, func(t *testing.T) {
				h := &house{T: t, store: h.store, rooms: h.rooms}
				spoiled := fault.spoil(h, v, pdus)
				array, err := InviteState(invite, spoiled, h.verifies)
				if v.RoomIDIsHash && fault.name != "nothing" {
					if !errors.Is(err, ErrBadStripped) || array != nil {
						t.Errorf("the invite passes with %s, %v", array, err)
					}
					missing := len(spoiled) == 0 || len(spoiled) == len(pdus)-1
					if errors.Is(err, ErrNoCreate) != missing {
						t.Errorf("refused by %v", err)
					}
				} else {
					h.must(err)
					h.wantForms(array, fault.lost)
				}
				h.wantForms(KnockState(invite, spoiled, h.verifies), fault.lost)
			})
		}
	}
}

// wantForms holds what is kept for clients to the events told but those of lost types.
func (h *house) wantForms(array jsontext.Value, lost []string) {
	h.Helper()
	types, _ := h.forms(array)
	types = slices.DeleteFunc(types, func(typ string) bool { return typ == "org.example.more" })
	want := slices.DeleteFunc(append(slices.Clone(toldTypes), "m.room.member"), func(typ string) bool { return slices.Contains(lost, typ) })
	if want = append(want, "m.room.member"); !slices.Equal(types, want) { // the invite itself stays
		h.Errorf("told are %v, want %v", types, want)
	}
	if len(array) > maxStrippedBytes+2*matrix.MaxEventBytes {
		h.Errorf("%d bytes are kept", len(array))
	}
}

// "Existing server implementations SHOULD warn rather than fail on invites which don't
// have complete PDUs": users of servers that send the form for clients can invite. To
// rooms of version 12 they can if the create event is complete, as it says which room
// it is; others do not need to be.
func TestMSC4311OldServers(t *testing.T) {
	h := newHouse(t)
	for _, v := range matrix.Versions() {
		invite, pdus := h.told(v.ID, matrix.Invite)
		var old []jsontext.Value
		for _, pdu := range pdus {
			ev, err := matrix.Parse(v, pdu)
			h.must(err)
			old = append(old, StrippedForm(ev))
		}
		old = append(old, []byte(`{"type":"m.x","state_key":"","sender":"nobody","content":{}}`), []byte(`{"type":"m.x","state_key":"","sender":"@a:b"}`))
		array, err := InviteState(invite, old, h.verifies)
		if v.RoomIDIsHash {
			if !errors.Is(err, ErrBadStripped) {
				t.Errorf("version %s: the invite passes with %s, %v", v.ID, array, err)
			}
			h.wantForms(KnockState(invite, old, h.verifies), []string{"m.room.create"})
			old = append(slices.Clone(pdus[:1]), old[1:len(old)-2]...)
			array, err = InviteState(invite, old, h.verifies)
		}
		h.must(err)
		h.wantForms(array, nil)
	}
}

// An event whose hash does not fit is used as redaction leaves it (SS Validating
// hashes and signatures on received events).
func TestMSC4311ChangedContent(t *testing.T) {
	h := newHouse(t)
	for _, v := range matrix.Versions() {
		invite, pdus := h.told(v.ID, matrix.Invite)
		pdus[1] = bytes.Replace(pdus[1], []byte("Kitchen"), []byte("Casino!"), 1)
		array, err := InviteState(invite, pdus, h.verifies)
		h.must(err)
		if _, contents := h.forms(array); contents["m.room.name"] != `{}` {
			t.Errorf("version %s: the changed name is %s", v.ID, contents["m.room.name"])
		}
	}
}

// The room tells its own users as much: "`m.room.create` MUST be provided in Stripped
// State".
func TestMSC4311ForClients(t *testing.T) {
	h := newHouse(t)
	for _, v := range matrix.Versions() {
		room := h.create(Creation{Creator: alice, Preset: PresetPrivate, Version: v.ID, Invite: []matrix.UserID{bob},
			Initial: []InitialEvent{{Type: "m.room.join_rules", Content: []byte(`{"join_rule":"knock"}`)}}})
		wants := map[matrix.UserID][]string{bob: {"m.room.create", "m.room.join_rules", "m.room.member", "m.room.member"}}
		if v.Knocking {
			h.must(h.change(room, carol, carol, matrix.Knock))
			wants[carol] = []string{"m.room.create", "m.room.join_rules", "m.room.member"}
		}
		for user, want := range wants {
			h.must(h.store.View(func(tx *store.Tx) error {
				m, _, err := tx.LocalMembership(tx.UserNum(user), tx.RoomNum(room))
				if err != nil {
					return err
				}
				forms, err := StrippedState(tx, m)
				types, contents := h.forms(encode(forms))
				if !slices.Equal(types, want) || h.field(contents["m.room.create"], "room_version") != string(quote(v.ID)) {
					t.Errorf("version %s: %s is told %v, want %v", v.ID, user, types, want)
				}
				return err
			}))
		}
	}
}

// "Servers MUST apply certain validation to ensure they don't accidentally sign
// non-invite events from a malicious server" (SS invite).
func TestCheckInvite(t *testing.T) {
	v, _ := matrix.VersionByID("12")
	here, elsewhere := string(bob), "@eve:elsewhere.example"
	member := func(key *string, content string) *matrix.Event {
		return &matrix.Event{Version: v, Type: "m.room.member", Sender: "@eve:elsewhere.example", StateKey: key, Content: []byte(content)}
	}
	const invite = `{"membership":"invite"}`
	nobody := "bob"
	foreign := member(&here, invite)
	foreign.Sender = "@mallory:other.example"
	name := member(&here, invite)
	name.Type = "m.room.name"
	for what, tt := range map[string]struct {
		ev *matrix.Event
		ok bool
	}{
		"an invite":                  {member(&here, invite), true},
		"an invite with an escape":   {member(&here, `{"membership":"\u0069nvite"}`), true},
		"another type":               {name, false},
		"no state":                   {member(nil, invite), false},
		"a user of another server":   {member(&elsewhere, invite), false},
		"no user":                    {member(&nobody, invite), false},
		"a join":                     {member(&here, `{"membership":"join"}`), false},
		"no membership":              {member(&here, `{}`), false},
		"a sender of another server": {foreign, false},
	} {
		err := CheckInvite(tt.ev, "elsewhere.example", "home.example")
		if tt.ok != (err == nil) || err != nil && !errors.Is(err, ErrNotInvite) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
