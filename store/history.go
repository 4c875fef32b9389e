package store

import (
	"cmp"
	"fmt"
	"math"
)

// A Place is where an event stands in a room's past as we have it. The events of our
// timeline stand in the order in which we accepted them. In between, right before the
// timeline event that they precede in the room, stand those that were back-filled: those
// before our first event, and those of gaps. They stand in the order of their
// heights, so that they may be fetched in any order, from several sides.
type Place struct {
	// Position is that of a timeline event: of the event itself, or of the one that
	// it was back-filled before.
	Position Position
	// Height orders the back-filled events before one timeline event, the newest on
	// top; timelineHeight for the timeline event.
	Height int64
	// Num is that of a back-filled event, for those of the same height; else 0.
	Num EventNum
}

// timelineHeight is above all back-filled events.
const timelineHeight = math.MaxInt64

// TimelinePlace is where the timeline event at a position stands, or would.
func TimelinePlace(pos Position) Place { return Place{Position: pos, Height: timelineHeight} }

// BackFilled says whether it is the place of a back-filled event.
func (p Place) BackFilled() bool { return p.Height != timelineHeight }

// Compare is negative if p stands before q, and 0 if they are the same.
func (p Place) Compare(q Place) int {
	return cmp.Or(cmp.Compare(p.Position, q.Position), cmp.Compare(p.Height, q.Height), cmp.Compare(p.Num, q.Num))
}

// event returns the number of the event at a place.
func (p Place) event() EventNum {
	if p.BackFilled() {
		return p.Num
	}
	return timelineNum(p.Position)
}

// appendTurn appends a place to a key, so that keys stand in the order of places: for
// a timeline event its number, for a back-filled one the number before that of the
// timeline event behind it, which is odd and so no timeline event's, and its height and
// own number.
func (p Place) appendTurn(key []byte) []byte {
	key = appendU64(key, uint64(p.turn()))
	if !p.BackFilled() {
		return key
	}
	return appendU64(appendHeight(key, p.Height), uint64(p.Num))
}

// turn is the number that a place begins with in keys.
func (p Place) turn() EventNum {
	if p.BackFilled() {
		return timelineNum(p.Position) - 1
	}
	return timelineNum(p.Position)
}

// readTurn reads what appendTurn has written; ok is false for anything else.
func readTurn(b []byte) (p Place, ok bool) {
	switch {
	case len(b) == 8 && !EventNum(u64(b)).Aside():
		return TimelinePlace(EventNum(u64(b)).Position()), true
	case len(b) == 24 && EventNum(u64(b)).Aside():
		p = Place{EventNum(u64(b) + 1).Position(), height(b[8:]), EventNum(u64(b[16:]))}
		return p, p.BackFilled()
	}
	return p, false
}

// PlaceOf returns the place of an event in its room's past; ok is false for one that
// has none, as it was fetched for another reason.
func (tx *Tx) PlaceOf(room RoomNum, num EventNum) (p Place, ok bool, err error) {
	if !num.Aside() {
		return TimelinePlace(num.Position()), true, nil
	}
	v := tx.get(bucketRoom, historyAtKey(room, num))
	if v == nil {
		return Place{}, false, nil
	}
	if len(v) != 16 {
		return Place{}, false, fmt.Errorf("place of event %d in room %d: %w", num, room, ErrDamaged)
	}
	return Place{Position(u64(v)), height(v[8:]), num}, true, nil
}

// PlaceBehind returns the place of the first timeline event behind a position, or
// where the next one would be: the place that ends what was at that position. What
// was back-filled before that event stands before it.
func (tx *Tx) PlaceBehind(room RoomNum, pos Position) (Place, error) {
	place := TimelinePlace(pos + 1)
	prefix := regionKey(room, regionTimeline)
	err := tx.scan(bucketEvent, prefix, appendU64(regionKey(room, regionTimeline), uint64(pos)+1), func(key, _ []byte) (bool, error) {
		if len(key) != 8 {
			return false, fmt.Errorf("timeline key of room %d: %w", room, ErrDamaged)
		}
		place.Position = Position(u64(key))
		return false, nil
	})
	return place, err
}

// PutHistory gives an event beside the timeline, p.Num, its place in the past.
func (tx *Tx) PutHistory(room RoomNum, p Place) error {
	if !p.Num.Aside() || !p.BackFilled() {
		return fmt.Errorf("history of room %d: event %d: %w", room, p.Num, ErrExists)
	}
	key := historyKey(room, p)
	if err := tx.put(bucketRoom, key, nil); err != nil {
		return err
	}
	return tx.put(bucketRoom, historyAtKey(room, p.Num), key[5:21])
}

// PastBack calls fn for each event of a room's past that stands before a place,
// newest to oldest, until fn returns false or an error. fn must not store events.
func (tx *Tx) PastBack(room RoomNum, before Place, fn func(Place, *StoredEvent) (bool, error)) error {
	next, ok, err := tx.historyBefore(room, before)
	if err != nil {
		return err
	}
	more := true
	filled := func(down Position) error { // those before timeline events behind a position
		for more && ok && next.Position > down && err == nil {
			if more, err = tx.pastEvent(room, next, fn); more && err == nil {
				next, ok, err = tx.historyBefore(room, next)
			}
		}
		return err
	}
	err = tx.TimelineBack(room, timelineNum(max(before.Position, 1)), func(ev *StoredEvent) (bool, error) {
		if err := filled(ev.Num.Position()); err != nil || !more {
			return false, err
		}
		more, err = fn(TimelinePlace(ev.Num.Position()), ev)
		return more, err
	})
	if err != nil {
		return err
	}
	return filled(0)
}

// Past is PastBack from oldest to newest, beginning with the event at a place or the
// first behind it.
func (tx *Tx) Past(room RoomNum, from Place, fn func(Place, *StoredEvent) (bool, error)) error {
	next, ok, err := tx.historyFrom(room, from)
	if err != nil {
		return err
	}
	return tx.Timeline(room, timelineNum(from.Position), func(ev *StoredEvent) (more bool, err error) {
		pos := ev.Num.Position()
		for ok && next.Position <= pos {
			if more, err := tx.pastEvent(room, next, fn); err != nil || !more {
				return false, err
			}
			next.Num++ // numbers of the same height are odd
			if next, ok, err = tx.historyFrom(room, next); err != nil {
				return false, err
			}
		}
		return fn(TimelinePlace(pos), ev)
	})
}

// pastEvent reads a back-filled event for fn.
func (tx *Tx) pastEvent(room RoomNum, p Place, fn func(Place, *StoredEvent) (bool, error)) (bool, error) {
	ev, err := tx.Event(room, p.Num)
	if err != nil {
		return false, err
	}
	return fn(p, ev)
}

// historyBefore returns the place of the newest back-filled event before another.
func (tx *Tx) historyBefore(room RoomNum, before Place) (p Place, ok bool, err error) {
	err = tx.scanBack(bucketRoom, keyOf(uint32(room), roomHistory), historyKey(room, before), firstHistory(room, &p, &ok))
	return p, ok, err
}

// historyFrom returns the place of the oldest back-filled event at a place or behind
// it.
func (tx *Tx) historyFrom(room RoomNum, from Place) (p Place, ok bool, err error) {
	err = tx.scan(bucketRoom, keyOf(uint32(room), roomHistory), historyKey(room, from), firstHistory(room, &p, &ok))
	return p, ok, err
}

// firstHistory reads the first place that a scan comes by.
func firstHistory(room RoomNum, p *Place, ok *bool) func(key, v []byte) (bool, error) {
	return func(key, _ []byte) (bool, error) {
		if len(key) != 24 {
			return false, fmt.Errorf("history of room %d: %w", room, ErrDamaged)
		}
		*p, *ok = readPlace(key), true
		return false, nil
	}
}

func readPlace(key []byte) Place {
	return Place{Position(u64(key)), height(key[8:]), EventNum(u64(key[16:]))}
}

// height reads a height, which may be negative: its sign bit is turned, so that
// the order of keys is that of heights.
func height(b []byte) int64 { return int64(u64(b) ^ 1<<63) }

func appendHeight(b []byte, height int64) []byte { return appendU64(b, uint64(height)^1<<63) }

func historyKey(room RoomNum, p Place) []byte {
	key := appendU64(keyOf(uint32(room), roomHistory), uint64(p.Position))
	return appendU64(appendHeight(key, p.Height), uint64(p.Num))
}

func historyAtKey(room RoomNum, num EventNum) []byte {
	return appendU64(keyOf(uint32(room), roomHistoryAt), uint64(num))
}

// checkHistory leads each place of the past to an event that has no other, and both kinds
// of its keys to each other.
func checkHistory(c *checker) error {
	err := c.eachOf(bucketRoom, roomHistory, func(num uint32, rest, value []byte) {
		room := RoomNum(num)
		if c.purging(room) {
			return
		}
		if len(rest) != 24 || len(value) > 0 {
			c.faultf("room %d: history %x: %x", room, rest, value)
			return
		}
		p := readPlace(rest)
		if is, ok, err := c.PlaceOf(room, p.Num); !p.Num.Aside() || !ok || is != p || err != nil {
			c.faultf("room %d: event %d of the history at %v has its place at %v: %v", room, p.Num, p, is, err)
		}
		if c.get(bucketEvent, eventKey(room, timelineNum(p.Position))) == nil {
			c.faultf("room %d: history before event %d, which is not in the timeline", room, timelineNum(p.Position))
		}
		ev, err := c.Event(room, p.Num)
		if err != nil {
			c.faultf("room %d: history at %v: %v", room, p, err)
			return
		}
		if ev.Outlier || !ev.Num.Aside() {
			c.faultf("room %d: event %d (%s) of the history has another place or none", room, p.Num, ev.ID)
		}
	})
	if err != nil {
		return err
	}
	return c.eachOf(bucketRoom, roomHistoryAt, func(num uint32, rest, value []byte) {
		room := RoomNum(num)
		if c.purging(room) {
			return
		}
		if len(rest) != 8 || len(value) != 16 || c.get(bucketRoom, historyKey(room, Place{Position(u64(value)), height(value[8:]), EventNum(u64(rest))})) == nil {
			c.faultf("room %d: place %x of event %x, where it is not", room, value, rest)
		}
	})
}
