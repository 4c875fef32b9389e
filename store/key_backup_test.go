package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

func roomKey(room, session string, verified bool, index, forwarded uint64) RoomKey {
	data := fmt.Sprintf(`{"verified":%t,"index":%d,"forwarded":%d}`, verified, index, forwarded)
	return RoomKey{
		Room: matrix.RoomID("!" + room), Session: session,
		Verified: verified, FirstIndex: index, Forwarded: forwarded, Data: jsontext.Value(data),
	}
}

func createBackup(tb testing.TB, s *Store, user UserNum) (version BackupVersion) {
	tb.Helper()
	update(tb, s, func(tx *Tx) (err error) {
		version, err = tx.CreateBackup(user, "m.test", jsontext.Value(`{}`))
		return err
	})
	return version
}

// allKeys reads a range in Views of a few keys each.
func allKeys(tb testing.TB, s *Store, user UserNum, version BackupVersion, in RoomKeyRange) (keys []RoomKey) {
	tb.Helper()
	for {
		var after RoomKeyRange
		if len(keys) > 0 {
			last := keys[len(keys)-1]
			after = RoomKeyRange{last.Room, last.Session}
		}
		before := len(keys)
		view(tb, s, func(tx *Tx) error {
			return tx.RoomKeys(user, version, in, after, func(k RoomKey) (bool, error) {
				keys = append(keys, k)
				return len(keys) < before+3, nil
			})
		})
		if len(keys) < before+3 {
			return keys
		}
	}
}

func TestRoomKeyReplaces(t *testing.T) {
	old := roomKey("r", "s", true, 10, 5)
	tests := []struct {
		verified         bool
		index, forwarded uint64
		replaces         bool
	}{
		{true, 10, 5, false},
		{true, 10, 4, true},
		{true, 10, 6, false},
		{true, 9, 6, true},
		{true, 11, 4, false},
		{false, 9, 4, false},
		{false, 0, 0, false},
	}
	for _, tt := range tests {
		key := roomKey("r", "s", tt.verified, tt.index, tt.forwarded)
		if got := key.Replaces(old); got != tt.replaces {
			t.Errorf("%+v replaces %+v: %t", tt, old, got)
		}
		if !tt.verified && !old.Replaces(key) {
			t.Errorf("%+v does not replace %+v", old, tt)
		}
	}
}

// Of two different keys exactly one is the better one, and the best of many is
// kept in whatever order and parts they come.
func TestBestRoomKeyStays(t *testing.T) {
	s := openTest(t)
	user := addDevices(t, s, alice)
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		version := createBackup(t, s, user)
		var keys []RoomKey
		best := map[string]RoomKey{}
		for range 50 {
			session := fmt.Sprint("s", rnd.IntN(6))
			k := roomKey("r", session, rnd.IntN(2) == 0, rnd.Uint64N(3), rnd.Uint64N(3))
			keys = append(keys, k)
			if old, ok := best[session]; !ok || k.Replaces(old) {
				best[session] = k
			}
			for _, other := range keys {
				same := other.Verified == k.Verified && other.FirstIndex == k.FirstIndex && other.Forwarded == k.Forwarded
				if k.Replaces(other) == other.Replaces(k) != same {
					t.Fatalf("%+v and %+v replace each other", k, other)
				}
			}
		}
		rnd.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		for len(keys) > 0 {
			n := 1 + rnd.IntN(len(keys))
			update(t, s, func(tx *Tx) error {
				_, err := tx.PutRoomKeys(user, version, keys[:n])
				return err
			})
			keys = keys[n:]
		}
		for _, k := range allKeys(t, s, user, version, RoomKeyRange{}) {
			if want := best[k.Session]; string(want.Data) != string(k.Data) || k.Verified != want.Verified {
				t.Errorf("seed %d: kept %s, want %s", seed, k.Data, want.Data)
			}
			delete(best, k.Session)
		}
		if len(best) > 0 {
			t.Errorf("seed %d: lost %v", seed, slices.Collect(maps.Keys(best)))
		}
		update(t, s, func(tx *Tx) error { return tx.DeleteBackup(user, version) })
	}
}

func TestBackupCounts(t *testing.T) {
	s := openTest(t)
	user := addDevices(t, s, alice)
	version := createBackup(t, s, user)
	etags := map[uint64]bool{}
	put := func(count uint64, changes bool, keys ...RoomKey) {
		t.Helper()
		update(t, s, func(tx *Tx) error {
			b, err := tx.PutRoomKeys(user, version, keys)
			if b.Count != count || etags[b.ETag] == changes {
				t.Errorf("%d keys, etag %d, want %d keys and a change: %t", b.Count, b.ETag, count, changes)
			}
			etags[b.ETag] = true
			return err
		})
	}
	remove := func(count uint64, in RoomKeyRange) {
		t.Helper()
		update(t, s, func(tx *Tx) error {
			b, more, err := tx.DeleteRoomKeys(user, version, in, 100)
			if b.Count != count || more {
				t.Errorf("%d keys after deleting %v, want %d", b.Count, in, count)
			}
			etags[b.ETag] = true
			return err
		})
	}
	put(1, true, roomKey("a", "s", false, 1, 1))
	put(1, false, roomKey("a", "s", false, 1, 1))
	put(1, false, roomKey("a", "s", false, 2, 0))
	put(1, true, roomKey("a", "s", false, 0, 9))
	put(3, true, roomKey("a", "ss", false, 0, 0), roomKey("b", "s", false, 0, 0))
	remove(3, RoomKeyRange{Room: "!a", Session: "sss"})
	remove(3, RoomKeyRange{Room: "!unheard-of"})
	if keys := allKeys(t, s, user, version, RoomKeyRange{Room: "!a", Session: "s"}); len(keys) != 1 || keys[0].Session != "s" {
		t.Errorf("keys of session s: %v", keys)
	}
	remove(2, RoomKeyRange{Room: "!a", Session: "s"})
	remove(1, RoomKeyRange{Room: "!a"})
	remove(0, RoomKeyRange{})
	put(1, true, roomKey("a", "s", false, 5, 5))
}

func TestBackupVersions(t *testing.T) {
	s := openTest(t)
	user := addDevices(t, s, alice)
	current := func(want BackupVersion) {
		t.Helper()
		view(t, s, func(tx *Tx) error {
			b, err := tx.CurrentBackup(user)
			if b.Version != want || (want == 0) != errors.Is(err, ErrNotFound) {
				t.Errorf("current backup %d, want %d: %v", b.Version, want, err)
			}
			return nil
		})
	}
	remove := func(version BackupVersion, want error) {
		t.Helper()
		err := s.Update(t.Context(), func(tx *Tx) error { return tx.DeleteBackup(user, version) })
		if !errors.Is(err, want) {
			t.Errorf("delete backup %d: %v, want %v", version, err, want)
		}
	}
	current(0)
	remove(1, ErrNotFound)
	given := map[BackupVersion]bool{}
	for range 3 {
		version := createBackup(t, s, user)
		current(version)
		given[version] = true
	}
	remove(3, nil)
	current(2)
	remove(3, nil)
	remove(1, nil)
	remove(0, ErrNotFound)
	remove(4, ErrNotFound)
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 50 {
		if rnd.IntN(2) == 0 {
			remove(BackupVersion(1+rnd.IntN(len(given))), nil)
			continue
		}
		version := createBackup(t, s, user)
		if given[version] {
			t.Errorf("version %d was given twice", version)
		}
		given[version] = true
	}
}

// A deleted backup cannot be read from that moment on, and its keys go in
// parts; the other backups keep theirs.
func TestSweepBackups(t *testing.T) {
	s := openTest(t)
	user := addDevices(t, s, alice)
	versions := []BackupVersion{createBackup(t, s, user), createBackup(t, s, user), createBackup(t, s, user)}
	for _, version := range versions {
		update(t, s, func(tx *Tx) error {
			for i := range 25 {
				if _, err := tx.PutRoomKeys(user, version, []RoomKey{roomKey("r", fmt.Sprint(i), false, 0, 0)}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	update(t, s, func(tx *Tx) error {
		return errors.Join(tx.DeleteBackup(user, versions[0]), tx.DeleteBackup(user, versions[2]))
	})
	checkStore(t, s)
	rounds := 0
	for more := true; more; rounds++ {
		update(t, s, func(tx *Tx) (err error) {
			more, err = tx.SweepBackups(user, 10)
			return err
		})
	}
	if rounds != 7 {
		t.Errorf("%d rounds to sweep 50 keys, want 7", rounds)
	}
	if keys := allKeys(t, s, user, versions[1], RoomKeyRange{}); len(keys) != 25 {
		t.Errorf("%d keys are left of the other backup", len(keys))
	}
	view(t, s, func(tx *Tx) error {
		n := 0
		err := tx.scan(bucketUser, keyOf(uint32(user), userBackupKey), nil, func(_, _ []byte) (bool, error) {
			n++
			return true, nil
		})
		if n != 25 {
			t.Errorf("%d keys are left in all", n)
		}
		return err
	})
}

func TestTooManyBackups(t *testing.T) {
	s := openTest(t)
	user := addDevices(t, s, alice)
	for range maxBackups {
		createBackup(t, s, user)
	}
	err := s.Update(t.Context(), func(tx *Tx) error {
		_, err := tx.CreateBackup(user, "m.test", jsontext.Value(`{}`))
		return err
	})
	if !errors.Is(err, ErrFull) {
		t.Errorf("one backup too many: %v", err)
	}
}
