package resolve

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// state is a whole state, as only tests hold it.
type state map[auth.Key]matrix.EventID

// room makes events and answers what [Input] asks about them, by brute force.
type room struct {
	t        testing.TB
	version  *matrix.Version
	id       matrix.RoomID
	events   map[matrix.EventID]*matrix.Event
	names    map[matrix.EventID]string
	rejected map[matrix.EventID]bool
	create   matrix.EventID
	clock    int64 // origin_server_ts of the newest event
	tick     int64 // from one event to the next
	depth    int64 // of the newest event
	detours  int   // resolutions in which auth chains leave the conflicted set and come back
}

const (
	alice = matrix.UserID("@alice:example.org") // made the room
	bob   = matrix.UserID("@bob:example.org")
	carol = matrix.UserID("@carol:example.org")
	eve   = matrix.UserID("@eve:example.org")
)

// newRoom makes a room that alice created and joined, with power levels and a join
// rule, and returns it with its state.
func newRoom(t testing.TB, version string) (*room, state) {
	t.Helper()
	v, ok := matrix.VersionByID(version)
	if !ok {
		t.Fatalf("no version %s", version)
	}
	r := &room{
		t: t, version: v, id: "!room:example.org",
		tick:   1000,
		events: make(map[matrix.EventID]*matrix.Event), names: make(map[matrix.EventID]string),
		rejected: make(map[matrix.EventID]bool),
	}
	s := state{}
	r.create = r.send(s, "create", alice, typeCreate, "", `{"creator":"`+string(alice)+`","room_version":"`+version+`"}`)
	r.id = r.events[r.create].Room
	r.member(s, "alice", alice, alice, "join")
	levels := `{}`
	if !v.PrivilegedCreators {
		levels = `{"users":{"` + string(alice) + `":100}}`
	}
	r.send(s, "levels", alice, typePowerLevels, "", levels)
	r.send(s, "public", alice, typeJoinRules, "", `{"join_rule":"public"}`)
	return r, s
}

// send makes an event that follows on s, which must allow it, and puts it there.
func (r *room) send(s state, name string, sender matrix.UserID, typ, stateKey, content string) matrix.EventID {
	r.t.Helper()
	e := r.make(s, name, sender, typ, stateKey, content)
	err := auth.Check(e, func(typ, stateKey string) (*matrix.Event, error) {
		if typ == typeCreate && len(s) > 0 {
			return r.events[r.create], nil
		}
		return r.events[s[auth.Key{Type: typ, StateKey: stateKey}]], nil
	})
	if err != nil {
		r.t.Fatalf("%s: %v", name, err)
	}
	s[auth.Key{Type: typ, StateKey: stateKey}] = e.ID
	return e.ID
}

// make makes an event whose auth events are from s. It is without hashes and
// signatures, so that a room is quickly made, and always the same.
func (r *room) make(s state, name string, sender matrix.UserID, typ, stateKey, content string) *matrix.Event {
	r.t.Helper()
	r.clock += r.tick
	r.depth++
	var cited, prev []matrix.EventID
	for _, key := range auth.Needed(r.version, typ, sender, &stateKey, []byte(content)) {
		if id, ok := s[key]; ok {
			cited = append(cited, id)
		}
	}
	if typ != typeCreate {
		prev = append(prev, r.create)
	}
	pdu := fmt.Sprintf(`{"auth_events":%s,"content":%s,"depth":%d,"hashes":{},"origin_server_ts":%d,"prev_events":%s,
		"sender":%q,"signatures":{},"state_key":%q,"type":%q`, r.list(cited), content, r.depth, r.clock, r.list(prev), sender, stateKey, typ)
	if !r.version.RoomIDIsHash || typ != typeCreate {
		pdu += fmt.Sprintf(`,"room_id":%q`, r.id)
	}
	if r.version.EventIDs == matrix.EventIDGiven {
		hash := sha256.Sum256([]byte(pdu))
		pdu += fmt.Sprintf(`,"event_id":"$%s:example.org"`, hex.EncodeToString(hash[:9]))
	}
	e, err := matrix.Parse(r.version, []byte(pdu+"}"))
	if err != nil {
		r.t.Fatalf("%s: %v", name, err)
	}
	r.events[e.ID], r.names[e.ID] = e, name
	return e
}

// list writes event IDs as prev_events and auth_events have them.
func (r *room) list(ids []matrix.EventID) string {
	var list strings.Builder
	for i, id := range ids {
		if i > 0 {
			list.WriteByte(',')
		}
		if r.version.EventIDs == matrix.EventIDGiven {
			fmt.Fprintf(&list, `[%q,{}]`, id)
		} else {
			fmt.Fprintf(&list, `%q`, id)
		}
	}
	return "[" + list.String() + "]"
}

func (r *room) member(s state, name string, sender, target matrix.UserID, membership string) matrix.EventID {
	r.t.Helper()
	return r.send(s, name, sender, typeMember, string(target), `{"membership":"`+membership+`"}`)
}

// levels gives users power besides alice.
func (r *room) levels(s state, name string, sender matrix.UserID, users string) matrix.EventID {
	r.t.Helper()
	if !r.version.PrivilegedCreators {
		users += `,"` + string(alice) + `":100`
	}
	return r.send(s, name, sender, typePowerLevels, "", `{"users":{`+users+`}}`)
}

func (r *room) topic(s state, name string, sender matrix.UserID) matrix.EventID {
	r.t.Helper()
	return r.send(s, name, sender, "m.room.topic", "", `{"topic":"`+name+`"}`)
}

func (r *room) named(name string) matrix.EventID {
	for id, n := range r.names {
		if n == name {
			return id
		}
	}
	return ""
}

// input is how the forks look to Resolve.
func (r *room) input(forks ...state) Input {
	conflicted, unconflicted := r.split(forks)
	return Input{
		Version:    r.version,
		Conflicted: conflicted,
		Unconflicted: func(key auth.Key) (matrix.EventID, error) {
			if _, ok := conflicted[key]; ok {
				return "", fmt.Errorf("%v is conflicted", key)
			}
			return unconflicted[key], nil
		},
		Event: func(id matrix.EventID) (*matrix.Event, error) {
			if e, ok := r.events[id]; ok {
				return e, nil
			}
			return nil, fmt.Errorf("no event %s", id)
		},
		Rejected: func(id matrix.EventID) (bool, error) { return r.rejected[id], nil },
		AuthDifference: func() ([]matrix.EventID, error) {
			return slices.Sorted(maps.Keys(r.authDifference(forks))), nil
		},
		Subgraph: func(ids []matrix.EventID) ([]matrix.EventID, error) {
			return slices.Sorted(maps.Keys(r.subgraph(ids))), nil
		},
	}
}

func (r *room) split(forks []state) (conflicted map[auth.Key][]matrix.EventID, unconflicted state) {
	conflicted, unconflicted = make(map[auth.Key][]matrix.EventID), state{}
	places := make(map[auth.Key]bool)
	for _, s := range forks {
		for key := range s {
			places[key] = true
		}
	}
	for key := range places {
		var ids []matrix.EventID
		same := true
		for _, s := range forks {
			id, ok := s[key]
			same = same && id == forks[0][key]
			if ok && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
		if same {
			unconflicted[key] = ids[0]
		} else {
			conflicted[key] = ids
		}
	}
	return conflicted, unconflicted
}

func (r *room) chain(ids ...matrix.EventID) map[matrix.EventID]bool {
	chain := make(map[matrix.EventID]bool)
	for open := ids; len(open) > 0; {
		id := open[0]
		open = open[1:]
		for _, a := range r.events[id].AuthEvents {
			if !chain[a] {
				chain[a] = true
				open = append(open[:len(open):len(open)], a)
			}
		}
	}
	return chain
}

func (r *room) authDifference(forks []state) map[matrix.EventID]bool {
	count := make(map[matrix.EventID]int)
	for _, s := range forks {
		for id := range r.chain(slices.Collect(maps.Values(s))...) {
			count[id]++
		}
	}
	difference := make(map[matrix.EventID]bool)
	for id, n := range count {
		if n < len(forks) {
			difference[id] = true
		}
	}
	return difference
}

func (r *room) subgraph(ids []matrix.EventID) map[matrix.EventID]bool {
	above := r.chain(ids...)
	between := make(map[matrix.EventID]bool)
	for id := range r.events {
		// On a path: cited from one of them, or one itself, and citing one or one itself.
		if !above[id] && !slices.Contains(ids, id) {
			continue
		}
		below := r.chain(id)
		if slices.Contains(ids, id) || slices.ContainsFunc(ids, func(c matrix.EventID) bool { return below[c] }) {
			between[id] = true
		}
	}
	return between
}

// resolve is the whole resolved state.
func (r *room) resolve(forks ...state) state {
	r.t.Helper()
	in := r.input(forks...)
	resolved, err := Resolve(in)
	if err != nil {
		r.t.Fatal(err)
	}
	_, whole := r.split(forks)
	maps.Copy(whole, resolved)
	return whole
}

// want holds the resolved state to the named events; "" for none.
func (r *room) want(s state, want map[auth.Key]string) {
	r.t.Helper()
	for key, name := range want {
		if got := r.names[s[key]]; got != name {
			r.t.Errorf("version %s: %s %q is %q, want %q", r.version.ID, key.Type, key.StateKey, got, name)
		}
	}
}

func memberKey(u matrix.UserID) auth.Key { return auth.Key{Type: typeMember, StateKey: string(u)} }

var (
	topicKey  = auth.Key{Type: "m.room.topic"}
	levelsKey = auth.Key{Type: typePowerLevels}
	rulesKey  = auth.Key{Type: typeJoinRules}
)

// in is a state as the authorization rules ask for it.
func (r *room) in(s state) auth.State {
	return func(typ, stateKey string) (*matrix.Event, error) {
		return r.events[s[auth.Key{Type: typ, StateKey: stateKey}]], nil
	}
}

func compareKeys(a, b auth.Key) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.StateKey, b.StateKey))
}

// describe names the events of a state, in their order.
func (r *room) describe(s state) []string {
	var names []string
	for key, id := range s {
		names = append(names, key.Type+" "+key.StateKey+": "+r.names[id])
	}
	slices.Sort(names)
	return names
}
