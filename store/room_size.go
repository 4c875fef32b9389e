package store

import "context"

// RoomBytes returns how many bytes of the database are a room's, but for what its
// pages leave free: its events, states and records. It reads all of them, so it takes
// long for a large room; it ends with ctx.
func (tx *Tx) RoomBytes(ctx context.Context, room RoomNum) (int64, error) {
	total, seen := int64(0), 0
	add := func(parts ...[]byte) (bool, error) {
		for _, part := range parts {
			total += int64(len(part))
		}
		if seen++; seen%1024 == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		return true, nil
	}
	prefix := appendU32(nil, uint32(room))
	for _, bucket := range []bucketName{bucketState, bucketRoom} {
		err := tx.scan(bucket, prefix, nil, func(rest, v []byte) (bool, error) { return add(prefix, rest, v) })
		if err != nil {
			return 0, err
		}
	}
	err := tx.scan(bucketEvent, prefix, nil, func(rest, v []byte) (bool, error) {
		if len(rest) == 9 && rest[0] == regionTimeline {
			at := rest[1:] // its key in the stream
			if more, err := add(at, tx.get(bucketStream, at)); !more || err != nil {
				return false, err
			}
		}
		return add(prefix, rest, v)
	})
	return total, err
}
