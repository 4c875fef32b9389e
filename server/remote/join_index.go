package remote

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"

	"hearth/state"
	"hearth/state/matrix"
)

// maxJoinIDs bounds how many events an answer to a join may hold or cite. A room of
// 200,000 members has 300,000; each takes some 70 bytes of memory while it is brought
// here.
const maxJoinIDs = 1 << 19

// indexStep is for how many events memory is taken at a time, but for the first, and
// indexWeight how much, in bytes.
const (
	indexStep   = 1 << 14
	indexWeight = 80 * indexStep
)

// A joinIndex knows the events of an answer to a join: where each stands in the
// spool, whether the state has it, and what it cites.
type joinIndex struct {
	version *matrix.Version
	room    matrix.RoomID
	numbers map[idHash]uint32 // of the events that came or are cited
	events  []indexedEvent    // by number
	cites   []uint32          // numbers, those of one event together
	create  matrix.EventID
	grow    func() error // takes the memory for indexStep more events; nil: none is taken
	came    int          // events that came
	dropped int          // and were left out
}

// idHash is what the index knows an event ID by.
type idHash [16]byte

type indexedEvent struct {
	place  spoolPlace
	cites  uint32 // where its part of cites begins
	count  uint8  // and how long it is
	came   bool
	state  bool
	level  int32 // -1: it cites itself, by whatever way
	walked walkState
}

// walkState says how far the walk is that finds an event's level.
type walkState uint8

const (
	unwalked walkState = iota
	walking
	walked
)

func newJoinIndex(v *matrix.Version, room matrix.RoomID) *joinIndex {
	return &joinIndex{version: v, room: room, numbers: make(map[idHash]uint32)}
}

// number returns the number of an event ID, which it gets at first sight.
func (x *joinIndex) number(id matrix.EventID) (uint32, error) {
	sum := sha256.Sum256([]byte(id))
	key := idHash(sum[:16])
	if n, known := x.numbers[key]; known {
		return n, nil
	}
	if len(x.events) == maxJoinIDs {
		return 0, fmt.Errorf("more than %d events: %w", maxJoinIDs, state.ErrGivenState)
	}
	if len(x.events) > 0 && len(x.events)%indexStep == 0 && x.grow != nil {
		if err := x.grow(); err != nil {
			return 0, err
		}
	}
	n := uint32(len(x.events))
	x.numbers[key] = n
	x.events = append(x.events, indexedEvent{})
	return n, nil
}

// known says whether an event has come, and notes that the state has it if so.
func (x *joinIndex) known(id matrix.EventID, inState bool) (came, again bool) {
	sum := sha256.Sum256([]byte(id))
	n, ok := x.numbers[idHash(sum[:16])]
	if !ok || !x.events[n].came {
		return false, false
	}
	again = inState && !x.events[n].state
	x.events[n].state = x.events[n].state || inState
	return true, again
}

// add notes an event that has not come before. An answer with two events that a room
// could have begun with is refused.
func (x *joinIndex) add(ev *matrix.Event, inState bool, place spoolPlace) error {
	if ev.Is("m.room.create", "") {
		if x.create != "" {
			return fmt.Errorf("two m.room.create, %s and %s: %w", x.create, ev.ID, state.ErrGivenState)
		}
		x.create = ev.ID
	}
	n, err := x.number(ev.ID)
	if err != nil {
		return err
	}
	begin := len(x.cites)
	cited := ev.AuthEvents
	if x.version.RoomIDIsHash && ev.ID != matrix.EventID("$"+x.room[1:]) {
		cited = append(slices.Clone(cited), matrix.EventID("$"+x.room[1:]))
	}
	for _, id := range cited {
		c, err := x.number(id)
		if err != nil {
			return err
		}
		x.cites = append(x.cites, c)
	}
	e := &x.events[n]
	e.place, e.cites, e.count = place, uint32(begin), uint8(len(x.cites)-begin)
	e.came, e.state = true, inState
	x.came++
	return nil
}

// order returns the numbers of the events that came, each behind what it cites, and
// among those that may come at the same time in the order in which they stand in the
// spool, so that it is read from front to back a few times. Events that cite
// themselves by whatever way, which only IDs that are no hashes allow, are left out.
func (x *joinIndex) order() []uint32 {
	x.numbers = nil // it is not needed any more
	order := make([]uint32, 0, x.came)
	var path []uint32
	for n := range x.events {
		path = x.walk(uint32(n), path)
		if e := x.events[n]; e.came && e.level >= 0 {
			order = append(order, uint32(n))
		}
	}
	x.cites = nil
	slices.SortFunc(order, func(a, b uint32) int {
		return cmp.Or(cmp.Compare(x.events[a].level, x.events[b].level), cmp.Compare(x.events[a].place, x.events[b].place))
	})
	return order
}

// walk finds the level of an event: one above the highest that it cites.
func (x *joinIndex) walk(n uint32, path []uint32) []uint32 {
	path = append(path[:0], n)
	for len(path) > 0 {
		e := &x.events[path[len(path)-1]]
		if e.walked == walked {
			path = path[:len(path)-1]
			continue
		}
		deeper := e.walked == unwalked
		e.walked = walking
		level := int32(0)
		for _, c := range x.cites[e.cites : e.cites+uint32(e.count)] {
			switch cited := &x.events[c]; {
			case cited.walked == unwalked && deeper:
				path = append(path, c)
			case cited.walked != walked: // it leads here
				level = -1
			case cited.level < 0:
				level = -1
			case level >= 0:
				level = max(level, cited.level+1)
			}
		}
		if deeper && len(path) > 0 && &x.events[path[len(path)-1]] != e {
			continue
		}
		e.level, e.walked = level, walked
	}
	return path
}
