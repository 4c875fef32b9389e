package store

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// PutOutbox puts an EDU, as it stands in a transaction, behind those that must
// arrive at another server, and tells who sends them. It stays until
// [Tx.DeleteOutbox].
func (tx *Tx) PutOutbox(server ServerNum, edu jsontext.Value) error {
	pos, err := tx.appendChange(Change{Kind: streamOutbox, Server: server})
	if err != nil {
		return fmt.Errorf("outbox of server %d: %w", server, err)
	}
	return tx.put(bucketRemote, outboxKey(server, pos), bytes.Clone(edu))
}

// Outbox calls fn for each EDU that waits for a server behind a position, oldest
// first, until fn returns false or an error. The EDU aliases the file.
func (tx *Tx) Outbox(server ServerNum, after Position, fn func(Position, jsontext.Value) (bool, error)) error {
	prefix := remoteKey(remoteOutbox, server)
	return tx.scan(bucketRemote, prefix, outboxKey(server, after+1), func(rest, edu []byte) (bool, error) {
		if len(rest) != 8 {
			return false, fmt.Errorf("outbox of server %d: key %x: %w", server, rest, ErrDamaged)
		}
		return fn(Position(u64(rest)), edu)
	})
}

// DeleteOutbox removes what has arrived at a server: the EDUs up to a position, at
// most limit of them. It returns how many there were.
func (tx *Tx) DeleteOutbox(server ServerNum, upto Position, limit int) (removed int, err error) {
	var places []Position
	err = tx.Outbox(server, 0, func(pos Position, _ jsontext.Value) (bool, error) {
		if pos > upto || len(places) == limit {
			return false, nil
		}
		places = append(places, pos)
		return true, nil
	})
	for _, pos := range places {
		if err == nil {
			err = tx.delete(bucketRemote, outboxKey(server, pos))
		}
	}
	return len(places), err
}

// NextOutbox returns the first server behind another, by number, for which something
// waits, and how many bytes; 0 where there is none.
func (tx *Tx) NextOutbox(last ServerNum) (server ServerNum, size int, err error) {
	err = tx.scan(bucketRemote, []byte{remoteOutbox}, remoteKey(remoteOutbox, last+1), func(rest, edu []byte) (bool, error) {
		if len(rest) != 12 {
			return false, fmt.Errorf("outbox: key %x: %w", rest, ErrDamaged)
		}
		next := ServerNum(u32(rest))
		if server == 0 {
			server = next
		}
		if server == next {
			size += len(edu)
		}
		return server == next, nil
	})
	return server, size, err
}

// OutboxTail returns the position up to which the oldest of what waits for a server
// has to go so that no more than some bytes are left; 0 where nothing has to.
func (tx *Tx) OutboxTail(server ServerNum, left int) (upto Position, err error) {
	prefix := remoteKey(remoteOutbox, server)
	err = tx.scanBack(bucketRemote, prefix, after(prefix), func(rest, edu []byte) (bool, error) {
		if len(rest) != 8 {
			return false, fmt.Errorf("outbox of server %d: key %x: %w", server, rest, ErrDamaged)
		}
		if left -= len(edu); left < 0 {
			upto = Position(u64(rest))
		}
		return left >= 0, nil
	})
	return upto, err
}

func outboxKey(server ServerNum, pos Position) []byte {
	return appendU64(remoteKey(remoteOutbox, server), uint64(pos))
}

// checkOutbox holds each EDU that waits to its entry in the stream and to the
// record by which it is found after a restart.
func checkOutbox(c *checker) error {
	done, _, err := c.SentPosition()
	if err != nil {
		c.faultf("%v", err)
	}
	return c.each(bucketRemote, []byte{remoteOutbox}, func(rest, edu []byte) {
		if len(rest) != 12 || !jsontext.Value(edu).IsValid() {
			c.faultf("outbox: %x holds no EDU of %d bytes", rest, len(edu))
			return
		}
		server, pos := ServerNum(u32(rest)), Position(u64(rest[4:]))
		change, ok, err := c.ChangeAt(pos)
		if err != nil || !ok || change.Kind != streamOutbox || change.Server != server {
			c.faultf("outbox of server %d: %d is not in the stream: %v", server, pos, err)
		}
		if b, behind, err := c.Behind(server); err == nil && pos <= done && (!behind || b.Cursor >= pos) {
			c.faultf("outbox of server %d: %d waits, and nobody will send it", server, pos)
		}
	})
}
