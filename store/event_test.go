package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

const (
	alice matrix.UserID = "@alice:hearth.test"
	bob   matrix.UserID = "@bob:hearth.test"
)

func TestEventRoundTrip(t *testing.T) {
	for _, v := range matrix.Versions() {
		t.Run(v.ID, func(t *testing.T) {
			s := openTest(t)
			r := putTestRoom(t, s, v.ID, alice, bob)
			txn := TxnID{Device: "PHONE", Endpoint: "send/" + string(r.id) + "/m.room.message", ID: "m1"}
			var num EventNum
			var want *StoredEvent
			update(t, s, func(tx *Tx) (err error) {
				txn.User = tx.UserNum(bob)
				if num, err = r.send(tx, bob, `{"body":"hello","msgtype":"m.text"}`, txn); err != nil {
					return err
				}
				want, err = tx.Event(r.num, num)
				return err
			})
			view(t, s, func(tx *Tx) error {
				got, err := tx.Event(r.num, num)
				if err != nil {
					return err
				}
				if string(got.JSON()) != string(want.JSON()) || got.ID != want.ID || got.Sender != bob {
					t.Errorf("read %s %s, want %s %s", got.ID, got.JSON(), want.ID, want.JSON())
				}
				if got.Txn.User != txn.User || got.Txn.Device != txn.Device || got.Txn.ID != txn.ID {
					t.Errorf("transaction %+v, want %+v", got.Txn, txn)
				}
				if room, n, ok := tx.EventByID(got.ID); !ok || room != r.num || n != num {
					t.Errorf("ID leads to %d %d %t", room, n, ok)
				}
				if id, err := tx.EventID(r.num, num); err != nil || id != got.ID {
					t.Errorf("EventID = %s, %v", id, err)
				}
				if n, ok, err := tx.TxnEvent(r.num, txn); n != num || !ok || err != nil {
					t.Errorf("TxnEvent = %d %t %v, want %d", n, ok, err, num)
				}
				other := txn
				other.Device = "LAPTOP"
				if _, ok, _ := tx.TxnEvent(r.num, other); ok {
					t.Error("another device's transaction is known")
				}
				return nil
			})
		})
	}
}

func TestPutEventTwice(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "12", alice)
	err := s.Update(t.Context(), func(tx *Tx) error {
		ev, err := tx.Event(r.num, timelineNum(tx.Position()))
		if err != nil {
			return err
		}
		num, err := tx.NextEventNum(true)
		if err != nil {
			return err
		}
		return tx.PutEvent(r.num, num, NewEvent{Event: ev.Event})
	})
	if !errors.Is(err, ErrExists) {
		t.Errorf("error %v, want ErrExists", err)
	}
}

func TestTimeline(t *testing.T) {
	s := openTest(t)
	rooms := []*testRoom{putTestRoom(t, s, "12", alice), putTestRoom(t, s, "11", alice, bob)}
	want := make([][]EventNum, 2)
	for i, r := range rooms {
		view(t, s, func(tx *Tx) error {
			return tx.Timeline(r.num, 0, func(ev *StoredEvent) (bool, error) {
				want[i] = append(want[i], ev.Num)
				return true, nil
			})
		})
	}
	for i := range 40 {
		update(t, s, func(tx *Tx) error {
			num, err := rooms[i%2].send(tx, alice, fmt.Sprintf(`{"body":"%d"}`, i), TxnID{})
			want[i%2] = append(want[i%2], num)
			return err
		})
	}
	view(t, s, func(tx *Tx) error {
		for i, r := range rooms {
			for j, from := range want[i] {
				if got := timeline(t, tx, r.num, from); !slices.Equal(got, want[i][j:]) {
					t.Errorf("timeline from %d: %d, want %d", from, got, want[i][j:])
				}
				back := slices.Clone(want[i][:j])
				slices.Reverse(back)
				if j > 0 {
					if got := timelineBack(t, tx, r.num, from); !slices.Equal(got, back) {
						t.Errorf("timeline back before %d: %d, want %d", from, got, back)
					}
				}
				if num, ok := tx.TimelineBefore(r.num, from.Position()); !ok || num != from {
					t.Errorf("newest at %d: %d %t", from.Position(), num, ok)
				}
				num, ok := tx.TimelineBefore(r.num, from.Position()-1)
				if ok != (j > 0) || ok && num != want[i][j-1] {
					t.Errorf("newest before %d: %d %t", from.Position(), num, ok)
				}
			}
			all := slices.Clone(want[i])
			slices.Reverse(all)
			if got := timelineBack(t, tx, r.num, 0); !slices.Equal(got, all) {
				t.Errorf("timeline back: %d, want %d", got, all)
			}
		}
		return nil
	})
}

func timeline(t *testing.T, tx *Tx, room RoomNum, from EventNum) (nums []EventNum) {
	t.Helper()
	err := tx.Timeline(room, from, func(ev *StoredEvent) (bool, error) {
		nums = append(nums, ev.Num)
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return nums
}

func timelineBack(t *testing.T, tx *Tx, room RoomNum, before EventNum) (nums []EventNum) {
	t.Helper()
	err := tx.TimelineBack(room, before, func(ev *StoredEvent) (bool, error) {
		nums = append(nums, ev.Num)
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return nums
}

func TestRedact(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "11", alice)
	var target, by EventNum
	update(t, s, func(tx *Tx) (err error) {
		if target, err = r.send(tx, alice, `{"body":"a slip of the tongue"}`, TxnID{Device: "D", ID: "x"}); err != nil {
			return err
		}
		ev, err := tx.Event(r.num, target)
		if err != nil {
			return err
		}
		draft := matrix.Draft{Sender: alice, Type: "m.room.redaction", Redacts: ev.ID, Content: jsontext.Value(`{}`)}
		by, err = r.put(tx, draft, TxnID{})
		return err
	})
	for range 2 { // the second time it changes nothing
		update(t, s, func(tx *Tx) error { return tx.Redact(r.num, target, by) })
	}
	view(t, s, func(tx *Tx) error {
		ev, err := tx.Event(r.num, target)
		if err != nil {
			return err
		}
		if ev.RedactedBy != by || strings.Contains(string(ev.JSON()), "slip") || ev.Txn.ID != "x" {
			t.Errorf("redacted by %d: %s", ev.RedactedBy, ev.JSON())
		}
		return nil
	})
	err := s.Update(t.Context(), func(tx *Tx) error { return tx.Redact(r.num, 1<<40, by) })
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("redact what is not here: %v", err)
	}
}

// A transaction is found among a bounded number of a room's newest events.
func TestTxnReach(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "12", alice)
	txn := func(i int) TxnID { return TxnID{User: 1, Device: "D", Endpoint: "send", ID: fmt.Sprint(i)} }
	var first, second EventNum
	send := func(n int) {
		update(t, s, func(tx *Tx) (err error) {
			for range n {
				if _, err = r.send(tx, alice, `{}`, TxnID{}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	find := func(i int, want EventNum, known bool) {
		t.Helper()
		view(t, s, func(tx *Tx) error {
			num, ok, err := tx.TxnEvent(r.num, txn(i))
			if num != want || ok != known {
				t.Errorf("transaction %d: event %d %t, want %d %t", i, num, ok, want, known)
			}
			return err
		})
	}
	update(t, s, func(tx *Tx) (err error) {
		if first, err = r.send(tx, alice, `{}`, txn(1)); err != nil {
			return err
		}
		second, err = r.send(tx, alice, `{}`, txn(2))
		return err
	})
	send(txnReach - 2)
	find(1, first, true)
	send(1)
	find(1, 0, false)
	find(2, second, true)
	find(3, 0, false)
}
