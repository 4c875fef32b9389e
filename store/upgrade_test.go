package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"hearth/state/matrix"
)

// unpackFormat puts the database that a Hearth of an earlier format has written into
// a directory of its own: that of the server old.test, of three accounts with devices
// and their keys, in rooms of versions 1, 6, 10, 11 and 12 with messages, threads,
// receipts and redactions.
func unpackFormat(t *testing.T, name string) (dir string) {
	t.Helper()
	packed, err := os.Open(filepath.Join("testdata", "formats", name+".db.zst"))
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	r, err := zstd.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var file bytes.Buffer
	if _, err := file.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, databaseFile), file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A file that an earlier release has written is opened, is whole by what this one
// asks of it, and has all that was in it.
func TestOpenEarlierFormat(t *testing.T) {
	dir := unpackFormat(t, "3")
	for range 2 { // the second time it is of our format
		s, err := Open(dir, "old.test", Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		w, err := s.blobs.Create(100) // the one file of alice's is no part of the database
		if err == nil {
			_, err = w.Write([]byte("hello media"))
		}
		if err == nil {
			_, _, err = w.Commit()
		}
		if err != nil {
			t.Fatal(err)
		}
		checkStore(t, s)
		view(t, s, func(tx *Tx) error {
			rooms := 0
			err := tx.Rooms(func(room RoomNum, head Head) (bool, error) {
				rooms++
				err := tx.RoomServers(room, func(server ServerNum, _ uint64) (bool, error) {
					t.Errorf("room %d: server %d is in it", room, server)
					return true, nil
				})
				return true, err
			})
			if rooms != 5 || err != nil {
				t.Errorf("%d rooms, %v", rooms, err)
			}
			for _, user := range []matrix.UserID{"@alice:old.test", "@bob:old.test", "@carol:old.test"} {
				changes := 0
				num := tx.UserNum(user)
				err := tx.DeviceChangesBack(num, func(c Change) (bool, error) {
					if changes++; c.User != num {
						t.Errorf("a change of %s is about user %d", user, c.User)
					}
					return changes < 100, nil
				})
				if changes == 0 || changes == 100 || err != nil {
					t.Errorf("%d changes of the devices of %s, %v", changes, user, err)
				}
			}
			return nil
		})
		closeStore(t, s)
	}
}
