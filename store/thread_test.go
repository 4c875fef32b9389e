package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"hearth/state/matrix"
)

// threadRoom is a room with two roots and replies to them: two to the first by bob,
// then one to the second by alice.
func threadRoom(t *testing.T, s *Store) (r *testRoom, roots []matrix.EventID, replies []EventNum) {
	r = putTestRoom(t, s, "12", alice, bob)
	update(t, s, func(tx *Tx) error {
		roots, replies = nil, nil
		for range 2 {
			num, err := r.send(tx, alice, `{"body":"root"}`, TxnID{})
			if err != nil {
				return err
			}
			id, err := tx.EventID(r.num, num)
			if err != nil {
				return err
			}
			roots = append(roots, id)
		}
		for _, reply := range []struct {
			root int
			user matrix.UserID
		}{{0, bob}, {0, bob}, {1, alice}} {
			content := fmt.Sprintf(`{"body":"reply","m.relates_to":{"event_id":%q,"rel_type":"m.thread"}}`, roots[reply.root])
			num, err := r.send(tx, reply.user, content, TxnID{})
			if err != nil {
				return err
			}
			replies = append(replies, num)
			rel := Relation{Child: num, Sender: tx.UserNum(reply.user), Type: "m.thread"}
			if err := tx.PutRelation(r.num, roots[reply.root], rel); err != nil {
				return err
			}
		}
		return nil
	})
	return r, roots, replies
}

// threads lists a room's threads.
func threads(t *testing.T, s *Store, room RoomNum, before Place) (list []Thread) {
	t.Helper()
	view(t, s, func(tx *Tx) error {
		return tx.ThreadsBack(room, before, func(thread Thread) (bool, error) {
			list = append(list, thread)
			return true, nil
		})
	})
	return list
}

func sameThreads(got []Thread, want ...Thread) bool {
	return slices.EqualFunc(got, want, func(a, b Thread) bool { return a.equal(b) })
}

func TestThreads(t *testing.T) {
	s := openTest(t)
	r, roots, replies := threadRoom(t, s)
	var a, b UserNum
	view(t, s, func(tx *Tx) error { a, b = tx.UserNum(alice), tx.UserNum(bob); return nil })
	first := Thread{Root: roots[0], Latest: TimelinePlace(replies[1].Position()), Replies: 2, Locals: []UserNum{b}}
	second := Thread{Root: roots[1], Latest: TimelinePlace(replies[2].Position()), Replies: 1, Locals: []UserNum{a}}
	if got := threads(t, s, r.num, Place{}); !sameThreads(got, second, first) {
		t.Errorf("threads %+v, want %+v and %+v", got, second, first)
	}
	if got := threads(t, s, r.num, TimelinePlace(replies[2].Position())); !sameThreads(got, first) {
		t.Errorf("threads before the newest reply %+v, want %+v", got, first)
	}
	// A reply that goes takes the thread back to where it was, the last one away.
	update(t, s, func(tx *Tx) error { return tx.DeleteRelation(r.num, roots[1], replies[2]) })
	update(t, s, func(tx *Tx) error { return tx.DeleteRelation(r.num, roots[0], replies[1]) })
	first.Latest, first.Replies = TimelinePlace(replies[0].Position()), 1
	if got := threads(t, s, r.num, Place{}); !sameThreads(got, first) {
		t.Errorf("after two redactions %+v, want %+v", got, first)
	}
	view(t, s, func(tx *Tx) error {
		count := 0
		err := tx.RelationsBack(r.num, roots[0], Place{}, func(Relation) (bool, error) { count++; return true, nil })
		if count != 1 {
			t.Errorf("%d children, want 1", count)
		}
		return err
	})
	checkStore(t, s)
}

// backfill puts a reply into a room's past, before its timeline.
func (r *testRoom) backfill(tx *Tx, user matrix.UserID, root matrix.EventID, height int64) (EventNum, error) {
	head, err := tx.Head(r.num)
	if err != nil {
		return 0, err
	}
	content := fmt.Sprintf(`{"body":"%d","m.relates_to":{"event_id":%q,"rel_type":"m.thread"}}`, height, root)
	ev, err := r.build(tx, head, matrix.Draft{Sender: user, Type: "m.room.message", Content: []byte(content)})
	if err != nil {
		return 0, err
	}
	num, err := tx.NextEventNum(true)
	if err != nil {
		return 0, err
	}
	return num, errors.Join(
		tx.PutEvent(r.num, num, NewEvent{Event: ev, Before: head.Current}),
		tx.PutHistory(r.num, Place{head.First.Position(), height, num}))
}

// putReply says that an event is a reply to a root.
func (r *testRoom) putReply(tx *Tx, user matrix.UserID, root matrix.EventID, child EventNum) error {
	return tx.PutRelation(r.num, root, Relation{Child: child, Sender: tx.UserNum(user), Type: threadType})
}

// Replies that are back-filled later than others stand before them, in whatever order
// they come; a file of format 4 has them behind.
func TestThreadsOfThePast(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	r, roots, replies := threadRoom(t, s)
	const past = matrix.EventID("$past") // the root of a thread that is all in the past
	var old []EventNum                   // a reply to the first root, and three in the past
	update(t, s, func(tx *Tx) error {
		old = nil
		for i, height := range []int64{-1, -2, -9, -3} {
			root := past
			if i == 0 {
				root = roots[0]
			}
			num, err := r.backfill(tx, bob, root, height)
			if err != nil {
				return err
			}
			if err := r.putReply(tx, bob, root, num); err != nil {
				return err
			}
			old = append(old, num)
		}
		return nil
	})
	children := func(root matrix.EventID) (nums []EventNum) {
		view(t, s, func(tx *Tx) error {
			return tx.Relations(r.num, root, Place{}, func(rel Relation) (bool, error) {
				nums = append(nums, rel.Child)
				return true, nil
			})
		})
		return nums
	}
	look := func() {
		t.Helper()
		list := threads(t, s, r.num, Place{})
		if len(list) != 3 || list[0].Root != roots[1] || list[1].Root != roots[0] || list[2].Root != past ||
			list[1].Latest.event() != replies[1] || list[1].Replies != 3 || list[2].Latest.event() != old[1] || list[2].Replies != 3 {
			t.Errorf("the threads are %+v", list)
		}
		if got := children(roots[0]); !slices.Equal(got, []EventNum{old[0], replies[0], replies[1]}) {
			t.Errorf("the replies to the first are %d", got)
		}
		if got := children(past); !slices.Equal(got, []EventNum{old[2], old[3], old[1]}) {
			t.Errorf("the replies in the past are %d", got)
		}
		checkStore(t, s)
	}
	look()
	update(t, s, func(tx *Tx) error { return tx.DeleteRelation(r.num, past, old[1]) })
	if list := threads(t, s, r.num, Place{}); len(list) != 3 || list[2].Latest.event() != old[3] || list[2].Replies != 2 {
		t.Errorf("without the newest: %+v", list)
	}
	if before := threads(t, s, r.num, Place{1, -100, 1}); len(before) != 0 {
		t.Errorf("before all: %+v", before)
	}
	update(t, s, func(tx *Tx) error { return r.putReply(tx, bob, past, old[1]) })

	update(t, s, func(tx *Tx) error { return tx.unplaceRelations(r.num) })
	closeStore(t, s)
	setFormat(t, dir, 4)
	s = openDir(t, dir)
	look()
	closeStore(t, s)
}

// unplaceRelations makes the relations and threads of a room what they were in format 4:
// all named by numbers.
func (tx *Tx) unplaceRelations(room RoomNum) error {
	prefix := keyOf(uint32(room), roomRelation)
	keys := make(map[string][]byte)
	err := tx.scan(bucketRoom, prefix, nil, func(rest, v []byte) (bool, error) {
		keys[string(rest)] = slices.Clone(v)
		return true, nil
	})
	newest := make(map[string]uint64)
	for rest, v := range keys {
		num := []byte(rest[len(rest)-8:])
		if rest[8:] != threadChild {
			newest[rest[:8]] = max(newest[rest[:8]], u64(num))
		}
		err = errors.Join(err,
			tx.delete(bucketRoom, append(slices.Clone(prefix), rest...)),
			tx.put(bucketRoom, append(append(slices.Clone(prefix), rest[:8]...), num...), v))
	}
	var threads []Thread
	err = errors.Join(err, tx.ThreadsBack(room, Place{}, func(t Thread) (bool, error) {
		threads = append(threads, t)
		return true, nil
	}))
	for _, t := range threads {
		parent := string(eventIDKey(t.Root)[:8])
		old := appendU64(keyOf(uint32(room), roomThread), newest[parent])
		record := binary.AppendUvarint(binary.AppendUvarint(nil, newest[parent]), t.Replies)
		for _, user := range t.Locals {
			record = binary.AppendUvarint(record, uint64(user))
		}
		err = errors.Join(err,
			tx.delete(bucketRoom, threadTurnKey(room, t)), tx.put(bucketRoom, append(old, parent...), []byte(t.Root)),
			tx.put(bucketRoom, append(append(slices.Clone(prefix), parent...), threadChild...), record))
	}
	return err
}

// Whatever goes out of a thread, what is kept of it is what a count of the rest says.
func TestThreadsAreTheirReplies(t *testing.T) {
	for seed := range uint64(20) {
		s := openTest(t)
		r, roots, _ := threadRoom(t, s)
		rnd := rand.New(rand.NewPCG(seed, 1))
		update(t, s, func(tx *Tx) error {
			for range 40 {
				num, err := r.send(tx, bob, `{}`, TxnID{})
				if err != nil {
					return err
				}
				sender, err := tx.PutUserNum([]matrix.UserID{alice, bob, "@eve:far.example", "@mallory:far.example"}[rnd.IntN(4)])
				if err != nil {
					return err
				}
				rel := Relation{Child: num, Sender: sender, Type: []string{threadType, threadType, "m.annotation"}[rnd.IntN(3)]}
				if err := tx.PutRelation(r.num, roots[0], rel); err != nil {
					return err
				}
			}
			return nil
		})
		var children []EventNum
		view(t, s, func(tx *Tx) error {
			return tx.Relations(r.num, roots[0], Place{}, func(rel Relation) (bool, error) {
				children = append(children, rel.Child)
				return true, nil
			})
		})
		rnd.Shuffle(len(children), func(i, j int) { children[i], children[j] = children[j], children[i] })
		for _, child := range append(children, children[0]) { // one goes twice
			update(t, s, func(tx *Tx) error {
				if err := tx.DeleteRelation(r.num, roots[0], child); err != nil {
					return err
				}
				is, err := tx.Thread(r.num, roots[0])
				want, countErr := tx.countThread(r.num, roots[0])
				if !is.equal(want) {
					t.Errorf("seed %d: thread %+v, its replies say %+v", seed, is, want)
				}
				return errors.Join(err, countErr)
			})
		}
	}
}

// Data from before threads were kept get them when they are opened.
func TestUpgradeMakesThreads(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	r, roots, _ := threadRoom(t, s)
	want := threads(t, s, r.num, Place{})
	update(t, s, func(tx *Tx) error {
		for _, root := range roots {
			if err := tx.delete(bucketRoom, threadKey(r.num, root)); err != nil {
				return err
			}
		}
		_, err := tx.deleteAll(bucketRoom, keyOf(uint32(r.num), roomThread), 10)
		return err
	})
	if got := threads(t, s, r.num, Place{}); len(got) != 0 {
		t.Fatalf("still %+v", got)
	}
	closeStore(t, s)
	setFormat(t, dir, 2)
	s = openDir(t, dir)
	if got := threads(t, s, r.num, Place{}); len(want) != 2 || !sameThreads(got, want...) {
		t.Errorf("the upgrade made %+v, want %+v", got, want)
	}
	checkStore(t, s)
	closeStore(t, s)
}

// Check finds threads that are not what the replies say.
func TestCheckFindsThreads(t *testing.T) {
	for want, damage := range map[string]func(*Tx, *testRoom, matrix.EventID) error{
		"its replies say": func(tx *Tx, r *testRoom, root matrix.EventID) error {
			thread, err := tx.Thread(r.num, root)
			thread.Replies++
			if err != nil {
				return err
			}
			return tx.put(bucketRoom, threadKey(r.num, root), thread.pack())
		},
		"threads more": func(tx *Tx, r *testRoom, _ matrix.EventID) error {
			_, err := tx.deleteAll(bucketRoom, keyOf(uint32(r.num), roomThread), 1)
			return err
		},
	} {
		s := openDir(t, t.TempDir())
		r, roots, _ := threadRoom(t, s)
		update(t, s, func(tx *Tx) error { return damage(tx, r, roots[0]) })
		var faults []string
		if err := s.Check(t.Context(), func(fault string) { faults = append(faults, fault) }); err != nil {
			t.Error(err)
		}
		if len(faults) != 1 || !strings.Contains(faults[0], want) {
			t.Errorf("found %q, want one that says %q", faults, want)
		}
		closeStore(t, s)
	}
}
