package push

import (
	"slices"
	"strings"

	"hearth/state/matrix"
)

// CopyRoom copies each of the user's own rules about one room, right behind it, as
// a rule about another room, and says whether there were any. Where the other room
// has a rule of that name already, that one stays. About a room are the room rule
// that has its ID, and rules with a condition that wants it. Rules beyond the number
// that a user may have are left out.
func (s *Saved) CopyRoom(from, to matrix.RoomID) (copied bool) {
	for _, kind := range Kinds {
		for _, rule := range slices.Clone(*s.Own.list(kind)) {
			twin, ok := rule.about(kind, from, to)
			if !ok || s.Own.Rule(kind, twin.ID) != nil || twin.Check(kind) != nil {
				continue
			}
			if s.Put(kind, twin, "", rule.ID) != nil {
				continue
			}
			s.Own.Rule(kind, twin.ID).Enabled = rule.Enabled
			copied = true
		}
	}
	return copied
}

// about is a rule about one room, made a rule about another; ok is false for rules
// that are about neither.
func (r Rule) about(kind Kind, from, to matrix.RoomID) (twin Rule, ok bool) {
	twin = r
	if kind == Room && r.ID == string(from) {
		twin.ID = string(to)
		return twin, true
	}
	twin.Conditions = slices.Clone(r.Conditions)
	for i, c := range twin.Conditions {
		if c.Kind == "event_match" && c.Key == "room_id" && c.Pattern != nil && *c.Pattern == string(from) {
			pattern := string(to)
			twin.Conditions[i].Pattern = &pattern
			ok = true
		}
	}
	// Clients name such a rule by the room; another name must not be taken twice.
	if twin.ID = strings.ReplaceAll(r.ID, string(from), string(to)); twin.ID == r.ID {
		twin.ID = string(to)
	}
	return twin, ok
}
