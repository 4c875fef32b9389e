package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"hearth/state/matrix"
)

func TestAliases(t *testing.T) {
	s := openTest(t)
	one, two := putTestRoom(t, s, "12", alice), putTestRoom(t, s, "12", alice)
	update(t, s, func(tx *Tx) error {
		user := tx.UserNum(alice)
		return errors.Join(
			tx.PutAlias("#b:hearth.test", one.num, user),
			tx.PutAlias("#a:hearth.test", one.num, user),
			tx.PutAlias("#c:hearth.test", two.num, user),
		)
	})
	err := s.Update(t.Context(), func(tx *Tx) error { return tx.PutAlias("#a:hearth.test", two.num, 1) })
	if !errors.Is(err, ErrExists) {
		t.Errorf("an alias that is taken: %v", err)
	}
	want := func(room *testRoom, want ...matrix.RoomAlias) {
		t.Helper()
		view(t, s, func(tx *Tx) error {
			got, err := tx.Aliases(room.num)
			if !slices.Equal(got, want) {
				t.Errorf("aliases %v, want %v", got, want)
			}
			for _, alias := range want {
				num, creator, err := tx.Alias(alias)
				if num != room.num || creator != tx.UserNum(alice) || err != nil {
					t.Errorf("%s leads to %d by %d, %v", alias, num, creator, err)
				}
			}
			return err
		})
	}
	want(one, "#a:hearth.test", "#b:hearth.test")
	want(two, "#c:hearth.test")
	update(t, s, func(tx *Tx) error { return tx.DeleteAlias("#a:hearth.test") })
	want(one, "#b:hearth.test")
	update(t, s, func(tx *Tx) error { return tx.PutAlias("#a:hearth.test", two.num, tx.UserNum(alice)) })
	want(two, "#a:hearth.test", "#c:hearth.test")
	if err := s.Update(t.Context(), func(tx *Tx) error { return tx.DeleteAlias("#none:hearth.test") }); !errors.Is(err, ErrNotFound) {
		t.Errorf("delete an alias that is not there: %v", err)
	}
}

func TestPublishedRooms(t *testing.T) {
	s := openTest(t)
	var rooms []RoomNum
	for range 3 {
		rooms = append(rooms, putTestRoom(t, s, "12", alice).num)
	}
	update(t, s, func(tx *Tx) error {
		return errors.Join(tx.PutPublished(rooms[0], true), tx.PutPublished(rooms[2], true), tx.PutPublished(rooms[1], false))
	})
	published := func(after RoomNum) (all []RoomNum) {
		view(t, s, func(tx *Tx) error { return tx.PublishedRooms(after, collect(&all)) })
		return all
	}
	if got := published(0); !slices.Equal(got, []RoomNum{rooms[0], rooms[2]}) {
		t.Errorf("published are %v of %v", got, rooms)
	}
	if got := published(rooms[0]); !slices.Equal(got, []RoomNum{rooms[2]}) {
		t.Errorf("behind %d: %v", rooms[0], got)
	}
	update(t, s, func(tx *Tx) error { return tx.PutPublished(rooms[0], false) })
	view(t, s, func(tx *Tx) error {
		if got := fmt.Sprint(tx.Published(rooms[0]), tx.Published(rooms[1]), tx.Published(rooms[2])); got != "false false true" {
			t.Errorf("published: %s", got)
		}
		return nil
	})
}
