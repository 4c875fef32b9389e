package auth

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// checkCreate applies the rules for m.room.create, the one event that is allowed
// by nothing but itself.
func checkCreate(ev *matrix.Event) error {
	v := ev.Version
	// CreateHasPrev. v1-12 1.1: "If it has any `prev_events`, reject."
	if len(ev.PrevEvents) > 0 {
		return refuse(ev, CreateHasPrev, "The first event of a room cannot follow another")
	}
	if err := checkCreateRoomID(ev); err != nil {
		return err
	}
	// CreateUnknownVersion. v1-12 1.3: "If `content.room_version` is present and is
	// not a recognised version, reject."
	if id, has := property(ev.Content, "room_version"); has && !isKnownVersion(id) {
		return refuse(ev, CreateUnknownVersion, "There is no room version %s", clip(string(id)))
	}
	// CreateNoCreator. v1-10 1.4: "If `content` has no `creator` property, reject."
	if _, has := property(ev.Content, "creator"); v.CreatorInContent && !has {
		return refuse(ev, CreateNoCreator, "The room has no creator")
	}
	// CreateBadCreators. v12 1.4: "If `additional_creators` is present in `content`
	// and is not an array of strings where each string passes the same user ID
	// validation applied to `sender`, reject."
	if list, has := property(ev.Content, "additional_creators"); v.PrivilegedCreators && has && !areUserIDs(list) {
		return refuse(ev, CreateBadCreators, "The additional creators of a room must be user IDs")
	}
	// v1-10 1.5, v11 1.4, v12 1.5: "Otherwise, allow."
	return nil
}

func checkCreateRoomID(ev *matrix.Event) error {
	// v12 1.2: "If the event has a `room_id`, reject." No Event can have one:
	// [matrix.Parse] refuses it, as the room would have two names.
	if ev.Version.RoomIDIsHash {
		return nil
	}
	// CreateRoomID. v1-11 1.2: "If the domain of the `room_id` does not match the
	// domain of the `sender`, reject."
	if server, has := ev.Room.Server(); !has || server != ev.Sender.Server() {
		return refuse(ev, CreateRoomID, "A room on %s can only be created there", quote(string(server)))
	}
	return nil
}

// creator is the user for whom the first join of a room is allowed: up to version
// 10 content.creator, then the sender of m.room.create.
func creator(create *matrix.Event) matrix.UserID {
	if creators := create.Creators(); len(creators) > 0 {
		return creators[0]
	}
	return ""
}

// isKnownVersion reports whether v is the ID of a room version that we know.
func isKnownVersion(v jsontext.Value) bool {
	id, ok := stringOf(v)
	if !ok {
		return false
	}
	_, known := matrix.VersionByID(id)
	return known
}

// areUserIDs reports whether v is an array of user IDs.
func areUserIDs(v jsontext.Value) bool {
	var list []jsontext.Value
	if v.Kind() != '[' || json.Unmarshal(v, &list) != nil {
		return false
	}
	for _, item := range list {
		id, ok := stringOf(item)
		if !ok {
			return false
		}
		if _, err := matrix.ParseUserID(id); err != nil {
			return false
		}
	}
	return true
}

// federates reports whether users of other servers may take part: unless
// m.federate is false.
func federates(create *matrix.Event) bool {
	v, has := property(create.Content, "m.federate")
	return !has || v.Kind() != 'f'
}
