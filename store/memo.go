package store

import bolt "go.etcd.io/bbolt"

// Bounds of what a View keeps at hand.
const (
	memoEvents     = 64      // a power of two: the place of an event is its position's rest
	memoEventBytes = 8 << 10 // of JSON; larger events are read anew
)

// A memo is what a View has read last and will often read again: the few state
// events that decide what a user may see, and the snapshot that he sees by; and the
// cursors that it reads with. Writes have none, as what they read may be changed by
// themselves.
type memo struct {
	events   [memoEvents]*StoredEvent
	snapshot snapshot
	of       snapshotPlace // whose snapshot that is; the zero place: nobody's
	cursors  [buckets]*bolt.Cursor
}

type snapshotPlace struct {
	room RoomNum
	id   SnapshotID
}

// memo returns the transaction's memo, nil for a write.
func (tx *Tx) memo() *memo {
	if tx.remembers == nil && !tx.bolt.Writable() {
		tx.remembers = new(memo)
	}
	return tx.remembers
}

// memoIndex is the place of an event in a memo.
func memoIndex(num EventNum) int { return int(num.Position() & (memoEvents - 1)) }

// event returns an event of the memo, nil where it is not there.
func (m *memo) event(room RoomNum, num EventNum) *StoredEvent {
	if m == nil {
		return nil
	}
	if ev := m.events[memoIndex(num)]; ev != nil && ev.Num == num && ev.RoomNum == room {
		return ev
	}
	return nil
}

// keep puts an event into the memo.
func (m *memo) keep(ev *StoredEvent) {
	if m != nil && len(ev.JSON()) <= memoEventBytes {
		m.events[memoIndex(ev.Num)] = ev
	}
}

// cursor returns a cursor of a bucket that nobody counts on to stand anywhere.
func (tx *Tx) cursor(name bucketName) *bolt.Cursor {
	m := tx.memo()
	if m == nil {
		return tx.in(name).Cursor()
	}
	if m.cursors[name] == nil {
		m.cursors[name] = tx.in(name).Cursor()
	}
	return m.cursors[name]
}
