// Package blob keeps the bytes of media as plain files, named by the SHA-256 of
// what is in them. The same content is one file, however often it is written.
//
// A file comes into being whole or not at all. The system calls of a write that
// goes well:
//
//	openat(DIR/tmp/RANDOM, O_CREAT|O_EXCL)   Create
//	write ...                                Write, hashing as it goes
//	fsync(file)                              Commit: the bytes are on the disk
//	mkdir(DIR/ab), fsync(DIR)                only for the first file of its kind
//	rename(DIR/tmp/RANDOM, DIR/ab/abcd...)
//	fsync(DIR/ab)                            the name is on the disk
//	close(file)
//
// A crash before the rename leaves a file under tmp, which the next Open sweeps
// away; a crash after it leaves a file that nobody has heard of yet, which the
// keeper of the names finds with Walk. Whoever refers to a blob records that
// after Commit has returned and no earlier.
//
// The package knows nothing of Matrix and nothing of who refers to a file.
package blob

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// What a call can meet.
var (
	// ErrNotFound is wrapped where there is no file with that content.
	ErrNotFound = errors.New("no such blob")
	// ErrTooLarge is wrapped by writes beyond the limit given to Create.
	ErrTooLarge = errors.New("blob is larger than allowed")
	// ErrFull is wrapped where the disk or the quota has no room left, but for
	// the Reserve; so is syscall.ENOSPC. Nothing of the write stays behind.
	ErrFull = errors.New("no space left for blobs")
	// ErrBadHash is wrapped where a name is not a hash.
	ErrBadHash = errors.New("not a blob hash")
)

// Hash names a blob: the SHA-256 of its bytes.
type Hash [sha256.Size]byte

// String returns the hash in hexadecimal, as it stands in file names.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ParseHash reads what String wrote.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) != 2*len(h) {
		return Hash{}, fmt.Errorf("%q: %w", s, ErrBadHash)
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil || h.String() != s {
		return Hash{}, fmt.Errorf("%q: %w", s, ErrBadHash)
	}
	return h, nil
}

// Reserve is how many bytes of the disk a write leaves to others: a database that
// cannot commit any more cannot be cleaned up either.
const Reserve = 64 << 20

// tempDir is where files live until they have a name. It is no hash prefix.
const tempDir = "tmp"

// A Dir is a folder of blobs. Its methods may be called at the same time, with
// one exception that its user must prevent: deleting a blob while the same
// content is being written and referred to.
type Dir struct {
	path  string
	calls calls

	mu   sync.Mutex // guards made; held over mkdir so that nobody overtakes its fsync
	made [256]bool  // which fan-out folders are on the disk
}

// calls are the system calls that can fail halfway; tests make them fail.
type calls struct {
	free   func(path string) (int64, error) // bytes left on the disk
	create func(path string) (*os.File, error)
	write  func(f *os.File, p []byte) (int, error)
	sync   func(f *os.File) error
	mkdir  func(path string) error
	rename func(from, to string) error
}

var realCalls = calls{
	free: free,
	create: func(path string) (*os.File, error) {
		return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	},
	write:  (*os.File).Write,
	sync:   (*os.File).Sync,
	mkdir:  func(path string) error { return os.Mkdir(path, 0o700) },
	rename: os.Rename,
}

// Open opens the folder, makes it where it is missing, and removes what writes
// that did not finish have left. One process at a time may have it open: call
// Open with the lock of the database held.
func Open(path string) (*Dir, error) {
	d := &Dir{path: path, calls: realCalls}
	temp := filepath.Join(path, tempDir)
	if err := os.MkdirAll(temp, 0o700); err != nil {
		return nil, fmt.Errorf("open blobs: %w", err)
	}
	left, err := os.ReadDir(temp)
	if err != nil {
		return nil, fmt.Errorf("open blobs: %w", err)
	}
	for _, e := range left {
		if err := os.Remove(filepath.Join(temp, e.Name())); err != nil {
			return nil, fmt.Errorf("open blobs: sweep: %w", err)
		}
	}
	return d, nil
}

// Open opens a blob for reading; the caller closes it. It stays readable when
// the blob is deleted meanwhile. The error wraps ErrNotFound if there is none.
func (d *Dir) Open(h Hash) (*os.File, error) {
	f, err := os.Open(d.file(h))
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", h, known(err))
	}
	return f, nil
}

// Size returns the number of bytes in a blob. The error wraps ErrNotFound if
// there is none.
func (d *Dir) Size(h Hash) (int64, error) {
	info, err := os.Stat(d.file(h))
	if err != nil {
		return 0, fmt.Errorf("size of blob %s: %w", h, known(err))
	}
	return info.Size(), nil
}

// Delete removes a blob; that there is none is no error. The name is gone from
// the disk for good only some time later: after a power cut a blob may be back,
// and Walk shows it.
func (d *Dir) Delete(h Hash) error {
	if err := os.Remove(d.file(h)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete blob %s: %w", h, err)
	}
	return nil
}

// Stat is what Walk tells of a blob.
type Stat struct {
	Hash    Hash
	Size    int64     // bytes
	Written time.Time // when its content was last written
}

// Walk calls fn for each blob, in no order, until fn returns an error, which
// Walk then returns. Blobs that come or go meanwhile may be shown or not; fn
// may delete any. Files that are no blobs are passed over.
func (d *Dir) Walk(fn func(Stat) error) error {
	for i := range len(d.made) {
		if err := d.walkFan(d.fan(byte(i)), fn); err != nil {
			return fmt.Errorf("walk blobs: %w", err)
		}
	}
	return nil
}

// walkFan walks one fan-out folder, a bounded number of names at a time.
func (d *Dir) walkFan(path string, fn func(Stat) error) error {
	dir, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(256)
		for _, e := range entries {
			h, err := ParseHash(e.Name())
			if err != nil || filepath.Base(path) != e.Name()[:2] {
				continue
			}
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
				continue
			}
			if err != nil {
				return err
			}
			if err := fn(Stat{Hash: h, Size: info.Size(), Written: info.ModTime()}); err != nil {
				return err
			}
		}
		if len(entries) == 0 {
			return noEOF(err)
		}
	}
}

// fan returns the folder of the blobs whose hash begins with b.
func (d *Dir) fan(b byte) string { return filepath.Join(d.path, hex.EncodeToString([]byte{b})) }

// file returns the path of a blob.
func (d *Dir) file(h Hash) string { return filepath.Join(d.fan(h[0]), h.String()) }

// makeFan sees to it that the fan-out folder for b is on the disk.
func (d *Dir) makeFan(b byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.made[b] {
		return nil
	}
	if err := d.calls.mkdir(d.fan(b)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := d.syncDir(d.path); err != nil {
		return err
	}
	d.made[b] = true
	return nil
}

// syncDir brings the names in a folder onto the disk.
func (d *Dir) syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return d.calls.sync(dir)
}

// known puts this package's sentinel beside the system's error.
func known(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrNotFound
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
