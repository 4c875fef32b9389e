package state

import (
	"hearth/state/matrix"
	"hearth/store"
)

// chain is a set of events that was walked along auth_events.
type chain map[matrix.EventID]bool

// walk adds to the chain all that the events cite, directly or not, but not the
// events themselves. enough, if not nil, ends the walk early.
func (r *resolution) walk(c chain, from []matrix.EventID, enough func(matrix.EventID) bool) error {
	open := append([]matrix.EventID(nil), from...)
	for len(open) > 0 {
		id := open[len(open)-1]
		open = open[:len(open)-1]
		ev, err := r.event(id)
		if err != nil {
			return err
		}
		for _, cited := range ev.AuthEvents {
			if c[cited] {
				continue
			}
			c[cited] = true
			if enough != nil && enough(cited) {
				return nil
			}
			open = append(open, cited)
		}
	}
	return nil
}

// authDifference returns the events that are in the auth chains of some states
// and not of all. Only the conflicted events can tell the states apart; what the
// unconflicted ones cite is in the chains of all. The conflicted chains are
// walked first: they are short, and where nothing of them is in doubt the room's
// other state is not looked at.
func (r *resolution) authDifference() ([]matrix.EventID, error) {
	count := make(map[matrix.EventID]int)
	for _, fork := range r.forks {
		c := chain{}
		if err := r.walk(c, fork, nil); err != nil {
			return nil, err
		}
		for id := range c {
			count[id]++
		}
	}
	doubtful := make(map[matrix.EventID]bool)
	for id, n := range count {
		if n < len(r.forks) {
			doubtful[id] = true
		}
	}
	if err := r.dropShared(doubtful); err != nil {
		return nil, err
	}
	difference := make([]matrix.EventID, 0, len(doubtful))
	for id := range doubtful {
		difference = append(difference, id)
	}
	return difference, nil
}

// dropShared takes out of doubtful what the unconflicted state cites. It ends as
// soon as nothing is left.
func (r *resolution) dropShared(doubtful map[matrix.EventID]bool) error {
	if len(doubtful) == 0 {
		return nil
	}
	seen := chain{}
	enough := func(cited matrix.EventID) bool {
		delete(doubtful, cited)
		return len(doubtful) == 0
	}
	return r.tx.WalkState(r.room, r.snapshots[0], store.StateAll, func(slot store.Slot, num store.EventNum) (bool, error) {
		if r.conflicted[slot] {
			return true, nil
		}
		ev, err := r.numbered(num)
		if err != nil {
			return false, err
		}
		err = r.walk(seen, []matrix.EventID{ev.ID}, enough)
		return len(doubtful) > 0, err
	})
}

// subgraph returns the events on all paths along auth_events from one of the
// events to another, the ends included.
//
// Spec: room version 12, conflicted state subgraph.
func (r *resolution) subgraph(ends []matrix.EventID) ([]matrix.EventID, error) {
	isEnd := make(map[matrix.EventID]bool, len(ends))
	for _, id := range ends {
		isEnd[id] = true
	}
	reaches := make(map[matrix.EventID]bool) // whether an end is at or below an event
	for _, id := range ends {
		if err := r.reach(id, isEnd, reaches); err != nil {
			return nil, err
		}
	}
	var all []matrix.EventID
	for id, ok := range reaches {
		if ok || isEnd[id] {
			all = append(all, id)
		}
	}
	return all, nil
}

// reach finds out for an event and all that it cites whether it leads to an end.
// The walk keeps its own stack: chains are as long as rooms are old.
func (r *resolution) reach(from matrix.EventID, isEnd, reaches map[matrix.EventID]bool) error {
	type step struct {
		id    matrix.EventID
		cites []matrix.EventID
		next  int
	}
	open := []step{{id: from}}
	for len(open) > 0 {
		top := &open[len(open)-1]
		if top.cites == nil && top.next == 0 {
			ev, err := r.event(top.id)
			if err != nil {
				return err
			}
			top.cites = ev.AuthEvents
			if _, known := reaches[top.id]; !known {
				reaches[top.id] = false
			}
		}
		if top.next == len(top.cites) {
			open = open[:len(open)-1]
			continue
		}
		cited := top.cites[top.next]
		if _, known := reaches[cited]; !known {
			open = append(open, step{id: cited})
			continue
		}
		if reaches[cited] || isEnd[cited] {
			reaches[top.id] = true
		}
		top.next++
	}
	return nil
}
