package store

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// A block affirms all its words and hardly any other.
func TestWordBlockFilter(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 60, 500, 3000} {
		words := make(map[uint64]struct{})
		for range n {
			words[random.Uint64()] = struct{}{}
		}
		b := NewWordBlock(2, 4, words)
		for word := range words {
			if !b.MayHave(word) {
				t.Fatalf("%d words: %x is denied", n, word)
			}
		}
		wrong := 0
		for range 10_000 {
			if b.MayHave(random.Uint64()) {
				wrong++
			}
		}
		if wrong > 250 || n == 0 && wrong > 0 {
			t.Errorf("%d words: %d of 10000 others are affirmed", n, wrong)
		}
	}
}

func TestWordBlocks(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "12", alice, bob)
	var nums []EventNum
	update(t, s, func(tx *Tx) error {
		nums = nil
		for range 6 {
			num, err := r.send(tx, alice, `{"body":"word"}`, TxnID{})
			if err != nil {
				return err
			}
			nums = append(nums, num)
		}
		return nil
	})
	words := map[uint64]struct{}{7: {}}
	update(t, s, func(tx *Tx) error {
		for _, b := range []WordBlock{
			NewWordBlock(nums[0], nums[1], words), NewWordBlock(nums[3], nums[4], words),
			NewWordBlock(nums[1], nums[2], words), NewWordBlock(nums[2], nums[5], words), // these overlap with the others
		} {
			if err := tx.PutWordBlock(r.num, b); err != nil {
				return err
			}
		}
		return nil
	})
	want := func(before, first EventNum) {
		t.Helper()
		view(t, s, func(tx *Tx) error {
			b, ok, err := tx.WordBlockBefore(r.num, before)
			if ok != (first != 0) || ok && (b.First != first || !b.MayHave(7)) {
				t.Errorf("before %d: %v %+v, want one from %d", before, ok, b, first)
			}
			return err
		})
	}
	want(nums[5], nums[3])
	want(nums[4], nums[0])
	want(nums[1], 0)
	checkStore(t, s)
	// What is redacted takes its block along.
	update(t, s, func(tx *Tx) error { return tx.Redact(r.num, nums[3], nums[5]) })
	want(nums[5], nums[0])
	update(t, s, func(tx *Tx) error { return tx.Redact(r.num, nums[2], nums[5]) }) // lies in none
	want(nums[5], nums[0])
	view(t, s, func(tx *Tx) error {
		var back []EventNum
		err := tx.TimelineNumsBack(r.num, nums[4], func(num EventNum) bool {
			back = append(back, num)
			return len(back) < 3
		})
		if len(back) != 3 || back[0] != nums[3] || back[2] != nums[1] {
			t.Errorf("back from %d: %d", nums[4], back)
		}
		return err
	})
	checkStore(t, s)
}

func TestCheckFindsWords(t *testing.T) {
	for want, damage := range map[string]func(*Tx, *testRoom, Head) error{
		"not in the timeline": func(tx *Tx, r *testRoom, h Head) error {
			return tx.PutWordBlock(r.num, NewWordBlock(h.First, h.Latest+2, nil))
		},
		"those before end": func(tx *Tx, r *testRoom, h Head) error {
			b := NewWordBlock(h.First, h.Latest, nil)
			if err := tx.PutWordBlock(r.num, b); err != nil {
				return err
			}
			return tx.put(bucketRoom, wordBlockKey(r.num, h.First), []byte{byte(h.First)})
		},
		"words at": func(tx *Tx, r *testRoom, h Head) error {
			return tx.put(bucketRoom, wordBlockKey(r.num, h.Latest), nil)
		},
	} {
		s := openDir(t, t.TempDir())
		r := putTestRoom(t, s, "12", alice, bob)
		update(t, s, func(tx *Tx) error {
			h, err := tx.Head(r.num)
			if err != nil {
				return err
			}
			return damage(tx, r, h)
		})
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
