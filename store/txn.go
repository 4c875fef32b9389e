package store

import (
	"bytes"

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

// txnReach is how many events of a room's timeline are looked through for a
// transaction. Its hash stands beside the event in the order of the room, which
// a send writes and reads anyhow: an index of its own would cost each event one
// page more. 2048 entries are some twenty pages, read in 50 microseconds.
const txnReach = 2048

// TxnEvent returns the event that a transaction has sent to a room, if that is
// among the newest 2048 events of the room's timeline.
func (tx *Tx) TxnEvent(room RoomNum, t TxnID) (num EventNum, ok bool, err error) {
	want := t.hash()
	left := txnReach
	err = tx.scanBack(bucketEvent, regionKey(room, regionTimeline), nil, func(key, hash []byte) (bool, error) {
		if bytes.Equal(hash, want) && len(key) == 8 {
			num, ok = timelineNum(Position(u64(key))), true
		}
		left--
		return !ok && left > 0, nil
	})
	return num, ok, err
}

// hash returns what stands for t in the order of a room: 8 bytes, or none for
// no transaction. Nobody but the device itself gains by two of the same.
func (t TxnID) hash() []byte {
	if t.ID == "" {
		return nil
	}
	user := string(appendU32(nil, uint32(t.User)))
	return shortHash(string(idTxn), user, string(t.Device), "\x00", t.Endpoint, "\x00", t.ID)[:8]
}
