package blob

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// A Writer writes one blob. It ends with Commit or Abort; a deferred Abort is
// harmless after Commit. It is for one goroutine.
type Writer struct {
	dir   *Dir
	file  *os.File // nil after Commit and Abort
	hash  hash.Hash
	size  int64
	limit int64
	check int64 // the size at which to look again how full the disk is
	err   error // the first fault: it sticks
}

// checkEvery is how many bytes are written between looks at how full the disk is.
const checkEvery = 4 << 20

// Create begins a blob of at most limit bytes.
func (d *Dir) Create(limit int64) (*Writer, error) {
	if err := d.checkFree(); err != nil {
		return nil, fmt.Errorf("create blob: %w", known(err))
	}
	f, err := d.calls.create(filepath.Join(d.path, tempDir, rand.Text()))
	if err != nil {
		return nil, fmt.Errorf("create blob: %w", known(err))
	}
	return &Writer{dir: d, file: f, hash: sha256.New(), limit: limit, check: checkEvery}, nil
}

// checkFree returns ErrFull when the disk has no more than the Reserve left.
func (d *Dir) checkFree() error {
	left, err := d.calls.free(d.path)
	if err == nil && left < Reserve {
		return syscall.ENOSPC
	}
	return err
}

// Write adds p. The error wraps ErrTooLarge beyond the limit and ErrFull when
// the disk is full; after an error the Writer is good for Abort only.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err == nil && w.file == nil {
		w.err = os.ErrClosed
	}
	if w.err == nil && int64(len(p)) > w.limit-w.size {
		w.err = ErrTooLarge
	}
	if w.err == nil && w.size >= w.check {
		w.check += checkEvery
		if err := w.dir.checkFree(); err != nil {
			w.err = known(err)
		}
	}
	if w.err != nil {
		return 0, fmt.Errorf("write blob: %w", w.err)
	}
	n, err := w.dir.calls.write(w.file, p)
	w.hash.Write(p[:n])
	w.size += int64(n)
	if err != nil {
		w.err = known(err)
		return n, fmt.Errorf("write blob: %w", w.err)
	}
	return n, nil
}

// Commit makes the blob durable and returns its name and its size in bytes.
// When it fails, nothing is left behind that a reader could meet under a name
// which its content does not have.
func (w *Writer) Commit() (Hash, int64, error) {
	defer w.Abort()
	if w.err == nil && w.file == nil {
		w.err = os.ErrClosed
	}
	if w.err != nil {
		return Hash{}, 0, fmt.Errorf("commit blob: %w", w.err)
	}
	h := Hash(w.hash.Sum(nil))
	if err := w.place(h); err != nil {
		w.err = known(err)
		return Hash{}, 0, fmt.Errorf("commit blob %s: %w", h, w.err)
	}
	return h, w.size, nil
}

// place takes the file from its temporary name to its own. Content that is
// there already is replaced by its equal, which also mends a damaged file;
// readers keep the one they have open.
func (w *Writer) place(h Hash) error {
	if err := w.dir.calls.sync(w.file); err != nil {
		return err
	}
	if err := w.dir.makeFan(h[0]); err != nil {
		return err
	}
	if err := w.dir.calls.rename(w.file.Name(), w.dir.file(h)); err != nil {
		return err
	}
	return w.dir.syncDir(w.dir.fan(h[0]))
}

// Abort gives the blob up and removes what has been written. After Commit or
// another Abort it does nothing.
func (w *Writer) Abort() {
	if w.file == nil {
		return
	}
	w.file.Close()
	os.Remove(w.file.Name()) // after a Commit there is none; else Open sweeps what stays
	w.file = nil
}

// noEOF turns the end of a file into success.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
