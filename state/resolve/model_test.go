package resolve

import (
	"bytes"
	"cmp"
	"maps"
	"math"
	"slices"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// literal is the room's algorithm as the specification words it, over whole states
// and whole auth chains.
func (r *room) literal(forks []state) state {
	if r.version.StateResolution == matrix.StateResolutionV1 {
		return r.literalByDepth(forks)
	}
	return r.literalByPower(forks)
}

// literalByDepth is the algorithm of version 1.
func (r *room) literalByDepth(forks []state) state {
	lists := make(map[auth.Key][]matrix.EventID)
	for _, s := range forks {
		for key, id := range s {
			if !slices.Contains(lists[key], id) {
				lists[key] = append(lists[key], id)
			}
		}
	}
	result := state{}
	for key, list := range lists {
		slices.SortFunc(list, func(x, y matrix.EventID) int {
			return cmp.Or(cmp.Compare(r.events[x].Depth, r.events[y].Depth), bytes.Compare(hashOf(y), hashOf(x)))
		})
		if len(list) == 1 {
			result[key] = list[0]
			delete(lists, key)
		}
	}
	for _, typ := range []string{typePowerLevels, typeJoinRules, typeMember} {
		before := maps.Clone(result) // the order of the keys of one type is not said: none sees the others
		for key, list := range lists {
			if key.Type != typ {
				continue
			}
			now := maps.Clone(before)
			for i, id := range list {
				if i > 0 && !r.literalAllows(now, id) {
					break
				}
				now[key] = id
			}
			result[key] = now[key]
			delete(lists, key)
		}
	}
	before := maps.Clone(result)
	for key, list := range lists {
		result[key] = list[0] // what holds if none passes is not said either: the first, see deepestAllowed
		for _, id := range slices.Backward(list) {
			if r.literalAllows(before, id) {
				result[key] = id
				break
			}
		}
	}
	return result
}

// literalAllows says whether a state alone allows an event.
func (r *room) literalAllows(s state, id matrix.EventID) bool {
	return auth.Check(r.events[id], func(typ, stateKey string) (*matrix.Event, error) {
		return r.events[s[auth.Key{Type: typ, StateKey: stateKey}]], nil
	}) == nil
}

// literalByPower is the algorithm of versions 2 to 12.
func (r *room) literalByPower(forks []state) state {
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
	picked, within := make(map[matrix.EventID]bool), make(map[matrix.EventID]bool)
	for id := range full {
		if !r.literalPower(id) {
			continue
		}
		picked[id], within[id] = true, true
		for a := range r.chain(id) {
			if full[a] {
				picked[a] = true
			}
		}
		maps.Copy(within, r.chainWithin(full, id))
	}
	if !maps.Equal(picked, within) { // the one known deviation, see pickCited
		r.detours++
		picked = within
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

// chainWithin is the part of an event's auth chain to which a path leads that does
// not leave the set.
func (r *room) chainWithin(set map[matrix.EventID]bool, id matrix.EventID) map[matrix.EventID]bool {
	chain := make(map[matrix.EventID]bool)
	for open := []matrix.EventID{id}; len(open) > 0; {
		id, open = open[0], open[1:]
		for _, a := range r.events[id].AuthEvents {
			if set[a] && !chain[a] {
				chain[a] = true
				open = append(open, a)
			}
		}
	}
	return chain
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
	return auth.UserPower(r.events[r.create], r.events[r.literalCited(id, levelsKey)], r.events[id].Sender)
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
				return r.events[r.create], nil
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
