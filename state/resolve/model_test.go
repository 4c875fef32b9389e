package resolve

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// literal is the algorithm of versions 2 to 12 as the specification words it, over
// whole states and whole auth chains.
func (r *room) literal(forks []state) state {
	conflicted, unconflicted := r.split(forks)
	full := r.authDifference(forks)
	for _, ids := range conflicted {
		for _, id := range ids {
			full[id] = true
		}
	}
	partial := maps.Clone(unconflicted)
	if r.version.StateResolution == matrix.StateResolutionV21 {
		partial = state{}
		maps.Copy(full, r.subgraph(slices.Concat(slices.Collect(maps.Values(conflicted))...)))
	}
	picked := make(map[matrix.EventID]bool)
	for id := range full {
		if !r.literalPower(id) {
			continue
		}
		picked[id] = true
		for a := range r.chain(id) {
			if full[a] {
				picked[a] = true
			}
		}
	}
	r.literalReplay(partial, r.literalOrder(picked))
	var rest []matrix.EventID
	for id := range full {
		if !picked[id] {
			rest = append(rest, id)
		}
	}
	position := r.literalMainline(partial[levelsKey])
	slices.SortFunc(rest, func(x, y matrix.EventID) int {
		return cmp.Or(cmp.Compare(position(y), position(x)),
			cmp.Compare(r.events[x].OriginServerTS, r.events[y].OriginServerTS), cmp.Compare(x, y))
	})
	r.literalReplay(partial, rest)
	maps.Copy(partial, unconflicted)
	return partial
}

func (r *room) literalPower(id matrix.EventID) bool {
	e := r.events[id]
	if e.Type == typeMember {
		c, err := e.Member()
		return err == nil && (c.Membership == "leave" || c.Membership == "ban") && string(e.Sender) != *e.StateKey
	}
	return e.Type == typePowerLevels || e.Type == typeJoinRules
}

// literalOrder takes, again and again, the smallest of all events whose auth events
// in the set were taken.
func (r *room) literalOrder(set map[matrix.EventID]bool) []matrix.EventID {
	left := maps.Clone(set)
	var order []matrix.EventID
	for len(left) > 0 {
		var best matrix.EventID
		for id := range left {
			if slices.ContainsFunc(r.events[id].AuthEvents, func(a matrix.EventID) bool { return left[a] }) {
				continue
			}
			if best == "" || cmp.Or(cmp.Compare(r.literalLevel(best), r.literalLevel(id)),
				cmp.Compare(r.events[id].OriginServerTS, r.events[best].OriginServerTS), cmp.Compare(id, best)) < 0 {
				best = id
			}
		}
		order = append(order, best)
		delete(left, best)
	}
	return order
}

func (r *room) literalLevel(id matrix.EventID) int64 {
	return auth.UserPower(r.events[r.named("create")], r.events[r.literalCited(id, levelsKey)], r.events[id].Sender)
}

func (r *room) literalCited(id matrix.EventID, key auth.Key) matrix.EventID {
	for _, a := range r.events[id].AuthEvents {
		if r.events[a].Is(key.Type, key.StateKey) {
			return a
		}
	}
	return ""
}

func (r *room) literalMainline(start matrix.EventID) func(matrix.EventID) int {
	var line []matrix.EventID
	for at := start; at != ""; at = r.literalCited(at, levelsKey) {
		line = append(line, at)
	}
	return func(id matrix.EventID) int {
		for at := r.literalCited(id, levelsKey); at != ""; at = r.literalCited(at, levelsKey) {
			if i := slices.Index(line, at); i >= 0 {
				return i
			}
		}
		return math.MaxInt
	}
}

func (r *room) literalReplay(s state, order []matrix.EventID) {
	for _, id := range order {
		e := r.events[id]
		err := auth.Check(e, func(typ, stateKey string) (*matrix.Event, error) {
			key := auth.Key{Type: typ, StateKey: stateKey}
			if in, ok := s[key]; ok {
				return r.events[in], nil
			}
			if typ == typeCreate {
				return r.events[r.named("create")], nil
			}
			cited := r.literalCited(id, key)
			if r.rejected[cited] {
				return nil, nil
			}
			return r.events[cited], nil
		})
		if err == nil {
			s[auth.Key{Type: e.Type, StateKey: *e.StateKey}] = id
		}
	}
}

// In rooms of random deeds, forks and lies, Resolve ends where the literal
// algorithm does, whatever the order of the forks, and resolving the result with
// itself changes nothing.
func TestRandomRooms(t *testing.T) {
	for _, version := range byPowerVersions {
		for seed := range uint64(60) {
			random := rand.New(rand.NewPCG(seed, 7))
			r, forks := randomForks(t, version, random)
			want, got := r.literal(forks), r.resolve(forks...)
			if !maps.Equal(got, want) {
				t.Errorf("version %s, seed %d:\n got %v\nwant %v", version, seed, r.describe(got), r.describe(want))
			}
			random.Shuffle(len(forks), func(i, j int) { forks[i], forks[j] = forks[j], forks[i] })
			if again := r.resolve(forks...); !maps.Equal(again, got) {
				t.Errorf("version %s, seed %d, shuffled:\n got %v\nwant %v", version, seed, r.describe(again), r.describe(got))
			}
			if again := r.resolve(got, got); !maps.Equal(again, got) {
				t.Errorf("version %s, seed %d: resolving the result changes it", version, seed)
			}
		}
	}
}

// In version 1 rooms at least the order of the forks makes no difference.
func TestRandomRoomsByDepth(t *testing.T) {
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 7))
		r, forks := randomForks(t, "1", random)
		got := r.resolve(forks...)
		for range 4 {
			random.Shuffle(len(forks), func(i, j int) { forks[i], forks[j] = forks[j], forks[i] })
			if again := r.resolve(forks...); !maps.Equal(again, got) {
				t.Errorf("seed %d:\n got %v\nwant %v", seed, r.describe(again), r.describe(got))
			}
		}
		for key, id := range got {
			if !slices.ContainsFunc(forks, func(s state) bool { return s[key] == id }) {
				t.Errorf("seed %d: no fork has %s", seed, r.names[id])
			}
		}
	}
}

// randomForks makes a room in which much happens at random, on several forks, some
// of which claim a state older than it is.
func randomForks(t *testing.T, version string, random *rand.Rand) (*room, []state) {
	r, s := newRoom(t, version)
	members(r, s)
	for range random.IntN(10) {
		r.randomDeed(s, random)
	}
	old := maps.Clone(s)
	forks := make([]state, 2+random.IntN(2))
	for range random.IntN(10) {
		r.randomDeed(s, random)
	}
	for i := range forks {
		forks[i] = maps.Clone(s)
		for range random.IntN(15) {
			r.randomDeed(forks[i], random)
		}
		if random.IntN(3) == 0 {
			keys := slices.SortedFunc(maps.Keys(old), func(a, b auth.Key) int {
				return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.StateKey, b.StateKey))
			})
			for range 3 {
				key := keys[random.IntN(len(keys))]
				forks[i][key] = old[key]
			}
		}
	}
	return r, forks
}

// randomDeed has a random user do something, if the rules allow it.
func (r *room) randomDeed(s state, random *rand.Rand) {
	users := []matrix.UserID{alice, bob, carol, eve}
	who, whom := users[random.IntN(len(users))], users[random.IntN(len(users))]
	typ, stateKey, content := "m.room.topic", "", `{}`
	switch random.IntN(6) {
	case 0:
		levels := fmt.Sprintf(`"%s":%d,"%s":%d`, bob, random.IntN(3)*50, carol, random.IntN(3)*25)
		if !r.version.PrivilegedCreators {
			levels += fmt.Sprintf(`,"%s":100`, alice)
		}
		typ, content = typePowerLevels, `{"users":{`+levels+`}}`
	case 1:
		typ, content = typeJoinRules, fmt.Sprintf(`{"join_rule":%q}`, []string{"public", "invite"}[random.IntN(2)])
	case 2, 3:
		membership := []string{"leave", "ban", "invite"}[random.IntN(3)]
		typ, stateKey, content = typeMember, string(whom), fmt.Sprintf(`{"membership":%q}`, membership)
	case 4:
		typ, stateKey, content = typeMember, string(who), `{"membership":"join"}`
	}
	e := r.make(s, fmt.Sprintf("%d %s %s %s %s", r.depth, who, typ, stateKey, content), who, typ, stateKey, content)
	err := auth.Check(e, func(typ, stateKey string) (*matrix.Event, error) {
		return r.events[s[auth.Key{Type: typ, StateKey: stateKey}]], nil
	})
	if err == nil {
		s[auth.Key{Type: typ, StateKey: stateKey}] = e.ID
	}
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

// Two forks of a room, on each of which that many members came and went.
func BenchmarkResolve(b *testing.B) {
	for _, version := range []string{"1", "11", "12"} {
		for _, changes := range []int{10, 500} {
			b.Run(fmt.Sprintf("version %s/%d changes", version, changes), func(b *testing.B) {
				r, s := newRoom(b, version)
				one, two := maps.Clone(s), maps.Clone(s)
				for i := range changes {
					user := matrix.UserID(fmt.Sprintf("@user%d:example.org", i))
					r.member(one, "", user, user, "join")
					r.member(two, "", user, user, "join")
				}
				in := r.input(one, two)
				difference, _ := in.AuthDifference()
				subgraph, _ := in.Subgraph(slices.Concat(slices.Collect(maps.Values(in.Conflicted))...))
				in.AuthDifference = func() ([]matrix.EventID, error) { return difference, nil }
				in.Subgraph = func([]matrix.EventID) ([]matrix.EventID, error) { return subgraph, nil }
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Resolve(in); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
