package matrix

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// PowerField is one of the seven plain levels of m.room.power_levels.
type PowerField uint8

// The plain levels, in the order in which the authorization rules name them.
const (
	UsersDefault PowerField = iota
	EventsDefault
	StateDefault
	BanLevel
	RedactLevel
	KickLevel
	InviteLevel

	powerFieldCount
)

// powerFields are the plain levels' keys in content.
var powerFields = [powerFieldCount]string{
	"users_default", "events_default", "state_default", "ban", "redact", "kick", "invite",
}

// String is the level's key in content.
func (f PowerField) String() string { return powerFields[f] }

// PowerLevels is the content of m.room.power_levels. Levels that it does not give
// are at their defaults.
type PowerLevels struct {
	Users         map[UserID]int64
	Events        map[string]int64
	Notifications map[string]int64

	UsersDefault, EventsDefault, StateDefault, Ban, Kick, Redact, Invite int64

	given [powerFieldCount]bool
}

// DefaultPowerLevels is what holds in a room without m.room.power_levels: the
// creators of create, which may be nil, have 100, others 0. Where creators are
// privileged their power is above all levels and not said here. Specification:
// client-server API, "m.room.power_levels".
func DefaultPowerLevels(create *Event) *PowerLevels {
	p := &PowerLevels{StateDefault: 50, Ban: 50, Kick: 50, Redact: 50}
	if create == nil || create.Version.PrivilegedCreators {
		return p
	}
	p.Users = make(map[UserID]int64, 1)
	for _, creator := range create.Creators() {
		p.Users[creator] = 100
	}
	return p
}

// Field is a plain level, and whether the event gave it: otherwise it is the
// default.
func (p *PowerLevels) Field(f PowerField) (level int64, given bool) {
	return *p.field(f), p.given[f]
}

// User is the level of a user: theirs or users_default.
func (p *PowerLevels) User(u UserID) int64 {
	if level, ok := p.Users[u]; ok {
		return level
	}
	return p.UsersDefault
}

// Send is the level that sending an event of that type needs.
func (p *PowerLevels) Send(typ string, state bool) int64 {
	if level, ok := p.Events[typ]; ok {
		return level
	}
	if state {
		return p.StateDefault
	}
	return p.EventsDefault
}

// PowerLevels reads m.room.power_levels. It refuses users that is no object of user
// IDs and levels. From version 10 on it refuses every level that is no integer, and
// events and notifications that are no objects; before, it reads levels in strings
// and fractions as the versions say, and takes what it cannot read as not given.
func (e *Event) PowerLevels() (*PowerLevels, error) {
	return e.readPower(powerReader{all: true})
}

// PowerLevelsFor is PowerLevels with the entries of these users and this event type
// only, and no notifications. It checks all of them the same, and in a room with
// hundreds of levels costs much less.
func (e *Event) PowerLevelsFor(typ string, users ...UserID) (*PowerLevels, error) {
	return e.readPower(powerReader{typ: typ, users: users})
}

func (e *Event) readPower(r powerReader) (*PowerLevels, error) {
	d, err := e.contentDocument()
	if err != nil {
		return nil, err
	}
	defer d.free()
	r.document, r.strict = d, e.Version.IntegerPowerLevels
	p, err := r.read()
	if err != nil {
		return nil, fmt.Errorf("power levels %s: %w", e.ID, err)
	}
	return p, nil
}

// powerReader reads the content of one m.room.power_levels.
type powerReader struct {
	*document
	strict bool // integers only
	all    bool // keep all entries, not only those of users and typ
	typ    string
	users  []UserID
}

func (r *powerReader) read() (*PowerLevels, error) {
	p := DefaultPowerLevels(nil)
	for f := range powerFieldCount {
		at := r.member(root, powerFields[f])
		if at == 0 {
			continue
		}
		level, err := r.level(at)
		if err != nil && r.strict {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		if err == nil {
			*p.field(f), p.given[f] = level, true
		}
	}
	if err := r.readUsers(p); err != nil {
		return nil, fmt.Errorf("users: %w", err)
	}
	var err error
	if p.Events, err = r.levels("events"); err != nil {
		return nil, err
	}
	p.Notifications, err = r.levels("notifications")
	return p, err
}

func (p *PowerLevels) field(f PowerField) *int64 {
	return [powerFieldCount]*int64{
		&p.UsersDefault, &p.EventsDefault, &p.StateDefault, &p.Ban, &p.Redact, &p.Kick, &p.Invite,
	}[f]
}

func (r *powerReader) readUsers(p *PowerLevels) error {
	at := r.member(root, "users")
	if at == 0 {
		return nil
	}
	if err := r.wantObject(at); err != nil {
		return err
	}
	p.Users = make(map[UserID]int64)
	for m := r.firstMember(at); m != 0; m = r.nodes[m].next {
		user := r.text(m)
		if err := checkOnServer(string(user), '@'); err != nil {
			return fmt.Errorf("%w: %q: %w", ErrBadJSON, clip(string(user)), err)
		}
		level, err := r.level(m + 1)
		if err != nil {
			return err
		}
		if r.all || r.wantsUser(user) {
			p.Users[UserID(user)] = level
		}
	}
	return nil
}

func (r *powerReader) wantsUser(user []byte) bool {
	return slices.ContainsFunc(r.users, func(u UserID) bool { return string(u) == string(user) })
}

// levels reads events or notifications.
func (r *powerReader) levels(name string) (map[string]int64, error) {
	at := r.member(root, name)
	if at == 0 {
		return nil, nil
	}
	if err := r.wantObject(at); err != nil {
		if r.strict {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return nil, nil
	}
	var levels map[string]int64
	for m := r.firstMember(at); m != 0; m = r.nodes[m].next {
		level, err := r.level(m + 1)
		if err != nil && r.strict {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err != nil || !r.all && (name != "events" || string(r.text(m)) != r.typ) {
			continue
		}
		if levels == nil {
			levels = make(map[string]int64)
		}
		levels[string(r.text(m))] = level
	}
	return levels, nil
}

// level reads one level: an integer, or before version 10 also a fraction, cut at
// the decimal point, or an integer in a string (room versions, "Deprecated event
// content schemas"). Levels beyond 64 bits are at the bounds.
func (r *powerReader) level(i int32) (int64, error) {
	switch kind := r.nodes[i].kind; {
	case kind == '0' && r.strict:
		return r.integerAt(i)
	case kind == '0':
		return numericLevel(string(r.raw(i)))
	case kind == '"' && !r.strict:
		return stringLevel(string(r.text(i)))
	default:
		return 0, fmt.Errorf("%w: not a power level", ErrBadJSON)
	}
}

func numericLevel(text string) (int64, error) {
	if isInteger([]byte(text)) {
		return clampedInt(text)
	}
	f, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: power level out of range", ErrBadJSON)
	case f >= math.MaxInt64:
		return math.MaxInt64, nil
	case f <= math.MinInt64:
		return math.MinInt64, nil
	default:
		return int64(f), nil
	}
}

func stringLevel(text string) (int64, error) {
	text = strings.TrimSpace(text)
	digits := strings.TrimPrefix(text, "+")
	if digits == text {
		digits = strings.TrimPrefix(text, "-")
	}
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, fmt.Errorf("%w: power level in a string that is no integer", ErrBadJSON)
	}
	return clampedInt(text)
}

// clampedInt reads an integer and takes what exceeds 64 bits for the bound.
func clampedInt(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil && n != math.MaxInt64 && n != math.MinInt64 {
		return 0, fmt.Errorf("%w: not an integer", ErrBadJSON)
	}
	return n, nil
}
