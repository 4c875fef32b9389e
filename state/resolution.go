package state

import (
	"fmt"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/state/resolve"
	"hearth/store"
)

// resolution gives package resolve what it asks about one room: differences of
// snapshots, events, and auth chains. It is good within one transaction.
//
// Its memory follows the conflict and is bounded: a record of some hundred bytes
// for each conflicted slot and state, what auth chains take (see bounds), and the
// events read last (eventCache). Beyond its bounds it gives up with ErrTangled.
type resolution struct {
	tx        *store.Tx
	room      store.RoomNum
	version   *matrix.Version
	bounds    bounds
	cache     *eventCache
	snapshots []store.SnapshotID // the states; the first is the base
	own       *matrix.Event      // an event over the first state that is not stored yet; or nil
	ownSlot   store.Slot

	conflicted map[store.Slot]bool
	forks      [][]store.EventNum // the conflicted events of each state
}

// bounds are what one resolution may look at.
type bounds struct {
	slots int // in which the states differ
	// chain is how many events of auth chains are walked, and how many are
	// remembered. One of them takes some 50 bytes, in the subgraph of version 12
	// some 150 with what it cites.
	chain int
}

// What a resolution may look at: while the writer waits for it, and otherwise.
var (
	briefBounds = bounds{slots: 64, chain: 1 << 10}
	wideBounds  = bounds{slots: 1 << 14, chain: 1 << 16}
)

// ownNum stands for the event that has no number yet.
const ownNum = ^store.EventNum(0)

// resolve returns the changes that make the first of the states the resolved one.
func (r *resolution) resolve() ([]store.StateChange, error) {
	r.conflicted = make(map[store.Slot]bool)
	for _, snap := range r.snapshots[1:] {
		err := r.tx.DiffSnapshots(r.room, r.snapshots[0], snap, func(slot store.Slot, _, _ store.EventNum) (bool, error) {
			if r.conflicted[slot] = true; len(r.conflicted) > r.bounds.slots {
				return false, fmt.Errorf("more than %d places in which states differ: %w", r.bounds.slots, ErrTangled)
			}
			return true, nil
		})
		if err != nil {
			return nil, err
		}
	}
	if r.own != nil {
		r.conflicted[r.ownSlot] = true
	}
	if len(r.conflicted) == 0 {
		return nil, nil
	}
	return r.settle()
}

// settle resolves the slots in which the states differ.
func (r *resolution) settle() ([]store.StateChange, error) {
	keys := make(map[store.Slot]auth.Key)
	conflicted := make(map[auth.Key][]matrix.EventID)
	r.forks = make([][]store.EventNum, len(r.snapshots))
	for slot := range r.conflicted {
		seen := make(map[matrix.EventID]bool)
		for i := range r.snapshots {
			num, err := r.at(i, slot)
			if err != nil {
				return nil, err
			}
			if num == 0 {
				continue
			}
			ev, err := r.numbered(num)
			if err != nil {
				return nil, err
			}
			key := auth.Key{Type: ev.Type, StateKey: *ev.StateKey}
			keys[slot] = key
			r.forks[i] = append(r.forks[i], num)
			if !seen[ev.ID] {
				seen[ev.ID] = true
				conflicted[key] = append(conflicted[key], ev.ID)
			}
		}
	}
	resolved, err := resolve.Resolve(resolve.Input{
		Version: r.version, Conflicted: conflicted,
		Unconflicted: r.unconflicted, Event: r.event, Rejected: r.rejected,
		AuthDifference: r.authDifference, Subgraph: r.subgraph,
	})
	if err != nil {
		return nil, err
	}
	return r.changes(keys, resolved)
}

// at returns the event in a slot of one of the states.
func (r *resolution) at(fork int, slot store.Slot) (store.EventNum, error) {
	if r.own != nil && fork == 0 && slot == r.ownSlot {
		return ownNum, nil
	}
	return r.tx.StateAt(r.room, r.snapshots[fork], slot)
}

// numbered reads an event of the states.
func (r *resolution) numbered(num store.EventNum) (*matrix.Event, error) {
	if num == ownNum {
		return r.own, nil
	}
	ev, err := r.cache.event(r.tx, r.room, num)
	if err != nil {
		return nil, err
	}
	return ev.Event, nil
}

// changes turns what was resolved into changes of the first state.
func (r *resolution) changes(keys map[store.Slot]auth.Key, resolved map[auth.Key]matrix.EventID) ([]store.StateChange, error) {
	var changes []store.StateChange
	for slot, key := range keys {
		id, ok := resolved[key]
		if !ok {
			changes = append(changes, store.StateChange{Slot: slot})
			continue
		}
		num, err := r.numberOf(id)
		if err != nil {
			return nil, err
		}
		changes = append(changes, store.StateChange{Slot: slot, Event: num})
		delete(resolved, key)
	}
	for key, id := range resolved { // places that no fork had
		slot, known := r.tx.Slot(r.room, key.Type, key.StateKey)
		if !known {
			return nil, fmt.Errorf("resolved state %s %q has no slot: %w", key.Type, key.StateKey, store.ErrDamaged)
		}
		num, err := r.numberOf(id)
		if err != nil {
			return nil, err
		}
		changes = append(changes, store.StateChange{Slot: slot, Event: num})
	}
	return changes, nil
}

// numberOf returns the number of an event of the room.
func (r *resolution) numberOf(id matrix.EventID) (store.EventNum, error) {
	if r.own != nil && r.own.ID == id {
		return ownNum, nil
	}
	if room, num, ok := r.tx.StateEventByID(id); ok && room == r.room {
		return num, nil
	}
	return 0, fmt.Errorf("event %s: %w", id, store.ErrNotFound)
}

// unconflicted returns the event that all states have in a place.
func (r *resolution) unconflicted(key auth.Key) (matrix.EventID, error) {
	slot, ok := r.tx.Slot(r.room, key.Type, key.StateKey)
	if !ok || r.conflicted[slot] {
		return "", nil
	}
	num, err := r.tx.StateAt(r.room, r.snapshots[0], slot)
	if num == 0 || err != nil {
		return "", err
	}
	ev, err := r.numbered(num)
	if err != nil {
		return "", err
	}
	return ev.ID, nil
}

func (r *resolution) event(id matrix.EventID) (*matrix.Event, error) {
	num, err := r.numberOf(id)
	if err != nil {
		return nil, err
	}
	return r.numbered(num)
}

func (r *resolution) rejected(id matrix.EventID) (bool, error) {
	num, err := r.numberOf(id)
	if err != nil || num == ownNum {
		return false, err
	}
	ev, err := r.cache.event(r.tx, r.room, num)
	if err != nil {
		return false, err
	}
	return ev.Rejected, nil
}
