package store

import (
	"errors"
	"slices"
	"testing"
	"time"

	"hearth/state/matrix"
)

func TestPresence(t *testing.T) {
	s := openTest(t)
	var user UserNum
	seen := time.UnixMilli(1_790_000_000_123)
	update(t, s, func(tx *Tx) (err error) {
		if user, err = tx.CreateAccount("@alice:hearth.test", Account{}); err != nil {
			return err
		}
		if p, err := tx.Presence(user); p != (Presence{}) || err != nil {
			t.Errorf("at first: %v, %v", p, err)
		}
		if err := tx.PutPresence(user+1, Presence{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("presence of nobody: %v", err)
		}
		return tx.PutPresence(user, Presence{LastActive: seen, Status: "at sea"})
	})
	update(t, s, func(tx *Tx) error {
		if p, err := tx.Presence(user); !p.LastActive.Equal(seen) || p.Status != "at sea" || err != nil {
			t.Errorf("stored: %v, %v", p, err)
		}
		return tx.Deactivate(user, false)
	})
	for more := true; more; {
		update(t, s, func(tx *Tx) (err error) { more, err = tx.SweepDeactivated(user, 10); return err })
	}
	update(t, s, func(tx *Tx) error {
		if err := tx.PutPresence(user, Presence{Status: "back"}); err != nil {
			t.Error(err)
		}
		if p, err := tx.Presence(user); p != (Presence{}) || err != nil {
			t.Errorf("of a deactivated account: %v, %v", p, err)
		}
		return nil
	})
}

func TestUserIDs(t *testing.T) {
	s := openTest(t)
	update(t, s, func(tx *Tx) error {
		for _, id := range []matrix.UserID{"@bob:b.test", "@alina:b.test", "@alice:a.test", "@al:a.test"} {
			if _, err := tx.PutUserNum(id); err != nil {
				return err
			}
		}
		var found []matrix.UserID
		err := tx.UserIDs("@ali", func(num UserNum, id matrix.UserID) (bool, error) {
			if tx.UserID(num) != id {
				t.Errorf("user %d is %s, not %s", num, tx.UserID(num), id)
			}
			found = append(found, id)
			return true, nil
		})
		if want := []matrix.UserID{"@alice:a.test", "@alina:b.test"}; !slices.Equal(found, want) {
			t.Errorf("found %v, want %v", found, want)
		}
		return err
	})
}
