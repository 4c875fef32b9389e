package store

import (
	"reflect"
	"slices"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// What waits for a server comes out in order, and stays until it is deleted.
func TestOutbox(t *testing.T) {
	s := openTest(t)
	var one, two ServerNum
	update(t, s, func(tx *Tx) (err error) {
		if one, err = tx.PutServerNum("one.test"); err != nil {
			return err
		}
		two, err = tx.PutServerNum("two.test")
		return err
	})
	for _, put := range []struct {
		to  ServerNum
		edu string
	}{{one, `{"n":1}`}, {two, `{"n":2}`}, {one, `{"n":3}`}, {one, `{"n":4}`}} {
		update(t, s, func(tx *Tx) error { return tx.PutOutbox(put.to, jsontext.Value(put.edu)) })
	}
	read := func(server ServerNum, after Position) (edus []string, places []Position) {
		view(t, s, func(tx *Tx) error {
			return tx.Outbox(server, after, func(pos Position, edu jsontext.Value) (bool, error) {
				c, ok, err := tx.ChangeAt(pos)
				if !ok || c.Server != server {
					t.Errorf("stream at %d: %+v", pos, c)
				}
				edus, places = append(edus, string(edu)), append(places, pos)
				return true, err
			})
		})
		return edus, places
	}
	edus, places := read(one, 0)
	if want := []string{`{"n":1}`, `{"n":3}`, `{"n":4}`}; !slices.Equal(edus, want) {
		t.Fatalf("outbox %q, want %q", edus, want)
	}
	if edus, _ := read(one, places[0]); !slices.Equal(edus, []string{`{"n":3}`, `{"n":4}`}) {
		t.Errorf("behind the first %q", edus)
	}
	update(t, s, func(tx *Tx) error {
		n, err := tx.DeleteOutbox(one, places[1], 100)
		if n != 2 {
			t.Errorf("%d deleted", n)
		}
		return err
	})
	if edus, _ := read(one, 0); !slices.Equal(edus, []string{`{"n":4}`}) {
		t.Errorf("left of one: %q", edus)
	}
	if edus, _ := read(two, 0); !slices.Equal(edus, []string{`{"n":2}`}) {
		t.Errorf("left of two: %q", edus)
	}
	// To say that all is sent, while something waits, is a fault.
	update(t, s, func(tx *Tx) error { return tx.PutSentPosition(places[2]) })
	faults := 0
	if err := s.Check(t.Context(), func(string) { faults++ }); err != nil || faults != 2 {
		t.Errorf("%d faults, %v", faults, err)
	}
	update(t, s, func(tx *Tx) error {
		if err := tx.PutBehind(two, Behind{}); err != nil {
			return err
		}
		return tx.PutBehind(one, Behind{Cursor: places[1]})
	})
}

func TestBehind(t *testing.T) {
	s := openTest(t)
	want := map[ServerNum]Behind{}
	update(t, s, func(tx *Tx) error {
		far, err := tx.PutServerNum("far.test")
		if err != nil {
			return err
		}
		near, err := tx.PutServerNum("near.test")
		if err != nil {
			return err
		}
		for range 3 {
			if err := tx.PutOutbox(near, jsontext.Value(`{}`)); err != nil {
				return err
			}
		}
		want[far], want[near] = Behind{Cursor: 1, Departures: []Position{2, 3}}, Behind{}
		for server, b := range want {
			if err := tx.PutBehind(server, b); err != nil {
				return err
			}
		}
		return tx.PutSentPosition(3)
	})
	view(t, s, func(tx *Tx) error {
		got := map[ServerNum]Behind{}
		err := tx.AllBehind(func(server ServerNum, b Behind) (bool, error) {
			got[server] = b
			return true, nil
		})
		if !reflect.DeepEqual(got, want) {
			t.Errorf("behind: %v, want %v", got, want)
		}
		if pos, ok, err := tx.SentPosition(); pos != 3 || !ok || err != nil {
			t.Errorf("sent up to %d %v %v", pos, ok, err)
		}
		return err
	})
}
