package resolve

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"maps"
	"slices"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// byDepth is the algorithm of version 1. "The resolved state is built up in a number
// of passes; here we use R to refer to the results of the resolution so far."
func (r *resolution) byDepth() error {
	conflicts := r.startWithUnion()
	// "First we resolve conflicts between `m.room.power_levels` events." "Repeat the
	// above process for conflicts between `m.room.join_rules` events." "Repeat the
	// above process for conflicts between `m.room.member` events."
	for _, typ := range []string{typePowerLevels, typeJoinRules, typeMember} {
		inPass := func(key auth.Key) bool { return key.Type == typ }
		if err := r.depthPass(conflicts, inPass, r.lastAllowed); err != nil {
			return err
		}
	}
	// "No other events affect the authorisation rules, so for all other conflicts,
	// just pick the event with the highest depth and lowest `sha1(event_id)` that
	// passes authentication in R and add it to R."
	return r.depthPass(conflicts, func(auth.Key) bool { return true }, r.deepestAllowed)
}

// startWithUnion: "Start by setting R to the union of the states to be resolved,
// excluding any conflicting events." A place that only some forks have is no
// conflict here, as "a conflict occurs between states where those states have
// different `event_ids`". It returns the conflicts.
func (r *resolution) startWithUnion() map[auth.Key][]matrix.EventID {
	conflicts := make(map[auth.Key][]matrix.EventID)
	for key, candidates := range r.Conflicted {
		if len(candidates) == 1 {
			r.resolved[key] = candidates[0]
		} else {
			conflicts[key] = candidates
		}
	}
	return conflicts
}

// chooser picks one of the events in a place, which are in ascending order.
type chooser func(key auth.Key, ascending []*matrix.Event) (matrix.EventID, error)

// depthPass resolves the conflicts in some places and takes them off the list. All
// of a pass see R as it was before: the specification leaves the order of places
// open, and so it does not matter.
func (r *resolution) depthPass(conflicts map[auth.Key][]matrix.EventID, inPass func(auth.Key) bool, choose chooser) error {
	chosen := make(map[auth.Key]matrix.EventID)
	for key, candidates := range conflicts {
		if !inPass(key) {
			continue
		}
		ascending, err := r.byDepthAndHash(candidates)
		if err != nil {
			return err
		}
		if chosen[key], err = choose(key, ascending); err != nil {
			return err
		}
		delete(conflicts, key)
	}
	maps.Copy(r.resolved, chosen)
	return nil
}

// byDepthAndHash is the list of events in a place, sorted "by ascending `depth` then
// descending `sha1(event_id)`".
func (r *resolution) byDepthAndHash(ids []matrix.EventID) ([]*matrix.Event, error) {
	events := make([]*matrix.Event, len(ids))
	hashes := make(map[matrix.EventID][sha1.Size]byte, len(ids))
	for i, id := range ids {
		e, err := r.event(id)
		if err != nil {
			return nil, err
		}
		events[i], hashes[id] = e, sha1.Sum([]byte(id))
	}
	slices.SortFunc(events, func(x, y *matrix.Event) int {
		hx, hy := hashes[x.ID], hashes[y.ID]
		return cmp.Or(cmp.Compare(x.Depth, y.Depth), bytes.Compare(hy[:], hx[:]))
	})
	return events, nil
}

// lastAllowed: "Add the first event in the list to R. For each subsequent event in
// the list, check that the event would be allowed by the authorisation rules for a
// room in state R. If the event would be allowed, then update R with the event and
// continue with the next event in the list. If it would not be allowed, stop."
func (r *resolution) lastAllowed(key auth.Key, ascending []*matrix.Event) (matrix.EventID, error) {
	last := ascending[0]
	for _, e := range ascending[1:] {
		allowed, err := r.allowed(e, func(asked auth.Key) (*matrix.Event, error) {
			if asked == key {
				return last, nil
			}
			return r.inUnion(asked)
		})
		if err != nil {
			return "", err
		}
		if !allowed {
			break
		}
		last = e
	}
	return last.ID, nil
}

// deepestAllowed picks the last event that is allowed. The specification does not
// say which to pick if none is; it is the first, as on the other servers.
func (r *resolution) deepestAllowed(_ auth.Key, ascending []*matrix.Event) (matrix.EventID, error) {
	for _, e := range slices.Backward(ascending) {
		allowed, err := r.allowed(e, r.inUnion)
		if err != nil {
			return "", err
		}
		if allowed {
			return e.ID, nil
		}
	}
	return ascending[0].ID, nil
}

// inUnion is the event in a place of R.
func (r *resolution) inUnion(key auth.Key) (*matrix.Event, error) {
	id, err := r.current(key)
	if err != nil || id == "" {
		return nil, err
	}
	return r.event(id)
}
