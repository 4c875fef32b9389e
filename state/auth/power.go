package auth

import (
	"math"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// Infinite is the power level of the creators of a version 12 room: above every
// level that m.room.power_levels can give.
const Infinite int64 = math.MaxInt64

// UserPower is the power level of user in a room with these two state events,
// each nil when the room has none: [Infinite] for creators in version 12, else
// what m.room.power_levels says, and without one 100 for the creator and 0 for
// others. It is 0 when powerLevels cannot be read, which no accepted event
// causes.
func UserPower(create, powerLevels *matrix.Event, user matrix.UserID) int64 {
	l, err := readLevels(create, powerLevels, "", user)
	if err != nil {
		return 0
	}
	return l.user(user)
}

// levels are the power levels of a room, as far as one event needs them.
type levels struct {
	*matrix.PowerLevels
	create *matrix.Event
}

// user is the power level of one of the users that the levels were read for.
func (l levels) user(u matrix.UserID) int64 {
	if hasInfinitePower(l.create, u) {
		return Infinite
	}
	return l.User(u)
}

// hasInfinitePower reports whether user is a creator in a version where that means
// infinite power. (v12, note under "Authorisation rules": "The power level of "room
// creators" is infinitely high.")
func hasInfinitePower(create *matrix.Event, user matrix.UserID) bool {
	if create == nil || !create.Version.PrivilegedCreators {
		return false
	}
	if create.Sender == user {
		return true
	}
	_, more := property(create.Content, "additional_creators")
	return more && slices.Contains(create.Creators(), user)
}

// readLevels reads what is needed for an event of type typ and for these users.
// A nil powerLevels means the defaults.
func readLevels(create, powerLevels *matrix.Event, typ string, users ...matrix.UserID) (levels, error) {
	if powerLevels == nil {
		return levels{matrix.DefaultPowerLevels(create), create}, nil
	}
	short := *powerLevels
	short.Content = shortLevels(powerLevels.Content, typ, users)
	l, err := short.PowerLevels()
	return levels{l, create}, err
}

// shortLevels is the content of an m.room.power_levels event without the entries
// for other types and other users. There may be hundreds, and they were checked
// when the event became part of the state.
func shortLevels(content jsontext.Value, typ string, users []matrix.UserID) jsontext.Value {
	isType := func(name jsontext.Value) bool { return isString(name, typ) }
	isUser := func(name jsontext.Value) bool {
		return slices.ContainsFunc(users, func(u matrix.UserID) bool { return isString(name, string(u)) })
	}
	short := append(make(jsontext.Value, 0, 512), '{')
	for name, value := range members(content) {
		switch {
		case isString(name, "users"):
			short = appendSome(appendName(short, name), value, isUser)
		case isString(name, "events"):
			short = appendSome(appendName(short, name), value, isType)
		case !isString(name, "notifications"):
			short = append(appendName(short, name), value...)
		}
	}
	return append(short, '}')
}

// appendSome appends an object with the members whose names are wanted. Another
// value stays as it is.
func appendSome(dst, object jsontext.Value, wanted func(name jsontext.Value) bool) jsontext.Value {
	if object.Kind() != '{' {
		return append(dst, object...)
	}
	dst = append(dst, '{')
	for name, value := range members(object) {
		if wanted(name) {
			dst = append(appendName(dst, name), value...)
		}
	}
	return append(dst, '}')
}

// appendName appends the name of an object's next member.
func appendName(dst, name jsontext.Value) jsontext.Value {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	return append(append(dst, name...), ':')
}

// levels reads the levels of these users and for the event's type. State whose
// levels cannot be read, which the rules on their form keep out, allows nothing.
func (c *check) levels(users ...matrix.UserID) (levels, error) {
	ev, err := c.get(typePowerLevels, "")
	if err != nil {
		return levels{}, err
	}
	l, err := readLevels(c.create, ev, c.ev.Type, users...)
	if err != nil {
		return levels{}, c.refuse(PowerUserMalformed, "The power levels of this room cannot be read")
	}
	return l, nil
}
