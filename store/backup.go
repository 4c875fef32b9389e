package store

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"hearth/store/blob"
)

// A backup is a tar archive packed with zstd:
//
//	hearth.db        the database as of one commit
//	media/HASH ...   each blob, named by its content
//	complete         empty: nothing is missing
//
// zstd's checksum tells a damaged archive, and the last entry a cut one.
const backupEnd = "complete"

// Bounds of packing: some 4 MiB of memory, at the speed of a disk.
const (
	backupWindow = 1 << 20 // bytes that zstd looks back
	backupMemory = 32 << 20
)

// ErrBadBackup is wrapped where what is to be restored is no whole backup.
var ErrBadBackup = errors.New("not a whole backup")

// Backup writes all that the store holds at this moment to w, while others read
// and write on. The database is copied beside itself first, so that no read
// transaction waits for w; that takes its size of disk for the time. Media that are
// deleted meanwhile are left out.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	if err := s.backup(ctx, w); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

func (s *Store) backup(ctx context.Context, w io.Writer) error {
	db, err := s.copyDatabase()
	if err != nil {
		return err
	}
	defer db.Close()
	packed, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(backupWindow))
	if err != nil {
		return err
	}
	archive := tar.NewWriter(packed)
	if err := appendFile(ctx, archive, databaseFile, db); err != nil {
		return err
	}
	err = s.blobs.Walk(func(b blob.Stat) error {
		f, err := s.blobs.Open(b.Hash)
		if errors.Is(err, blob.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		return appendFile(ctx, archive, path.Join(mediaFolder, b.Hash.String()), f)
	})
	if err != nil {
		return err
	}
	if err := archive.WriteHeader(&tar.Header{Name: backupEnd, Mode: 0o600}); err != nil {
		return err
	}
	return errors.Join(archive.Close(), packed.Close())
}

// copyDatabase returns a copy of the database as of now, at its beginning. It has
// no name: whatever happens, nothing stays behind.
func (s *Store) copyDatabase() (*os.File, error) {
	f, err := os.CreateTemp(s.dir, "backup-*.tmp")
	if err != nil {
		return nil, err
	}
	err = errors.Join(os.Remove(f.Name()), s.View(func(tx *Tx) error {
		_, err := tx.bolt.WriteTo(f)
		return err
	}))
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("copy the database: %w", err), f.Close())
	}
	return f, nil
}

// appendFile adds a file, from where it stands, under a name.
func appendFile(ctx context.Context, archive *tar.Writer, name string, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	header := &tar.Header{Name: name, Mode: 0o600, Size: info.Size(), ModTime: info.ModTime().Truncate(time.Second)}
	if err := archive.WriteHeader(header); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if _, err := io.Copy(archive, endable{ctx, f}); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// endable is a reader that ends with a context.
type endable struct {
	ctx context.Context
	r   io.Reader
}

func (e endable) Read(p []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	return e.r.Read(p)
}

// Restore makes a data directory of a backup. dir may hold other files but no
// database: what is there is never replaced (ErrExists). The database gets its
// name last, when everything is on the disk, so that a restore that was cut short
// leaves nothing that a server would start with. The error wraps ErrBadBackup where
// r is no whole backup.
func Restore(ctx context.Context, dir string, r io.Reader) error {
	if err := restore(ctx, dir, r); err != nil {
		return fmt.Errorf("restore into %s: %w", dir, err)
	}
	return nil
}

func restore(ctx context.Context, dir string, r io.Reader) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	name := filepath.Join(dir, databaseFile)
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s: %w", name, ErrExists), err)
	}
	db, err := os.CreateTemp(dir, "restore-*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(db.Name()) // its other name stays
	defer db.Close()
	blobs, err := blob.Open(filepath.Join(dir, mediaFolder))
	if err != nil {
		return err
	}
	unpacked, err := zstd.NewReader(endable{ctx, r}, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(backupMemory))
	if err != nil {
		return err
	}
	defer unpacked.Close()
	if err := unpack(tar.NewReader(unpacked), db, blobs); err != nil {
		return err
	}
	// What follows the archive is read for zstd's checksum.
	if _, err := io.Copy(io.Discard, unpacked); err != nil {
		return fmt.Errorf("%w: %w", ErrBadBackup, err)
	}
	if err := db.Sync(); err != nil {
		return err
	}
	if err := os.Link(db.Name(), name); err != nil { // unlike a rename, it replaces nothing
		return err
	}
	return syncFolder(dir)
}

// unpack writes the entries of an archive to where they belong.
func unpack(archive *tar.Reader, db *os.File, blobs *blob.Dir) error {
	for first := true; ; first = false {
		entry, err := archive.Next()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrBadBackup, err)
		}
		hash, isMedia := strings.CutPrefix(entry.Name, mediaFolder+"/")
		switch {
		case first && entry.Name == databaseFile:
			err = copyEntry(db, archive)
		case !first && isMedia:
			err = unpackBlob(archive, blobs, hash, entry.Size)
		case !first && entry.Name == backupEnd:
			return nil
		default:
			err = fmt.Errorf("%w: it holds %q", ErrBadBackup, entry.Name)
		}
		if err != nil {
			return err
		}
	}
}

// copyEntry writes an entry of an archive to w. An error of the archive is one of
// the backup, an error of w is not.
func copyEntry(w io.Writer, archive io.Reader) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := archive.Read(buf)
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("%w: %w", ErrBadBackup, err)
		}
	}
}

// unpackBlob writes an entry as the blob that its name says it is.
func unpackBlob(archive io.Reader, blobs *blob.Dir, name string, size int64) error {
	want, err := blob.ParseHash(name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadBackup, err)
	}
	w, err := blobs.Create(size)
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := copyEntry(w, archive); err != nil {
		return err
	}
	got, _, err := w.Commit()
	if err == nil && got != want {
		err = errors.Join(fmt.Errorf("%w: %s has other content", ErrBadBackup, name), blobs.Delete(got))
	}
	return err
}

// syncFolder brings the names in a folder onto the disk.
func syncFolder(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
