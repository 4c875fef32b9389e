package store

import (
	"context"
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// A room has one join under way, whose record comes back as it was stored, and which
// leaves a room without a head to a purge.
func TestRoomJoin(t *testing.T) {
	ctx := context.Background()
	s, err := Open(t.TempDir(), "home.example", Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	check := func(faults int) {
		t.Helper()
		var found []string
		if err := s.Check(ctx, func(fault string) { found = append(found, fault) }); err != nil || len(found) != faults {
			t.Errorf("check: %v, %s", err, strings.Join(found, "; "))
		}
	}
	v, _ := matrix.VersionByID("11")
	user, key := "@u:home.example", matrix.SigningKey{ID: "ed25519:1", Private: ed25519.NewKeyFromSeed(make([]byte, 32))}
	ev, err := matrix.Draft{
		Room: "!r:x", Sender: matrix.UserID(user), Type: "m.room.member", StateKey: &user, Content: jsontext.Value(`{"membership":"join"}`),
	}.Build(v, matrix.Placing{Depth: 1}, "home.example", key)
	if err != nil {
		t.Fatal(err)
	}
	join := RoomJoin{Version: v, User: matrix.UserID(user), Event: ev.JSON(), Server: "x", Others: []matrix.ServerName{"y", "z"}}
	update := func(want error, fn func(tx *Tx) error) {
		t.Helper()
		if err := s.Update(ctx, fn); !errors.Is(err, want) {
			t.Fatalf("%v, want %v", err, want)
		}
	}
	update(nil, func(tx *Tx) (err error) {
		join.Serial = 0
		if join.Room, err = tx.PutRoomNum("!r:x"); err != nil {
			return err
		}
		return tx.PutJoin(&join)
	})
	check(0)
	update(ErrExists, func(tx *Tx) error {
		other := join
		other.Serial = 0
		return tx.PutJoin(&other)
	})
	join.Arrived = true
	update(nil, func(tx *Tx) error { return tx.PutJoin(&join) })
	update(nil, func(tx *Tx) error { // its events can be read although it has no head
		num, err := tx.NextEventNum(true)
		if err != nil {
			return err
		}
		slot, err := tx.PutSlot(join.Room, ev.Type, *ev.StateKey)
		if err != nil {
			return err
		}
		return tx.PutEvent(join.Room, num, NewEvent{Event: ev, Slot: slot, HasSlot: true, Outlier: true})
	})
	check(0)
	update(nil, func(tx *Tx) error {
		return tx.Joins(func(j RoomJoin) (bool, error) {
			if j.Room != join.Room || j.Serial != join.Serial || !j.Arrived || j.User != join.User || j.Server != "x" ||
				!slices.Equal(j.Others, join.Others) || string(j.Event) != string(join.Event) || j.Version != v {
				t.Errorf("stored %+v, read %+v", join, j)
			}
			return true, nil
		})
	})
	update(nil, func(tx *Tx) error {
		bad := join
		bad.User = "@v:home.example"
		return tx.PutJoin(&bad)
	})
	check(1)
	update(nil, func(tx *Tx) error {
		purge, err := tx.EndJoin(join.Room)
		if !purge {
			t.Error("there is nothing to purge")
		}
		return err
	})
	update(ErrPurging, func(tx *Tx) error { return tx.PutJoin(&RoomJoin{Room: join.Room, Version: v}) })
	check(0)
	if err := s.PurgeRoom(ctx, join.Room, nil); err != nil {
		t.Fatal(err)
	}
	check(0)
	update(nil, func(tx *Tx) error {
		if _, _, here := tx.EventByID(ev.ID); here {
			t.Error("the event is still here")
		}
		purge, err := tx.EndJoin(join.Room)
		if purge {
			t.Error("a join that is not there is purged")
		}
		return err
	})
	if _, err := readJoin(1, packJoin(&join)[:5]); !errors.Is(err, ErrDamaged) {
		t.Errorf("half a record: %v", err)
	}
}
