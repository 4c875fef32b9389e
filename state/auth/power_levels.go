package auth

import (
	"maps"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// powerLevels applies the rules for m.room.power_levels.
func (c *check) powerLevels() error {
	next, err := c.ev.PowerLevels()
	if err != nil {
		return c.malformedLevels()
	}
	if err := c.listsCreator(next); err != nil {
		return err
	}
	current, err := c.get(typePowerLevels, "")
	if err != nil {
		return err
	}
	// v1-5 10.2, v6-9 9.2, v10-11 9.4, v12 10.5: "If there is no previous
	// `m.room.power_levels` event in the room, allow."
	if current == nil {
		return nil
	}
	old, err := current.PowerLevels()
	if err != nil {
		return c.refuse(PowerUserMalformed, "The power levels of this room cannot be read")
	}
	change := powerChange{c: c, old: old, new: next, mine: levels{old, c.create}.user(c.ev.Sender)}
	if err := change.plain(); err != nil {
		return err
	}
	if err := change.entries("events", old.Events, next.Events); err != nil {
		return err
	}
	if c.v.NotificationLevels {
		if err := change.entries("notifications", old.Notifications, next.Notifications); err != nil {
			return err
		}
	}
	// v1-5 10.8, v6-9 9.8, v10-11 9.10, v12 10.11 (printed as 10.10, too): "Otherwise,
	// allow."
	return change.users()
}

// malformedLevels is the refusal of levels that cannot be read.
func (c *check) malformedLevels() error {
	if c.v.IntegerPowerLevels {
		// PowerLevelMalformed. v10-11 9.1, v12 10.1: "If any of the properties
		// `users_default`, `events_default`, `state_default`, `ban`, `redact`, `kick`, or
		// `invite` in `content` are present and not an integer, reject."
		for field := matrix.UsersDefault; field <= matrix.InviteLevel; field++ {
			if v, has := property(c.ev.Content, field.String()); has && v.Kind() != '0' {
				return c.refuse(PowerLevelMalformed, "The level %s must be an integer", field)
			}
		}
		// PowerEntryMalformed. v10-11 9.2, v12 10.2: "If either of the properties `events`
		// or `notifications` in `content` are present and not an object with values that
		// are integers, reject."
		for _, list := range []string{"events", "notifications"} {
			if v, has := property(c.ev.Content, list); has && !holdsNumbers(v) {
				return c.refuse(PowerEntryMalformed, "The levels in %s must be integers", list)
			}
		}
	}
	// PowerUserMalformed. v1-5 10.1, v6-9 9.1: "If the `users` property in `content` is
	// not an object with keys that are valid user IDs with values that are integers
	// (or a string that is an integer), reject."
	// v10-11 9.3, v12 10.3: "… with values that are integers, reject."
	return c.refuse(PowerUserMalformed, "The levels in users must be integers, of valid user IDs")
}

// holdsNumbers reports whether v is an object with nothing but numbers in it.
func holdsNumbers(v jsontext.Value) bool {
	if v.Kind() != '{' {
		return false
	}
	for _, value := range members(v) {
		if value.Kind() != '0' {
			return false
		}
	}
	return true
}

func (c *check) listsCreator(next *matrix.PowerLevels) error {
	if !c.v.PrivilegedCreators {
		return nil
	}
	// PowerListsCreator. v12 10.4: "If the `users` property in `content` contains the
	// `sender` of the `m.room.create` event or any of the `additional_creators`
	// array (if present) from the `content` of the `m.room.create` event, reject."
	for _, creator := range c.create.Creators() {
		if _, listed := next.Users[creator]; listed {
			return c.refuse(PowerListsCreator,
				"%s created this room and cannot be given a power level", creator)
		}
	}
	return nil
}

// powerChange is the step from one m.room.power_levels event to the next by a
// sender whose current level is mine.
type powerChange struct {
	c        *check
	old, new *matrix.PowerLevels
	mine     int64
}

// plain applies the rules for the seven levels outside of any list.
func (p *powerChange) plain() error {
	// "For the properties `users_default`, `events_default`, `state_default`, `ban`,
	// `redact`, `kick`, `invite` check if they were added, changed or removed. For
	// each found alteration:"
	for field := matrix.UsersDefault; field <= matrix.InviteLevel; field++ {
		was, had := p.old.Field(field)
		is, has := p.new.Field(field)
		if had == has && was == is {
			continue
		}
		// PowerLevelAboveOld. v1-5 10.3.1, v6-9 9.3.1, v10-11 9.5.1, v12 10.6.1: "If the
		// current value is higher than the `sender`'s current power level, reject."
		if had && was > p.mine {
			return p.c.refuse(PowerLevelAboveOld,
				"You need power level %d to change %s, yours is %d", was, field, p.mine)
		}
		// PowerLevelAboveNew. v1-5 10.3.2, v6-9 9.3.2, v10-11 9.5.2, v12 10.6.2: "If the
		// new value is higher than the `sender`'s current power level, reject."
		if has && is > p.mine {
			return p.c.refuse(PowerLevelAboveNew,
				"You cannot set %s to %d, above your own power level %d", field, is, p.mine)
		}
	}
	return nil
}

// entries applies the rules for the lists events and notifications. The latter
// counts from version 6 on.
func (p *powerChange) entries(list string, old, next map[string]int64) error {
	changed := changedKeys(old, next)
	for _, key := range changed {
		// PowerEntryAboveOld. v1-5 10.4.1, v6-9 9.4.1, v10-11 9.6.1, v12 10.7.1: "For each
		// entry being changed in, or removed from, the `events`" (v6 on: "or
		// `notifications`") "properties: If the current value is greater than the
		// `sender`'s current power level, reject."
		if was, had := old[key]; had && was > p.mine {
			return p.c.refuse(PowerEntryAboveOld,
				"You need power level %d to change the level for %s in %s, yours is %d", was, quote(key), list, p.mine)
		}
	}
	for _, key := range changed {
		// PowerEntryAboveNew. v1-5 10.5.1, v6-9 9.5.1, v10-11 9.7.1, v12 10.8.1: "For each
		// entry being added to, or changed in, the `events`" (v6 on: "or
		// `notifications`") "properties: If the new value is greater than the `sender`'s current power
		// level, reject."
		if is, has := next[key]; has && is > p.mine {
			return p.c.refuse(PowerEntryAboveNew,
				"You cannot set the level for %s in %s to %d, above your own power level %d", quote(key), list, is, p.mine)
		}
	}
	return nil
}

// users applies the rules for the levels of users.
func (p *powerChange) users() error {
	changed := changedKeys(p.old.Users, p.new.Users)
	for _, user := range changed {
		// PowerUserAboveOld. v1-5 10.6.1, v6-9 9.6.1, v10-11 9.8.1, v12 10.9.1: "For each
		// entry being changed in, or removed from, the `users` property, other than the
		// `sender`'s own entry: If the current value is greater than or equal to the
		// `sender`'s current power level, reject."
		if was, had := p.old.Users[user]; had && user != p.c.ev.Sender && was >= p.mine {
			return p.c.refuse(PowerUserAboveOld,
				"You need a power level above %d to change that of %s, yours is %d", was, user, p.mine)
		}
	}
	for _, user := range changed {
		// PowerUserAboveNew. v1-5 10.7.1, v6-9 9.7.1, v10-11 9.9.1, v12 10.10.1: "For each
		// entry being added to, or changed in, the `users` property: If the new value is
		// greater than the `sender`'s current power level, reject."
		if is, has := p.new.Users[user]; has && is > p.mine {
			return p.c.refuse(PowerUserAboveNew,
				"You cannot give %s power level %d, above your own %d", user, is, p.mine)
		}
	}
	return nil
}

// changedKeys are the keys that are in one map only or differ, in order, so that
// the same event is always refused for the same entry.
func changedKeys[K ~string](old, next map[K]int64) []K {
	changed := map[K]bool{}
	for k, was := range old {
		if is, has := next[k]; !has || is != was {
			changed[k] = true
		}
	}
	for k := range next {
		if _, had := old[k]; !had {
			changed[k] = true
		}
	}
	return slices.Sorted(maps.Keys(changed))
}
