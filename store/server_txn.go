package store

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"hearth/state/matrix"
)

// What is remembered of one server's transactions. It has one of them under way at
// a time and repeats no other, so that a few are plenty.
const (
	maxServerTxns     = 4
	maxServerTxnBytes = 32 << 10 // of all answers but the newest
)

// serverTxnHash is how many bytes of the hash of a transaction ID are kept: only
// its own server gains by two of the same.
const serverTxnHash = 8

// ServerTxn returns what another server's transaction was answered with, if it is
// one of the last.
//
// Spec: SS Transactions.
func (tx *Tx) ServerTxn(origin matrix.ServerName, id string) (answer []byte, ok bool, err error) {
	want := hashServerTxn(id)
	r := reader{b: tx.get(bucketRemote, serverTxnKey(origin))}
	for len(r.b) > 0 {
		hash, v := r.bytes(serverTxnHash), r.bytes(r.uvarint())
		if r.err != nil {
			return nil, false, fmt.Errorf("transactions of %s: %w", origin, r.err)
		}
		if bytes.Equal(hash, want) {
			return bytes.Clone(v), true, nil
		}
	}
	return nil, false, nil
}

// PutServerTxn notes what another server's transaction is answered with, and
// forgets the older ones.
func (tx *Tx) PutServerTxn(origin matrix.ServerName, id string, answer []byte) error {
	v := append([]byte(nil), hashServerTxn(id)...)
	v = append(binary.AppendUvarint(v, uint64(len(answer))), answer...)
	r, old := reader{b: tx.get(bucketRemote, serverTxnKey(origin))}, 0
	for n := 1; n < maxServerTxns && len(r.b) > 0; n++ {
		hash, was := r.bytes(serverTxnHash), r.bytes(r.uvarint())
		if old += len(was); r.err != nil || old > maxServerTxnBytes {
			break // damage is forgotten too
		}
		v = append(v, hash...)
		v = append(binary.AppendUvarint(v, uint64(len(was))), was...)
	}
	return tx.put(bucketRemote, serverTxnKey(origin), v)
}

func hashServerTxn(id string) []byte { return shortHash(id)[:serverTxnHash] }

func serverTxnKey(origin matrix.ServerName) []byte {
	return append([]byte{remoteTxn}, origin...)
}

// checkServerTxns reads what is remembered of transactions.
func checkServerTxns(c *checker) error {
	return c.each(bucketRemote, []byte{remoteTxn}, func(origin, v []byte) {
		n := 0
		r := reader{b: v}
		for len(r.b) > 0 {
			r.bytes(serverTxnHash)
			r.bytes(r.uvarint())
			n++
		}
		if r.err != nil || n == 0 || n > maxServerTxns || len(origin) == 0 {
			c.faultf("transactions of server %q: %d of them, damaged or too many", origin, n)
		}
	})
}
