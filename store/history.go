package store

import (
	"encoding/binary"
	"fmt"
)

// A HistoryPlace is how far before the first event of our timeline a
// back-filled event stands: 1 is right before it.
type HistoryPlace uint64

// PutHistory puts an event that was fetched from another server at a place of
// the room's back-filled history.
func (tx *Tx) PutHistory(room RoomNum, place HistoryPlace, num EventNum) error {
	return tx.put(bucketRoom, historyKey(room, place), binary.AppendUvarint(nil, uint64(num)))
}

// HistoryBack calls fn for each event of the back-filled history from a place
// on, newest to oldest, until fn returns false or an error.
func (tx *Tx) HistoryBack(room RoomNum, from HistoryPlace, fn func(HistoryPlace, EventNum) (bool, error)) error {
	prefix := keyOf(uint32(room), roomHistory)
	return tx.scanBack(bucketRoom, prefix, after(historyKey(room, from)), eachHistory(room, fn))
}

// History is HistoryBack from oldest to newest.
func (tx *Tx) History(room RoomNum, from HistoryPlace, fn func(HistoryPlace, EventNum) (bool, error)) error {
	prefix := keyOf(uint32(room), roomHistory)
	return tx.scan(bucketRoom, prefix, historyKey(room, from), eachHistory(room, fn))
}

// NextHistoryPlace returns the place behind the oldest back-filled event.
func (tx *Tx) NextHistoryPlace(room RoomNum) (HistoryPlace, error) {
	next := HistoryPlace(1)
	prefix := keyOf(uint32(room), roomHistory)
	err := tx.scan(bucketRoom, prefix, nil, eachHistory(room, func(place HistoryPlace, _ EventNum) (bool, error) {
		next = place + 1
		return false, nil
	}))
	return next, err
}

func eachHistory(room RoomNum, fn func(HistoryPlace, EventNum) (bool, error)) func(key, v []byte) (bool, error) {
	return func(key, v []byte) (bool, error) {
		r := reader{b: v}
		num := EventNum(r.uvarint())
		if len(key) != 8 || r.err != nil {
			return false, fmt.Errorf("history of room %d: %w", room, ErrDamaged)
		}
		return fn(HistoryPlace(^u64(key)), num)
	}
}

// historyKey counts places down, so that key order is the order of time.
func historyKey(room RoomNum, place HistoryPlace) []byte {
	return appendU64(keyOf(uint32(room), roomHistory), ^uint64(place))
}
