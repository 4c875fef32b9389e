package matrix

import (
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// The readers of content take what the authorization rules let pass: a member of
// the wrong type counts as missing unless the rules refuse the event for it.

// contentDocument reads the event's content, which parse found to be an object.
func (e *Event) contentDocument() (*document, error) {
	d, err := readObject(e.Content, numbersOf(e.Version))
	if err != nil {
		return nil, fmt.Errorf("content of %s %s: %w", e.Type, e.ID, err)
	}
	return d, nil
}

// Membership is a user's relation to a room.
type Membership string

// The memberships. Other text in an event is a membership that no rule allows.
const (
	Join   Membership = "join"
	Invite Membership = "invite"
	Leave  Membership = "leave"
	Ban    Membership = "ban"
	Knock  Membership = "knock"
)

// MemberContent is the content of m.room.member.
type MemberContent struct {
	Membership             Membership
	DisplayName, AvatarURL *string
	// AuthorisedVia is the user of join_authorised_via_users_server, empty when
	// that key is not there or the version does not know it.
	AuthorisedVia UserID
	// ThirdPartyInvite is raw, of any type; nil when the key is not there.
	ThirdPartyInvite jsontext.Value
	IsDirect         bool
	Reason           string
}

// Member reads m.room.member. It refuses a membership that is no string and, where
// restricted joins exist, an authorising user that is no user ID.
func (e *Event) Member() (MemberContent, error) {
	d, err := e.contentDocument()
	if err != nil {
		return MemberContent{}, err
	}
	defer d.free()
	var c MemberContent
	for m := d.firstMember(root); m != 0; m = d.nodes[m].next {
		if err := c.set(d, m, e.Version); err != nil {
			return MemberContent{}, fmt.Errorf("%s of m.room.member %s: %w", d.text(m), e.ID, err)
		}
	}
	if c.Membership == "" {
		return MemberContent{}, fmt.Errorf("%w: no membership in m.room.member %s", ErrBadJSON, e.ID)
	}
	return c, nil
}

// set takes over the member whose name is node m.
func (c *MemberContent) set(d *document, m int32, v *Version) (err error) {
	value := m + 1
	switch string(d.text(m)) {
	case "membership":
		c.Membership, err = d.membership(value)
	case "displayname":
		c.DisplayName = d.optionalString(value)
	case "avatar_url":
		c.AvatarURL = d.optionalString(value)
	case "join_authorised_via_users_server":
		if v.RestrictedJoins {
			c.AuthorisedVia, err = parsedAt(d, value, ParseUserID)
		}
	case "third_party_invite":
		c.ThirdPartyInvite = d.raw(value)
	case "is_direct":
		c.IsDirect = d.isTrue(value)
	case "reason":
		c.Reason, _ = d.stringAt(value)
	}
	return err
}

func (d *document) membership(i int32) (Membership, error) {
	if d.nodes[i].kind == '"' {
		switch string(d.text(i)) {
		case "join":
			return Join, nil
		case "leave":
			return Leave, nil
		case "invite":
			return Invite, nil
		}
	}
	s, err := d.stringAt(i)
	return Membership(s), err
}

// JoinRule reads m.room.join_rules: join_rule, and the rooms whose members may
// join under restricted. Conditions of other kinds than m.room_membership are left
// out. It refuses a join_rule that is no string.
func (e *Event) JoinRule() (rule string, allow []RoomID, err error) {
	d, err := e.contentDocument()
	if err != nil {
		return "", nil, err
	}
	defer d.free()
	rule, err = d.stringAt(d.member(root, "join_rule"))
	if err != nil {
		return "", nil, fmt.Errorf("join_rule of %s: %w", e.ID, err)
	}
	for c := d.firstElement(d.member(root, "allow")); c != 0; c = d.nodes[c].next {
		if kind, _ := d.stringAt(d.member(c, "type")); kind != "m.room_membership" {
			continue
		}
		if room, err := parsedAt(d, d.member(c, "room_id"), ParseRoomID); err == nil {
			allow = append(allow, room)
		}
	}
	return rule, allow, nil
}

// HistoryVisibility reads m.room.history_visibility: world_readable, shared,
// invited or joined. What is missing or unknown counts as shared (client-server
// API, "Room History Visibility").
func (e *Event) HistoryVisibility() string {
	d, err := e.contentDocument()
	if err != nil {
		return "shared"
	}
	defer d.free()
	switch s, _ := d.stringAt(d.member(root, "history_visibility")); s {
	case "world_readable", "invited", "joined":
		return s
	default:
		return "shared"
	}
}

// CreateContent is the content of m.room.create.
type CreateContent struct {
	RoomVersion string // "1" when there is none
	Type        string // m.space and the like; empty for plain rooms
	Federate    bool   // m.federate; true unless it is false
	Predecessor *Predecessor
	// HasCreator: there is a creator key, which versions to 10 demand. Creator is
	// the user it names, empty if that is no user ID.
	HasCreator bool
	Creator    UserID
	// AdditionalCreators are creators besides the sender, in versions that have them.
	AdditionalCreators []UserID
}

// Predecessor is the room that a room replaces.
type Predecessor struct {
	Room  RoomID
	Event EventID // the last event there, often missing from version 12 on
}

// CreateContent reads m.room.create. It refuses a room_version that is no string
// and, where the version has them, additional_creators that are no user IDs.
func (e *Event) CreateContent() (CreateContent, error) {
	d, err := e.contentDocument()
	if err != nil {
		return CreateContent{}, err
	}
	defer d.free()
	c := CreateContent{RoomVersion: "1", Federate: !d.isFalse(d.member(root, "m.federate"))}
	c.Type, _ = d.stringAt(d.member(root, "type"))
	c.Predecessor = d.predecessor(d.member(root, "predecessor"))
	if v := d.member(root, "room_version"); v != 0 {
		if c.RoomVersion, err = d.stringAt(v); err != nil {
			return CreateContent{}, fmt.Errorf("room_version of %s: %w", e.ID, err)
		}
	}
	if creator := d.member(root, "creator"); creator != 0 {
		c.HasCreator = true
		c.Creator, _ = parsedAt(d, creator, ParseUserID)
	}
	if more := d.member(root, "additional_creators"); more != 0 && e.Version.PrivilegedCreators {
		if c.AdditionalCreators, err = d.userIDs(more); err != nil {
			return CreateContent{}, fmt.Errorf("additional_creators of %s: %w", e.ID, err)
		}
	}
	return c, nil
}

// Creators are the creators that an m.room.create event names: content.creator up
// to version 10, the sender in 11, the sender and additional_creators from 12 on.
// It is empty when content does not say it in valid form.
func (e *Event) Creators() []UserID {
	c, err := e.CreateContent()
	switch {
	case err != nil:
		return nil
	case !e.Version.CreatorInContent:
		return append([]UserID{e.Sender}, c.AdditionalCreators...)
	case c.Creator == "":
		return nil
	default:
		return []UserID{c.Creator}
	}
}

func (d *document) predecessor(i int32) *Predecessor {
	room, err := parsedAt(d, d.member(i, "room_id"), ParseRoomID)
	if err != nil {
		return nil
	}
	event, _ := parsedAt(d, d.member(i, "event_id"), ParseEventID)
	return &Predecessor{Room: room, Event: event}
}

func (d *document) userIDs(i int32) ([]UserID, error) {
	if d.nodes[i].kind != '[' {
		return nil, fmt.Errorf("%w: not an array", ErrBadJSON)
	}
	var ids []UserID
	for e := d.firstElement(i); e != 0; e = d.nodes[e].next {
		id, err := parsedAt(d, e, ParseUserID)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}
