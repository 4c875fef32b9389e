package state

import (
	"fmt"
	"maps"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// Levels of new rooms.
const (
	maxLevel = 1<<53 - 1 // the largest integer of canonical JSON

	// creatorLevel is what m.room.tombstone needs in new rooms whose creators
	// stand above all levels.
	creatorLevel = 150
	// adminLevel is the creator's in all others.
	adminLevel = 100
)

// giveLevels copies the power levels of the old room, in the plain form that every
// version takes.
func (u *upgrade) giveLevels() error {
	content := make(map[string]jsontext.Value)
	if u.levels.event != nil {
		if err := readObject(u.levels.event.Content, &content); err != nil {
			return fmt.Errorf("content of m.room.power_levels: %w", err)
		}
	}
	for f := matrix.UsersDefault; f <= matrix.InviteLevel; f++ {
		delete(content, f.String())
		if level, given := u.levels.Field(f); given {
			content[f.String()] = encode(plain(level))
		}
	}
	content["users"] = encode(u.userLevels())
	content["events"] = encode(u.eventLevels())
	delete(content, "notifications")
	if len(u.levels.Notifications) > 0 {
		content["notifications"] = encode(plainLevels(u.levels.Notifications))
	}
	return u.fresh.addState(u.user, "m.room.power_levels", "", fitting(u.version, content))
}

// userLevels are the levels of users. Creators whose power is above all levels may
// have none; where the old room had such and the new one has not, who upgrades it
// has at least the power to do so again.
func (u *upgrade) userLevels() map[matrix.UserID]int64 {
	levels := plainLevels(u.levels.Users)
	switch {
	case u.version.PrivilegedCreators:
		delete(levels, u.user)
		for _, creator := range u.creators {
			delete(levels, creator)
		}
	case u.old.head.Version.PrivilegedCreators:
		levels[u.user] = max(u.levels.User(u.user), adminLevel, plain(u.levels.Send("m.room.tombstone", true)))
	}
	return levels
}

// eventLevels are the levels of event types. In rooms whose creators stand above
// all others, an upgrade hands that power on: "The initial power levels event in the
// room MUST have the level required to send `m.room.tombstone` events be higher than
// the level required to send state events." It is as in other new rooms, unless the
// old room was of that kind and had it so. (MSC4289, Tombstone changes.)
func (u *upgrade) eventLevels() map[string]int64 {
	levels := plainLevels(u.levels.Events)
	if !u.version.PrivilegedCreators {
		return levels
	}
	least := u.levels.StateDefault + 1
	if !u.old.head.Version.PrivilegedCreators {
		least = max(least, creatorLevel)
	}
	levels["m.room.tombstone"] = plain(max(u.levels.Send("m.room.tombstone", true), least))
	return levels
}

// plain is a level within the bounds of canonical JSON, which the oldest versions
// do not have.
func plain(level int64) int64 { return max(-maxLevel, min(level, maxLevel)) }

func plainLevels[K ~string](levels map[K]int64) map[K]int64 {
	all := make(map[K]int64, len(levels)+1)
	maps.Copy(all, levels)
	for key, level := range all {
		all[key] = plain(level)
	}
	return all
}
