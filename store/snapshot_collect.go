package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Bounds of a collection.
const (
	markWindow    = 4 << 20 // record numbers that are marked in one pass: 512 KiB of bits
	sweepRecords  = 2048    // records that one write removes
	sweepLooks    = 16384   // records that one write looks at
	sweepPatience = 100 * time.Millisecond
)

// CollectSnapshots removes the snapshots of a room that nothing needs any
// more, and the nodes that were theirs alone; it returns how many records it
// removed. live calls use for each snapshot that is referred to, in whatever
// order (that of the room's history is the cheapest) and as often as it likes,
// always the same; growing snapshots count only if it names them.
//
// It reads in Views and removes in small patient writes. Until it returns,
// nothing may be derived from a snapshot that live did not name, but for those
// made since it began.
func (s *Store) CollectSnapshots(ctx context.Context, room RoomNum, live func(tx *Tx, use func(SnapshotID) error) error) (removed int, err error) {
	end := uint64(0)
	for first := uint64(1); ; first += markWindow {
		var m *marker
		err := s.View(func(tx *Tx) error {
			if end == 0 {
				counter, err := tx.stateCounter(room)
				if err != nil {
					return err
				}
				end = counter.next
			}
			m = tx.newMarker(room, first, min(first+markWindow, end))
			return live(tx, m.markSnapshot)
		})
		if err != nil {
			return removed, err
		}
		n, err := s.sweep(ctx, m)
		removed += n
		if err != nil || m.end == end {
			return removed, err
		}
	}
}

// UsedSnapshots calls use for each snapshot that a room's events and its head
// refer to, in the order of its history, as CollectSnapshots wants it. The error
// wraps ErrNotFound when the room has no head.
func (tx *Tx) UsedSnapshots(room RoomNum, use func(SnapshotID) error) error {
	head, err := tx.Head(room)
	if err != nil {
		return err
	}
	for _, region := range []byte{regionTimeline, regionAside} {
		err := tx.scan(bucketEvent, regionKey(room, region), nil, func(key, _ []byte) (bool, error) {
			if len(key) != 8 {
				return false, fmt.Errorf("event key of room %d: %w", room, ErrDamaged)
			}
			num := timelineNum(Position(u64(key)))
			if region == regionAside {
				num = asideNum(num.Position())
			}
			ev, _, err := tx.eventHead(room, num)
			if err != nil {
				return false, err
			}
			return true, errors.Join(use(ev.Before), use(ev.After))
		})
		if err != nil {
			return err
		}
	}
	return use(head.Current)
}

// StateRecords returns how many records the states of a room have ever had: what
// a collection has to look at, at most.
func (tx *Tx) StateRecords(room RoomNum) (uint64, error) {
	counter, err := tx.stateCounter(room)
	return counter.next - 1, err
}

// sweep removes the records in a marker's window that it has not marked.
func (s *Store) sweep(ctx context.Context, m *marker) (removed int, err error) {
	for at := m.first; at < m.end; {
		var dead [][]byte
		next := at
		err := s.UpdatePatiently(ctx, sweepPatience, func(tx *Tx) (err error) {
			if dead, next, err = tx.unmarked(m, at); err != nil {
				return err
			}
			for _, key := range dead {
				if err := tx.delete(bucketState, key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return removed, err
		}
		removed += len(dead)
		at = next
	}
	return removed, nil
}

// unmarked returns the keys of some records of m's window, from the number at
// on, that are not marked, and the number to go on from.
func (tx *Tx) unmarked(m *marker, at uint64) (dead [][]byte, next uint64, err error) {
	prefix := keyOf(uint32(m.room), stateRecord)
	next, looks := m.end, 0
	err = tx.scan(bucketState, prefix, recordKey(m.room, at), func(rest, _ []byte) (bool, error) {
		num, err := readRecordNum(rest)
		if err != nil || num >= m.end {
			return false, err
		}
		if looks == sweepLooks || len(dead) == sweepRecords {
			next = num
			return false, nil
		}
		looks++
		if !m.marked(num) {
			dead = append(dead, recordKey(m.room, num))
		}
		return true, nil
	})
	return dead, next, err
}

// A marker notes which records snapshots are made of, within a window of
// record numbers.
type marker struct {
	stateReader
	first, end uint64   // the window; end is the first number behind it
	bits       []uint64 // one for each number of the window
	last       snapshot // whose records have all been marked, where they are in the window
}

func (tx *Tx) newMarker(room RoomNum, first, end uint64) *marker {
	return &marker{
		stateReader: tx.stateReader(room),
		first:       first,
		end:         end,
		bits:        make([]uint64, (end-first+63)/64),
	}
}

// marked says whether a number of the window is marked.
func (m *marker) marked(num uint64) bool {
	i := num - m.first
	return m.bits[i/64]>>(i%64)&1 != 0
}

// mark marks a number, if it is in the window, and says whether it was before.
func (m *marker) mark(num uint64) (before bool) {
	if num < m.first || num >= m.end {
		return false
	}
	before = m.marked(num)
	i := num - m.first
	m.bits[i/64] |= 1 << (i % 64)
	return before
}

// markSnapshot marks the records of a snapshot.
func (m *marker) markSnapshot(id SnapshotID) error {
	if id == 0 || m.mark(uint64(id)) {
		return nil
	}
	s, err := m.snapshot(id)
	if err != nil {
		return err
	}
	if s.base != 0 {
		m.mark(s.base)
	}
	for part, root := range s.roots {
		if err := m.markTree(m.last.roots[part], root); err != nil {
			return err
		}
	}
	m.last = s
	return nil
}

// markTree marks the nodes of a tree, but for those that old, a tree marked
// before, has at the same place.
func (m *marker) markTree(old, now nodeRef) error {
	if now.num == 0 || now == old || m.mark(now.num) || now.level == 0 {
		return nil
	}
	var marked [fanOut]nodeRef
	if old.level <= now.level {
		var err error
		if marked, err = m.spread(old, now.level); err != nil {
			return err
		}
	}
	nodes, err := m.spread(now, now.level)
	if err != nil {
		return err
	}
	for i := range nodes {
		if err := m.markTree(marked[i], nodes[i]); err != nil {
			return err
		}
	}
	return nil
}
