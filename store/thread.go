package store

import (
	"encoding/binary"
	"fmt"
	"slices"

	"hearth/state/matrix"
)

// A Thread is the events that relate to one by m.thread, added up: what would
// else be found only by a walk over all of them. It stands behind the children of
// its root, in the leaf that the newest of them is written to; the index of a
// room's threads by their newest event costs a reply one leaf more.
//
// Spec: CS Threading.
type Thread struct {
	Root    matrix.EventID // what the children claim; it may not be here
	Latest  Place          // of the newest child
	Replies uint64         // how many children there are
	Locals  []UserNum      // the local users who sent one of them, ascending
}

// threadChild is in the place of the child in the key of a thread among the relations
// of its root: behind all events.
const threadChild = "\xff\xff\xff\xff\xff\xff\xff\xff"

// Thread returns the thread that begins at root, a zero one without replies where
// there is none.
func (tx *Tx) Thread(room RoomNum, root matrix.EventID) (Thread, error) {
	t := Thread{Root: root}
	v := tx.get(bucketRoom, threadKey(room, root))
	if v == nil {
		return t, nil
	}
	err := t.read(v)
	if err != nil {
		return Thread{}, fmt.Errorf("thread at %s: %w", root, err)
	}
	return t, nil
}

// ThreadsBack calls fn for each thread of a room whose newest event stands before a
// place (none: for all), the one with the newest reply first, until fn returns false
// or an error.
func (tx *Tx) ThreadsBack(room RoomNum, before Place, fn func(Thread) (bool, error)) error {
	prefix := keyOf(uint32(room), roomThread)
	var end []byte
	if before != (Place{}) {
		end = before.appendTurn(keyOf(uint32(room), roomThread))
	}
	return tx.scanBack(bucketRoom, prefix, end, func(_, root []byte) (bool, error) {
		t, err := tx.Thread(room, matrix.EventID(root))
		if err != nil {
			return false, err
		}
		return fn(t)
	})
}

// replied adds a child that is new to the thread of its parent.
func (tx *Tx) replied(room RoomNum, root matrix.EventID, rel Relation) error {
	t, err := tx.Thread(room, root)
	if err != nil {
		return err
	}
	was := t
	t.add(tx, rel)
	return tx.moveThread(room, was, t)
}

// unreplied takes a child that was removed out of the thread of its parent. The
// others are not looked at again, but for the newest of them where that is another
// now, and where the child was a local user's: who sees to it that each of a thousand
// replies is redacted must not have us look at a million.
func (tx *Tx) unreplied(room RoomNum, root matrix.EventID, gone Relation) error {
	was, err := tx.Thread(room, root)
	if err != nil {
		return err
	}
	if _, local := slices.BinarySearch(was.Locals, gone.Sender); local || was.Replies == 0 {
		return tx.recountThread(room, root)
	}
	is := was
	is.Replies--
	if gone.Place == was.Latest {
		is.Latest = Place{}
		err = tx.RelationsBack(room, root, gone.Place, func(rel Relation) (bool, error) {
			if rel.Type == threadType {
				is.Latest = rel.Place
			}
			return rel.Type != threadType, nil
		})
		if err != nil {
			return err
		}
	}
	return tx.moveThread(room, was, is)
}

// recountThread finds out anew what the thread at a root is.
func (tx *Tx) recountThread(room RoomNum, root matrix.EventID) error {
	was, err := tx.Thread(room, root)
	if err != nil {
		return err
	}
	is, err := tx.countThread(room, root)
	if err != nil {
		return err
	}
	return tx.moveThread(room, was, is)
}

// countThread adds up the children of a root.
func (tx *Tx) countThread(room RoomNum, root matrix.EventID) (Thread, error) {
	t := Thread{Root: root}
	err := tx.Relations(room, root, Place{}, func(rel Relation) (bool, error) {
		if rel.Type == threadType {
			t.add(tx, rel)
		}
		return true, nil
	})
	return t, err
}

// threadType is the rel_type of the replies in a thread.
const threadType = "m.thread"

// add counts one child.
func (t *Thread) add(tx *Tx, rel Relation) {
	t.Replies++
	if t.Latest.Compare(rel.Place) < 0 {
		t.Latest = rel.Place
	}
	if tx.UserID(rel.Sender).Server() != tx.store.server {
		return
	}
	if i, found := slices.BinarySearch(t.Locals, rel.Sender); !found {
		t.Locals = slices.Insert(slices.Clone(t.Locals), i, rel.Sender)
	}
}

// moveThread writes what a thread has become and moves it in the index.
func (tx *Tx) moveThread(room RoomNum, was, is Thread) error {
	if was.Replies != 0 && was.Latest != is.Latest {
		if err := tx.delete(bucketRoom, threadTurnKey(room, was)); err != nil {
			return err
		}
	}
	record := threadKey(room, is.Root)
	if is.Replies == 0 {
		return tx.delete(bucketRoom, record)
	}
	if was.Latest != is.Latest {
		if err := tx.put(bucketRoom, threadTurnKey(room, is), []byte(is.Root)); err != nil {
			return err
		}
	}
	return tx.put(bucketRoom, record, is.pack())
}

// indexThreads makes the threads of all rooms: the upgrade from format 2.
func (tx *Tx) indexThreads() error {
	return tx.Rooms(func(room RoomNum, _ Head) (bool, error) {
		latest := make(map[string]EventNum) // by what relations begin with
		prefix := keyOf(uint32(room), roomRelation)
		err := tx.scan(bucketRoom, prefix, nil, func(rest, v []byte) (bool, error) {
			r := reader{b: v}
			_ = r.uvarint()
			if place, ok := readTurn(rest[min(8, len(rest)):]); ok && string(r.b) == threadType {
				latest[string(rest[:8])] = place.event()
			}
			return true, nil
		})
		for _, num := range latest {
			if err != nil {
				break
			}
			err = tx.indexThread(room, num)
		}
		return err == nil, err
	})
}

// indexThread makes the thread that an event replies to.
func (tx *Tx) indexThread(room RoomNum, reply EventNum) error {
	ev, err := tx.Event(room, reply)
	if err != nil {
		return err
	}
	relation, ok := ev.Relation()
	if !ok {
		return fmt.Errorf("thread of %s: %w", ev.ID, ErrDamaged)
	}
	return tx.recountThread(room, relation.Event)
}

func (t *Thread) pack() []byte {
	v := binary.AppendUvarint(nil, uint64(t.Latest.turn()))
	if t.Latest.BackFilled() {
		v = binary.AppendVarint(v, t.Latest.Height)
		v = binary.AppendUvarint(v, uint64(t.Latest.Num))
	}
	v = binary.AppendUvarint(v, t.Replies)
	for _, user := range t.Locals {
		v = binary.AppendUvarint(v, uint64(user))
	}
	return v
}

func (t *Thread) read(v []byte) error {
	r := reader{b: v}
	turn := EventNum(r.uvarint())
	if t.Latest = TimelinePlace(turn.Position()); turn.Aside() {
		t.Latest = Place{(turn + 1).Position(), r.varint(), EventNum(r.uvarint())}
	}
	t.Replies = r.uvarint()
	for len(r.b) > 0 {
		t.Locals = append(t.Locals, UserNum(r.uvarint()))
	}
	return r.err
}

func (t *Thread) equal(other Thread) bool {
	return t.Root == other.Root && t.Latest == other.Latest && t.Replies == other.Replies && slices.Equal(t.Locals, other.Locals)
}

// threadKey is where the thread at a root stands.
func threadKey(room RoomNum, root matrix.EventID) []byte {
	return append(relationPrefix(room, root), threadChild...)
}

// threadTurnKey is where a thread stands in the index. The hash keeps apart threads
// whose newest reply is the same, which no event can say but a record might.
func threadTurnKey(room RoomNum, t Thread) []byte {
	k := t.Latest.appendTurn(keyOf(uint32(room), roomThread))
	return append(k, eventIDKey(t.Root)[:8]...)
}

// checkThreads holds each thread to the replies in it, and leads the index to the
// threads and back.
func checkThreads(c *checker) error {
	indexed := make(map[RoomNum]int)
	err := c.eachOf(bucketRoom, roomThread, func(num uint32, rest, value []byte) {
		room, root := RoomNum(num), matrix.EventID(value)
		indexed[room]++
		is, err := c.countThread(room, root)
		if err != nil {
			c.faultf("room %d: %v", room, err)
			return
		}
		t, err := c.Thread(room, root)
		if err != nil || !t.equal(is) {
			c.faultf("room %d: thread %+v, its replies say %+v: %v", room, t, is, err)
		}
		if key := threadTurnKey(room, t); string(key[5:]) != string(rest) {
			c.faultf("room %d: thread at %s has key %x, not %x", room, root, rest, key[5:])
		}
	})
	if err != nil {
		return err
	}
	err = c.eachOf(bucketRoom, roomRelation, func(num uint32, rest, _ []byte) {
		if len(rest) == 16 && string(rest[8:]) == threadChild {
			indexed[RoomNum(num)]--
		}
	})
	for room, n := range indexed {
		if n != 0 {
			c.faultf("room %d: the index has %d threads more than there are", room, n)
		}
	}
	return err
}
