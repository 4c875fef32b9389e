package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"hearth/state/matrix"
)

// testServer is the server name of the stores of tests.
const testServer matrix.ServerName = "hearth.test"

// openTest opens an empty store. When the test ends, Check looks at all that
// the test has left in it, and the store is closed.
func openTest(tb testing.TB) *Store {
	tb.Helper()
	s := openDir(tb, tb.TempDir())
	tb.Cleanup(func() {
		checkStore(tb, s)
		closeStore(tb, s)
	})
	return s
}

func openDir(tb testing.TB, dir string) *Store {
	tb.Helper()
	s, err := Open(dir, testServer, Options{NoSync: true})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func closeStore(tb testing.TB, s *Store) {
	tb.Helper()
	if err := s.Close(); err != nil {
		tb.Error(err)
	}
}

// checkStore fails the test for each fault that Check finds. It must not use
// the test's context, which has ended when cleanups run.
func checkStore(tb testing.TB, s *Store) {
	tb.Helper()
	faults := 0
	err := s.Check(context.Background(), func(fault string) {
		if faults++; faults <= 20 {
			tb.Errorf("check: %s", fault)
		}
	})
	if err != nil {
		tb.Errorf("check: %v", err)
	}
}

// update runs fn in a write and fails the test with its error.
func update(tb testing.TB, s *Store, fn func(*Tx) error) {
	tb.Helper()
	if err := s.Update(context.Background(), fn); err != nil {
		tb.Fatal(err)
	}
}

// view runs fn in a read and fails the test with its error.
func view(tb testing.TB, s *Store, fn func(*Tx) error) {
	tb.Helper()
	if err := s.View(fn); err != nil {
		tb.Fatal(err)
	}
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashChildDir); dir != "" {
		crashChild(dir)
	}
	os.Exit(m.Run())
}

func TestOpenLocked(t *testing.T) {
	s := openTest(t)
	if _, err := Open(s.Dir(), testServer, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("a second opening: %v", err)
	}
	start := time.Now()
	if _, err := Open(s.Dir(), testServer, Options{Lock: 60 * time.Millisecond}); !errors.Is(err, ErrLocked) {
		t.Errorf("a second opening: %v", err)
	}
	if took := time.Since(start); took < 50*time.Millisecond {
		t.Errorf("it waited %s for the lock", took)
	}
}

// A data directory belongs to one server name for ever; no name means whatever
// name it has.
func TestOpenOtherServer(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, openDir(t, dir))
	if _, err := Open(dir, "other.test", Options{}); !errors.Is(err, ErrOtherServer) {
		t.Errorf("another name: %v", err)
	}
	s, err := Open(dir, "", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Server() != testServer {
		t.Errorf("server %q", s.Server())
	}
	checkStore(t, s)
	closeStore(t, s)
}

// A file that is not a database is an error and stays as it is.
func TestOpenForeignFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, databaseFile)
	if err := os.WriteFile(name, []byte("a letter to the editor"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, testServer, Options{}); err == nil {
		t.Error("it opened")
	}
	if text, err := os.ReadFile(name); err != nil || string(text) != "a letter to the editor" {
		t.Errorf("it became %q: %v", text, err)
	}
}

// Opening a file that is as it should be writes nothing.
func TestOpenWritesNothing(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	putTestRoom(t, s, "12", alice)
	closeStore(t, s)
	before, err := os.ReadFile(filepath.Join(dir, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	s = openDir(t, dir)
	checkStore(t, s)
	closeStore(t, s)
	after, err := os.ReadFile(filepath.Join(dir, databaseFile))
	if err != nil || string(before) != string(after) {
		t.Errorf("the file has changed: %v", err)
	}
}

// The list of buckets, spread over pages by buckets that were small, is on one
// page again after the next opening.
func TestFlatten(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	pageType := func() (typ string) {
		view(t, s, func(tx *Tx) error {
			page, err := tx.bolt.Page(int(tx.bolt.Cursor().Bucket().Root()))
			typ = page.Type
			return err
		})
		return typ
	}
	fill := func(n int) { // each bucket holds n bytes, first inside the list, then on pages of its own
		update(t, s, func(tx *Tx) error {
			for name := range bucketName(buckets) {
				if err := tx.put(name, []byte("filler"), make([]byte, n)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	fill(700)
	fill(3000)
	if typ := pageType(); typ != "branch" {
		t.Fatalf("the list begins with a %s page, the test is no good any more", typ)
	}
	closeStore(t, s)
	s = openDir(t, dir)
	if typ := pageType(); typ != "leaf" {
		t.Errorf("the list begins with a %s page", typ)
	}
	update(t, s, func(tx *Tx) error {
		for name := range bucketName(buckets) {
			if err := tx.delete(name, []byte("filler")); err != nil {
				return err
			}
		}
		return nil
	})
	checkStore(t, s)
	closeStore(t, s)
}

// setFormat makes the data in dir that of another format.
func setFormat(t *testing.T, dir string, format uint64) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(dir, databaseFile), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		meta := tx.Bucket([]byte(bucketTraits[bucketMeta].name))
		return meta.Put([]byte(metaFormat), binary.AppendUvarint(nil, format))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestOpenNewerFormat(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, openDir(t, dir))
	setFormat(t, dir, formatVersion+1)
	if _, err := Open(dir, testServer, Options{}); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("a newer format: %v", err)
	}
	setFormat(t, dir, 0)
	if _, err := Open(dir, testServer, Options{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("format 0: %v", err)
	}
}

func TestUpgradesLeadToOurFormat(t *testing.T) {
	if len(upgrades) != formatVersion-1 {
		t.Errorf("%d upgrades lead to format %d, ours is %d", len(upgrades), len(upgrades)+1, formatVersion)
	}
}

// Older data go through each step that they have not been through, in order,
// and a step that fails leaves them as they were.
func TestUpgrade(t *testing.T) {
	s := openTest(t)
	key := []byte("steps")
	step := func(n int) func(*Tx) error {
		return func(tx *Tx) error {
			return tx.put(bucketMeta, key, fmt.Appendf(append([]byte(nil), tx.get(bucketMeta, key)...), "%d", n))
		}
	}
	steps := []func(*Tx) error{step(1), step(2), step(3)}
	for from, want := range map[int]string{1: "123", 2: "23", 3: "3", 4: ""} {
		err := s.Update(t.Context(), func(tx *Tx) error {
			if err := tx.climb(from, steps); err != nil {
				return err
			}
			if got := string(tx.get(bucketMeta, key)); got != want {
				t.Errorf("from format %d: steps %q, want %q", from, got, want)
			}
			format, _ := binary.Uvarint(tx.get(bucketMeta, []byte(metaFormat)))
			if from < 4 && format != 4 {
				t.Errorf("from format %d: to format %d", from, format)
			}
			return errModel // the next one begins afresh
		})
		if !errors.Is(err, errModel) {
			t.Error(err)
		}
	}
	steps[1] = func(*Tx) error { return errModel }
	err := s.Update(t.Context(), func(tx *Tx) error { return tx.climb(1, steps) })
	if !errors.Is(err, errModel) {
		t.Errorf("a step that fails: %v", err)
	}
	view(t, s, func(tx *Tx) error {
		if v := tx.get(bucketMeta, key); v != nil {
			t.Errorf("it left %q", v)
		}
		return nil
	})
}
