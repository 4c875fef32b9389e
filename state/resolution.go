package state

import (
	"fmt"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/state/resolve"
	"hearth/store"
)

// resolution gives package resolve what it asks about one room: differences of
// snapshots, events, and auth chains. It is good within one View.
type resolution struct {
	tx      *store.Tx
	room    store.RoomNum
	version *matrix.Version
	own     *matrix.Event // an event in one of the states that is not stored yet; or nil

	base       store.SnapshotID
	snapshots  []store.SnapshotID
	conflicted map[store.Slot]bool
	forks      [][]matrix.EventID // the conflicted events of each state
}

// resolve returns the changes that make the first of the states the resolved one.
func (r *resolution) resolve(snapshots []store.SnapshotID) ([]store.StateChange, error) {
	r.base, r.snapshots = snapshots[0], snapshots
	r.conflicted = make(map[store.Slot]bool)
	for _, snap := range snapshots[1:] {
		err := r.tx.DiffSnapshots(r.room, r.base, snap, func(slot store.Slot, _, _ store.EventNum) (bool, error) {
			r.conflicted[slot] = true
			return true, nil
		})
		if err != nil {
			return nil, err
		}
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
	r.forks = make([][]matrix.EventID, len(r.snapshots))
	for slot := range r.conflicted {
		seen := make(map[matrix.EventID]bool)
		for i, snap := range r.snapshots {
			num, err := r.tx.StateAt(r.room, snap, slot)
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
			r.forks[i] = append(r.forks[i], ev.ID)
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

// numbered reads an event of the states; the one that is not stored yet is the
// only one that cannot be found.
func (r *resolution) numbered(num store.EventNum) (*matrix.Event, error) {
	ev, err := r.tx.Event(r.room, num)
	if err == nil {
		return ev.Event, nil
	}
	if r.own != nil {
		return r.own, nil
	}
	return nil, err
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
		num, err := r.numberOf(slot, id)
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
		num, err := r.numberOf(slot, id)
		if err != nil {
			return nil, err
		}
		changes = append(changes, store.StateChange{Slot: slot, Event: num})
	}
	return changes, nil
}

// numberOf returns the number of an event that was resolved into a slot.
func (r *resolution) numberOf(slot store.Slot, id matrix.EventID) (store.EventNum, error) {
	if room, num, ok := r.tx.EventByID(id); ok && room == r.room {
		return num, nil
	}
	for _, snap := range r.snapshots { // the one that is not stored yet
		num, err := r.tx.StateAt(r.room, snap, slot)
		if err != nil {
			return 0, err
		}
		if num == 0 {
			continue
		}
		if ev, err := r.numbered(num); err == nil && ev.ID == id {
			return num, nil
		}
	}
	return 0, fmt.Errorf("resolved event %s: %w", id, store.ErrNotFound)
}

// unconflicted returns the event that all states have in a place.
func (r *resolution) unconflicted(key auth.Key) (matrix.EventID, error) {
	slot, ok := r.tx.Slot(r.room, key.Type, key.StateKey)
	if !ok || r.conflicted[slot] {
		return "", nil
	}
	num, err := r.tx.StateAt(r.room, r.base, slot)
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
	if r.own != nil && r.own.ID == id {
		return r.own, nil
	}
	ev, err := r.stored(id)
	if err != nil {
		return nil, err
	}
	return ev.Event, nil
}

func (r *resolution) stored(id matrix.EventID) (*store.StoredEvent, error) {
	room, num, ok := r.tx.EventByID(id)
	if !ok || room != r.room {
		return nil, fmt.Errorf("event %s: %w", id, store.ErrNotFound)
	}
	return r.tx.Event(r.room, num)
}

func (r *resolution) rejected(id matrix.EventID) (bool, error) {
	if r.own != nil && r.own.ID == id {
		return false, nil
	}
	ev, err := r.stored(id)
	if err != nil {
		return false, err
	}
	return ev.Rejected, nil
}
