package blob

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

const noLimit = 1 << 40

func open(t *testing.T) *Dir {
	t.Helper()
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// write stores content and checks that it has the name it must have.
func write(t *testing.T, d *Dir, content []byte) Hash {
	t.Helper()
	h, err := tryWrite(d, content)
	if err != nil {
		t.Fatal(err)
	}
	if h != sha256.Sum256(content) {
		t.Fatalf("content is named %s, want its SHA-256", h)
	}
	return h
}

func tryWrite(d *Dir, content []byte) (Hash, error) {
	w, err := d.Create(noLimit)
	if err != nil {
		return Hash{}, err
	}
	defer w.Abort()
	if _, err := io.Copy(w, bytes.NewReader(content)); err != nil {
		return Hash{}, err
	}
	h, size, err := w.Commit()
	if err == nil && size != int64(len(content)) {
		return h, errors.New("wrong size")
	}
	return h, err
}

func read(d *Dir, h Hash) ([]byte, error) {
	f, err := d.Open(h)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// names returns what Walk shows, and fails when anything else is in the folder.
func names(t *testing.T, d *Dir) map[Hash]int64 {
	t.Helper()
	got := map[Hash]int64{}
	if err := d.Walk(func(s Stat) error { got[s.Hash] = s.Size; return nil }); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(d.path, tempDir))
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 0 {
		t.Errorf("%d temporary files are left", len(left))
	}
	return got
}

func TestWriteReadDelete(t *testing.T) {
	d := open(t)
	a, b, empty := []byte("a file"), bytes.Repeat([]byte("b"), 100_000), []byte{}
	for _, content := range [][]byte{a, b, empty, a} {
		h := write(t, d, content)
		if got, err := read(d, h); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("read back %d bytes, %v; want %d", len(got), err, len(content))
		}
		if size, err := d.Size(h); err != nil || size != int64(len(content)) {
			t.Errorf("Size = %d, %v", size, err)
		}
	}
	if got := names(t, d); len(got) != 3 || got[sha256.Sum256(b)] != int64(len(b)) {
		t.Errorf("Walk shows %v, want three blobs", got)
	}
	open, err := d.Open(sha256.Sum256(a))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for range 2 {
		if err := d.Delete(sha256.Sum256(a)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := io.ReadAll(open); err != nil || !bytes.Equal(got, a) {
		t.Errorf("an open blob reads %q, %v after its deletion", got, err)
	}
	if _, err := d.Open(sha256.Sum256(a)); !errors.Is(err, ErrNotFound) {
		t.Errorf("Open after Delete: %v", err)
	}
	if _, err := d.Size(sha256.Sum256(a)); !errors.Is(err, ErrNotFound) {
		t.Errorf("Size after Delete: %v", err)
	}
	if got := names(t, d); len(got) != 2 {
		t.Errorf("Walk shows %d blobs after one of three was deleted", len(got))
	}
}

func TestOpenSweepsAndKeeps(t *testing.T) {
	d := open(t)
	kept := write(t, d, []byte("kept"))
	w, err := d.Create(noLimit)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("cut off by a crash")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.path, "README"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.fan(kept[0]), "stray"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Open(d.path)
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, again); len(got) != 1 || got[kept] != 4 {
		t.Errorf("after the crash: %v", got)
	}
	write(t, again, []byte("and on"))
}

func TestWriterEnds(t *testing.T) {
	d := open(t)
	w, err := d.Create(4)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("1234")); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Write([]byte("5")); n != 0 || !errors.Is(err, ErrTooLarge) {
		t.Errorf("write beyond the limit: %d, %v", n, err)
	}
	if _, _, err := w.Commit(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("commit after a fault: %v", err)
	}
	if _, err := w.Write(nil); err == nil {
		t.Error("a Writer that has ended takes more")
	}
	w.Abort()
	if got := names(t, d); len(got) != 0 {
		t.Errorf("a refused write left %v", got)
	}
	h := write(t, d, []byte("whole"))
	if got, err := read(d, h); err != nil || string(got) != "whole" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestParseHash(t *testing.T) {
	h := Hash(sha256.Sum256(nil))
	if got, err := ParseHash(h.String()); err != nil || got != h {
		t.Errorf("ParseHash(%s) = %s, %v", h, got, err)
	}
	upper := bytes.ToUpper([]byte(h.String()))
	for _, bad := range []string{"", "..", h.String()[1:], h.String() + "0", string(upper), "g" + h.String()[1:]} {
		if _, err := ParseHash(bad); !errors.Is(err, ErrBadHash) {
			t.Errorf("ParseHash(%q): %v", bad, err)
		}
	}
}

// Every system call fails once at each place, in two ways: it did nothing, or
// it did its work and says that it did not. The caller gets the error, no file
// has a name that is not its hash, what was there before is there still, and
// the next write of the same content succeeds.
func TestFailedCalls(t *testing.T) {
	content := bytes.Repeat([]byte("content "), 10_000)
	for _, lie := range []bool{false, true} {
		for n := 1; ; n++ {
			d := open(t)
			before := write(t, d, []byte("before"))
			d.calls = failing(n, lie)
			h, err := tryWrite(d, content)
			if err == nil {
				if n < 6 {
					t.Fatalf("only %d calls were made to fail", n-1)
				}
				break
			}
			if !errors.Is(err, ErrFull) || !errors.Is(err, syscall.ENOSPC) || h != (Hash{}) {
				t.Errorf("call %d: %s, %v", n, h, err)
			}
			for h := range names(t, d) {
				if got, err := read(d, h); err != nil || Hash(sha256.Sum256(got)) != h {
					t.Errorf("call %d: blob %s holds something else: %v", n, h, err)
				}
			}
			if _, err := d.Size(before); err != nil {
				t.Errorf("call %d: %v", n, err)
			}
			if again, err := Open(d.path); err != nil {
				t.Errorf("call %d: %v", n, err)
			} else {
				write(t, again, content)
			}
			d.calls = realCalls
			write(t, d, content)
		}
	}
}

// failing returns system calls of which the nth fails with a full disk; if lie
// is set it does its work first.
func failing(n int, lie bool) calls {
	fail := func(do func() error) error {
		if n--; n != 0 {
			return do()
		}
		if lie {
			do()
		}
		return &os.PathError{Op: "fail", Err: syscall.ENOSPC}
	}
	return calls{
		free: func(path string) (left int64, err error) {
			err = fail(func() error { left, err = realCalls.free(path); return err })
			return left, err
		},
		create: func(path string) (f *os.File, err error) {
			err = fail(func() error { f, err = realCalls.create(path); return err })
			if err != nil && f != nil {
				f.Close()
				os.Remove(path)
			}
			return f, err
		},
		write: func(f *os.File, p []byte) (done int, err error) {
			err = fail(func() error { done, err = realCalls.write(f, p); return err })
			if err != nil && done == 0 {
				done, _ = realCalls.write(f, p[:len(p)/2]) // disks fill in the middle
			}
			return done, err
		},
		sync:   func(f *os.File) error { return fail(func() error { return realCalls.sync(f) }) },
		mkdir:  func(path string) error { return fail(func() error { return realCalls.mkdir(path) }) },
		rename: func(from, to string) error { return fail(func() error { return realCalls.rename(from, to) }) },
	}
}

// A disk is full for blobs while there is room for the database on it.
func TestReserve(t *testing.T) {
	d := open(t)
	left := int64(Reserve)
	d.calls.free = func(string) (int64, error) { return left, nil }
	write(t, d, []byte("the last one"))
	w, err := d.Create(noLimit)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	left--
	if _, err := d.Create(1); !errors.Is(err, ErrFull) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("create on a full disk: %v", err)
	}
	part := make([]byte, 1<<20)
	for range checkEvery / len(part) {
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write(part); !errors.Is(err, ErrFull) {
		t.Errorf("the disk fills up meanwhile: %v", err)
	}
}

// Writers of the same and of other content, readers and walkers do not disturb
// one another.
func TestConcurrentUse(t *testing.T) {
	d := open(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				content := bytes.Repeat([]byte{byte(j)}, 1000+j)
				h, err := tryWrite(d, content)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := read(d, h); err != nil || !bytes.Equal(got, content) {
					t.Errorf("writer %d: %d bytes, %v", i, len(got), err)
				}
				if err := d.Walk(func(Stat) error { return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := names(t, d); len(got) != 20 {
		t.Errorf("%d blobs, want 20", len(got))
	}
}
