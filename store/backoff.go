package store

import (
	"encoding/binary"
	"fmt"
	"time"

	"hearth/state/matrix"
)

// Backoff says that another server did not answer, and from when on it is tried
// again. The zero Backoff is that of a server with which all is well.
type Backoff struct {
	Failures int       // in a row
	Since    time.Time // the first of them
	Until    time.Time // it is not tried before
}

// Backoff returns how it stands with a server.
func (tx *Tx) Backoff(server matrix.ServerName) (Backoff, error) {
	v := tx.get(bucketRemote, remoteServerKey(remoteBackoff, server))
	if v == nil {
		return Backoff{}, nil
	}
	return readBackoff(server, v)
}

// Backoffs calls fn for each server that did not answer, in order of their names,
// until it returns false.
func (tx *Tx) Backoffs(fn func(matrix.ServerName, Backoff) bool) error {
	return tx.scan(bucketRemote, []byte{remoteBackoff}, nil, func(name, v []byte) (bool, error) {
		server := matrix.ServerName(name)
		b, err := readBackoff(server, v)
		return err == nil && fn(server, b), err
	})
}

// PutBackoff stores how it stands with a server; the zero Backoff removes what is
// stored.
func (tx *Tx) PutBackoff(server matrix.ServerName, b Backoff) error {
	key := remoteServerKey(remoteBackoff, server)
	if b == (Backoff{}) {
		return tx.delete(bucketRemote, key)
	}
	v := binary.AppendUvarint(nil, uint64(b.Failures))
	return tx.put(bucketRemote, key, appendTime(appendTime(v, b.Since), b.Until))
}

func readBackoff(server matrix.ServerName, v []byte) (Backoff, error) {
	r := reader{b: v}
	b := Backoff{Failures: int(r.uvarint()), Since: r.time(), Until: r.time()}
	if r.err != nil || len(r.b) > 0 {
		return Backoff{}, fmt.Errorf("back-off of %s: %w", server, ErrDamaged)
	}
	return b, nil
}

// checkBackoffs reads every record of a server that did not answer.
func checkBackoffs(c *checker) error {
	return c.each(bucketRemote, []byte{remoteBackoff}, func(name, v []byte) {
		server, err := matrix.ParseServerName(string(name))
		if err != nil {
			c.faultf("back-off: %v", err)
			return
		}
		if b, err := readBackoff(server, v); err != nil {
			c.faultf("%v", err)
		} else if b == (Backoff{}) {
			c.faultf("back-off of %s says nothing", server)
		}
	})
}
