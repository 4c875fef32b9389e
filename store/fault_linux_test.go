package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// failWrites makes every write to the database file fail until the returned
// function is called: another description of the file, good for reading alone,
// takes the place of its own.
func failWrites(t *testing.T, s *Store) (mend func()) {
	t.Helper()
	path := s.bolt.Path()
	fd := openNumber(t, path)
	own, err := syscall.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	readOnly, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Dup3(int(readOnly.Fd()), fd, syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(syscall.Dup3(own, fd, syscall.O_CLOEXEC), syscall.Close(own), readOnly.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// openNumber finds the descriptor by which this process has a file open.
func openNumber(t *testing.T, path string) int {
	t.Helper()
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	for _, entry := range open {
		if target, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil && target == path {
			fd, err := strconv.Atoi(entry.Name())
			if err != nil {
				t.Fatal(err)
			}
			return fd
		}
	}
	t.Fatalf("%s is not open", path)
	return -1
}

// While the disk refuses writes, every Update fails and leaves nothing, reads
// go on, and afterwards all is as if nothing had happened.
func TestFailingDisk(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "12", alice)
	var mu sync.Mutex // guards stored and failed
	stored, failed := map[int]bool{}, map[int]bool{}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := w; ctx.Err() == nil; i += 3 {
				err := s.Update(context.Background(), func(tx *Tx) error {
					if err := putUser(i)(tx); err != nil {
						return err
					}
					_, err := r.member(tx, alice, "join")
					return err
				})
				mu.Lock()
				stored[i], failed[i] = err == nil, err != nil
				mu.Unlock()
			}
		})
	}
	for range 5 {
		time.Sleep(5 * time.Millisecond)
		mend := failWrites(t, s)
		if err := s.Update(t.Context(), putUser(-1)); !errors.Is(err, syscall.EBADF) {
			t.Errorf("write to a failing disk: %v", err)
		}
		checkStore(t, s)
		mend()
	}
	stop()
	wg.Wait()
	checkStore(t, s)
	lost, kept := 0, 0
	for i := range stored {
		switch has := hasUser(t, s, i); {
		case stored[i] && !has:
			lost++
		case failed[i] && has:
			kept++
		}
	}
	if lost > 0 || kept > 0 {
		t.Errorf("%d acknowledged writes are lost, %d failed ones are kept", lost, kept)
	}
	if hasUser(t, s, -1) {
		t.Error("a write that the disk refused is there")
	}
}

// A database that may not grow any more says so, stays whole, and can be
// cleaned up.
func TestFullDatabase(t *testing.T) {
	s, err := Open(t.TempDir(), testServer, Options{NoSync: true, MaxSize: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	key := func(i int) []byte { return appendU32(keyOf(0, uiaSession), uint32(i)) }
	full := func(size int) (n int) {
		for err = nil; err == nil; n++ {
			err = s.Update(t.Context(), func(tx *Tx) error {
				for i := range 16 {
					if err := tx.put(bucketUser, key(n<<8+i), make([]byte, size)); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if !errors.Is(err, ErrFull) {
			t.Errorf("a full database: %v", err)
		}
		return n - 1
	}
	n := full(16 << 10)
	checkStore(t, s)
	for i := range n {
		err := s.Reclaim(t.Context(), 0, func(tx *Tx) error {
			_, err := tx.deleteAll(bucketUser, key(i << 8)[:8], 16)
			return err
		})
		if err != nil {
			t.Fatalf("deleting from a full database: %v", err)
		}
	}
	checkStore(t, s)
	if again := full(16 << 10); again < n*9/10 {
		t.Errorf("%d writes found room, then all was deleted, and %d did", n, again)
	}
}
