package store

import (
	"errors"
	"testing"
	"time"

	"hearth/state/matrix"
)

// Pushers are found by user and in the list of all, keep their place in the stream
// when they change, and go with their device.
func TestPushers(t *testing.T) {
	s := openTest(t)
	var alice, bob UserNum
	update(t, s, func(tx *Tx) (err error) {
		for _, u := range []struct {
			num  *UserNum
			name string
		}{{&alice, "alice"}, {&bob, "bob"}} {
			if *u.num, err = tx.CreateAccount(matrix.UserID("@"+u.name+":hearth.test"), Account{Created: time.Unix(1, 0)}); err != nil {
				return err
			}
			for _, d := range []string{"PHONE", "TABLET"} {
				if err := tx.PutDevice(*u.num, Device{ID: matrix.DeviceID(d), Created: time.Unix(1, 0)}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	want := Pusher{
		PusherID: PusherID{"org.example.app", "key/+="}, Kind: "http", AppName: "App", DeviceName: "Phone",
		Lang: "en", Data: []byte(`{"url":"x"}`), Device: "PHONE", Updated: time.Unix(1_790_000_000, 0),
	}
	other := want
	other.Key, other.Device = "key2", "TABLET"
	update(t, s, func(tx *Tx) error {
		return errors.Join(tx.PutPusher(alice, want), tx.PutPusher(alice, other), tx.PutPusher(bob, want))
	})
	first := s.Position()
	update(t, s, func(tx *Tx) error {
		return errors.Join(
			tx.PutAccountData(alice, AccountData{Type: "m.a", Content: []byte(`{}`)}),
			tx.PutPusher(alice, want), // later, the same
			tx.PutPusher(alice, Pusher{PusherID: PusherID{"later", "k"}, Data: []byte("{}"), Device: "PHONE"}),
		)
	})
	view(t, s, func(tx *Tx) error {
		p, err := tx.Pusher(alice, want.PusherID)
		if err != nil || p.Cursor != first || string(p.Data) != `{"url":"x"}` || p.Device != "PHONE" || !p.Updated.Equal(want.Updated) {
			t.Errorf("got %+v, %v", p, err)
		}
		if p, err := tx.Pusher(alice, PusherID{"later", "k"}); err != nil || p.Cursor != s.Position() {
			t.Errorf("a new one begins at %d, %v", p.Cursor, err)
		}
		return nil
	})
	update(t, s, func(tx *Tx) error {
		return errors.Join(tx.DeletePushersOfOthers(alice, want.PusherID), tx.MovePusher(alice, want.PusherID, s.Position()),
			tx.MovePusher(bob, want.PusherID, 1), tx.DeleteDevice(alice, "TABLET"))
	})
	view(t, s, func(tx *Tx) error {
		all, err := tx.Pushers(alice)
		if err != nil || len(all) != 2 || all[0].Key != "k" || all[1].Key != want.Key || all[1].Cursor <= first {
			t.Errorf("alice has %+v, %v", all, err)
		}
		if tx.HasPushers(bob) || !tx.HasPushers(alice) {
			t.Error("alice's phone pushes for bob, too")
		}
		n := 0
		err = tx.AllPushers(func(user UserNum, id PusherID) (bool, error) {
			n++
			_, err := tx.Pusher(user, id)
			return true, err
		})
		if err != nil || n != 2 {
			t.Errorf("the list has %d, %v", n, err)
		}
		return nil
	})
	update(t, s, func(tx *Tx) error { return tx.Deactivate(alice, false) })
	view(t, s, func(tx *Tx) error {
		if tx.HasPushers(alice) {
			t.Error("a closed account has pushers")
		}
		return nil
	})
}
