package store

import (
	"bytes"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// A Tx is one transaction: what a View reads or an Update writes. It is good
// only inside the function it was handed to. Byte slices that its methods
// return are copies unless their comment says otherwise.
type Tx struct {
	store   *Store
	bolt    *bolt.Tx
	opened  [buckets]*bolt.Bucket
	wrote   int       // bytes put so far, to keep write transactions small
	touched []UserNum // local users who see something new by this write
	rooms   roomCache

	remembers *memo // of a View, once it has read anything
}

// Writable says whether the transaction may write.
func (tx *Tx) Writable() bool { return tx.bolt.Writable() }

// Full says whether the write has put as much as one commit should hold: more
// belongs into another one.
func (tx *Tx) Full() bool { return tx.wrote >= maxGroupBytes }

// in returns a bucket, opened once.
func (tx *Tx) in(name bucketName) *bolt.Bucket {
	b := tx.opened[name]
	if b == nil {
		b = tx.bolt.Bucket([]byte(bucketTraits[name].name))
		b.FillPercent = bucketTraits[name].fill
		tx.opened[name] = b
	}
	return b
}

// get returns the value of a key, nil when there is none. It aliases the
// file and is good until the transaction ends.
func (tx *Tx) get(name bucketName, key []byte) []byte {
	if tx.memo() == nil {
		return tx.in(name).Get(key)
	}
	if k, v := tx.cursor(name).Seek(key); bytes.Equal(k, key) {
		return v
	}
	return nil
}

// put stores a value. The value is kept until the commit: it must not change.
func (tx *Tx) put(name bucketName, key, value []byte) error {
	tx.wrote += len(key) + len(value) + 1
	if err := tx.in(name).Put(key, value); err != nil {
		return fmt.Errorf("put into %s: %w", bucketTraits[name].name, err)
	}
	return nil
}

// delete removes a key; that there is none is no error.
func (tx *Tx) delete(name bucketName, key []byte) error {
	tx.wrote += len(key) + 1
	if err := tx.in(name).Delete(key); err != nil {
		return fmt.Errorf("delete from %s: %w", bucketTraits[name].name, err)
	}
	return nil
}

// scan calls fn for each key with the prefix, in order, from the one at or
// after start (nil: the first), until fn returns false or an error. rest is
// the key behind the prefix; both slices alias the file. fn must not write to
// the bucket it walks.
func (tx *Tx) scan(name bucketName, prefix, start []byte, fn func(rest, value []byte) (bool, error)) error {
	if start == nil {
		start = prefix
	}
	c := tx.in(name).Cursor()
	for k, v := c.Seek(start); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if more, err := fn(k[len(prefix):], v); err != nil || !more {
			return err
		}
	}
	return nil
}

// scanBack is scan from high to low: it begins at the last key with the
// prefix that is below end (nil: the last of all).
func (tx *Tx) scanBack(name bucketName, prefix, end []byte, fn func(rest, value []byte) (bool, error)) error {
	if end == nil {
		end = after(prefix)
	}
	c := tx.in(name).Cursor()
	var k, v []byte
	if end != nil {
		k, v = c.Seek(end)
	}
	if k == nil {
		k, v = c.Last()
	} else {
		k, v = c.Prev()
	}
	for ; k != nil && bytes.HasPrefix(k, prefix); k, v = c.Prev() {
		if more, err := fn(k[len(prefix):], v); err != nil || !more {
			return err
		}
	}
	return nil
}

// deleteAll removes the keys with a prefix, at most limit of them, and says
// how many it removed.
func (tx *Tx) deleteAll(name bucketName, prefix []byte, limit int) (int, error) {
	var keys [][]byte
	err := tx.scan(name, prefix, nil, func(rest, _ []byte) (bool, error) {
		keys = append(keys, append(bytes.Clone(prefix), rest...))
		return len(keys) < limit, nil
	})
	for _, k := range keys {
		if err == nil {
			err = tx.delete(name, k)
		}
	}
	return len(keys), err
}

// after returns the first key behind all that begin with prefix, nil if nothing
// can be behind them.
func after(prefix []byte) []byte {
	k := bytes.Clone(prefix)
	for i := len(k) - 1; i >= 0; i-- {
		if k[i]++; k[i] != 0 {
			return k[:i+1]
		}
	}
	return nil
}
