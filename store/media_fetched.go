package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"hearth/state/matrix"
	"hearth/store/blob"
)

// Files of other servers are a cache: they can be fetched again, so those that were
// not used for the longest time make room for others. When one was last used is
// known to the second, and how many bytes they have together.

// fetched is what is known of a file of another server beside its record.
type fetched struct {
	used time.Time
	size uint64 // bytes
}

// MediaUsed returns when a file of another server was last used, as far as
// [Tx.UseMedia] was told. The error wraps ErrNotFound for one that is not here and
// for one of our own.
func (tx *Tx) MediaUsed(origin matrix.ServerName, id MediaID) (time.Time, error) {
	f, err := tx.fetched(tx.mediaName(origin, id))
	if err != nil {
		return time.Time{}, fmt.Errorf("use of media %s/%s: %w", origin, id, err)
	}
	return f.used, nil
}

// UseMedia notes that a file of another server was used. The error wraps ErrNotFound
// as that of [Tx.MediaUsed].
func (tx *Tx) UseMedia(origin matrix.ServerName, id MediaID, at time.Time) error {
	name := tx.mediaName(origin, id)
	f, err := tx.fetched(name)
	if err == nil {
		err = tx.delete(bucketMedia, fetchedAtKey(f.used, name))
	}
	if err == nil {
		f.used = at
		err = tx.writeFetched(name, f)
	}
	if err != nil {
		return fmt.Errorf("use of media %s/%s: %w", origin, id, err)
	}
	return nil
}

// FetchedBytes returns how many bytes the files of other servers have together.
func (tx *Tx) FetchedBytes() (uint64, error) {
	v := tx.get(bucketMedia, []byte{mediaFetchedSum})
	if v == nil {
		return 0, nil
	}
	r := reader{b: v}
	sum := r.uvarint()
	return sum, r.err
}

// EvictMedia removes files of other servers, first those that were not used for the
// longest time, until they have no more than limit bytes together or most are gone.
// It returns the blobs that nothing refers to any more, as [Tx.DeleteMedia] does, and
// whether there are more to remove.
func (tx *Tx) EvictMedia(limit uint64, most int) (unused []blob.Hash, more bool, err error) {
	sum, err := tx.FetchedBytes()
	if err != nil || sum <= limit {
		return nil, false, err
	}
	type file struct {
		origin matrix.ServerName
		id     MediaID
	}
	var files []file
	err = tx.scan(bucketMedia, []byte{mediaFetchedAt}, nil, func(rest, _ []byte) (bool, error) {
		origin, id, found := bytes.Cut(rest[min(8, len(rest)):], []byte{0})
		f, err := tx.fetched(rest[min(8, len(rest)):])
		if !found || err != nil {
			return false, errors.Join(fmt.Errorf("use of media %x: %w", rest, ErrDamaged), err)
		}
		files = append(files, file{matrix.ServerName(origin), MediaID(id)})
		sum -= min(f.size, sum)
		return sum > limit && len(files) < most, nil
	})
	for _, f := range files {
		if err != nil {
			break
		}
		var gone []blob.Hash
		gone, err = tx.DeleteMedia(f.origin, f.id)
		unused = append(unused, gone...)
	}
	if err != nil {
		return nil, false, fmt.Errorf("evict media: %w", err)
	}
	return unused, sum > limit, nil
}

// putFetched begins to count a file of another server.
func (tx *Tx) putFetched(m Media) error {
	f := fetched{used: m.Created, size: uint64(m.Size)}
	if err := tx.addFetched(int64(f.size)); err != nil {
		return err
	}
	return tx.writeFetched(tx.mediaName(m.Origin, m.ID), f)
}

// deleteFetched no longer counts a file of another server.
func (tx *Tx) deleteFetched(m Media) error {
	name := tx.mediaName(m.Origin, m.ID)
	f, err := tx.fetched(name)
	if err != nil {
		return err
	}
	return errors.Join(
		tx.addFetched(-int64(f.size)),
		tx.delete(bucketMedia, append([]byte{mediaFetched}, name...)),
		tx.delete(bucketMedia, fetchedAtKey(f.used, name)),
	)
}

func (tx *Tx) fetched(name []byte) (f fetched, err error) {
	v := tx.get(bucketMedia, append([]byte{mediaFetched}, name...))
	if v == nil {
		return f, ErrNotFound
	}
	r := reader{b: v}
	f = fetched{used: time.Unix(r.varint(), 0), size: r.uvarint()}
	return f, r.err
}

func (tx *Tx) writeFetched(name []byte, f fetched) error {
	v := binary.AppendUvarint(binary.AppendVarint(nil, f.used.Unix()), f.size)
	return errors.Join(
		tx.put(bucketMedia, append([]byte{mediaFetched}, name...), v),
		tx.put(bucketMedia, fetchedAtKey(f.used, name), []byte{}),
	)
}

func (tx *Tx) addFetched(n int64) error {
	sum, err := tx.FetchedBytes()
	if err != nil {
		return err
	}
	if n < 0 && uint64(-n) > sum {
		return fmt.Errorf("bytes of fetched media: %w", ErrDamaged)
	}
	return tx.put(bucketMedia, []byte{mediaFetchedSum}, binary.AppendUvarint(nil, sum+uint64(n)))
}

// fetchedAtKey sorts by time.
func fetchedAtKey(used time.Time, name []byte) []byte {
	k := binary.BigEndian.AppendUint64([]byte{mediaFetchedAt}, uint64(max(used.Unix(), 0)))
	return append(k, name...)
}

// checkFetched leads what is known of a file of another server to its record and its
// place in the order of use. It returns the file's bytes.
func (c *checker) checkFetched(name []byte) uint64 {
	f, err := c.fetched(name)
	if err != nil {
		c.faultf("fetched media %q: %v", name, err)
		return 0
	}
	origin, id, _ := bytes.Cut(name, []byte{0})
	m, err := c.Media(matrix.ServerName(origin), MediaID(id))
	if len(origin) == 0 || err != nil || uint64(m.Size) != f.size {
		c.faultf("fetched media %q: no such file of %d bytes", name, f.size)
	}
	if !c.has(fetchedAtKey(f.used, name)) {
		c.faultf("fetched media %q: not in the order of use", name)
	}
	return f.size
}

// checkFetchedAt leads a place in the order of use to its file.
func (c *checker) checkFetchedAt(key []byte) {
	if len(key) < 8 {
		c.faultf("use of media: key %x is too short", key)
		return
	}
	f, err := c.fetched(key[8:])
	if err != nil || !bytes.Equal(fetchedAtKey(f.used, key[8:])[1:], key) {
		c.faultf("use of media %q: there is none at that time", key[8:])
	}
}

// checkFetchedSum compares the bytes of all files of other servers with the files.
func (c *checker) checkFetchedSum(want uint64) {
	if sum, err := c.FetchedBytes(); err != nil || sum != want {
		c.faultf("fetched media have %d bytes, %d are noted (%v)", want, sum, err)
	}
}
