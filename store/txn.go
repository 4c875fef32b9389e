package store

import (
	"encoding/binary"
	"fmt"

	"hearth/state/matrix"
)

// A TxnID names one request of a local device that may be repeated: the second
// time it must not send a second event. Specification: client-server API,
// "Transaction identifiers".
type TxnID struct {
	User     UserNum
	Device   matrix.DeviceID
	Endpoint string // the path without the transaction ID, such as "send/!room/m.room.message"
	ID       string // the transaction ID; "" is no transaction
}

// txnsKept is how many transactions a room remembers. They stand in one short
// record beside the room's head, which every send writes anyhow: an index by
// hash would cost each event a page of its own.
const txnsKept = 128

// txnHashSize is how much of a transaction's hash the record holds.
const txnHashSize = 8

// TxnEvent returns the event that a transaction has sent to a room. It knows
// the newest 128 transactions of each room.
func (tx *Tx) TxnEvent(room RoomNum, t TxnID) (num EventNum, ok bool, err error) {
	want := u64(t.hash())
	sent, err := tx.txns(room)
	for _, s := range sent {
		if s.hash == want {
			num, ok = s.num, true
		}
	}
	return num, ok, err
}

// sentTxn is one entry of a room's record of transactions.
type sentTxn struct {
	hash uint64
	num  EventNum
}

func (t TxnID) hash() []byte {
	user := string(appendU32(nil, uint32(t.User)))
	return shortHash(string(idTxn), user, string(t.Device), "\x00", t.Endpoint, "\x00", t.ID)[:txnHashSize]
}

// putTxn remembers that t sent the event num and forgets the oldest entries
// that are too many.
func (tx *Tx) putTxn(room RoomNum, t TxnID, num EventNum) error {
	sent, err := tx.txns(room)
	if err != nil {
		return err
	}
	sent = append(sent, sentTxn{hash: u64(t.hash()), num: num})
	sent = sent[max(0, len(sent)-txnsKept):]
	return tx.put(bucketEvent, regionKey(room, regionTxn), packTxns(sent))
}

// txns returns a room's transactions, oldest first.
func (tx *Tx) txns(room RoomNum) ([]sentTxn, error) {
	sent, err := readTxns(tx.get(bucketEvent, regionKey(room, regionTxn)))
	if err != nil {
		return nil, fmt.Errorf("transactions of room %d: %w", room, err)
	}
	return sent, nil
}

// packTxns writes for each entry how much its number exceeds the one before
// it, and the hash.
func packTxns(sent []sentTxn) []byte {
	v := make([]byte, 0, len(sent)*(txnHashSize+3)+8)
	var last EventNum
	for _, s := range sent {
		v = binary.AppendUvarint(v, uint64(s.num-last))
		v = appendU64(v, s.hash)
		last = s.num
	}
	return v
}

func readTxns(v []byte) ([]sentTxn, error) {
	sent := make([]sentTxn, 0, len(v)/(txnHashSize+1)+1)
	var last EventNum
	r := reader{b: v}
	for len(r.b) > 0 {
		last += EventNum(r.uvarint())
		hash := r.bytes(txnHashSize)
		if r.err != nil || len(sent) == txnsKept {
			return nil, ErrDamaged
		}
		sent = append(sent, sentTxn{hash: u64(hash), num: last})
	}
	return sent, nil
}
