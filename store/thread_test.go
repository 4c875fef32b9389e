package store

import (
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
func threads(t *testing.T, s *Store, room RoomNum, before EventNum) (list []Thread) {
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
	first := Thread{Root: roots[0], Latest: replies[1], Replies: 2, Locals: []UserNum{b}}
	second := Thread{Root: roots[1], Latest: replies[2], Replies: 1, Locals: []UserNum{a}}
	if got := threads(t, s, r.num, 0); !sameThreads(got, second, first) {
		t.Errorf("threads %+v, want %+v and %+v", got, second, first)
	}
	if got := threads(t, s, r.num, replies[2]); !sameThreads(got, first) {
		t.Errorf("threads before the newest reply %+v, want %+v", got, first)
	}
	// A reply that goes takes the thread back to where it was, the last one away.
	update(t, s, func(tx *Tx) error { return tx.DeleteRelation(r.num, roots[1], replies[2]) })
	update(t, s, func(tx *Tx) error { return tx.DeleteRelation(r.num, roots[0], replies[1]) })
	first.Latest, first.Replies = replies[0], 1
	if got := threads(t, s, r.num, 0); !sameThreads(got, first) {
		t.Errorf("after two redactions %+v, want %+v", got, first)
	}
	view(t, s, func(tx *Tx) error {
		count := 0
		err := tx.RelationsBack(r.num, roots[0], 0, func(Relation) (bool, error) { count++; return true, nil })
		if count != 1 {
			t.Errorf("%d children, want 1", count)
		}
		return err
	})
	checkStore(t, s)
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
			return tx.Relations(r.num, roots[0], 0, func(rel Relation) (bool, error) {
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
	want := threads(t, s, r.num, 0)
	update(t, s, func(tx *Tx) error {
		for _, root := range roots {
			if err := tx.delete(bucketRoom, relationKey(r.num, root, threadChild)); err != nil {
				return err
			}
		}
		_, err := tx.deleteAll(bucketRoom, keyOf(uint32(r.num), roomThread), 10)
		return err
	})
	if got := threads(t, s, r.num, 0); len(got) != 0 {
		t.Fatalf("still %+v", got)
	}
	closeStore(t, s)
	setFormat(t, dir, 2)
	s = openDir(t, dir)
	if got := threads(t, s, r.num, 0); len(want) != 2 || !sameThreads(got, want...) {
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
			return tx.put(bucketRoom, relationKey(r.num, root, threadChild), thread.pack())
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
