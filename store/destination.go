package store

import (
	"encoding/binary"
	"fmt"
)

// What is sent to other servers is on the stream. Up to one position, that of
// [Tx.SentPosition], every server has got what is for it, but for those that are
// behind: they have a record. So a server that answers costs no record, and after
// a start those that have something to get are known at once.

// A Behind is how far a server has come that has not got everything.
type Behind struct {
	Cursor Position // it has got what is for it up to here
	// Departures are the places behind it of events by which users of the server
	// have left rooms: once it is in a room no more, nothing else leads to them.
	Departures []Position
}

// MaxDepartures bounds the departures of one record.
const MaxDepartures = 32

// Behind returns the record of a server; ok is false where it has none.
func (tx *Tx) Behind(server ServerNum) (b Behind, ok bool, err error) {
	v := tx.get(bucketRemote, remoteKey(remoteBehind, server))
	if v == nil {
		return Behind{}, false, nil
	}
	b, err = readBehind(v)
	if err != nil {
		return Behind{}, false, fmt.Errorf("cursor of server %d: %w", server, err)
	}
	return b, true, nil
}

// AllBehind calls fn for each server that has a record until fn returns false or
// an error. fn must not change them.
func (tx *Tx) AllBehind(fn func(ServerNum, Behind) (bool, error)) error {
	return tx.scan(bucketRemote, []byte{remoteBehind}, remoteKey(remoteBehind, 1), func(rest, v []byte) (bool, error) {
		b, err := readBehind(v)
		if err != nil || len(rest) != 4 {
			return false, fmt.Errorf("cursor of server %x: %w", rest, ErrDamaged)
		}
		return fn(ServerNum(u32(rest)), b)
	})
}

// PutBehind stores how far a server has come.
func (tx *Tx) PutBehind(server ServerNum, b Behind) error {
	v := binary.AppendUvarint(nil, uint64(b.Cursor))
	for _, pos := range b.Departures[max(0, len(b.Departures)-MaxDepartures):] {
		v = binary.AppendUvarint(v, uint64(pos))
	}
	return tx.put(bucketRemote, remoteKey(remoteBehind, server), v)
}

// DeleteBehind notes that a server has got everything up to [Tx.SentPosition].
func (tx *Tx) DeleteBehind(server ServerNum) error {
	return tx.delete(bucketRemote, remoteKey(remoteBehind, server))
}

// SentPosition returns up to where every server that is not behind has got what is
// for it; ok is false where nothing was ever sent.
func (tx *Tx) SentPosition() (pos Position, ok bool, err error) {
	v := tx.get(bucketRemote, remoteKey(remoteBehind, 0))
	if v == nil {
		return 0, false, nil
	}
	b, err := readBehind(v)
	if err != nil {
		return 0, false, fmt.Errorf("position of the sender: %w", err)
	}
	return b.Cursor, true, nil
}

// PutSentPosition stores it. Call it in the write that stores who is behind.
func (tx *Tx) PutSentPosition(pos Position) error { return tx.PutBehind(0, Behind{Cursor: pos}) }

func readBehind(v []byte) (b Behind, err error) {
	r := reader{b: v}
	b.Cursor = Position(r.uvarint())
	for len(r.b) > 0 && r.err == nil {
		b.Departures = append(b.Departures, Position(r.uvarint()))
	}
	if r.err != nil || len(b.Departures) > MaxDepartures {
		return Behind{}, ErrDamaged
	}
	return b, nil
}

// checkDestinations holds the cursors of other servers to the stream.
func checkDestinations(c *checker) error {
	newest := c.Tx.Position()
	return c.each(bucketRemote, []byte{remoteBehind}, func(rest, v []byte) {
		b, err := readBehind(v)
		if len(rest) != 4 || err != nil {
			c.faultf("cursor of server %x: %x", rest, v)
			return
		}
		if server := ServerNum(u32(rest)); server != 0 && c.ServerName(server) == "" {
			c.faultf("server %d has a cursor and no name", server)
		}
		if b.Cursor > newest {
			c.faultf("cursor of server %x: %d lies beyond the newest position %d", rest, b.Cursor, newest)
		}
		for _, pos := range b.Departures {
			if pos <= b.Cursor || pos > newest {
				c.faultf("cursor %d of server %x: departure at %d", b.Cursor, rest, pos)
			}
		}
	})
}
