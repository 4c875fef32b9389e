package store

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// putOutlier stores a state event that nothing stands on yet.
func (r *testRoom) putOutlier(tx *Tx, content string) (*matrix.Event, EventNum, error) {
	head, err := tx.Head(r.num)
	if err != nil {
		return nil, 0, err
	}
	key := ""
	ev, err := r.build(tx, head, matrix.Draft{Sender: r.creator, Type: "m.room.topic", StateKey: &key, Content: jsontext.Value(content)})
	if err != nil {
		return nil, 0, err
	}
	num, err := tx.NextEventNum(true)
	if err != nil {
		return nil, 0, err
	}
	slot, err := tx.PutSlot(r.num, ev.Type, key)
	if err != nil {
		return nil, 0, err
	}
	return ev, num, tx.PutEvent(r.num, num, NewEvent{Event: ev, Slot: slot, HasSlot: true, Outlier: true})
}

// promote makes a timeline event of an outlier, which the room's state has by its
// old number.
func (r *testRoom) promote(tx *Tx, ev *matrix.Event) (EventNum, error) {
	head, err := tx.Head(r.num)
	if err != nil {
		return 0, err
	}
	place, _, err := tx.EventPlace(ev.ID)
	if err != nil {
		return 0, err
	}
	before := head.Current
	if head.Current, err = tx.Derive(r.num, before, StateChange{Slot: place.Slot, Event: place.StateNum}); err != nil {
		return 0, err
	}
	num, err := tx.NextEventNum(false)
	if err != nil {
		return 0, err
	}
	head.Latest, head.Extremities, head.Depth = num, []EventNum{num}, ev.Depth
	put := NewEvent{Event: ev, Before: before, After: head.Current, Slot: place.Slot, HasSlot: true}
	return num, errors.Join(tx.PutEvent(r.num, num, put), tx.PutHead(r.num, head))
}

// An outlier that comes to the timeline is one event under two numbers.
func TestOutlierComesToTheTimeline(t *testing.T) {
	for _, version := range []string{"1", "11", "12"} {
		t.Run(version, func(t *testing.T) {
			s := openTest(t)
			r := putTestRoom(t, s, version, alice)
			var ev *matrix.Event
			var aside, num EventNum
			update(t, s, func(tx *Tx) (err error) {
				ev, aside, err = r.putOutlier(tx, `{"topic":"t"}`)
				return err
			})
			update(t, s, func(tx *Tx) (err error) {
				num, err = r.promote(tx, ev)
				return err
			})
			var redaction EventNum
			update(t, s, func(tx *Tx) (err error) {
				draft := matrix.Draft{Sender: alice, Type: "m.room.redaction", Redacts: ev.ID, Content: jsontext.Value(`{}`)}
				if redaction, err = r.put(tx, draft, TxnID{}); err != nil {
					return err
				}
				return tx.Redact(r.num, aside, redaction)
			})
			view(t, s, func(tx *Tx) error {
				for _, by := range []EventNum{aside, num} {
					got, err := tx.Event(r.num, by)
					if err != nil {
						return err
					}
					if got.ID != ev.ID || got.Num != num || got.StateNum() != aside || got.Outlier || got.Before == 0 || got.RedactedBy != redaction {
						t.Errorf("event %d is %+v", by, got)
					}
				}
				if _, got, _ := tx.EventByID(ev.ID); got != num {
					t.Errorf("the ID leads to %d, want %d", got, num)
				}
				if _, got, _ := tx.StateEventByID(ev.ID); got != aside {
					t.Errorf("the ID leads states to %d, want %d", got, aside)
				}
				if got := timeline(t, tx, r.num, num); !slices.Equal(got, []EventNum{num, redaction}) {
					t.Errorf("the timeline is %d", got)
				}
				return nil
			})
		})
	}
}

// An outlier that was redacted stays so, and one that states may hold is not
// rejected any more.
func TestOutlierKeepsWhatItWas(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "11", alice)
	var ev *matrix.Event
	var num EventNum
	update(t, s, func(tx *Tx) (err error) {
		if ev, num, err = r.putOutlier(tx, `{"topic":"a secret"}`); err != nil {
			return err
		}
		return tx.Redact(r.num, num, timelineNum(1))
	})
	put := func(room RoomNum, num EventNum, entry NewEvent) error {
		entry.Event = ev
		return s.Update(t.Context(), func(tx *Tx) error {
			place, _, err := tx.EventPlace(ev.ID)
			entry.Slot, entry.HasSlot = place.Slot, true
			return errors.Join(err, tx.PutEvent(room, num, entry))
		})
	}
	for name, err := range map[string]error{
		"as an outlier again":  put(r.num, num, NewEvent{Outlier: true}),
		"rejected":             put(r.num, num, NewEvent{Rejected: true}),
		"under another number": put(r.num, num+2, NewEvent{SoftFailed: true}),
		"in another room":      put(r.num+1, num, NewEvent{SoftFailed: true}),
	} {
		if !errors.Is(err, ErrExists) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := put(r.num, num, NewEvent{SoftFailed: true}); err != nil {
		t.Fatal(err)
	}
	if err := put(r.num, num, NewEvent{SoftFailed: true}); !errors.Is(err, ErrExists) {
		t.Errorf("a second time: %v", err)
	}
	view(t, s, func(tx *Tx) error {
		got, err := tx.Event(r.num, num)
		if err == nil && (got.Outlier || !got.SoftFailed || got.RedactedBy == 0 || strings.Contains(string(got.JSON()), "secret")) {
			t.Errorf("it is %+v: %s", got, got.JSON())
		}
		return err
	})
}

// Nothing of an event with two numbers is left of a room that is purged.
func TestOutlierIsPurged(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "12", alice)
	update(t, s, func(tx *Tx) error {
		ev, _, err := r.putOutlier(tx, `{"topic":"t"}`)
		if err != nil {
			return err
		}
		_, err = r.promote(tx, ev)
		return err
	})
	beginPurge(t, s, r.num)
	if err := s.PurgeRoom(t.Context(), r.num, func(int) {}); err != nil {
		t.Fatal(err)
	}
	view(t, s, func(tx *Tx) error {
		return errors.Join(
			tx.scan(bucketEvent, appendU32(nil, uint32(r.num)), nil, func(key, _ []byte) (bool, error) {
				t.Errorf("left of the room: %x", key)
				return true, nil
			}),
			tx.scan(bucketID, nil, nil, func(key, _ []byte) (bool, error) {
				t.Errorf("left of the IDs: %x", key)
				return true, nil
			}))
	})
}
