package store

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"hearth/state/matrix"
)

// A Relation is what one event, the child, says of another, its parent.
// Specification: client-server API, "Forming relationships between events".
type Relation struct {
	Child  EventNum
	Sender UserNum // who sent the child
	Type   string  // rel_type
	Place  Place   // of the child in the room's past, which puts the children of a parent in order
}

// PutRelation stores that rel.Child, which has its place in the past, relates to
// parent, which may be an event that is not here, or none at all: it is what the child
// claims. What rel says of the place does not count.
func (tx *Tx) PutRelation(room RoomNum, parent matrix.EventID, rel Relation) error {
	place, ok, err := tx.PlaceOf(room, rel.Child)
	if err == nil && !ok {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("relation of event %d in room %d: %w", rel.Child, room, err)
	}
	rel.Place = place
	key := relationKey(room, parent, place)
	known := tx.get(bucketRoom, key) != nil
	v := binary.AppendUvarint(nil, uint64(rel.Sender))
	if err := tx.put(bucketRoom, key, append(v, rel.Type...)); err != nil {
		return err
	}
	switch {
	case known:
		return tx.recountThread(room, parent)
	case rel.Type == threadType:
		return tx.replied(room, parent, rel)
	}
	return nil
}

// DeleteRelation removes what PutRelation stored, as when child is redacted.
func (tx *Tx) DeleteRelation(room RoomNum, parent matrix.EventID, child EventNum) error {
	place, ok, err := tx.PlaceOf(room, child)
	if err != nil || !ok {
		return err
	}
	key := relationKey(room, parent, place)
	v := tx.get(bucketRoom, key)
	if v == nil {
		return nil
	}
	r := reader{b: v}
	gone := Relation{Child: child, Sender: UserNum(r.uvarint()), Type: string(r.b), Place: place}
	if err := tx.delete(bucketRoom, key); err != nil || gone.Type != threadType {
		return err
	}
	return tx.unreplied(room, parent, gone)
}

// HasRelations says whether any event relates to parent.
func (tx *Tx) HasRelations(room RoomNum, parent matrix.EventID) bool {
	prefix := relationPrefix(room, parent)
	key, _ := tx.cursor(bucketRoom).Seek(prefix)
	return bytes.HasPrefix(key, prefix)
}

// Relations calls fn for each child of parent that stands at a place or behind it,
// oldest to newest, until fn returns false or an error.
func (tx *Tx) Relations(room RoomNum, parent matrix.EventID, from Place, fn func(Relation) (bool, error)) error {
	prefix := relationPrefix(room, parent)
	var begin []byte
	if from != (Place{}) {
		begin = relationKey(room, parent, from)
	}
	return tx.scan(bucketRoom, prefix, begin, eachRelation(room, fn))
}

// RelationsBack is Relations from newest to oldest, beginning with the newest
// child that stands before a place (none: with the newest of all).
func (tx *Tx) RelationsBack(room RoomNum, parent matrix.EventID, before Place, fn func(Relation) (bool, error)) error {
	var end []byte
	if before != (Place{}) {
		end = relationKey(room, parent, before)
	}
	return tx.scanBack(bucketRoom, relationPrefix(room, parent), end, eachRelation(room, fn))
}

func eachRelation(room RoomNum, fn func(Relation) (bool, error)) func(key, v []byte) (bool, error) {
	return func(key, v []byte) (bool, error) {
		if string(key) == threadChild {
			return true, nil // no event, but the thread
		}
		place, ok := readTurn(key)
		r := reader{b: v}
		rel := Relation{Child: place.event(), Sender: UserNum(r.uvarint()), Type: string(r.b), Place: place}
		if !ok || r.err != nil {
			return false, fmt.Errorf("relation in room %d: %w", room, ErrDamaged)
		}
		return fn(rel)
	}
}

// placeRelations takes the back-filled relations of all rooms to the places of their
// children, and counts their threads anew: the upgrade from format 4, where they stood by
// their numbers, so that they were the newest. What is of the timeline stays as it is.
func (tx *Tx) placeRelations() error {
	return tx.Rooms(func(room RoomNum, _ Head) (bool, error) {
		moved := make(map[string][]byte) // values by old keys
		prefix := keyOf(uint32(room), roomRelation)
		err := tx.scan(bucketRoom, prefix, nil, func(rest, v []byte) (bool, error) {
			if len(rest) == 16 && EventNum(u64(rest[8:])).Aside() && string(rest[8:]) != threadChild {
				moved[string(rest)] = bytes.Clone(v)
			}
			return true, nil
		})
		threads := make(map[string]EventNum) // by what their relations begin with: one of the replies
		for rest, v := range moved {
			if err == nil {
				err = tx.placeRelation(room, rest, v)
			}
			r := reader{b: v}
			if _ = r.uvarint(); string(r.b) == threadType {
				threads[rest[:8]] = EventNum(u64([]byte(rest[8:])))
			}
		}
		for parent, reply := range threads {
			if err == nil {
				err = tx.recountOld(room, parent, reply)
			}
		}
		return err == nil, err
	})
}

// placeRelation moves a back-filled relation of format 4.
func (tx *Tx) placeRelation(room RoomNum, rest string, v []byte) error {
	prefix := append(keyOf(uint32(room), roomRelation), rest[:8]...)
	if err := tx.delete(bucketRoom, append(bytes.Clone(prefix), rest[8:]...)); err != nil {
		return err
	}
	place, ok, err := tx.PlaceOf(room, EventNum(u64([]byte(rest[8:]))))
	if err != nil || !ok {
		return err
	}
	return tx.put(bucketRoom, place.appendTurn(prefix), v)
}

// recountOld makes a thread of format 4 anew, whose newest reply is named by its number.
func (tx *Tx) recountOld(room RoomNum, parent string, reply EventNum) error {
	record := append(append(keyOf(uint32(room), roomRelation), parent...), threadChild...)
	r := reader{b: tx.get(bucketRoom, record)}
	turn := appendU64(keyOf(uint32(room), roomThread), r.uvarint())
	if err := tx.delete(bucketRoom, append(turn, parent...)); err != nil {
		return err
	}
	if err := tx.delete(bucketRoom, record); err != nil {
		return err
	}
	return tx.indexThread(room, reply)
}

// relationPrefix begins the keys of a parent's children. Eight bytes of hash
// do: who finds two parents with the same mixes up only relations of his own.
func relationPrefix(room RoomNum, parent matrix.EventID) []byte {
	return append(keyOf(uint32(room), roomRelation), eventIDKey(parent)[:8]...)
}

func relationKey(room RoomNum, parent matrix.EventID, child Place) []byte {
	return child.appendTurn(relationPrefix(room, parent))
}
