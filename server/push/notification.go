package push

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// notification is the body of a request to a push gateway.
//
// Spec: PG POST /_matrix/push/v1/notify.
type notification struct {
	EventID           matrix.EventID `json:"event_id,omitzero"`
	RoomID            matrix.RoomID  `json:"room_id,omitzero"`
	Type              string         `json:"type,omitzero"`
	Sender            matrix.UserID  `json:"sender,omitzero"`
	SenderDisplayName string         `json:"sender_display_name,omitzero"`
	RoomName          string         `json:"room_name,omitzero"`
	RoomAlias         string         `json:"room_alias,omitzero"`
	UserIsTarget      bool           `json:"user_is_target,omitzero"`
	Prio              string         `json:"prio"`
	Content           jsontext.Value `json:"content,omitzero"`
	Counts            counts         `json:"counts"`
	Devices           []device       `json:"devices"`
}

// counts are what is unread. "Counts whose value is zero should be omitted."
type counts struct {
	Unread *int `json:"unread,omitzero"`
}

// device is the pusher that a notification is for.
type device struct {
	AppID     string                    `json:"app_id"`
	Pushkey   string                    `json:"pushkey"`
	PushkeyTS int64                     `json:"pushkey_ts"` // seconds
	Data      jsontext.Value            `json:"data"`
	Tweaks    map[string]jsontext.Value `json:"tweaks,omitzero"`
}

// eventIDOnly is the format of pushers that want no content: "only the event_id,
// room_id, counts, and devices are required to be populated".
const eventIDOnly = "event_id_only"

// eventNotification returns the request that tells a user of an event.
func eventNotification(tx *store.Tx, p store.Pusher, user store.UserNum, ev *store.StoredEvent, rule *Rule, unread int) ([]byte, error) {
	at, format, err := deviceOf(p)
	if err != nil {
		return nil, err
	}
	n := notification{EventID: ev.ID, RoomID: tx.RoomID(ev.RoomNum), Prio: "low", Devices: []device{at}}
	if unread > 0 {
		n.Counts.Unread = &unread
	}
	tweaks := rule.Tweaks()
	// What may sound wakes the phone: of an encrypted event only the client knows.
	if tweaks["sound"] != nil || string(tweaks["highlight"]) == "true" || ev.Type == "m.room.encrypted" {
		n.Prio = "high"
	}
	if format != eventIDOnly {
		n.Type, n.Sender, n.Content = ev.Type, ev.Sender, jsontext.Value(ev.Content)
		n.UserIsTarget = ev.Type == "m.room.member" && ev.StateKey != nil && *ev.StateKey == string(tx.UserID(user))
		n.Devices[0].Tweaks = tweaks
		if err := n.describe(tx, ev); err != nil {
			return nil, err
		}
	}
	return encode(n)
}

// countNotification returns the request that tells a number of unread events alone.
// It has the number even where it is 0, though zeros should be omitted: push
// gateways take what is missing for no change, and the badge would stay.
func countNotification(p store.Pusher, unread int) ([]byte, error) {
	at, _, err := deviceOf(p)
	if err != nil {
		return nil, err
	}
	return encode(notification{Prio: "low", Counts: counts{&unread}, Devices: []device{at}})
}

// encode returns the request's body. Events of old rooms may hold what is no good
// JSON elsewhere.
func encode(n notification) ([]byte, error) {
	b, err := json.Marshal(map[string]notification{"notification": n}, lenient, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode a notification: %w", err)
	}
	return b, nil
}

// deviceOf describes a pusher to its push gateway, with all its data but the URL,
// and returns the format that it wants.
func deviceOf(p store.Pusher) (device, string, error) {
	data := make(map[string]jsontext.Value)
	if err := json.Unmarshal(p.Data, &data); err != nil {
		return device{}, "", fmt.Errorf("data of a pusher: %w", err)
	}
	delete(data, "url")
	format, _ := textOf(data["format"])
	rest, err := json.Marshal(data, json.Deterministic(true))
	if err != nil {
		return device{}, "", fmt.Errorf("data of a pusher: %w", err)
	}
	return device{AppID: p.App, Pushkey: p.Key, PushkeyTS: p.Updated.Unix(), Data: rest}, format, nil
}

// described is a text that stands in a state event of the room.
type described struct {
	typ, key, name string
	to             *string
}

// describeInvite fills in what the stripped state that came with an invite tells.
func describeInvite(tx *store.Tx, invite *store.StoredEvent, names []described) error {
	member, _, err := tx.LocalMembership(tx.UserNum(matrix.UserID(*invite.StateKey)), invite.RoomNum)
	if err != nil || member.Stripped == nil {
		return err
	}
	var events []struct {
		Type     string         `json:"type"`
		StateKey string         `json:"state_key"`
		Content  jsontext.Value `json:"content"`
	}
	if err := json.Unmarshal(member.Stripped, &events, lenient); err != nil {
		return fmt.Errorf("stripped state of an invite: %w", err)
	}
	for _, ev := range events {
		for _, s := range names {
			if ev.Type == s.typ && ev.StateKey == s.key {
				*s.to, _ = textOf(readObject(ev.Content).member(s.name))
			}
		}
	}
	return nil
}

// describe fills in what the room is called, and the sender in it.
func (n *notification) describe(tx *store.Tx, ev *store.StoredEvent) error {
	names := []described{
		{"m.room.name", "", "name", &n.RoomName},
		{"m.room.canonical_alias", "", "alias", &n.RoomAlias},
		{"m.room.member", string(ev.Sender), "displayname", &n.SenderDisplayName},
	}
	if ev.Num == 0 { // an invite to a room that this server is not in
		return describeInvite(tx, ev, names)
	}
	head, err := tx.Head(ev.RoomNum)
	if err != nil {
		return err
	}
	for _, s := range names {
		found, err := state.EventAt(tx, ev.RoomNum, head.Current, s.typ, s.key)
		if err != nil {
			return err
		}
		if found != nil {
			*s.to, _ = textOf(readObject(found.Content).member(s.name))
		}
	}
	return nil
}

// Tweaks returns how the rule wants a notification presented. "If a highlight tweak
// is given with no value, its value is defined to be true."
//
// Spec: CS Push Notifications, Actions.
func (r *Rule) Tweaks() map[string]jsontext.Value {
	var tweaks map[string]jsontext.Value
	for _, action := range r.Actions {
		if action.Kind() != '{' {
			continue
		}
		var tweak struct {
			Set   string         `json:"set_tweak"`
			Value jsontext.Value `json:"value"`
		}
		if json.Unmarshal(action, &tweak) != nil || tweak.Set == "" {
			continue
		}
		if tweak.Value == nil && tweak.Set == "highlight" {
			tweak.Value = jsontext.Value("true")
		}
		if tweak.Value == nil {
			continue
		}
		if tweaks == nil {
			tweaks = make(map[string]jsontext.Value)
		}
		tweaks[tweak.Set] = tweak.Value
	}
	return tweaks
}
