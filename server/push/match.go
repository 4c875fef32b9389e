package push

import (
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// A Context is what rules ask about besides the event.
type Context struct {
	User matrix.UserID
	// Members is how many users are joined to the room.
	Members uint64
	// DisplayName is what the user calls himself in the room, "" for nothing.
	DisplayName string
	// MayNotify says whether the event's sender has the power to notify, such as
	// the whole room ("room"). If nil, he has not.
	MayNotify func(key string) bool
}

// Match returns the rule that decides about an event, nil where none does: the
// first that is enabled and matches. What a user sent himself notifies him of
// nothing.
//
// Spec: CS Push Notifications, Push Rules.
func (rs *Ruleset) Match(ev *matrix.Event, c *Context) *Rule {
	if ev.Sender == c.User {
		return nil
	}
	in := &inspection{Event: ev, Context: c}
	for _, kind := range Kinds {
		list := *rs.list(kind)
		for i := range list {
			if r := &list[i]; r.Enabled && r.matches(kind, in) {
				return r
			}
		}
	}
	return nil
}

func (r *Rule) matches(kind Kind, in *inspection) bool {
	switch kind {
	case Content:
		return r.Pattern != nil && in.matchProperty(bodyPath, *r.Pattern)
	case Room:
		return r.ID == string(in.Room)
	case Sender:
		return r.ID == string(in.Sender)
	}
	for i := range r.Conditions {
		if !r.Conditions[i].holds(in) {
			return false
		}
	}
	return true
}

// holds says whether a condition holds. "Unrecognised conditions MUST NOT match
// any events."
func (cond *Condition) holds(in *inspection) bool {
	switch cond.Kind {
	case "event_match":
		return cond.Pattern != nil && in.matchProperty(cond.Key, *cond.Pattern)
	case "event_property_is":
		return equalScalar(in.property(cond.Key), cond.Value)
	case "event_property_contains":
		return contains(in.property(cond.Key), cond.Value)
	case "contains_display_name":
		return in.DisplayName != "" && in.hasName(fold(in.DisplayName))
	case "room_member_count":
		return compare(in.Members, cond.Is)
	case "sender_notification_permission":
		return in.MayNotify != nil && in.MayNotify(cond.Key)
	}
	return false
}

// matchProperty says whether a property of the event is text that a pattern
// matches: the whole of it or, of content.body, words.
func (in *inspection) matchProperty(path, pattern string) bool {
	if path == bodyPath {
		text, ok := in.words()
		return ok && matchWords(fold(pattern), text)
	}
	text, ok := in.text(path)
	return ok && matchWhole(fold(pattern), fold(text))
}

// hasName says whether a name stands in the body between word boundaries.
func (in *inspection) hasName(name string) bool {
	text, ok := in.words()
	if !ok {
		return false
	}
	for i := 0; i >= 0; i = nextBoundary(text, i) {
		if strings.HasPrefix(text[i:], name) && boundary(text, i+len(name)) {
			return true
		}
	}
	return false
}

// equalScalar says whether two values are the same text, integer, boolean or null.
func equalScalar(a, b jsontext.Value) bool {
	if a == nil || b == nil || a.Kind() != b.Kind() {
		return false
	}
	switch a.Kind() {
	case '"':
		x, okX := textOf(a)
		y, okY := textOf(b)
		return okX && okY && x == y
	case '0':
		x, errX := strconv.ParseInt(strings.TrimSpace(string(a)), 10, 64)
		y, errY := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		return errX == nil && errY == nil && x == y
	case 't', 'f', 'n':
		return true
	}
	return false
}

// contains says whether a list has a value.
func contains(list, value jsontext.Value) bool {
	if list.Kind() != '[' {
		return false
	}
	var values []jsontext.Value
	if json.Unmarshal(list, &values, lenient) != nil {
		return false
	}
	for _, v := range values {
		if equalScalar(v, value) {
			return true
		}
	}
	return false
}

// compare says whether a count is what the "is" of room_member_count asks for.
func compare(count uint64, is string) bool {
	op := strings.TrimRight(is, "0123456789")
	n, err := strconv.ParseUint(is[len(op):], 10, 64)
	if err != nil {
		return false
	}
	switch op {
	case "", "==":
		return count == n
	case "<":
		return count < n
	case ">":
		return count > n
	case "<=":
		return count <= n
	case ">=":
		return count >= n
	}
	return false
}
