package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"hearth/state/matrix"
)

// servers reads the servers of a room, and holds each server's rooms to them.
func (r *testRoom) servers(tb testing.TB, s *Store) map[matrix.ServerName]uint64 {
	tb.Helper()
	found := make(map[matrix.ServerName]uint64)
	view(tb, s, func(tx *Tx) error {
		return tx.RoomServers(r.num, func(server ServerNum, joined uint64) (bool, error) {
			found[tx.ServerName(server)] = joined
			in := tx.ServerInRoom(r.num, server)
			mirrored := false
			err := tx.ServerRooms(server, func(room RoomNum) (bool, error) {
				mirrored = mirrored || room == r.num
				return true, nil
			})
			if !in || !mirrored {
				tb.Errorf("server %d: in the room %v, the room among its rooms %v", server, in, mirrored)
			}
			return true, err
		})
	})
	return found
}

// An older file has its servers counted when it is opened; what is not counted
// is found by Check, and a purge takes all of it away.
func TestServersAreCounted(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	r := putTestRoom(t, s, "12", alice)
	update(t, s, func(tx *Tx) error {
		var err error
		for i := range 300 {
			user := matrix.UserID(fmt.Sprintf("@user%d:far%d.test", i, i%299))
			_, putErr := r.putState(tx, user, memberType, string(user), `{"membership":"join"}`)
			err = errors.Join(err, putErr)
		}
		_, putErr := r.putState(tx, r.creator, memberType, "@guest:other.test", `{"membership":"invite"}`)
		return errors.Join(err, putErr)
	})
	faults := 0
	if err := s.Check(t.Context(), func(string) { faults++ }); err != nil || faults != 299 {
		t.Errorf("servers that are not counted: %d faults, %v", faults, err)
	}
	closeStore(t, s)
	setFormat(t, dir, 3)
	s = openDir(t, dir)
	checkStore(t, s)

	want := map[matrix.ServerName]uint64{"far0.test": 2}
	for i := range 298 {
		want[matrix.ServerName(fmt.Sprintf("far%d.test", i+1))] = 1
	}
	if got := r.servers(t, s); !maps.Equal(got, want) {
		t.Errorf("servers %v, want %v", got, want)
	}
	beginPurge(t, s, r.num)
	checkStore(t, s)
	if err := s.PurgeRoom(t.Context(), r.num, nil); err != nil {
		t.Fatal(err)
	}
	if rest := r.rest(t, s); len(rest) > 0 {
		t.Errorf("the purge left %q", rest)
	}
	checkStore(t, s)
	closeStore(t, s)
}

func TestServerCounts(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "12", alice)
	count := func(server matrix.ServerName, n int64, want map[matrix.ServerName]uint64) {
		t.Helper()
		update(t, s, func(tx *Tx) error { return tx.CountRoomServer(r.num, server, n) })
		if got := r.servers(t, s); !maps.Equal(got, want) {
			t.Errorf("servers %v, want %v", got, want)
		}
	}
	count("far.test", 2, map[matrix.ServerName]uint64{"far.test": 2})
	count("far.test", -1, map[matrix.ServerName]uint64{"far.test": 1})
	count(testServer, 1, map[matrix.ServerName]uint64{"far.test": 1})
	count("near.test", 1, map[matrix.ServerName]uint64{"far.test": 1, "near.test": 1})
	count("far.test", -1, map[matrix.ServerName]uint64{"near.test": 1})
	err := s.Update(t.Context(), func(tx *Tx) error { return tx.CountRoomServer(r.num, "far.test", -1) })
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("a member too few: %v", err)
	}
	count("near.test", -1, nil)
	checkStore(t, s)
}

// What was sent while a server was in a room is for it, also when it has left, and no
// more when it has come back later.
func TestStays(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "12", alice)
	var at []Position
	step := func(n int64) {
		t.Helper()
		update(t, s, func(tx *Tx) error {
			if _, err := r.putState(tx, r.creator, "m.room.topic", "", fmt.Sprintf(`{"topic":"%d"}`, len(at))); err != nil {
				return err
			}
			at = append(at, tx.Position())
			return tx.CountRoomServer(r.num, "far.test", n)
		})
	}
	expect := func(want string, left bool) {
		t.Helper()
		view(t, s, func(tx *Tx) error {
			far, got := tx.ServerNum("far.test"), ""
			for _, pos := range at {
				if in, err := tx.ServerInRoomAt(r.num, far, pos); err != nil {
					return err
				} else if in {
					got += "+"
				} else {
					got += "-"
				}
			}
			found := false
			err := tx.RoomsLeft(far, at[1], func(room RoomNum) (bool, error) {
				found = found || room == r.num
				return true, nil
			})
			if got != want || found != left {
				t.Errorf("in the room at %s, left %v", got, found)
			}
			return err
		})
	}
	step(0)
	step(1)
	step(0)
	expect("-++", false)
	step(-1)
	step(0)
	expect("-+++-", true)
	step(1)
	step(0)
	expect("-+++-++", true)
	step(-1)
	expect("-----+++", true)
	checkStore(t, s)
	beginPurge(t, s, r.num)
	if err := s.PurgeRoom(t.Context(), r.num, nil); err != nil {
		t.Fatal(err)
	}
	checkStore(t, s)
	view(t, s, func(tx *Tx) error {
		return tx.RoomsLeft(tx.ServerNum("far.test"), 0, func(room RoomNum) (bool, error) {
			t.Errorf("the purge left room %d", room)
			return true, nil
		})
	})
}

// A room's bytes are those of its keys and values, and none of another room's.
func TestRoomBytes(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "12", alice)
	size := func() (bytes int64) {
		view(t, s, func(tx *Tx) (err error) {
			bytes, err = tx.RoomBytes(t.Context(), r.num)
			return err
		})
		return bytes
	}
	before := size()
	body := strings.Repeat("x1y2", 2000)
	putTestRoom(t, s, "12", alice)
	if now := size(); before < 1000 || now != before {
		t.Errorf("%d bytes, %d with another room", before, now)
	}
	update(t, s, func(tx *Tx) error {
		_, err := r.send(tx, alice, `{"body":"`+body+rand.Text()+`"}`, TxnID{})
		return err
	})
	if now := size(); now < before+100 || now > before+9000 {
		t.Errorf("%d bytes, then %d with a message of %d", before, now, len(body))
	}
}
