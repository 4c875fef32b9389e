package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"hearth/state/matrix"
)

// The events of a room wait in their order, those of other rooms beside them, and
// what is purged leaves nothing.
func TestInbox(t *testing.T) {
	s := openTest(t)
	a, b := putTestRoom(t, s, "11", alice), putTestRoom(t, s, "12", alice)
	update(t, s, func(tx *Tx) error {
		for n := range 6 {
			room := []RoomNum{a.num, b.num}[n%2]
			_, err := tx.AppendInbox(InboxEvent{Room: room, Origin: "other.test", Received: int64(n), PDU: fmt.Appendf(nil, `{"n":%d}`, n)})
			if err != nil {
				return err
			}
		}
		if _, err := tx.AppendInbox(InboxEvent{Room: 4711, Origin: "other.test", PDU: []byte(`{}`)}); !errors.Is(err, ErrNotFound) {
			t.Errorf("a room that is not known: %v", err)
		}
		return nil
	})
	waiting := func(room RoomNum, after uint64) (texts []string, first uint64) {
		view(t, s, func(tx *Tx) error {
			return tx.Inbox(room, after, func(e InboxEvent) (bool, error) {
				if first == 0 {
					first = e.Order
				}
				texts = append(texts, fmt.Sprintf("%s %d %s", e.Origin, e.Received, e.PDU))
				return true, nil
			})
		})
		return texts, first
	}
	got, first := waiting(a.num, 0)
	if want := []string{`other.test 0 {"n":0}`, `other.test 2 {"n":2}`, `other.test 4 {"n":4}`}; !slices.Equal(got, want) {
		t.Errorf("room a: %q", got)
	}
	if got, _ := waiting(a.num, first); len(got) != 2 {
		t.Errorf("behind the first: %q", got)
	}
	update(t, s, func(tx *Tx) error { return tx.DeleteInbox(a.num, first) })
	if got, _ := waiting(a.num, 0); len(got) != 2 {
		t.Errorf("without the first: %q", got)
	}
	update(t, s, func(tx *Tx) error {
		more, err := tx.BeginPurge(b.num)
		if more {
			t.Error("the purge has more to do")
		}
		return err
	})
	if err := s.PurgeRoom(t.Context(), b.num, nil); err != nil {
		t.Fatal(err)
	}
	view(t, s, func(tx *Tx) error {
		var rooms []RoomNum
		err := tx.InboxRooms(func(room RoomNum) (bool, error) {
			rooms = append(rooms, room)
			return true, nil
		})
		if !slices.Equal(rooms, []RoomNum{a.num}) {
			t.Errorf("events wait in %d", rooms)
		}
		return err
	})
}

// The last transactions of each server are known with their answers.
func TestServerTxn(t *testing.T) {
	s := openTest(t)
	update(t, s, func(tx *Tx) error {
		for n := range maxServerTxns + 2 {
			if err := tx.PutServerTxn("a.test", fmt.Sprint(n), fmt.Append(nil, "answer ", n)); err != nil {
				return err
			}
		}
		return tx.PutServerTxn("b.test", "0", []byte(strings.Repeat("x", 2*maxServerTxnBytes)))
	})
	known := func(origin matrix.ServerName, id string) (answer string) {
		view(t, s, func(tx *Tx) error {
			v, ok, err := tx.ServerTxn(origin, id)
			if answer = string(v); !ok {
				answer = "-"
			}
			return err
		})
		return answer
	}
	for n := range maxServerTxns + 2 {
		want := "-"
		if n >= 2 {
			want = fmt.Sprint("answer ", n)
		}
		if got := known("a.test", fmt.Sprint(n)); got != want {
			t.Errorf("transaction %d: %q, want %q", n, got, want)
		}
	}
	if got := known("b.test", "0"); len(got) != 2*maxServerTxnBytes {
		t.Errorf("a long answer: %d bytes", len(got))
	}
	update(t, s, func(tx *Tx) error { return tx.PutServerTxn("b.test", "1", []byte("short")) })
	if got := known("b.test", "0"); got != "-" {
		t.Errorf("the long answer is kept beside another: %d bytes", len(got))
	}
	if got := known("b.test", "1"); got != "short" {
		t.Errorf("the short answer is %q", got)
	}
}
