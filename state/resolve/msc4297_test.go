package resolve

import (
	"maps"
	"slices"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// The cases of MSC4297, "State Resolution v2.1": the rooms that its two problems are
// told with, and what each of its two modifications says. Forks are given in every
// order, more than once, and compared with the algorithm as it is worded.

// A reset is a room of the proposal: sound is the true state, and wrong what a server
// got for it by partial synchronisation. want is what becomes of them, by version.
type reset struct {
	name  string
	build func(r *room, s state) (sound, wrong state)
	want  map[string]map[auth.Key]string
}

var resets = []reset{
	{
		// "The state of the room at the blue diamond is obtained via partial
		// synchronisation. This response contains an outdated join rules event. However,
		// both forks also agreed that Alice had left the room. When the join rules events
		// get replayed, both fail since Alice (who set them) is not in the room. This
		// causes the room to have no join rules event."
		name: "problem A",
		build: func(r *room, s state) (sound, wrong state) {
			members(r, s)
			outdated := s[rulesKey]
			r.send(s, "invite", alice, typeJoinRules, "", `{"join_rule":"invite"}`)
			r.member(s, "alice left", alice, alice, "leave")
			wrong = maps.Clone(s)
			wrong[rulesKey] = outdated
			return s, wrong
		},
		want: map[string]map[auth.Key]string{
			"11": {rulesKey: "", memberKey(alice): "alice left"},
			"12": {rulesKey: "invite", memberKey(alice): "alice left"},
		},
	},
	{
		// "Alice is an Admin who promotes Bob. Bob then promotes Charlie. It is critical
		// that Bob's promotion is applied before Charlie's promotion, or else it will be
		// unauthorised. However, the auth difference calculation fails to include this
		// event, leading to a state reset."
		name: "problem B",
		build: func(r *room, s state) (sound, wrong state) {
			outdated := s[levelsKey]
			members(r, s) // among which "bob 50"
			r.levels(s, "carol 50", bob, `"`+string(bob)+`":50,"`+string(carol)+`":50`)
			r.topic(s, "by carol", carol)
			wrong = maps.Clone(s)
			wrong[levelsKey] = outdated
			return s, wrong
		},
		want: map[string]map[auth.Key]string{
			"11": {levelsKey: "levels", topicKey: "by carol"},
			"12": {levelsKey: "carol 50", topicKey: "by carol"},
		},
	},
	{
		// A longer chain of events that depend on each other: the newest needs the one
		// between, and that one needs the promotion below it.
		name: "problem B, two events between",
		build: func(r *room, s state) (sound, wrong state) {
			members(r, s)
			outdated := s[levelsKey]
			both := `"` + string(bob) + `":50,"` + string(carol) + `":50`
			r.levels(s, "carol 50", bob, both)
			r.levels(s, "eve 40", carol, both+`,"`+string(eve)+`":40`)
			r.levels(s, "eve 30", carol, both+`,"`+string(eve)+`":30`)
			r.topic(s, "by carol", carol)
			wrong = maps.Clone(s)
			wrong[levelsKey] = outdated
			return s, wrong
		},
		want: map[string]map[auth.Key]string{
			"11": {levelsKey: "bob 50", topicKey: "by carol"},
			"12": {levelsKey: "eve 30", topicKey: "by carol"},
		},
	},
	{
		// Both at once: the users who set the outdated events have left.
		name: "problems A and B",
		build: func(r *room, s state) (sound, wrong state) {
			outdated := s[levelsKey]
			members(r, s)
			r.levels(s, "carol 50", bob, `"`+string(bob)+`":50,"`+string(carol)+`":50`)
			r.topic(s, "by carol", carol)
			r.member(s, "bob left", bob, bob, "leave")
			r.member(s, "alice left", alice, alice, "leave")
			wrong = maps.Clone(s)
			wrong[levelsKey] = outdated
			return s, wrong
		},
		want: map[string]map[auth.Key]string{
			"11": {levelsKey: "", topicKey: "by carol", memberKey(bob): "bob left"},
			"12": {levelsKey: "carol 50", topicKey: "by carol", memberKey(bob): "bob left"},
		},
	},
}

func TestMSC4297(t *testing.T) {
	for _, tt := range resets {
		for version, want := range tt.want {
			t.Run(tt.name+"/v"+version, func(t *testing.T) {
				r, s := newRoom(t, version)
				sound, wrong := tt.build(r, s)
				for _, forks := range [][]state{{sound, wrong}, {wrong, sound}, {sound, wrong, sound}, {wrong, wrong, sound}} {
					got := r.resolve(forks...)
					r.want(got, want)
					if literal := r.literal(forks); !maps.Equal(got, literal) {
						t.Errorf("resolved to %v, by the text it is %v", r.describe(got), r.describe(literal))
					}
				}
			})
		}
	}
}

// "In the common case, the conflicted state subgraph overlaps entirely with the auth
// difference, meaning no extra events need to be replayed." Where nothing is outdated,
// the two algorithms agree; the room's other scenarios hold in both.
func TestMSC4297SoundForks(t *testing.T) {
	for _, tt := range scenarios {
		r, base := newRoom(t, "12")
		members(r, base)
		one, two := maps.Clone(base), maps.Clone(base)
		tt.one(r, one)
		tt.two(r, two)
		forks := []state{one, two}
		in := r.input(forks...)
		difference := r.authDifference(forks)
		conflicted := slices.Concat(slices.Collect(maps.Values(in.Conflicted))...)
		for id := range r.subgraph(conflicted) {
			if !difference[id] && !slices.Contains(conflicted, id) {
				t.Errorf("%s: %s would be replayed besides", tt.name, r.names[id])
			}
		}
	}
}

// "Starting from an event in the conflicted state set and following `auth_events`
// edges may lead to another event in the conflicted state set." The set is what is
// asked about, whole and alone; only in version 12.
func TestMSC4297SubgraphIsOfTheConflictedStateSet(t *testing.T) {
	for version, want := range map[string][]string{"11": nil, "12": {"carol 50", "levels"}} {
		r, s := newRoom(t, version)
		sound, wrong := resets[1].build(r, s)
		in := r.input(sound, wrong)
		var asked []string
		subgraph := in.Subgraph
		in.Subgraph = func(ids []matrix.EventID) ([]matrix.EventID, error) {
			for _, id := range ids {
				asked = append(asked, r.names[id])
			}
			return subgraph(ids)
		}
		if _, err := Resolve(in); err != nil {
			t.Fatal(err)
		}
		slices.Sort(asked)
		if !slices.Equal(asked, want) {
			t.Errorf("version %s: asked for the subgraph of %q, want %q", version, asked, want)
		}
	}
}

// "Note that even though we no longer insert the unconflicted state into the
// partially resolved state, Step 5 of the algorithm ensures that the unconflicted
// state is still in the final merged output": bob's join is replayed, as it stands
// between the power levels, but he does not come back.
func TestMSC4297KeepsUnconflicted(t *testing.T) {
	r, s := newRoom(t, "12")
	outdated := s[levelsKey]
	members(r, s)
	r.levels(s, "carol 50", bob, `"`+string(bob)+`":50,"`+string(carol)+`":50`)
	wrong := maps.Clone(s)
	wrong[levelsKey] = outdated
	r.member(s, "bob left", bob, bob, "leave")
	wrong[memberKey(bob)] = s[memberKey(bob)]
	resolved, err := Resolve(r.input(s, wrong))
	if err != nil {
		t.Fatal(err)
	}
	if len(resolved) != 1 || r.names[resolved[levelsKey]] != "carol 50" {
		t.Errorf("put over the unconflicted state: %v", r.describe(resolved))
	}
	r.want(r.resolve(s, wrong), map[auth.Key]string{memberKey(bob): "bob left", levelsKey: "carol 50"})
}
