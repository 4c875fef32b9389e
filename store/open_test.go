package store

import (
	"context"
	"os"
	"testing"

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
