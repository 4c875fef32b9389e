package store

import (
	"errors"
	"testing"
	"time"
)

// A reserved ID is nobody else's, and leaves nothing behind.
func TestReservation(t *testing.T) {
	s := openTest(t)
	day := time.UnixMilli(1_790_000_000_000)
	var user UserNum
	update(t, s, func(tx *Tx) (err error) {
		user, err = tx.CreateAccount("@alice:hearth.test", Account{Created: day})
		return err
	})
	want := Reservation{ID: "abc", User: user, Expires: day}
	late := Reservation{ID: "def", User: user, Expires: day.Add(time.Hour)}
	update(t, s, func(tx *Tx) error { return errors.Join(tx.Reserve(want), tx.Reserve(late)) })
	if err := s.Update(t.Context(), func(tx *Tx) error { return tx.Reserve(want) }); !errors.Is(err, ErrExists) {
		t.Errorf("reserved twice: %v", err)
	}
	view(t, s, func(tx *Tx) error {
		if got, err := tx.Reservation("abc"); err != nil || got != want {
			t.Errorf("got %+v, %v", got, err)
		}
		if all, err := tx.Reservations(user); err != nil || len(all) != 2 {
			t.Errorf("of the user: %v, %v", all, err)
		}
		if all, err := tx.ExpiredReservations(day, 10); err != nil || len(all) != 1 || all[0] != want {
			t.Errorf("expired: %v, %v", all, err)
		}
		return nil
	})
	content := putBlob(t, s, "a picture")
	update(t, s, func(tx *Tx) error {
		return errors.Join(tx.DeleteReservation(want), tx.PutMedia(Media{Origin: testServer, ID: "abc", Content: content, Size: 9}))
	})
	if err := s.Update(t.Context(), func(tx *Tx) error { return tx.Reserve(want) }); !errors.Is(err, ErrExists) {
		t.Errorf("there is a file: %v", err)
	}
}
