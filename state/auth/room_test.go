package auth_test

import (
	"crypto/ed25519"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// The people of the tests: alice makes the rooms.
const (
	alice matrix.UserID = "@alice:a.example"
	anna  matrix.UserID = "@anna:a.example"
	bob   matrix.UserID = "@bob:b.example"
	carol matrix.UserID = "@carol:c.example"
	dave  matrix.UserID = "@dave:d.example"
)

// testKey signs every event of the tests.
var testKey = matrix.SigningKey{ID: "ed25519:test", Private: ed25519.NewKeyFromSeed([]byte(strings.Repeat("k", 32)))}

// room is a room under construction: what is put into its state is not checked.
type room struct {
	t      testing.TB
	v      *matrix.Version
	id     matrix.RoomID
	create *matrix.Event
	events map[auth.Key]*matrix.Event
	last   *matrix.Event
	made   int64
}

// newRoom makes a room of that version by alice, in which she is. extra is more of
// the create event's content, as `,"m.federate":false`.
func newRoom(t testing.TB, v *matrix.Version, extra ...string) *room {
	r := &room{t: t, v: v, id: "!room:a.example", events: map[auth.Key]*matrix.Event{}}
	content := fmt.Sprintf(`{"room_version":%q`, v.ID) + strings.Join(extra, "")
	if v.CreatorInContent {
		content += fmt.Sprintf(`,"creator":%q`, alice)
	}
	r.create = r.event(alice, "m.room.create", key(""), content+"}")
	r.id = r.create.Room
	r.put(r.create)
	r.member(alice, "join")
	return r
}

func key(s string) *string { return &s }

// event makes an event after the last one, with the auth events that the room has
// for it.
func (r *room) event(sender matrix.UserID, typ string, stateKey *string, content string) *matrix.Event {
	return r.build(matrix.Draft{Room: r.id, Sender: sender, Type: typ, StateKey: stateKey, Content: jsontext.Value(content)})
}

func (r *room) build(d matrix.Draft) *matrix.Event {
	r.t.Helper()
	r.made++
	d.OriginServerTS = 1_700_000_000_000 + r.made
	p := matrix.Placing{Depth: r.made}
	if r.last != nil {
		p.Prev = append(p.Prev, r.last.ID)
		p.PrevHashes = append(p.PrevHashes, r.hash(r.last))
	}
	for _, k := range auth.Needed(r.v, d.Type, d.Sender, d.StateKey, d.Content) {
		if ev := r.events[k]; ev != nil {
			p.Auth = append(p.Auth, ev.ID)
			p.AuthHashes = append(p.AuthHashes, r.hash(ev))
		}
	}
	ev, err := d.Build(r.v, p, d.Sender.Server(), testKey)
	if err != nil {
		r.t.Fatalf("build %s %s in version %s: %v", d.Type, d.Content, r.v.ID, err)
	}
	return ev
}

func (r *room) hash(ev *matrix.Event) matrix.Hash {
	h, err := matrix.ReferenceHash(r.v, ev.JSON())
	if err != nil {
		r.t.Fatalf("hash of %s: %v", ev.ID, err)
	}
	return h
}

// put makes ev part of the room's state.
func (r *room) put(ev *matrix.Event) *matrix.Event {
	r.last = ev
	r.events[auth.Key{Type: ev.Type, StateKey: *ev.StateKey}] = ev
	return ev
}

// state answers for the room, as an auth.State.
func (r *room) state(typ, stateKey string) (*matrix.Event, error) {
	return r.events[auth.Key{Type: typ, StateKey: stateKey}], nil
}

// member puts a user's own membership into the state.
func (r *room) member(user matrix.UserID, membership string) *matrix.Event {
	return r.put(r.change(user, user, membership))
}

// change is a membership event that is not in the state. extra is more content.
func (r *room) change(sender, target matrix.UserID, membership string, extra ...string) *matrix.Event {
	return r.event(sender, "m.room.member", key(string(target)),
		fmt.Sprintf(`{"membership":%q%s}`, membership, strings.Join(extra, "")))
}

// levels puts power levels into the state.
func (r *room) levels(content string) *matrix.Event {
	return r.put(r.power(alice, content))
}

// power is a power level event that is not in the state.
func (r *room) power(sender matrix.UserID, content string) *matrix.Event {
	return r.event(sender, "m.room.power_levels", key(""), content)
}

// joinRule puts a join rule into the state.
func (r *room) joinRule(rule string) {
	r.put(r.event(alice, "m.room.join_rules", key(""), fmt.Sprintf(`{"join_rule":%q}`, rule)))
}

// message is a message that is in no state.
func (r *room) message(sender matrix.UserID) *matrix.Event {
	return r.event(sender, "m.room.message", nil, `{"body":"hello","msgtype":"m.text"}`)
}

// with is a changed copy of ev, for what no honest builder makes.
func with(ev *matrix.Event, change func(*matrix.Event)) *matrix.Event {
	other := *ev
	change(&other)
	return &other
}
