package client

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"hearth/store"
)

// When a device was last seen is known at once, and stored when the server stops.
func TestSightings(t *testing.T) {
	s := newTestServer(t, Config{})
	token := s.account(t, "alice", "secret")
	s.clock.Advance(time.Hour)
	if w := s.do("GET", "/_matrix/client/v3/account/whoami", token, ""); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	stored := func() (d store.Device) {
		err := s.store.View(func(tx *store.Tx) (err error) {
			d, err = tx.Device(tx.UserNum("@alice:hearth.test"), "ALICE")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	before := stored()
	var alice store.UserNum
	if err := s.store.View(func(tx *store.Tx) error { alice = tx.UserNum("@alice:hearth.test"); return nil }); err != nil {
		t.Fatal(err)
	}
	if now := s.sightings.newest(alice, before); !now.LastSeen.Equal(s.clock.Now()) || now.LastIP == "" {
		t.Errorf("the device was seen at %v from %q", now.LastSeen, now.LastIP)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if d := stored(); !d.LastSeen.Equal(s.clock.Now()) || d.LastIP == "" {
		t.Errorf("stored is %v from %q", d.LastSeen, d.LastIP)
	}
}

// What a crash has left of a deactivated account goes at the next start.
func TestRunEndsSweeps(t *testing.T) {
	s := newTestServer(t, Config{})
	token := s.account(t, "alice", "secret")
	if w := s.do("PUT", "/_matrix/client/v3/profile/@alice:hearth.test/m.tz", token, `{"m.tz":"UTC"}`); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	err := s.store.Update(t.Context(), func(tx *store.Tx) error { // and not Server.Deactivate
		return tx.Deactivate(tx.UserNum("@alice:hearth.test"), false)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.sweepDeactivated(t.Context()); err != nil {
		t.Fatal(err)
	}
	err = s.store.View(func(tx *store.Tx) error {
		_, err := tx.ProfileField(tx.UserNum("@alice:hearth.test"), "m.tz")
		return err
	})
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the profile is still there: %v", err)
	}
}
