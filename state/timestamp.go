package state

import (
	"math"

	"hearth/store"
)

// Bounds of a look-up by time: how many events are looked at on both sides of where
// the time would be if clocks agreed, and how many more for one that may be seen.
const (
	maxTimeAround  = 1000
	maxTimeFurther = 10_000
)

// A TimeQuery asks for the event of a room's past that is nearest to a time in one
// direction.
type TimeQuery struct {
	Room store.RoomNum
	TS   int64 // in milliseconds, as origin_server_ts
	Back bool  // an event of that time or before; else of that time or after
	// Upto is the newest position that counts.
	Upto store.Position
	// Shows says which events count.
	Shows func(*store.StoredEvent) (bool, error)
}

// A TimeAnswer is the answer to a TimeQuery.
type TimeAnswer struct {
	Event *store.StoredEvent // nil for none
	// Gap is an event with a gap right before it in which a nearer one may be; nil
	// where there is none.
	Gap *store.StoredEvent
}

// NearestEvent answers a TimeQuery. Of events of the same time it is the first that
// one comes by who walks the past in that direction.
//
// Nothing orders a room's past by what its events say of their time. But nearly all
// of them come in the order in which they were sent, so the place is found by
// halving, and the events around it are compared; an event whose clock was wrong by
// more than that many events may be missed in a long room.
//
// Spec: CS room_event_by_timestamp.yaml; SS Retrieving events, timestamp_to_event.
func NearestEvent(tx *store.Tx, q TimeQuery) (TimeAnswer, error) {
	n := nearest{TimeQuery: q, tx: tx}
	place, err := n.placeOf()
	if err != nil {
		return TimeAnswer{}, err
	}
	ahead, behind := maxTimeAround, maxTimeAround
	if q.Back {
		behind = maxTimeFurther
	} else {
		ahead = maxTimeFurther
	}
	if err := tx.PastBack(q.Room, place, n.look(behind)); err != nil {
		return TimeAnswer{}, err
	}
	if err := tx.Past(q.Room, place, n.look(ahead)); err != nil {
		return TimeAnswer{}, err
	}
	gap, err := n.gap()
	return TimeAnswer{n.best, gap}, err
}

// nearest is the nearest event so far.
type nearest struct {
	TimeQuery
	tx    *store.Tx
	best  *store.StoredEvent
	place store.Place
}

// look returns what looks at events on one side: at most so many, and beyond
// maxTimeAround only until one is found.
func (n *nearest) look(limit int) func(store.Place, *store.StoredEvent) (bool, error) {
	looked := 0
	return func(place store.Place, ev *store.StoredEvent) (bool, error) {
		if place.Position > n.Upto || looked >= limit || looked >= maxTimeAround && n.best != nil {
			return false, nil
		}
		looked++
		if !n.nearer(place, ev) {
			return true, nil
		}
		shows, err := n.Shows(ev)
		if shows {
			n.best, n.place = ev, place
		}
		return true, err
	}
}

// nearer says whether an event is nearer than the best so far.
func (n *nearest) nearer(place store.Place, ev *store.StoredEvent) bool {
	is := ev.OriginServerTS
	switch {
	case n.Back && is > n.TS, !n.Back && is < n.TS:
		return false
	case n.best == nil:
		return true
	case n.Back:
		was := n.best.OriginServerTS
		return is > was || is == was && place.Compare(n.place) > 0
	}
	was := n.best.OriginServerTS
	return is < was || is == was && place.Compare(n.place) < 0
}

// gap returns the event with a gap before it in which a nearer one may be: going back
// the one behind the nearest, or the oldest of all, going forth the nearest itself.
func (n *nearest) gap() (at *store.StoredEvent, err error) {
	switch {
	case !n.Back:
		at = n.best
	case n.best == nil:
		at, err = n.first(store.Place{})
	default:
		behind := n.place
		behind.Num++
		at, err = n.first(behind)
	}
	if at == nil || err != nil {
		return nil, err
	}
	gap, err := HasGap(n.tx, at)
	if !gap || err != nil {
		return nil, err
	}
	return at, nil
}

// first returns the first event from a place on, nil for none.
func (n *nearest) first(from store.Place) (ev *store.StoredEvent, err error) {
	if !from.BackFilled() {
		from = store.Place{Position: from.Position + 1, Height: math.MinInt64}
	}
	err = n.tx.Past(n.Room, from, func(place store.Place, next *store.StoredEvent) (bool, error) {
		if place.Position <= n.Upto {
			ev = next
		}
		return false, nil
	})
	return ev, err
}

// placeOf returns the place of the first event that is not older than the time, if
// times only rise: of the timeline, or of what was back-filled before its first event.
func (n *nearest) placeOf() (store.Place, error) {
	low, high := store.Position(0), n.Upto // what is up to low is older, what is behind high is not
	for low < high {
		middle := low + (high-low)/2 + 1
		num, ok := n.tx.TimelineBefore(n.Room, middle)
		if !ok || num.Position() <= low {
			low = middle // no event is in between
			continue
		}
		ev, err := n.tx.Event(n.Room, num)
		if err != nil {
			return store.Place{}, err
		}
		if ev.OriginServerTS < n.TS {
			low = middle
		} else {
			high = num.Position() - 1
		}
	}
	return n.placeAmong(low)
}

// placeAmong is placeOf among what was back-filled before the first timeline event behind
// a position, which is not older than the time.
func (n *nearest) placeAmong(pos store.Position) (store.Place, error) {
	end, err := n.tx.PlaceBehind(n.Room, pos)
	if err != nil {
		return end, err
	}
	// What is below low is older, what is at high or above is not. The heights may be
	// as far apart as there are numbers, which halves as fast.
	low, high := int64(math.MinInt64), end.Height
	for low < high {
		middle := low + int64(uint64(high-low)/2)
		place, ts := end, n.TS
		err := n.tx.Past(n.Room, store.Place{Position: end.Position, Height: middle}, func(at store.Place, ev *store.StoredEvent) (bool, error) {
			place, ts = at, ev.OriginServerTS
			return false, nil
		})
		switch {
		case err != nil:
			return end, err
		case place.BackFilled() && place.Position == end.Position && ts < n.TS:
			low = place.Height + 1
		default:
			high = middle
		}
	}
	return store.Place{Position: end.Position, Height: low}, nil
}
