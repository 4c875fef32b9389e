package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"hearth/state/matrix"
	"hearth/store/blob"
)

// File and folder names inside the data directory.
const (
	databaseFile = "hearth.db"
	mediaFolder  = "media"
)

// A Store is the open data directory. Its methods may be called by several
// goroutines at once. The zero value is not usable; see [Open].
type Store struct {
	dir      string
	bolt     *bolt.DB
	blobs    *blob.Dir
	queue    queue
	news     news
	position atomic.Uint64 // the newest committed Position
	maxSize  int           // bytes that the file may have, 0: any number
	server   matrix.ServerName
	bodies   bodyCodec
}

// Options are what Open may be told; the zero value is right for a server.
type Options struct {
	// Lock is how long Open waits for another process to release the data.
	// If zero, it does not wait.
	Lock time.Duration
	// MaxSize bounds the database file in bytes. If zero: no bound on 64-bit
	// systems, 1 GiB on 32-bit ones, where a larger mapping would leave a
	// file that cannot be opened again.
	MaxSize int
	// NoSync leaves out every fsync. Tests alone use it: a power cut then
	// loses the file.
	NoSync bool
}

// Open opens the data directory dir, making it if it is not there, for the
// server called name. It fails with ErrLocked while another process has it,
// with ErrOtherServer when it was made for another name, and with
// ErrNewerFormat when a newer Hearth wrote it. Close it after use.
func Open(dir string, name matrix.ServerName, opt Options) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	db, err := bolt.Open(filepath.Join(dir, databaseFile), 0o600, boltOptions(opt))
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("open %s: %w", dir, ErrLocked)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	s := &Store{dir: dir, bolt: db, server: name, maxSize: db.MaxSize}
	if err := s.begin(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// boltOptions fixes what must not follow the machine: 4 KiB pages (a board
// with 16 KiB pages would write 3.6 times as much), a freelist that is synced,
// so that opening does not scan the file, and a mapping that seldom moves.
func boltOptions(opt Options) *bolt.Options {
	o := *bolt.DefaultOptions
	o.PageSize = 4096
	o.FreelistType = bolt.FreelistMapType
	o.NoFreelistSync = false
	o.Timeout = max(opt.Lock, time.Millisecond)
	o.NoSync = opt.NoSync
	o.MaxSize = opt.MaxSize
	o.InitialMmapSize = 1 << 30
	if bits.UintSize == 32 {
		o.InitialMmapSize = 64 << 20
		if o.MaxSize == 0 || o.MaxSize > 1<<30 {
			o.MaxSize = 1 << 30
		}
	}
	if o.MaxSize > 0 {
		o.InitialMmapSize = min(o.InitialMmapSize, o.MaxSize)
	}
	return &o
}

// begin makes or checks what every open store has.
func (s *Store) begin() error {
	s.queue.init()
	s.news.init()
	s.bodies.init()
	blobs, err := blob.Open(filepath.Join(s.dir, mediaFolder))
	if err != nil {
		return err
	}
	s.blobs = blobs
	if err := s.prepare(); err != nil {
		return fmt.Errorf("open %s: %w", s.dir, err)
	}
	return s.bolt.View(func(btx *bolt.Tx) error {
		tx := &Tx{store: s, bolt: btx}
		s.position.Store(tx.in(bucketStream).Sequence())
		return nil
	})
}

// prepare makes a new file's buckets, or checks whose file an old one is and
// upgrades it. A file that is as it should be is not written.
func (s *Store) prepare() error {
	btx, err := s.bolt.Begin(true)
	if err != nil {
		return err
	}
	defer func() { _ = btx.Rollback() }() // nothing to do after a commit
	tx := &Tx{store: s, bolt: btx}
	if btx.Bucket([]byte(bucketTraits[bucketMeta].name)) == nil {
		if err := s.found(tx); err != nil {
			return err
		}
		return errors.Join(commitError(btx), syncFolder(s.dir))
	}
	if err := errors.Join(s.recognise(tx), tx.flatten()); err != nil || tx.wrote == 0 {
		return err
	}
	return commitError(btx)
}

// found writes what every file begins with.
func (s *Store) found(tx *Tx) error {
	for _, traits := range bucketTraits {
		if _, err := tx.bolt.CreateBucket([]byte(traits.name)); err != nil {
			return fmt.Errorf("make bucket %s: %w", traits.name, err)
		}
	}
	return errors.Join(
		tx.put(bucketMeta, []byte(metaFormat), binary.AppendUvarint(nil, formatVersion)),
		tx.put(bucketMeta, []byte(metaServerName), []byte(s.server)),
		tx.putSecret(),
	)
}

// flatten brings the list of buckets back onto one page. Small buckets are
// kept inside that list; once they have grown out of it, bbolt leaves it spread
// over pages of which every commit would have to write three in place of one.
func (tx *Tx) flatten() error {
	list := tx.bolt.Cursor().Bucket()
	page, err := tx.bolt.Page(int(list.Root()))
	if err != nil || page == nil || page.Type != "branch" {
		return err
	}
	tx.wrote++
	for _, traits := range bucketTraits { // what is deleted from is merged with its neighbour
		beside := []byte(traits.name + "-")
		if _, err := tx.bolt.CreateBucket(beside); err != nil {
			return fmt.Errorf("flatten: %w", err)
		}
		if err := tx.bolt.DeleteBucket(beside); err != nil {
			return fmt.Errorf("flatten: %w", err)
		}
	}
	return nil
}

// recognise holds an existing file to our server name and format.
func (s *Store) recognise(tx *Tx) error {
	owner := matrix.ServerName(tx.get(bucketMeta, []byte(metaServerName)))
	if s.server == "" {
		s.server = owner
	}
	if owner != s.server {
		return fmt.Errorf("data of %s, asked for %s: %w", owner, s.server, ErrOtherServer)
	}
	r := reader{b: tx.get(bucketMeta, []byte(metaFormat))}
	format := r.uvarint()
	if r.err != nil {
		return fmt.Errorf("format version: %w", r.err)
	}
	if format > formatVersion {
		return fmt.Errorf("format %d, this Hearth knows %d: %w", format, formatVersion, ErrNewerFormat)
	}
	return tx.upgrade(int(format))
}

// Server returns the server name that the data belongs to.
func (s *Store) Server() matrix.ServerName { return s.server }

// Dir returns the data directory.
func (s *Store) Dir() string { return s.dir }

// Blobs returns the folder of media bytes.
func (s *Store) Blobs() *blob.Dir { return s.blobs }

// Close waits for the write that is under way, refuses further ones with
// ErrClosed, and closes the file.
func (s *Store) Close() error {
	s.queue.close()
	s.news.close()
	if err := s.bolt.Close(); err != nil {
		return fmt.Errorf("close %s: %w", s.dir, err)
	}
	return nil
}

// View runs fn on the newest committed state. It sees nothing of later
// commits, however long it runs; it must not wait for anything but the disk.
func (s *Store) View(fn func(*Tx) error) error {
	btx, err := s.bolt.Begin(false)
	if err != nil {
		return fmt.Errorf("begin a read: %w", closedError(err))
	}
	defer func() { _ = btx.Rollback() }() // a read has nothing to lose
	return fn(&Tx{store: s, bolt: btx})
}

// closedError names our sentinel for bbolt's.
func closedError(err error) error {
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}
