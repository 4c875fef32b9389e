package state

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// A PublishedRoom is what the published directory tells of a room, to clients and
// other servers alike. Spec: CS list_public_rooms.yaml, PublishedRoomsChunk.
type PublishedRoom struct {
	Room           matrix.RoomID `json:"room_id"`
	Name           string        `json:"name,omitzero"`
	Topic          string        `json:"topic,omitzero"`
	CanonicalAlias string        `json:"canonical_alias,omitzero"`
	AvatarURL      string        `json:"avatar_url,omitzero"`
	Type           string        `json:"room_type,omitzero"`
	JoinRule       string        `json:"join_rule"`
	Joined         uint64        `json:"num_joined_members"`
	WorldReadable  bool          `json:"world_readable"`
	GuestCanJoin   bool          `json:"guest_can_join"`
}

// A Summary is what somebody is told of a room who is not in it: what the published
// directory has, and how it is entered. Spec: CS Room Summaries, RoomSummary.
type Summary struct {
	PublishedRoom
	Allowed    []matrix.RoomID `json:"allowed_room_ids,omitempty"` // of a restricted room
	Encryption string          `json:"encryption,omitzero"`
	Version    string          `json:"room_version,omitzero"` // another server may not tell
}

// Summarize returns the summary of a room that this server knows, whoever may see
// it: that is a question for [Summary.ShownTo].
func Summarize(tx *store.Tx, num store.RoomNum, head store.Head) (Summary, error) {
	r := summaryReader{tx: tx, num: num, at: head.Current}
	d, err := r.door(head.Version)
	if err != nil {
		return Summary{}, err
	}
	s := Summary{Allowed: d.allow, Version: head.Version.ID}
	s.PublishedRoom = PublishedRoom{
		Room: tx.RoomID(num), JoinRule: d.rule, Joined: head.Joined, WorldReadable: d.readable,
		Name:           r.text("m.room.name", "name"),
		Topic:          r.topic(),
		CanonicalAlias: r.text("m.room.canonical_alias", "alias"),
		AvatarURL:      r.text("m.room.avatar", "url"),
		Type:           r.text("m.room.create", "type"),
		GuestCanJoin:   r.text("m.room.guest_access", "guest_access") == "can_join",
	}
	s.Encryption = r.text("m.room.encryption", "algorithm")
	return s, r.err
}

// ShownToAll says whether anybody may see the room's summary, also who is not
// logged in. Spec: CS room_summary.yaml.
func (s Summary) ShownToAll() bool {
	version, _ := matrix.VersionByID(s.Version)
	return door{version: version, rule: s.JoinRule, readable: s.WorldReadable}.open()
}

// ShownTo says whether a local user may see the summary, which may be of a room that
// this server does not know: who is in the room or invited, who may join it or
// knock, and everybody where it is world readable.
// Spec: CS space_hierarchy.yaml.
func (s Summary) ShownTo(tx *store.Tx, user store.UserNum) (bool, error) {
	version, _ := matrix.VersionByID(s.Version)
	d := door{version: version, rule: s.JoinRule, allow: s.Allowed, readable: s.WorldReadable}
	return d.opensTo(tx, tx.RoomNum(s.Room), user)
}

// A door is what decides who is shown a room that he is not in.
type door struct {
	version  *matrix.Version // nil: it is not known
	rule     string          // the join rule; invite where there is none that can be read
	allow    []matrix.RoomID // of a restricted room: whose members may join
	readable bool            // the room is world readable
}

// open says whether everybody is shown the room: it is public, knockable or world
// readable.
func (d door) open() bool {
	switch d.rule {
	case "public":
		return true
	case "knock":
		return d.readable || d.version == nil || d.version.Knocking
	case "knock_restricted":
		return d.readable || d.version == nil || d.version.KnockRestricted
	}
	return d.readable
}

// opensTo says whether a local user is shown the room. Who is banned may neither
// join nor knock.
func (d door) opensTo(tx *store.Tx, room store.RoomNum, user store.UserNum) (bool, error) {
	member, _, err := tx.LocalMembership(user, room)
	if err != nil {
		return false, err
	}
	switch {
	case member.Membership == matrix.Join, member.Membership == matrix.Invite:
		return true, nil
	case member.Membership == matrix.Ban:
		return d.readable, nil
	case d.open():
		return true, nil
	}
	return joinedAny(tx, user, d.allow)
}

// A summaryReader reads pieces of a room's state. What is not there, or not as it
// should be, is empty. It is good within one View; the first error of the store
// stays.
type summaryReader struct {
	tx  *store.Tx
	num store.RoomNum
	at  store.SnapshotID
	err error
}

func (r *summaryReader) event(typ string) *store.StoredEvent {
	if r.err != nil {
		return nil
	}
	var ev *store.StoredEvent
	ev, r.err = EventAt(r.tx, r.num, r.at, typ, "")
	return ev
}

func (r *summaryReader) content(typ string) map[string]jsontext.Value {
	ev := r.event(typ)
	if ev == nil {
		return nil
	}
	var members map[string]jsontext.Value
	if json.Unmarshal(ev.Content, &members, lenient) != nil {
		return nil
	}
	return members
}

func (r *summaryReader) text(typ, name string) string {
	return textOf(r.content(typ)[name])
}

// topic is "the plain text topic of the room", that of m.topic first.
func (r *summaryReader) topic() string {
	content := r.content("m.room.topic")
	var block struct {
		Text []struct {
			Body jsontext.Value `json:"body"`
			MIME jsontext.Value `json:"mimetype"`
		} `json:"m.text"`
	}
	if json.Unmarshal(content["m.topic"], &block, lenient) == nil {
		for _, form := range block.Text {
			if mime := textOf(form.MIME); form.MIME == nil || mime == "text/plain" {
				return textOf(form.Body)
			}
		}
	}
	return textOf(content["topic"])
}

// door reads what decides who is shown the room.
func (r *summaryReader) door(version *matrix.Version) (door, error) {
	d := door{version: version, rule: "invite"}
	if ev := r.event("m.room.join_rules"); ev != nil {
		if rule, allow, err := ev.JoinRule(); err == nil {
			d.rule = rule
			if restricted(version, rule) {
				d.allow = allow
			}
		}
	}
	if ev := r.event("m.room.history_visibility"); ev != nil {
		d.readable = ev.HistoryVisibility() == "world_readable"
	}
	return d, r.err
}

// textOf returns what a JSON string holds; other values hold nothing.
func textOf(v jsontext.Value) string {
	var s string
	if v.Kind() != '"' || json.Unmarshal(v, &s, lenient) != nil {
		return ""
	}
	return s
}
