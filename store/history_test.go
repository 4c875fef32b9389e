package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"hearth/state/matrix"
)

// The past of a room is one walk over its timeline and what was back-filled between
// its events, in whatever order that came, both ways and from every place.
func TestPast(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "12", alice)
	for i := range 5 {
		update(t, s, func(tx *Tx) error {
			_, err := r.send(tx, r.creator, fmt.Sprintf(`{"body":"%d"}`, i), TxnID{})
			return err
		})
	}
	var places []Place
	rnd := rand.New(rand.NewPCG(1, 2))
	view(t, s, func(tx *Tx) error {
		return tx.Timeline(r.num, 0, func(ev *StoredEvent) (bool, error) {
			places = append(places, TimelinePlace(ev.Num.Position()))
			return true, nil
		})
	})
	timeline := slices.Clone(places)
	for range 30 {
		update(t, s, func(tx *Tx) error {
			head, err := tx.Head(r.num)
			if err != nil {
				return err
			}
			ev, err := r.build(tx, head, matrix.Draft{Sender: r.creator, Type: "m.old", Content: []byte(fmt.Sprintf(`{"n":%d}`, len(places)))})
			if err != nil {
				return err
			}
			num, err := tx.NextEventNum(true)
			if err != nil {
				return err
			}
			p := Place{timeline[rnd.IntN(len(timeline))].Position, rnd.Int64N(6) - 3, num}
			places = append(places, p)
			if err := tx.PutEvent(r.num, num, NewEvent{Event: ev, Before: head.Current}); err != nil {
				return err
			}
			return tx.PutHistory(r.num, p)
		})
	}
	slices.SortFunc(places, Place.Compare)
	view(t, s, func(tx *Tx) error {
		for i, from := range append(places, TimelinePlace(tx.Position()+1)) {
			var forth, back []Place
			err := tx.Past(r.num, from, func(p Place, ev *StoredEvent) (bool, error) {
				forth = append(forth, placeAsTold(tx, t, p, ev))
				return len(forth) < 20, nil
			})
			if want := places[i:min(i+20, len(places))]; err != nil || !slices.Equal(forth, want) {
				t.Errorf("from %v: %v, want %v: %v", from, forth, want, err)
			}
			err = tx.PastBack(r.num, from, func(p Place, ev *StoredEvent) (bool, error) {
				back = append(back, placeAsTold(tx, t, p, ev))
				return len(back) < 20, nil
			})
			slices.Reverse(back)
			if want := places[max(i-20, 0):i]; err != nil || !slices.Equal(back, want) {
				t.Errorf("back from %v: %v, want %v: %v", from, back, want, err)
			}
		}
		for _, p := range timeline {
			if is, err := tx.PlaceBehind(r.num, p.Position-1); is != p || err != nil {
				t.Errorf("behind %d: %v, %v, want %v", p.Position-1, is, err, p)
			}
		}
		return nil
	})
}

// placeAsTold holds the place that a walk tells to the one that the event has.
func placeAsTold(tx *Tx, t *testing.T, p Place, ev *StoredEvent) Place {
	t.Helper()
	if is, ok, err := tx.PlaceOf(ev.RoomNum, ev.Num); is != p || !ok || err != nil {
		t.Errorf("event %d at %v, but it says %v: %v", ev.Num, p, is, err)
	}
	return p
}
