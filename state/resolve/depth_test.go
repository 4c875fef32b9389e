package resolve

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"maps"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
)

func TestByDepth(t *testing.T) {
	for _, tt := range []scenario{
		{
			name: "the deepest that is allowed",
			one:  func(r *room, s state) { r.topic(s, "shallow", alice) },
			two:  func(r *room, s state) { r.topic(s, "deep", bob) },
			want: map[auth.Key]string{topicKey: "deep"},
		},
		{
			name: "a ban before what the banned did",
			one: func(r *room, s state) {
				r.topic(s, "by alice", alice)
				r.member(s, "bob banned", alice, bob, "ban")
			},
			two: func(r *room, s state) {
				r.topic(s, "by bob", bob)
				r.member(s, "bob again", bob, bob, "join")
			},
			want: map[auth.Key]string{memberKey(bob): "bob banned", topicKey: "by alice"},
		},
		{
			name: "power levels stop at the first that is refused",
			one:  func(r *room, s state) { r.levels(s, "bob 0", alice, `"`+string(bob)+`":0`) },
			two: func(r *room, s state) {
				r.levels(s, "carol 50", bob, `"`+string(bob)+`":50,"`+string(carol)+`":50`)
				r.topic(s, "by bob", bob)
			},
			want: map[auth.Key]string{levelsKey: "bob 0", topicKey: "by bob"}, // no conflict: one fork alone has it
		},
		{
			name: "join rules before members",
			one: func(r *room, s state) {
				r.member(s, "eve left", eve, eve, "leave")
				r.send(s, "invite", alice, typeJoinRules, "", `{"join_rule":"invite"}`)
			},
			two: func(r *room, s state) {
				r.member(s, "eve kicked", bob, eve, "leave")
				r.member(s, "eve back", eve, eve, "join")
			},
			want: map[auth.Key]string{rulesKey: "invite", memberKey(eve): "eve left"},
		},
		{
			name: "the shallowest if none is allowed",
			one: func(r *room, s state) {
				r.topic(s, "first", bob)
				r.member(s, "bob banned", alice, bob, "ban")
			},
			two:  func(r *room, s state) { r.topic(s, "second", bob); r.member(s, "bob still", bob, bob, "join") },
			want: map[auth.Key]string{memberKey(bob): "bob banned", topicKey: "first"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, base := newRoom(t, "1")
			members(r, base)
			one, two := maps.Clone(base), maps.Clone(base)
			tt.one(r, one)
			tt.two(r, two)
			r.want(r.resolve(one, two), tt.want)
			r.want(r.resolve(two, one), tt.want)
		})
	}
}

// At one depth the lowest SHA-1 of the event ID wins.
func TestByHash(t *testing.T) {
	for range 8 {
		r, s := newRoom(t, "1")
		forks := make([]state, 4)
		var lowest matrix.EventID
		for i := range forks {
			r.depth = 20
			forks[i] = maps.Clone(s)
			id := r.topic(forks[i], fmt.Sprint("topic ", i), alice)
			if lowest == "" || bytes.Compare(hashOf(id), hashOf(lowest)) < 0 {
				lowest = id
			}
		}
		if got := r.resolve(forks...)[topicKey]; got != lowest {
			t.Errorf("%s, want %s", r.names[got], r.names[lowest])
		}
	}
}

func hashOf(id matrix.EventID) []byte {
	hash := sha1.Sum([]byte(id))
	return hash[:]
}
