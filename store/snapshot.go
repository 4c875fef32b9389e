package store

import (
	"errors"
	"fmt"
)

// A SnapshotID names the state of a room at some point, within that room. 0 is
// the empty state. A snapshot never changes once it is sealed, and those that
// [Tx.Derive] makes are sealed from the start.
//
// A snapshot is two persistent vectors, one of the members and one of all else,
// that map the ordinals of slots to events. Each is a tree of nodes with
// fanOut children (snapshot_node.go), shared with the snapshots it was derived
// from, and an overlay of entries that the tree does not have yet, folded in
// when the two overlays reach maxOverlay. Within that, a record (see
// snapshot_record.go) holds at most maxOwn entries of its own and takes the
// rest from an earlier record, so that most changes write one small record.
type SnapshotID uint64

// A StateChange sets what stands in one slot.
type StateChange struct {
	Slot  Slot
	Event EventNum // 0 removes what is there
}

// A StatePart is what a walk visits of a state.
type StatePart uint8

// The parts of a state; members are those of m.room.member.
const (
	StateOthers  StatePart = 1 << othersPart
	StateMembers StatePart = 1 << membersPart
	StateAll               = StateOthers | StateMembers
)

// The two trees of a snapshot.
const (
	othersPart  = 0
	membersPart = 1
	parts       = 2
)

// What the seal of a snapshot forbids.
var (
	// ErrSealed is wrapped where a snapshot shall grow that cannot any more.
	ErrSealed = errors.New("the snapshot is sealed")
	// ErrUnsealed is wrapped where a snapshot shall be built upon that still grows.
	ErrUnsealed = errors.New("the snapshot still grows")
)

// StateAt returns the event in a slot of a snapshot, 0 when there is none, and
// ErrNotFound when there is no such snapshot.
func (tx *Tx) StateAt(room RoomNum, snap SnapshotID, slot Slot) (EventNum, error) {
	r := tx.stateReader(room)
	s, err := r.snapshot(snap)
	if err != nil {
		return 0, err
	}
	return r.event(&s, slot)
}

// Derive returns a snapshot that is from with the changes made to it; where a
// slot occurs twice the last change counts. It is from itself when nothing
// differs. Thousands of changes go by [Tx.GrowSnapshot]. It fails with
// ErrUnsealed while from still grows.
func (tx *Tx) Derive(room RoomNum, from SnapshotID, changes ...StateChange) (SnapshotID, error) {
	w, s, err := tx.stateWriter(room, from)
	if err != nil {
		return 0, err
	}
	if s.growing {
		return 0, fmt.Errorf("derive from snapshot %d of room %d: %w", from, room, ErrUnsealed)
	}
	delta := overlayOf(changes)
	if delta.len() <= maxOverlay {
		if err := w.dropEqual(&s, &delta); err != nil {
			return 0, err
		}
		if delta.len() == 0 {
			return from, nil
		}
	}
	w.owned = ownsNothing
	if err := w.apply(&s, from, delta); err != nil {
		return 0, err
	}
	num, err := w.take()
	if err != nil {
		return 0, err
	}
	return SnapshotID(num), w.putSnapshot(num, &s)
}

// NewSnapshot begins a snapshot for many changes: a copy of from that grows by
// [Tx.GrowSnapshot] and is sealed by [Tx.SealSnapshot]. In between it can be
// read, across restarts too, but nothing can be derived from it.
func (tx *Tx) NewSnapshot(room RoomNum, from SnapshotID) (SnapshotID, error) {
	w, s, err := tx.stateWriter(room, from)
	if err != nil {
		return 0, err
	}
	if s.growing {
		return 0, fmt.Errorf("copy snapshot %d of room %d: %w", from, room, ErrUnsealed)
	}
	num, err := w.take()
	if err != nil {
		return 0, err
	}
	s.growing, s.base, s.own = true, 0, overlay{}
	return SnapshotID(num), w.putSnapshot(num, &s)
}

// GrowSnapshot makes changes to a snapshot that still grows, in place: what it
// wrote for earlier changes is overwritten and leaves no garbage. Changes in
// rising order of slots, a thousand at a time, cost the least memory. It fails
// with ErrSealed on any other snapshot.
func (tx *Tx) GrowSnapshot(room RoomNum, snap SnapshotID, changes ...StateChange) error {
	w, s, err := tx.stateWriter(room, snap)
	if err != nil {
		return err
	}
	if !s.growing {
		return fmt.Errorf("grow snapshot %d of room %d: %w", snap, room, ErrSealed)
	}
	w.owned = uint64(snap)
	s.overlay = s.overlay.with(overlayOf(changes))
	if err := w.settle(&s); err != nil {
		return err
	}
	return w.putSnapshot(uint64(snap), &s)
}

// SealSnapshot ends the growth of a snapshot. To seal one twice is no error.
func (tx *Tx) SealSnapshot(room RoomNum, snap SnapshotID) error {
	w, s, err := tx.stateWriter(room, snap)
	if err != nil || !s.growing {
		return err
	}
	s.growing = false
	return w.putSnapshot(uint64(snap), &s)
}

// A stateWriter makes the records of one room's states in one call.
type stateWriter struct {
	stateReader
	counter stateCounters
	owned   uint64 // records with higher numbers belong to the snapshot that is made, and to no other
}

// ownsNothing is the owned of a writer that overwrites no record.
const ownsNothing = 1<<64 - 1

// stateWriter prepares to build on a snapshot, which it returns as well.
func (tx *Tx) stateWriter(room RoomNum, snap SnapshotID) (*stateWriter, snapshot, error) {
	w := &stateWriter{stateReader: tx.stateReader(room), owned: ownsNothing}
	var err error
	if w.counter, err = tx.stateCounter(room); err != nil {
		return nil, snapshot{}, err
	}
	s, err := w.snapshot(snap)
	return w, s, err
}

// take gives out the next record number.
func (w *stateWriter) take() (uint64, error) {
	num := w.counter.next
	if num > maxRecord {
		return 0, fmt.Errorf("state record in room %d: %w", w.room, ErrFull)
	}
	w.counter.next++
	return num, nil
}

// putSnapshot writes a snapshot's record and, as the last deed of the writer,
// the counters.
func (w *stateWriter) putSnapshot(num uint64, s *snapshot) error {
	if err := w.tx.put(bucketState, recordKey(w.room, num), s.encode(num)); err != nil {
		return err
	}
	return w.tx.putStateCounter(w.room, w.counter)
}

// dropEqual leaves out of delta what is so in s already.
func (w *stateWriter) dropEqual(s *snapshot, delta *overlay) error {
	for part, entries := range delta {
		kept := entries[:0]
		for _, e := range entries {
			now, err := w.event(s, slotAt(part, e.ordinal))
			if err != nil {
				return err
			}
			if now != e.event {
				kept = append(kept, e)
			}
		}
		delta[part] = kept
	}
	return nil
}

// apply makes the changes of delta to s, which was read from the record from,
// and decides how the record of the outcome is kept: as few entries over an
// earlier record while these are few, else whole.
func (w *stateWriter) apply(s *snapshot, from SnapshotID, delta overlay) error {
	if s.base == 0 {
		s.base = uint64(from)
	}
	s.own = s.own.with(delta)
	s.overlay = s.overlay.with(delta)
	if s.base != 0 && s.own.len() <= maxOwn && s.overlay.len() <= maxOverlay {
		return nil
	}
	s.base, s.own = 0, overlay{}
	return w.settle(s)
}

// settle folds overlays into their trees, the longer one first, until what is
// left fits a record.
func (w *stateWriter) settle(s *snapshot) error {
	for part := range s.overlay {
		if s.roots[part].num == 0 {
			s.overlay.dropRemoved(part) // there is nothing below to hide
		}
	}
	for s.overlay.len() > maxOverlay {
		part := othersPart
		if len(s.overlay[membersPart]) > len(s.overlay[othersPart]) {
			part = membersPart
		}
		root, err := w.foldTree(s.roots[part], s.overlay[part])
		if err != nil {
			return err
		}
		s.roots[part], s.overlay[part] = root, nil
	}
	return nil
}
