package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"hearth/state/matrix"
)

// fill puts something of everything into a room.
func (r *testRoom) fill(tb testing.TB, s *Store, messages int) {
	tb.Helper()
	for i := range messages {
		update(tb, s, func(tx *Tx) error {
			txn := TxnID{User: tx.UserNum(r.creator), Device: "D", Endpoint: "send", ID: fmt.Sprint(i)}
			num, err := r.send(tx, r.creator, `{"body":"text"}`, txn)
			if err != nil {
				return err
			}
			id, err := tx.EventID(r.num, num)
			return errors.Join(err,
				tx.PutRelation(r.num, id, Relation{Child: num, Sender: txn.User, Type: "m.thread"}),
				tx.PutPendingRedaction(r.num, "$later"+id, num))
		})
	}
	update(tb, s, func(tx *Tx) error {
		user := tx.UserNum(r.creator)
		h, err := tx.Head(r.num)
		if err != nil {
			return err
		}
		id, err := tx.EventID(r.num, h.Latest)
		if err != nil {
			return err
		}
		_, err = tx.PutReceipt(r.num, Receipt{User: user, Type: ReceiptRead, Event: id, Num: h.Latest})
		aside, asideErr := r.putAside(tx, h)
		return errors.Join(err, asideErr,
			tx.PutHistory(r.num, Place{Position: h.First.Position(), Num: aside}),
			tx.PutUnread(user, r.num, Unread{Upto: h.Latest}),
			tx.PutAccountData(user, AccountData{Room: r.num, Type: "m.tag", Content: []byte(`{}`)}),
			tx.PutAccountData(user, AccountData{Room: r.num, Type: "m.fully_read", Content: []byte(`{}`)}),
			tx.PutAlias(matrix.RoomAlias(fmt.Sprintf("#%d:%s", r.num, testServer)), r.num, user),
			tx.PutPublished(r.num, true))
	})
}

// putAside stores an event of another server's history.
func (r *testRoom) putAside(tx *Tx, head Head) (EventNum, error) {
	ev, err := r.build(tx, head, matrix.Draft{Sender: r.creator, Type: "m.bad", Content: []byte(`{}`)})
	if err != nil {
		return 0, err
	}
	num, err := tx.NextEventNum(true)
	if err != nil {
		return 0, err
	}
	return num, tx.PutEvent(r.num, num, NewEvent{Event: ev, Before: head.Current})
}

// rest lists the keys that have to do with a room, but for what a purge leaves.
func (r *testRoom) rest(tb testing.TB, s *Store) (keys []string) {
	tb.Helper()
	num := string(appendU32(nil, uint32(r.num)))
	view(tb, s, func(tx *Tx) error {
		look := func(name bucketName, of func(key, value string) bool) error {
			return tx.scan(name, nil, nil, func(key, value []byte) (bool, error) {
				if of(string(key), string(value)) {
					keys = append(keys, fmt.Sprintf("%s %q: %q", bucketTraits[name].name, key, value))
				}
				return true, nil
			})
		}
		ours := func(key, _ string) bool { return strings.HasPrefix(key, num) && key[4] != roomMember }
		return errors.Join(
			look(bucketEvent, ours), look(bucketState, ours), look(bucketRoom, ours),
			look(bucketRoom, func(key, value string) bool {
				return u32([]byte(key)) == 0 && (value == num || key[4] != aliasRoom && key[5:] == num)
			}),
			look(bucketID, func(_, value string) bool {
				room, _, _ := readEventPlace([]byte(value))
				return room == r.num
			}),
			look(bucketUser, func(key, value string) bool {
				return key[4] == userData && strings.HasPrefix(key[5:], num) || key[4] == userDataAt && strings.HasPrefix(value, num)
			}),
			look(bucketRemote, func(key, _ string) bool { return key[0] == remoteRoom && key[5:] == num }),
			look(bucketStream, func(_, value string) bool {
				room, _ := binary.Uvarint([]byte(value[1:]))
				return value[0] == streamEvent && RoomNum(room) == r.num
			}))
	})
	return keys
}

// all returns every key and value of a room and its events.
func (r *testRoom) all(tb testing.TB, s *Store) string {
	tb.Helper()
	var text strings.Builder
	view(tb, s, func(tx *Tx) error {
		return tx.Timeline(r.num, 0, func(ev *StoredEvent) (bool, error) {
			fmt.Fprintf(&text, "%d %d %d %s\n", ev.Num, ev.Before, ev.After, ev.JSON())
			return true, nil
		})
	})
	return text.String() + strings.Join(r.rest(tb, s), "\n")
}

// unknown fails the test where a room can still be read.
func (r *testRoom) unknown(tb testing.TB, s *Store) {
	tb.Helper()
	view(tb, s, func(tx *Tx) error {
		if _, err := tx.Head(r.num); !errors.Is(err, ErrNotFound) {
			tb.Errorf("head of a purged room: %v", err)
		}
		return tx.Rooms(func(room RoomNum, _ Head) (bool, error) {
			if room == r.num {
				tb.Error("a purged room is listed")
			}
			return true, nil
		})
	})
}

func beginPurge(tb testing.TB, s *Store, room RoomNum) {
	tb.Helper()
	for more := true; more; {
		update(tb, s, func(tx *Tx) (err error) {
			more, err = tx.BeginPurge(room)
			return err
		})
	}
}

// A purge removes a room and nothing else, whatever the version, and goes on
// where it stopped: the store is closed and opened again after each write.
func TestPurge(t *testing.T) {
	for _, version := range []string{"1", "12"} {
		t.Run(version, func(t *testing.T) {
			dir := t.TempDir()
			s := openDir(t, dir)
			kept, gone := putTestRoom(t, s, version, alice, bob), putTestRoom(t, s, version, bob, alice)
			kept.fill(t, s, 20)
			gone.fill(t, s, 3*purgeEvents)
			update(t, s, func(tx *Tx) error { return tx.ForgetRoom(tx.UserNum(alice), gone.num) })
			before := kept.all(t, s)
			beginPurge(t, s, gone.num)
			steps := 0
			for done := false; !done; steps++ {
				gone.unknown(t, s)
				checkStore(t, s)
				closeStore(t, s)
				s = openDir(t, dir)
				update(t, s, func(tx *Tx) error {
					if err := tx.PutHead(gone.num, Head{Version: gone.version}); !errors.Is(err, ErrPurging) {
						t.Errorf("a head while the room is purged: %v", err)
					}
					return nil
				})
				var rooms []RoomNum
				view(t, s, func(tx *Tx) error {
					return tx.Purges(func(room RoomNum) (bool, error) {
						rooms = append(rooms, room)
						return true, nil
					})
				})
				if !slices.Equal(rooms, []RoomNum{gone.num}) {
					t.Fatalf("purges after step %d: %v", steps, rooms)
				}
				update(t, s, func(tx *Tx) (err error) {
					_, done, err = tx.purgeStep(gone.num)
					return err
				})
			}
			if steps < 6 {
				t.Errorf("only %d steps", steps)
			}
			if rest := gone.rest(t, s); rest != nil {
				t.Errorf("left over:\n%s", strings.Join(rest, "\n"))
			}
			if after := kept.all(t, s); after != before {
				t.Errorf("the other room was:\n%s\nis:\n%s", before, after)
			}
			checkStore(t, s)
			closeStore(t, s)
		})
	}
}

// What a purge leaves to local users: that they have left the room, at the
// place where devices will find it.
func TestPurgeMemberships(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "12", alice, bob)
	var before LocalMembership
	update(t, s, func(tx *Tx) (err error) {
		if _, err = r.member(tx, bob, matrix.Leave); err != nil {
			return err
		}
		before, _, err = tx.LocalMembership(tx.UserNum(bob), r.num)
		return err
	})
	beginPurge(t, s, r.num)
	if err := s.PurgeRoom(t.Context(), r.num, nil); err != nil {
		t.Fatal(err)
	}
	view(t, s, func(tx *Tx) error {
		for _, user := range []matrix.UserID{alice, bob} {
			m, known, err := tx.LocalMembership(tx.UserNum(user), r.num)
			if err != nil || !known || m.Membership != matrix.Leave || m.Event != 0 || m.Joined != 0 || !m.Forgotten {
				t.Errorf("%s: %+v, %v, %v", user, m, known, err)
			}
			if user == bob && m.Position != before.Position {
				t.Errorf("the leave was at %d, is at %d", before.Position, m.Position)
			}
		}
		return nil
	})
}

// More local users and data than one write may touch.
func TestPurgeManyMembers(t *testing.T) {
	s := openTest(t)
	var members []matrix.UserID
	for i := range purgeKeys {
		members = append(members, matrix.UserID(fmt.Sprintf("@user%d:%s", i, testServer)))
	}
	r := putTestRoom(t, s, "12", members...)
	update(t, s, func(tx *Tx) error {
		for i := range purgeKeys {
			d := AccountData{Room: r.num, Type: fmt.Sprint(i), Content: []byte(`{}`)}
			if err := tx.PutAccountData(tx.UserNum(members[7]), d); err != nil {
				return err
			}
		}
		return nil
	})
	writes := 0
	for more := true; more; writes++ {
		update(t, s, func(tx *Tx) (err error) {
			more, err = tx.BeginPurge(r.num)
			return err
		})
		checkStore(t, s)
	}
	if writes < 4 {
		t.Errorf("%d writes", writes)
	}
	if err := s.PurgeRoom(t.Context(), r.num, nil); err != nil {
		t.Fatal(err)
	}
	if rest := r.rest(t, s); rest != nil {
		t.Errorf("left over:\n%s", strings.Join(rest, "\n"))
	}
}

// A purged room gives its pages back, can be cut short by its context, and can
// begin again under its number.
func TestPurgeAndAgain(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "11", alice)
	r.fill(t, s, 5*purgeEvents)
	beginPurge(t, s, r.num)
	free := s.bolt.Stats().FreePageN
	ctx, cancel := context.WithCancel(t.Context())
	var counts []int
	err := s.PurgeRoom(ctx, r.num, func(removed int) {
		if counts = append(counts, removed); len(counts) == 3 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || len(counts) != 3 || !slices.IsSorted(counts) {
		t.Fatalf("cut short: %v, %v", err, counts)
	}
	checkStore(t, s)
	for range 2 { // the second time, there is nothing to do
		if err := s.PurgeRoom(t.Context(), r.num, nil); err != nil {
			t.Fatal(err)
		}
	}
	update(t, s, func(tx *Tx) error { // the pages of the last write are free after the next
		_, err := tx.PutRoomNum("!another:" + matrix.RoomID(testServer))
		return err
	})
	if now := s.bolt.Stats().FreePageN; now < free+50 {
		t.Errorf("%d pages free before, %d after", free, now)
	}
	update(t, s, func(tx *Tx) error {
		if _, err := tx.BeginPurge(r.num); !errors.Is(err, ErrNotFound) {
			t.Errorf("purge of a room that is gone: %v", err)
		}
		num := r.num
		r.num = 0
		_, err := r.putState(tx, alice, "m.room.create", "", `{"room_version":"11"}`)
		if r.num != num {
			t.Errorf("the room had the number %d and has %d", num, r.num)
		}
		return err
	})
}

// A purge takes a damaged room too, and Check finds a purge that is none.
func TestPurgeDamaged(t *testing.T) {
	s := openDir(t, t.TempDir())
	defer closeStore(t, s)
	r := putTestRoom(t, s, "12", alice)
	r.fill(t, s, 3)
	update(t, s, func(tx *Tx) error {
		h, err := tx.Head(r.num)
		if err != nil {
			return err
		}
		return errors.Join(
			tx.delete(bucketStream, appendU64(nil, uint64(h.Latest.Position()))),
			tx.put(bucketStream, appendU64(nil, uint64(h.First.Position())), []byte{streamEvent, byte(r.num)}),
			tx.put(bucketRoom, purgedKey(r.num+1), []byte("none")),
			tx.put(bucketRoom, purgedKey(r.num), []byte("12")))
	})
	var faults []string
	if err := s.Check(t.Context(), func(fault string) { faults = append(faults, fault) }); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(faults, "\n")
	for _, want := range []string{"being purged and has a head", `version "none"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if err := s.PurgeRoom(t.Context(), r.num, nil); err != nil {
		t.Fatal(err)
	}
}
