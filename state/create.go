package state

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"golang.org/x/sync/errgroup"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// The presets of a new room. Spec: CS createRoom.
const (
	PresetPrivate = "private_chat"
	PresetTrusted = "trusted_private_chat"
	PresetPublic  = "public_chat"
)

// A Creation is what a client asks of a new room. Only Creator and Preset
// must be set. Spec: CS createRoom.
type Creation struct {
	Creator       matrix.UserID
	Preset        string
	Version       string         // room version; "": the default of Config
	Content       jsontext.Value // further content of m.room.create, an object
	PowerOverride jsontext.Value // laid over the default power levels, an object
	Initial       []InitialEvent
	Name, Topic   string
	Alias         matrix.RoomAlias // of this server; "": none
	Invite        []matrix.UserID
	Direct        bool // is_direct goes on the invites
	Publish       bool // in the published directory

	id matrix.RoomID // where the version leaves it to choice and it is chosen already
	at int64         // the time of m.room.create, 0 for now
}

// An InitialEvent is one of the state events that a client wants in a room
// from its beginning.
type InitialEvent struct {
	Type     string
	StateKey string
	Content  jsontext.Value
}

// Create makes a room with all events that the request implies, in one write
// and in the order that the specification fixes: none of them or all. Users of other
// servers are invited behind that, as far as their servers take it.
func (r *Rooms) Create(ctx context.Context, c Creation) (matrix.RoomID, error) {
	if c.Version == "" {
		c.Version = r.defaultVersion
	}
	version, ok := matrix.VersionByID(c.Version)
	if !ok {
		return "", refuse(ErrUnsupportedVersion, "There is no room version %q here", c.Version)
	}
	for _, user := range c.Invite {
		if err := r.reaches(user); err != nil {
			return "", err
		}
	}
	var id matrix.RoomID
	err := r.store.Update(ctx, func(tx *store.Tx) error {
		rm, err := r.begin(tx, version, c)
		if err != nil {
			return err
		}
		id = rm.id
		if err := rm.furnish(c); err != nil {
			return err
		}
		return rm.close()
	})
	if err != nil {
		return "", err
	}
	r.inviteElsewhere(ctx, id, c)
	return id, nil
}

// maxInvitesAtOnce is how many other servers are asked at a time for the invites of a
// room that has begun: some do not answer for long.
const maxInvitesAtOnce = 8

// inviteElsewhere invites the users of other servers to a room that has begun. Who
// cannot be invited is not: the room stands, and the creator sees who is in it.
func (r *Rooms) inviteElsewhere(ctx context.Context, id matrix.RoomID, c Creation) {
	var group errgroup.Group
	group.SetLimit(maxInvitesAtOnce)
	for i, user := range c.Invite {
		if r.isLocal(user) || slices.Contains(c.Invite[:i], user) {
			continue
		}
		group.Go(func() error {
			_, err := r.ChangeMembership(ctx, MembershipChange{
				Room: id, Sender: c.Creator, Target: user, Membership: matrix.Invite, Direct: c.Direct,
			})
			if err != nil {
				r.log.Info("a user of another server cannot be invited to a new room", "room", id, "user", user, "err", err)
			}
			return nil
		})
	}
	_ = group.Wait() // nothing fails
}

// begin makes the room and its m.room.create event.
func (r *Rooms) begin(tx *store.Tx, version *matrix.Version, c Creation) (*room, error) {
	content, err := createContent(version, c)
	if err != nil {
		return nil, err
	}
	draft := matrix.Draft{
		Sender: c.Creator, Type: "m.room.create", StateKey: new(string),
		Content: content, OriginServerTS: cmp.Or(c.at, r.now().UnixMilli()),
	}
	if !version.RoomIDIsHash {
		draft.Room = cmp.Or(c.id, r.newRoomID())
	}
	ev, err := r.buildCreate(tx, version, draft)
	if err != nil {
		return nil, fmt.Errorf("create a room: %w", err)
	}
	nothing := func(string, string) (*matrix.Event, error) { return nil, nil }
	if err := auth.Check(ev, nothing); err != nil {
		return nil, refuse(ErrBadEvent, "The room cannot be created like this: %v", err)
	}
	num, err := tx.PutRoomNum(ev.Room)
	if err != nil {
		return nil, err
	}
	rm := &room{rooms: r, tx: tx, num: num, id: ev.Room, head: store.Head{Version: version}}
	if err := tx.PutHead(num, rm.head); err != nil { // events are read by their room's version
		return nil, err
	}
	_, err = rm.append(ev, 0, store.TxnID{})
	return rm, err
}

// newRoomID makes the ID of a room whose version leaves it to choice.
func (r *Rooms) newRoomID() matrix.RoomID {
	return matrix.RoomID("!" + rand.Text() + ":" + string(r.server))
}

// buildCreate builds the m.room.create event. Where its hash is the room's ID, a
// second equal room of the same millisecond would be the same room: it is dated
// a millisecond later.
func (r *Rooms) buildCreate(tx *store.Tx, version *matrix.Version, draft matrix.Draft) (*matrix.Event, error) {
	for {
		ev, err := draft.Build(version, matrix.Placing{Depth: 1}, r.server, r.Key())
		if err != nil || tx.RoomNum(ev.Room) == 0 {
			return ev, err
		}
		draft.OriginServerTS++
	}
}

// createContent is the content of m.room.create: what the client gave, with
// the keys that are the server's to set.
func createContent(version *matrix.Version, c Creation) (jsontext.Value, error) {
	content := make(map[string]jsontext.Value)
	if err := readObject(c.Content, &content); err != nil {
		return nil, refuse(ErrBadEvent, "creation_content is no object: %v", err)
	}
	content["room_version"] = quote(version.ID)
	delete(content, "creator")
	if version.CreatorInContent {
		content["creator"] = quote(string(c.Creator))
	}
	if version.PrivilegedCreators && c.Preset == PresetTrusted && len(c.Invite) > 0 {
		creators, err := c.creators(content["additional_creators"])
		if err != nil {
			return nil, err
		}
		if len(creators) > 0 {
			content["additional_creators"] = encode(creators)
		}
	}
	return encode(content), nil
}

// creators is "the union of `invite` and `creation_content.additional_creators` in the
// request body", de-duplicated: users who are invited as equals. Spec: MSC4289,
// /createRoom changes.
func (c Creation) creators(given jsontext.Value) ([]string, error) {
	var listed, creators []string
	if given != nil && (given.Kind() != '[' || json.Unmarshal(given, &listed) != nil) {
		return nil, refuse(ErrBadEvent, "additional_creators is no list of user IDs")
	}
	for _, user := range c.Invite {
		if user != c.Creator {
			listed = append(listed, string(user))
		}
	}
	for _, user := range listed {
		if !slices.Contains(creators, user) {
			creators = append(creators, user)
		}
	}
	return creators, nil
}

// furnish adds everything behind m.room.create.
func (rm *room) furnish(c Creation) error {
	for i, step := range []func(Creation) error{
		rm.addCreator, rm.addPowerLevels, rm.addAlias, rm.addPreset, rm.addInitial, rm.addNames, rm.addInvites,
	} {
		err := step(c)
		var refused *auth.Error
		if errors.As(err, &refused) {
			return refuse(ErrInvalidRoomState, "The room cannot begin like this: %s", refused.Error())
		}
		if err != nil {
			return fmt.Errorf("create a room, step %d: %w", i+2, err)
		}
	}
	if c.Publish {
		return rm.tx.PutPublished(rm.num, true)
	}
	return nil
}

func (rm *room) addCreator(c Creation) error {
	_, err := rm.addMember(c.Creator, c.Creator, memberContent{Membership: matrix.Join})
	return err
}

func (rm *room) addAlias(c Creation) error {
	if c.Alias == "" {
		return nil
	}
	creator, err := rm.tx.PutUserNum(c.Creator)
	if err != nil {
		return err
	}
	if err := rm.tx.PutAlias(c.Alias, rm.num, creator); errors.Is(err, store.ErrExists) {
		return refuse(ErrAliasInUse, "The alias %s is taken", c.Alias)
	} else if err != nil {
		return err
	}
	return rm.addState(c.Creator, "m.room.canonical_alias", "", encode(map[string]string{"alias": string(c.Alias)}))
}

// addPreset adds the state that the preset stands for, but for what the
// client sets itself.
//
// A public room has no m.room.guest_access: its "forbidden" is what holds without the
// event, as no guest may join unless "the m.room.guest_access state event is present on
// the room, and has the guest_access value can_join" (CS Guest access). Other servers
// leave it out as well.
func (rm *room) addPreset(c Creation) error {
	rule, guests := "invite", "can_join"
	if c.Preset == PresetPublic {
		rule, guests = "public", ""
	}
	for _, s := range []struct{ typ, key, value string }{
		{"m.room.join_rules", "join_rule", rule},
		{"m.room.history_visibility", "history_visibility", "shared"},
		{"m.room.guest_access", "guest_access", guests},
	} {
		if s.value == "" || c.initial(s.typ, "") >= 0 {
			continue
		}
		if err := rm.addState(c.Creator, s.typ, "", encode(map[string]string{s.key: s.value})); err != nil {
			return err
		}
	}
	return nil
}

func (rm *room) addInitial(c Creation) error {
	for i, ev := range c.Initial {
		switch {
		case ev.Type == "m.room.create":
			return refuse(ErrBadEvent, "initial_state may not hold m.room.create")
		case ev.Type == "m.room.power_levels" && ev.StateKey == "":
			continue // went before the preset
		case c.overridden(ev), c.initial(ev.Type, ev.StateKey) != i:
			continue // name, topic and alias win; of two equal keys the last
		}
		draft := matrix.Draft{Sender: c.Creator, Type: ev.Type, StateKey: &ev.StateKey, Content: ev.Content}
		if err := rm.checkDraft(draft); err != nil {
			return err
		}
		if err := rm.addState(c.Creator, ev.Type, ev.StateKey, ev.Content); err != nil {
			return err
		}
	}
	return nil
}

func (rm *room) addNames(c Creation) error {
	if c.Name != "" {
		if err := rm.addState(c.Creator, "m.room.name", "", encode(map[string]string{"name": c.Name})); err != nil {
			return err
		}
	}
	if c.Topic == "" {
		return nil
	}
	return rm.addState(c.Creator, "m.room.topic", "", topicContent(c.Topic))
}

// topicContent gives the topic in the old form and as m.topic. Spec: CS m.room.topic.
func topicContent(topic string) jsontext.Value {
	type representation struct {
		Body     string `json:"body"`
		MIMEType string `json:"mimetype"`
	}
	type block struct {
		Text []representation `json:"m.text"`
	}
	return encode(struct {
		Topic string `json:"topic"`
		Block block  `json:"m.topic"`
	}{topic, block{[]representation{{topic, "text/plain"}}}})
}

func (rm *room) addInvites(c Creation) error {
	for i, user := range c.Invite {
		if user == c.Creator || !rm.rooms.isLocal(user) || slices.Contains(c.Invite[:i], user) {
			continue
		}
		content := memberContent{Membership: matrix.Invite, Direct: c.Direct}
		if _, err := rm.addMember(c.Creator, user, content); err != nil {
			return err
		}
	}
	return nil
}

// addState adds a state event to a room that is being made.
func (rm *room) addState(sender matrix.UserID, typ, stateKey string, content jsontext.Value) error {
	_, err := rm.add(matrix.Draft{Sender: sender, Type: typ, StateKey: &stateKey, Content: content}, store.TxnID{})
	return err
}

// initial is the index of the last of the initial events with a type and
// state key, -1 if there is none.
func (c Creation) initial(typ, stateKey string) int {
	for i, ev := range slices.Backward(c.Initial) {
		if ev.Type == typ && ev.StateKey == stateKey {
			return i
		}
	}
	return -1
}

// overridden says whether a parameter of its own takes an initial event's place.
func (c Creation) overridden(ev InitialEvent) bool {
	if ev.StateKey != "" {
		return false
	}
	switch ev.Type {
	case "m.room.name":
		return c.Name != ""
	case "m.room.topic":
		return c.Topic != ""
	case "m.room.canonical_alias":
		return c.Alias != ""
	}
	return false
}

// readObject reads a JSON object over what v holds; nothing is an empty one.
func readObject(object jsontext.Value, v *map[string]jsontext.Value) error {
	if len(object) == 0 {
		return nil
	}
	return json.Unmarshal(object, v)
}

// encode is v as JSON; v is made of this package's own plain types, for which
// encoding cannot fail.
func encode(v any) jsontext.Value {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return b
}

func quote(s string) jsontext.Value { return encode(s) }
