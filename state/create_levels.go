package state

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// addPowerLevels takes the client's initial m.room.power_levels where there
// is one, and the defaults with the client's override where not.
func (rm *room) addPowerLevels(c Creation) error {
	if i := c.initial("m.room.power_levels", ""); i >= 0 {
		return rm.addState(c.Creator, "m.room.power_levels", "", c.Initial[i].Content)
	}
	levels := defaultLevels(rm.head.Version, c)
	if err := readObject(c.PowerOverride, &levels); err != nil {
		return refuse(ErrBadEvent, "power_level_content_override is no object: %v", err)
	}
	if rm.head.Version.PrivilegedCreators {
		keepTombstone(levels, c.PowerOverride)
	}
	return rm.addState(c.Creator, "m.room.power_levels", "", encode(levels))
}

// keepTombstone sees to it that an upgrade, which hands the creators' power on, stays
// theirs when the client's override replaces the levels of all event types or raises
// the one of state: "the power level for sending `m.room.tombstone` events MUST
// explicitly be higher than `state_default`". An override that names m.room.tombstone
// has its way: "this may still be overridden by `power_level_content_override`".
// Levels of odd form are for the auth rules to refuse. Spec: CS createRoom; MSC4289,
// Tombstone changes.
func keepTombstone(levels map[string]jsontext.Value, override jsontext.Value) {
	var own struct {
		Events map[string]jsontext.Value `json:"events"`
	}
	var events map[string]jsontext.Value
	var state int64
	if len(override) > 0 && json.Unmarshal(override, &own) != nil || own.Events["m.room.tombstone"] != nil {
		return
	}
	if json.Unmarshal(levels["events"], &events) != nil || events == nil || json.Unmarshal(levels["state_default"], &state) != nil {
		return
	}
	events["m.room.tombstone"] = encode(max(creatorLevel, min(state, maxLevel-1)+1))
	levels["events"] = encode(events)
}

// defaultLevels are the power levels of a new room. In version 12 creators
// stand above all levels and are not named, and m.room.tombstone is theirs. Whoever
// may invite can also vouch for those that a restricted join rule lets in. In a
// room that is open to all that is a moderator's; the specification leaves it open.
func defaultLevels(version *matrix.Version, c Creation) map[string]jsontext.Value {
	users := make(map[matrix.UserID]int64)
	tombstone, invite := int64(creatorLevel), 0
	if c.Preset == PresetPublic {
		invite = 50
	}
	if !version.PrivilegedCreators {
		tombstone = adminLevel
		users[c.Creator] = adminLevel
		if c.Preset == PresetTrusted {
			for _, user := range c.Invite {
				users[user] = adminLevel
			}
		}
	}
	return map[string]jsontext.Value{
		"users": encode(users), "users_default": encode(0),
		"events": encode(map[string]int64{
			"m.room.name": 50, "m.room.avatar": 50, "m.room.canonical_alias": 50,
			"m.room.power_levels": 100, "m.room.history_visibility": 100, "m.room.encryption": 100,
			"m.room.server_acl": 100, "m.room.tombstone": tombstone,
		}),
		"events_default": encode(0), "state_default": encode(50),
		"ban": encode(50), "kick": encode(50), "redact": encode(50), "invite": encode(invite),
		"historical": encode(100),
	}
}
