package store

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"hearth/state/matrix"
)

// citing returns what cites an event, the newest first.
func citing(t *testing.T, tx *Tx, room RoomNum, cited EventNum) (nums []EventNum) {
	t.Helper()
	for below := EventNum(0); ; {
		num, ok, err := tx.CitedBy(room, cited, below)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return nums
		}
		nums, below = append(nums, num), num
	}
}

// The index has what state events cite of state, but for the create event,
// rejected events and messages, which the fixture has cite the event before.
func TestCitations(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "11", alice)
	var topic, name EventNum
	update(t, s, func(tx *Tx) (err error) {
		if topic, err = r.putState(tx, alice, "m.room.topic", "", `{"topic":"a"}`); err != nil {
			return err
		}
		if name, err = r.putState(tx, alice, "m.room.name", "", `{"name":"a"}`); err != nil {
			return err
		}
		_, err = r.send(tx, alice, `{"body":"x"}`, TxnID{})
		return err
	})
	update(t, s, func(tx *Tx) error {
		head, err := tx.Head(r.num)
		if err != nil {
			return err
		}
		head.Extremities = []EventNum{topic}
		late, err := r.build(tx, head, matrix.Draft{Sender: alice, Type: "m.room.name", StateKey: new(string), Content: []byte(`{}`)})
		if err != nil {
			return err
		}
		num, err := tx.NextEventNum(true)
		if err != nil {
			return err
		}
		slot, _ := tx.Slot(r.num, "m.room.name", "")
		return tx.PutEvent(r.num, num, NewEvent{Event: late, Slot: slot, HasSlot: true, Rejected: true})
	})
	view(t, s, func(tx *Tx) error {
		if got := citing(t, tx, r.num, topic); !slices.Equal(got, []EventNum{name}) {
			t.Errorf("the topic is cited by %d, want the name %d", got, name)
		}
		if got := citing(t, tx, r.num, name); len(got) > 0 {
			t.Errorf("the name is cited by %d", got)
		}
		head, err := tx.Head(r.num)
		if err != nil {
			return err
		}
		if got := citing(t, tx, r.num, head.First); len(got) > 0 {
			t.Errorf("the create event is cited by %d", got)
		}
		return nil
	})
	checkStore(t, s)
}

// Data from before the index get it when they are opened.
func TestUpgradeMakesCitations(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	r := putTestRoom(t, s, "12", alice, bob)
	prefix := keyOf(uint32(r.num), stateCitation)
	entries := func(s *Store) (keys [][]byte) {
		view(t, s, func(tx *Tx) error {
			return tx.scan(bucketState, prefix, nil, func(key, _ []byte) (bool, error) {
				keys = append(keys, bytes.Clone(key))
				return true, nil
			})
		})
		return keys
	}
	want := entries(s)
	update(t, s, func(tx *Tx) error {
		_, err := tx.deleteAll(bucketState, prefix, len(want))
		return err
	})
	closeStore(t, s)
	setFormat(t, dir, 1)
	s = openDir(t, dir)
	if got := entries(s); len(want) == 0 || !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("the upgrade made %x, want %x", got, want)
	}
	checkStore(t, s)
	closeStore(t, s)
}

// Check finds what the index has too much and too little.
func TestCheckFindsCitations(t *testing.T) {
	for want, damage := range map[string]func(tx *Tx, room RoomNum) error{
		"without an entry": func(tx *Tx, room RoomNum) error {
			_, err := tx.deleteAll(bucketState, keyOf(uint32(room), stateCitation), 1)
			return err
		},
		"does not cite": func(tx *Tx, room RoomNum) error {
			head, err := tx.Head(room)
			if err != nil {
				return err
			}
			return tx.put(bucketState, citationKey(room, head.First, head.First), nil)
		},
	} {
		s := openDir(t, t.TempDir())
		r := putTestRoom(t, s, "12", alice, bob)
		update(t, s, func(tx *Tx) error { return damage(tx, r.num) })
		var faults []string
		if err := s.Check(t.Context(), func(fault string) { faults = append(faults, fault) }); err != nil {
			t.Error(err)
		}
		if len(faults) != 1 || !strings.Contains(faults[0], want) {
			t.Errorf("found %q, want one that %s", faults, want)
		}
		closeStore(t, s)
	}
}
