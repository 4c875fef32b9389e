package state

import (
	"container/heap"
	"errors"
	"fmt"
	"slices"

	"hearth/state/matrix"
	"hearth/store"
)

// ErrTangled is wrapped where a resolution would look at more of a room than it
// may: nothing is decided then. What it may is far beyond what servers of a room
// bring about that only lost sight of each other for a while.
var ErrTangled = errors.New("the room's forks are too tangled to resolve")

// maxForks is how many states can be told apart by the bits of a forkSet. No
// event names more than maxPrevEvents others, and two states come beside them.
const maxForks = 32

// A forkSet has a bit for each of the states that meet.
type forkSet uint32

// descent is a walk down auth chains that meets each event once, the newest
// first. What an event cites was stored before it and has a smaller number, so
// that everything that leads to an event was met before the event itself.
type descent struct {
	open  eventHeap
	forks map[store.EventNum]forkSet // of the events in open: whose chains they are in
	left  int                        // how many events it may still meet
}

func newDescent(most int) *descent {
	return &descent{forks: make(map[store.EventNum]forkSet), left: most}
}

// add has the walk meet an event, which is in the chains of forks.
func (d *descent) add(num store.EventNum, forks forkSet) {
	if _, waits := d.forks[num]; !waits {
		heap.Push(&d.open, num)
	}
	d.forks[num] |= forks
}

// next returns the newest event that is open, and whose chains it is in.
func (d *descent) next() (num store.EventNum, forks forkSet, err error) {
	num = heap.Pop(&d.open).(store.EventNum)
	forks = d.forks[num]
	delete(d.forks, num)
	if d.left--; d.left < len(d.forks) {
		return 0, 0, fmt.Errorf("long auth chains: %w", ErrTangled)
	}
	return num, forks, nil
}

// eventHeap has the newest event on top.
type eventHeap []store.EventNum

func (h eventHeap) Len() int           { return len(h) }
func (h eventHeap) Less(i, j int) bool { return h[i] > h[j] }
func (h eventHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(num any)      { *h = append(*h, num.(store.EventNum)) }

func (h *eventHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// cites returns the events that one cites.
func (r *resolution) cites(num store.EventNum) ([]store.EventNum, error) {
	ev, err := r.numbered(num)
	if err != nil {
		return nil, err
	}
	cited := make([]store.EventNum, 0, len(ev.AuthEvents))
	for _, id := range ev.AuthEvents {
		n, err := r.numberOf(id)
		if err != nil {
			return nil, err
		}
		if n >= num {
			return nil, fmt.Errorf("%s cites %s, which is newer: %w", ev.ID, id, store.ErrDamaged)
		}
		cited = append(cited, n)
	}
	return cited, nil
}

// authDifference returns the events that are in the auth chains of some states
// and not of all.
//
// The chains of the conflicted events are walked together. An event that the
// walk meets outside some chain is in all of them after all if the unconflicted
// state stands on it, which is asked at once, so that the walk ends where the
// forks have their ground in common: what is below that is never looked at.
func (r *resolution) authDifference() ([]matrix.EventID, error) {
	if len(r.forks) > maxForks {
		return nil, fmt.Errorf("%d states meet: %w", len(r.forks), ErrTangled)
	}
	all := forkSet(1)<<len(r.forks) - 1
	w := differing{descent: newDescent(r.bounds.chain), all: all, ends: make(map[store.EventNum]forkSet)}
	for i, fork := range r.forks {
		for _, num := range fork {
			w.ends[num] |= 1 << i
			w.add(num, 0)
		}
	}
	up := ascent{resolution: r, carries: make(map[store.EventNum]bool)}
	var difference []matrix.EventID
	for w.apart > 0 {
		num, forks, err := w.next()
		if err != nil {
			return nil, err
		}
		if forks != 0 && forks != all {
			shared, err := up.shared(num)
			if err != nil {
				return nil, err
			}
			if shared {
				forks = all
			} else if difference, err = r.appendID(difference, num); err != nil {
				return nil, err
			}
		}
		if err := w.descend(r, num, forks); err != nil {
			return nil, err
		}
	}
	return difference, nil
}

// differing is a descent that knows when there is nothing more to tell the forks
// apart by.
type differing struct {
	*descent
	all   forkSet
	ends  map[store.EventNum]forkSet // the conflicted events, and which states have them
	apart int                        // how many open events are not in all chains
}

func (w *differing) add(num store.EventNum, forks forkSet) {
	was, waits := w.forks[num]
	w.descent.add(num, forks)
	if !waits {
		w.apart++
		was = 0
	}
	if was != w.all && w.forks[num] == w.all {
		w.apart--
	}
}

func (w *differing) next() (store.EventNum, forkSet, error) {
	num, forks, err := w.descent.next()
	if forks != w.all {
		w.apart--
	}
	return num, forks, err
}

// descend has the walk meet what an event cites: in the chains that the event is
// in, in those of the states that have it, and in all if that is all states.
func (w *differing) descend(r *resolution, num store.EventNum, forks forkSet) error {
	forks |= w.ends[num]
	if forks != w.all && w.ends[num] == 0 {
		standing, err := r.standing(num)
		if err != nil {
			return err
		}
		if standing {
			forks = w.all
		}
	}
	cited, err := r.cites(num)
	for _, n := range cited {
		w.add(n, forks)
	}
	return err
}

func (r *resolution) appendID(ids []matrix.EventID, num store.EventNum) ([]matrix.EventID, error) {
	ev, err := r.numbered(num)
	if err != nil {
		return nil, err
	}
	return append(ids, ev.ID), nil
}

// standing says whether an event is part of the unconflicted state.
func (r *resolution) standing(num store.EventNum) (bool, error) {
	if num == ownNum {
		return false, nil
	}
	slot, ok, err := r.tx.EventSlot(r.room, num)
	if !ok || err != nil || r.conflicted[slot] {
		return false, err
	}
	is, err := r.tx.StateAt(r.room, r.snapshots[0], slot)
	return is == num, err
}

// ascent is a search from events up to what cites them, through the citation
// index. It begins with the newest that cites: where the unconflicted state
// stands on an event, that is as a rule part of it. Where it does not, the search
// comes by those events alone that lead to the forks.
type ascent struct {
	*resolution
	carries map[store.EventNum]bool // whether the unconflicted state has an event or what cites it
}

// climb is a place on the way up: an event, and the oldest that is already looked
// at of those that cite it.
type climb struct{ num, below store.EventNum }

// shared says whether an event is in the auth chain of the unconflicted state.
func (a *ascent) shared(num store.EventNum) (bool, error) {
	if create, err := a.isCreate(num); create || err != nil {
		if err != nil {
			return false, err
		}
		return a.hasOthers()
	}
	way := []climb{{num: num}}
	for len(way) > 0 {
		top := &way[len(way)-1]
		citing, ok, err := a.tx.CitedBy(a.room, top.num, top.below)
		if err != nil {
			return false, err
		}
		if !ok {
			way = way[:len(way)-1]
			continue
		}
		top.below = citing
		carries, known := a.carries[citing]
		if !known {
			if carries, err = a.standing(citing); err != nil {
				return false, err
			}
			if a.carries[citing] = carries; len(a.carries) > a.bounds.chain {
				return false, fmt.Errorf("more than %d events that cite: %w", a.bounds.chain, ErrTangled)
			}
			if !carries {
				way = append(way, climb{num: citing})
			}
		}
		if carries {
			for _, c := range way[1:] {
				a.carries[c.num] = true
			}
			return true, nil
		}
	}
	return false, nil
}

// isCreate says whether an event is the room's first, which the index leaves out.
func (r *resolution) isCreate(num store.EventNum) (bool, error) {
	ev, err := r.numbered(num)
	return err == nil && ev.Is("m.room.create", ""), err
}

// hasOthers says whether the unconflicted state has anything but m.room.create,
// which all else cites.
func (r *resolution) hasOthers() (others bool, err error) {
	create, _ := r.tx.Slot(r.room, "m.room.create", "")
	err = r.tx.WalkState(r.room, r.snapshots[0], store.StateAll, func(slot store.Slot, _ store.EventNum) (bool, error) {
		others = slot != create && !r.conflicted[slot]
		return !others, nil
	})
	return others, err
}

// subgraph returns the events on all paths along auth_events from one of the
// events to another, the ends included. No path to an end leads below the oldest
// of them.
//
// Spec: room version 12, conflicted state subgraph.
func (r *resolution) subgraph(ends []matrix.EventID) ([]matrix.EventID, error) {
	onPath := make(map[store.EventNum]bool) // whether an event is an end or leads to one
	oldest := ownNum
	d := newDescent(r.bounds.chain)
	for _, id := range ends {
		num, err := r.numberOf(id)
		if err != nil {
			return nil, err
		}
		onPath[num], oldest = true, min(oldest, num)
		d.add(num, 0)
	}
	edges, err := r.edgesDown(d, oldest)
	if err != nil {
		return nil, err
	}
	var ids []matrix.EventID
	for _, e := range slices.Backward(edges) { // the oldest first
		leads := slices.ContainsFunc(e.cited, func(n store.EventNum) bool { return onPath[n] })
		if !leads && !onPath[e.num] {
			continue
		}
		onPath[e.num] = true
		if ids, err = r.appendID(ids, e.num); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// edge is an event and what it cites.
type edge struct {
	num   store.EventNum
	cited []store.EventNum
}

// edgesDown walks down to the oldest event that matters.
func (r *resolution) edgesDown(d *descent, oldest store.EventNum) (edges []edge, err error) {
	for len(d.open) > 0 {
		num, _, err := d.next()
		if err != nil {
			return nil, err
		}
		cited, err := r.cites(num)
		if err != nil {
			return nil, err
		}
		cited = slices.DeleteFunc(cited, func(n store.EventNum) bool { return n < oldest })
		for _, n := range cited {
			d.add(n, 0)
		}
		edges = append(edges, edge{num, cited})
	}
	return edges, nil
}
