package resolve

import (
	"fmt"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// candidate is what is kept of an event in the full conflicted set.
type candidate struct {
	id        matrix.EventID
	timestamp int64   // origin_server_ts
	cites     []int32 // its auth events that are in the set too
	picked    bool    // in the set X of step 1
}

// fullConflictedSet is "the union of the conflicted state set and the auth
// difference", from version 12 on also of "the conflicted state subgraph".
func (r *resolution) fullConflictedSet() ([]candidate, error) {
	ids, err := r.fullConflictedIDs()
	if err != nil {
		return nil, err
	}
	index := make(map[matrix.EventID]int32, len(ids))
	set := make([]candidate, 0, len(ids))
	for _, id := range ids {
		if _, repeated := index[id]; !repeated {
			index[id] = int32(len(set))
			set = append(set, candidate{id: id})
		}
	}
	for i := range set {
		e, err := r.event(set[i].id)
		if err != nil {
			return nil, err
		}
		set[i].timestamp = e.OriginServerTS
		set[i].picked = isPowerEvent(e)
		for _, id := range e.AuthEvents {
			if at, in := index[id]; in {
				set[i].cites = append(set[i].cites, at)
			}
		}
	}
	pickCited(set)
	return set, nil
}

func (r *resolution) fullConflictedIDs() ([]matrix.EventID, error) {
	var ids []matrix.EventID
	for _, candidates := range r.Conflicted {
		ids = append(ids, candidates...)
	}
	if r.Version.StateResolution == matrix.StateResolutionV21 {
		subgraph, err := r.Subgraph(ids)
		if err != nil {
			return nil, fmt.Errorf("conflicted state subgraph: %w", err)
		}
		ids = append(ids, subgraph...)
	}
	difference, err := r.AuthDifference()
	if err != nil {
		return nil, fmt.Errorf("auth difference: %w", err)
	}
	return append(ids, difference...), nil
}

// isPowerEvent: "A power event is a state event with type `m.room.power_levels` or
// `m.room.join_rules`, or a state event with type `m.room.member` where the
// `membership` is `leave` or `ban` and the `sender` does not match the
// `state_key`."
//
// Deviation: power levels and join rules under another state key than "" are none.
// They have no power over anything, and the other servers agree on that.
func isPowerEvent(e *matrix.Event) bool {
	if e.Is(typePowerLevels, "") || e.Is(typeJoinRules, "") {
		return true
	}
	if e.Type != typeMember || e.StateKey == nil || *e.StateKey == string(e.Sender) {
		return false
	}
	content, err := e.Member()
	return err == nil && (content.Membership == matrix.Leave || content.Membership == matrix.Ban)
}

// pickCited enlarges X "by adding the events in the auth chain of P which also
// belong to the full conflicted set".
//
// It follows auth_events within the set. A path that leaves the set and comes back
// exists before version 12 only, when a fork's state is older than its own auth
// chain; there the other servers do not follow it either.
func pickCited(set []candidate) {
	var open []int32
	for i := range set {
		if set[i].picked {
			open = append(open, int32(i))
		}
	}
	for len(open) > 0 {
		last := open[len(open)-1]
		open = open[:len(open)-1]
		for _, at := range set[last].cites {
			if !set[at].picked {
				set[at].picked = true
				open = append(open, at)
			}
		}
	}
}

// cited is the event in that place among e's auth events, nil if there is none.
func (r *resolution) cited(e *matrix.Event, key auth.Key) (*matrix.Event, error) {
	for _, id := range e.AuthEvents {
		a, err := r.event(id)
		if err != nil {
			return nil, err
		}
		if a.Is(key.Type, key.StateKey) {
			return a, nil
		}
	}
	return nil, nil
}

// create is the create event by which e is judged: one of its auth events, or from
// version 12 on the one that the room's ID implies. nil if there is none.
func (r *resolution) create(e *matrix.Event) (*matrix.Event, error) {
	if r.Version.RoomIDIsHash && e.Type != typeCreate {
		return r.event(matrix.EventID("$" + e.Room[1:]))
	}
	return r.cited(e, auth.Key{Type: typeCreate})
}
