package auth

import (
	"math"
	"slices"

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
	infinite []matrix.UserID // who is above all of them
}

// readLevels reads what is needed for an event of type typ and for these users.
// A nil powerLevels means the defaults.
func readLevels(create, powerLevels *matrix.Event, typ string, users ...matrix.UserID) (levels, error) {
	l := levels{infinite: infinitePower(create)}
	if powerLevels == nil {
		l.PowerLevels = matrix.DefaultPowerLevels(create)
		return l, nil
	}
	var err error
	l.PowerLevels, err = powerLevels.PowerLevelsFor(typ, users...)
	return l, err
}

// user is the power level of one of the users that the levels were read for.
func (l levels) user(u matrix.UserID) int64 {
	if slices.Contains(l.infinite, u) {
		return Infinite
	}
	return l.User(u)
}

// infinitePower lists the users whose power is infinite: the creators, from
// version 12 on. (There, the note under "Authorisation rules": "The power level of
// "room creators" is infinitely high.")
func infinitePower(create *matrix.Event) []matrix.UserID {
	if create == nil || !create.Version.PrivilegedCreators {
		return nil
	}
	return create.Creators()
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
