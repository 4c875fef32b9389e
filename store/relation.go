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
}

// PutRelation stores that rel.Child relates to parent, which may be an event
// that is not here, or none at all: it is what the child claims.
func (tx *Tx) PutRelation(room RoomNum, parent matrix.EventID, rel Relation) error {
	key := relationKey(room, parent, rel.Child)
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
	key := relationKey(room, parent, child)
	v := tx.get(bucketRoom, key)
	if v == nil {
		return nil
	}
	r := reader{b: v}
	gone := Relation{Child: child, Sender: UserNum(r.uvarint()), Type: string(r.b)}
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

// Relations calls fn for each child of parent from one on, oldest to newest,
// until fn returns false or an error.
func (tx *Tx) Relations(room RoomNum, parent matrix.EventID, from EventNum, fn func(Relation) (bool, error)) error {
	prefix := relationPrefix(room, parent)
	return tx.scan(bucketRoom, prefix, relationKey(room, parent, from), eachRelation(room, fn))
}

// RelationsBack is Relations from newest to oldest, beginning with the newest
// child that is older than before (0: with the newest of all).
func (tx *Tx) RelationsBack(room RoomNum, parent matrix.EventID, before EventNum, fn func(Relation) (bool, error)) error {
	var end []byte
	if before != 0 {
		end = relationKey(room, parent, before)
	}
	return tx.scanBack(bucketRoom, relationPrefix(room, parent), end, eachRelation(room, fn))
}

func eachRelation(room RoomNum, fn func(Relation) (bool, error)) func(key, v []byte) (bool, error) {
	return func(key, v []byte) (bool, error) {
		if len(key) == 8 && EventNum(u64(key)) == threadChild {
			return true, nil // no event, but the thread
		}
		r := reader{b: v}
		rel := Relation{Sender: UserNum(r.uvarint()), Type: string(r.b)}
		if len(key) != 8 || r.err != nil {
			return false, fmt.Errorf("relation in room %d: %w", room, ErrDamaged)
		}
		rel.Child = EventNum(u64(key))
		return fn(rel)
	}
}

// relationPrefix begins the keys of a parent's children. Eight bytes of hash
// do: who finds two parents with the same mixes up only relations of his own.
func relationPrefix(room RoomNum, parent matrix.EventID) []byte {
	return append(keyOf(uint32(room), roomRelation), eventIDKey(parent)[:8]...)
}

func relationKey(room RoomNum, parent matrix.EventID, child EventNum) []byte {
	return appendU64(relationPrefix(room, parent), uint64(child))
}
