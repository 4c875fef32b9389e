package resolve

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// byPowerVersions have the algorithms of version 2 and of version 12.
var byPowerVersions = []string{"2", "3", "6", "10", "11", "12"}

// members puts bob, carol and eve into the room and gives bob 50.
func members(r *room, s state) {
	r.member(s, "bob", bob, bob, "join")
	r.member(s, "carol", carol, carol, "join")
	r.member(s, "eve", eve, eve, "join")
	r.levels(s, "bob 50", alice, `"`+string(bob)+`":50`)
}

// scenario is two forks of a room with members, and what becomes of it.
type scenario struct {
	name string
	one  func(r *room, s state)
	two  func(r *room, s state)
	want map[auth.Key]string
}

var scenarios = []scenario{
	{
		name: "a ban undoes what the banned did meanwhile",
		one:  func(r *room, s state) { r.member(s, "bob banned", alice, bob, "ban") },
		two:  func(r *room, s state) { r.topic(s, "by bob", bob) },
		want: map[auth.Key]string{memberKey(bob): "bob banned", topicKey: ""},
	},
	{
		name: "a ban wins over power that the banned gave",
		one:  func(r *room, s state) { r.member(s, "bob banned", alice, bob, "ban") },
		two: func(r *room, s state) {
			r.levels(s, "carol 50", bob, `"`+string(bob)+`":50,"`+string(carol)+`":50`)
			r.topic(s, "by carol", carol)
		},
		want: map[auth.Key]string{memberKey(bob): "bob banned", levelsKey: "bob 50", topicKey: ""},
	},
	{
		name: "a demotion undoes what the demoted did meanwhile",
		one:  func(r *room, s state) { r.levels(s, "bob 0", alice, `"`+string(bob)+`":0`) },
		two: func(r *room, s state) {
			r.member(s, "eve kicked", bob, eve, "leave")
			r.topic(s, "by bob", bob)
		},
		want: map[auth.Key]string{levelsKey: "bob 0", memberKey(eve): "eve", topicKey: ""},
	},
	{
		name: "a join evades no join rule",
		one:  func(r *room, s state) { r.send(s, "invite", alice, typeJoinRules, "", `{"join_rule":"invite"}`) },
		two: func(r *room, s state) {
			r.member(s, "eve left", eve, eve, "leave")
			r.member(s, "eve back", eve, eve, "join")
		},
		want: map[auth.Key]string{rulesKey: "invite", memberKey(eve): "eve left"},
	},
	{
		name: "of equals the later holds",
		one:  func(r *room, s state) { r.topic(s, "early", alice) },
		two:  func(r *room, s state) { r.topic(s, "late", bob) },
		want: map[auth.Key]string{topicKey: "late"},
	},
	{
		name: "newer power levels count more than time",
		one: func(r *room, s state) {
			r.levels(s, "carol 50", alice, `"`+string(bob)+`":50,"`+string(carol)+`":50`)
			r.topic(s, "by carol", carol)
		},
		two:  func(r *room, s state) { r.topic(s, "late", bob) },
		want: map[auth.Key]string{levelsKey: "carol 50", topicKey: "by carol"},
	},
	{
		name: "what only one fork has stays",
		one:  func(r *room, s state) { r.send(s, "name", alice, "m.room.name", "", `{"name":"A"}`) },
		two:  func(r *room, s state) { r.topic(s, "topic", bob) },
		want: map[auth.Key]string{{Type: "m.room.name"}: "name", topicKey: "topic"},
	},
	{
		name: "a public room is rejoined",
		one:  func(r *room, s state) { r.member(s, "eve left", eve, eve, "leave") },
		two:  func(r *room, s state) { r.send(s, "avatar", eve, typeMember, string(eve), `{"membership":"join"}`) },
		want: map[auth.Key]string{memberKey(eve): "avatar"},
	},
}

func TestScenarios(t *testing.T) {
	for _, version := range byPowerVersions {
		for _, tt := range scenarios {
			t.Run(version+"/"+tt.name, func(t *testing.T) {
				r, base := newRoom(t, version)
				members(r, base)
				one, two := maps.Clone(base), maps.Clone(base)
				tt.one(r, one)
				tt.two(r, two)
				r.want(r.resolve(one, two), tt.want)
				r.want(r.resolve(two, one, two), tt.want)
			})
		}
	}
}

// A rejected auth event does not stand in for what is missing in the state.
func TestRejectedAuthEvent(t *testing.T) {
	r, s := newRoom(t, "12")
	members(r, s)
	r.send(s, "name", bob, "m.room.name", "", `{}`) // puts bob into all auth chains
	one, two := maps.Clone(s), maps.Clone(s)
	r.topic(one, "by alice", alice)
	r.topic(two, "by bob", bob)
	r.want(r.resolve(one, two), map[auth.Key]string{topicKey: "by bob"})
	r.rejected[s[memberKey(bob)]] = true
	r.want(r.resolve(one, two), map[auth.Key]string{topicKey: "by alice"})
}

func TestNothingConflicts(t *testing.T) {
	for _, version := range append(byPowerVersions, "1") {
		r, s := newRoom(t, version)
		if got := r.resolve(s, maps.Clone(s)); !maps.Equal(got, s) {
			t.Errorf("version %s: %v, want %v", version, got, s)
		}
	}
}

// Every function's error ends the resolution.
func TestInputFails(t *testing.T) {
	broken := errors.New("broken")
	for _, version := range []string{"1", "2", "12"} {
		for name, breakIt := range map[string]func(*Input){
			"event":           func(in *Input) { in.Event = func(matrix.EventID) (*matrix.Event, error) { return nil, broken } },
			"unconflicted":    func(in *Input) { in.Unconflicted = func(auth.Key) (matrix.EventID, error) { return "", broken } },
			"rejected":        func(in *Input) { in.Rejected = func(matrix.EventID) (bool, error) { return false, broken } },
			"auth difference": func(in *Input) { in.AuthDifference = func() ([]matrix.EventID, error) { return nil, broken } },
			"subgraph": func(in *Input) {
				in.Subgraph = func([]matrix.EventID) ([]matrix.EventID, error) { return nil, broken }
			},
		} {
			r, s := newRoom(t, version)
			members(r, s)
			one, two := maps.Clone(s), maps.Clone(s)
			r.topic(one, "by alice", alice)
			r.topic(two, "by bob", bob)
			in := r.input(one, two)
			breakIt(&in)
			_, err := Resolve(in)
			used := !slices.Contains(map[string][]string{
				"1": {"rejected", "auth difference", "subgraph"}, "2": {"rejected", "subgraph"},
			}[version], name)
			if errors.Is(err, broken) != used || (err != nil) != used {
				t.Errorf("version %s, %s: %v", version, name, err)
			}
		}
	}
}

// In version 2 events choose their IDs, and so can cite each other in a circle.
// Resolution comes to an end, and they get no place in the state.
func TestCircle(t *testing.T) {
	r, s := newRoom(t, "2")
	members(r, s)
	r.send(s, "name", bob, "m.room.name", "", `{}`) // puts the true power levels into all auth chains
	one, two := maps.Clone(s), maps.Clone(s)
	one[levelsKey] = r.cite("$one:example.org", "$two:example.org")
	two[levelsKey] = r.cite("$two:example.org", "$one:example.org")
	r.topic(one, "early", bob)
	r.topic(two, "late", bob)
	got := r.resolve(one, two)
	r.want(got, map[auth.Key]string{levelsKey: "", topicKey: "late"})

	// As power levels on which both forks agree, they are the mainline: the first one,
	// which the early topic cites, and then the other.
	two[levelsKey] = one[levelsKey]
	r.want(r.resolve(one, two), map[auth.Key]string{topicKey: "early"})

	// And a topic whose power levels are nowhere on it.
	off := maps.Clone(s)
	r.topic(off, "off the mainline", bob)
	off[levelsKey] = one[levelsKey]
	r.want(r.resolve(one, two, off), map[auth.Key]string{topicKey: "early"})
}

// cite makes an m.room.power_levels event by alice with that ID, which cites
// another one with a chosen ID.
func (r *room) cite(id, levels matrix.EventID) matrix.EventID {
	r.t.Helper()
	e, err := matrix.Parse(r.version, fmt.Appendf(nil, `{"auth_events":[[%q,{}],[%q,{}],[%q,{}]],"content":{"users":{%q:100,%q:50}},
		"depth":9,"event_id":%q,"hashes":{},"origin_server_ts":1,"prev_events":[],"room_id":%q,"sender":%q,"signatures":{},
		"state_key":"","type":"m.room.power_levels"}`, r.named("create"), r.named("alice"), levels, alice, bob, id, r.id, alice))
	if err != nil {
		r.t.Fatal(err)
	}
	r.events[id], r.names[id] = e, string(id)
	return id
}
