package resolve

import (
	"cmp"
	"container/heap"
	"math"
	"slices"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// powerOrder sorts the picked events of the set by the reverse topological power
// ordering: each after those it cites, and where that leaves a choice, the smallest
// first. "The reverse topological power ordering can be found by sorting the events
// using Kahn's algorithm for topological sorting, and at each step selecting, among
// all the candidate vertices, the smallest vertex."
func (r *resolution) powerOrder(set []candidate) ([]matrix.EventID, error) {
	waiting := make([]int32, len(set))   // how many events it cites are not yet placed
	citedBy := make([][]int32, len(set)) // the reverse of cites
	var free powerHeap
	for i := range set {
		if !set[i].picked {
			continue
		}
		// What a picked event cites in the set is picked too.
		waiting[i] = int32(len(set[i].cites))
		for _, at := range set[i].cites {
			citedBy[at] = append(citedBy[at], int32(i))
		}
		if waiting[i] == 0 {
			if err := r.free(&free, set, int32(i)); err != nil {
				return nil, err
			}
		}
	}
	var order []matrix.EventID
	for free.Len() > 0 {
		next := heap.Pop(&free).(freeEvent)
		order = append(order, next.id)
		for _, at := range citedBy[next.at] {
			if waiting[at]--; waiting[at] > 0 {
				continue
			}
			if err := r.free(&free, set, at); err != nil {
				return nil, err
			}
		}
	}
	// Events that cite each other in a circle, as IDs of versions 1 and 2 permit, are
	// never free: no order is right for them, and they stay out.
	return order, nil
}

// free makes an event, all of whose cited events are placed, a candidate for the
// next place.
func (r *resolution) free(free *powerHeap, set []candidate, at int32) error {
	level, err := r.senderPower(set[at].id)
	if err != nil {
		return err
	}
	heap.Push(free, freeEvent{at: at, id: set[at].id, level: level, timestamp: set[at].timestamp})
	return nil
}

// senderPower is the power level of the event's sender "when looking at their
// respective `auth_event`s".
func (r *resolution) senderPower(id matrix.EventID) (int64, error) {
	e, err := r.event(id)
	if err != nil {
		return 0, err
	}
	create, err := r.create(e)
	if err != nil {
		return 0, err
	}
	levels, err := r.cited(e, auth.Key{Type: typePowerLevels})
	if err != nil {
		return 0, err
	}
	return auth.UserPower(create, levels, e.Sender), nil
}

// freeEvent is an event that may have the next place in the power ordering.
type freeEvent struct {
	at        int32
	id        matrix.EventID
	level     int64
	timestamp int64
}

// powerHeap has the smallest free event on top.
type powerHeap []freeEvent

func (h powerHeap) Len() int      { return len(h) }
func (h powerHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *powerHeap) Push(x any)   { *h = append(*h, x.(freeEvent)) }

// Less: "x < y if 1. x's sender has greater power level than y's sender […]; or 2.
// the senders have the same power level, but x's `origin_server_ts` is less than
// y's […]; or 3. […] x's `event_id` is less than y's `event_id`."
func (h powerHeap) Less(i, j int) bool {
	return cmp.Or(
		cmp.Compare(h[j].level, h[i].level),
		cmp.Compare(h[i].timestamp, h[j].timestamp),
		cmp.Compare(h[i].id, h[j].id),
	) < 0
}

func (h *powerHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// mainlineOrder sorts the events of the set that were not picked by the mainline
// ordering based on the power levels resolved so far: "x < y if 1. the mainline
// position of x is greater than the mainline position of y […]; or 2. […] x's
// `origin_server_ts` is less than y's […]; or 3. […] x's `event_id` is less than
// y's `event_id`."
func (r *resolution) mainlineOrder(set []candidate) ([]matrix.EventID, error) {
	start, err := r.current(auth.Key{Type: typePowerLevels})
	if err != nil {
		return nil, err
	}
	line := mainline{r: r, next: start, places: make(map[matrix.EventID]int), known: make(map[matrix.EventID]int)}
	type placed struct {
		candidate
		position int
	}
	rest := make([]placed, 0, len(set))
	for _, c := range set {
		if c.picked {
			continue
		}
		position, err := line.position(c.id)
		if err != nil {
			return nil, err
		}
		rest = append(rest, placed{c, position})
	}
	slices.SortFunc(rest, func(x, y placed) int {
		return cmp.Or(
			cmp.Compare(y.position, x.position),
			cmp.Compare(x.timestamp, y.timestamp),
			cmp.Compare(x.id, y.id),
		)
	})
	order := make([]matrix.EventID, len(rest))
	for i := range rest {
		order[i] = rest[i].id
	}
	return order, nil
}

// mainline is the list of power levels events that begins with the resolved one
// and goes on with the one that each cites. It is read as far as it is asked for:
// a room may have thousands, and most events cite one of the newest.
type mainline struct {
	r      *resolution
	places map[matrix.EventID]int // of those read
	next   matrix.EventID         // not yet read; "" at the end

	known map[matrix.EventID]int // position of events that cite this one as their e1
}

// nowhere is ∞, the position of events whose power levels are off the mainline.
const nowhere = math.MaxInt

// position: "Find the smallest index j ≥ 1 for which e_j belongs to the mainline of
// P. If such a j exists, then e_j = P_i for some unique index i ≥ 0. Otherwise set
// i = ∞ […]. In both cases, the mainline position of e is i."
func (m *mainline) position(id matrix.EventID) (int, error) {
	first, err := m.levelsOf(id)
	if err != nil {
		return 0, err
	}
	if position, ok := m.known[first]; ok {
		return position, nil
	}
	position := nowhere
	seen := make(map[matrix.EventID]bool)
	for at := first; at != "" && !seen[at]; {
		seen[at] = true
		place, on, err := m.place(at)
		if err != nil {
			return 0, err
		}
		if on {
			position = place
			break
		}
		if at, err = m.levelsOf(at); err != nil {
			return 0, err
		}
	}
	m.known[first] = position
	return position, nil
}

// place is the index of a power levels event on the mainline, if it is on it.
func (m *mainline) place(id matrix.EventID) (place int, on bool, err error) {
	place, on = m.places[id]
	for !on && m.next != "" {
		read := m.next
		if m.next, err = m.levelsOf(read); err != nil {
			return 0, false, err
		}
		m.places[read] = len(m.places)
		if _, circle := m.places[m.next]; circle {
			m.next = ""
		}
		place, on = m.places[id]
	}
	return place, on, nil
}

// levelsOf is the m.room.power_levels event among the auth events of an event.
func (m *mainline) levelsOf(id matrix.EventID) (matrix.EventID, error) {
	e, err := m.r.event(id)
	if err != nil {
		return "", err
	}
	levels, err := m.r.cited(e, auth.Key{Type: typePowerLevels})
	if err != nil || levels == nil {
		return "", err
	}
	return levels.ID, nil
}
