package state

import (
	"cmp"
	"slices"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// told returns the state before the first event of the list where the events tell it
// themselves, else nil. They do where they stand in a row, each on the one before it
// alone, right before an event of ours of which the state before is known: that
// state is then the one sought, but for what the row itself changed, and what was
// there before that is told by the events that change it: a membership and the power
// levels are cited by the event that replaces them. Whatever else was replaced is not
// known.
//
// To ask another server for the state instead would mean all of its IDs, of which
// there may be 100,000, and each old membership of the room as one more request.
//
// Spec: SS Auth events selection.
func (b *backfilling) told() (state *givenState, err error) {
	if !b.inRow() {
		return nil, nil
	}
	err = b.rooms.store.View(func(tx *store.Tx) error {
		_, head, err := Head(tx, b.at.Room)
		if err != nil {
			return err
		}
		if head.First != b.first {
			return errBegunAnew
		}
		was := make(map[auth.Key]store.StateChange)
		for _, ev := range b.list {
			if !ev.IsState() {
				continue
			}
			key := auth.Key{Type: ev.Type, StateKey: *ev.StateKey}
			if _, known := was[key]; known {
				continue // the oldest of them replaced what was there at first
			}
			change, known, err := b.replaced(tx, ev)
			if err != nil || !known {
				return err
			}
			was[key] = change
		}
		state = &givenState{first: b.first, base: b.at.Before}
		for _, change := range was {
			if change != (store.StateChange{}) {
				state.changes = append(state.changes, change)
			}
		}
		slices.SortFunc(state.changes, func(a, b store.StateChange) int { return cmp.Compare(a.Slot, b.Slot) })
		return nil
	})
	return state, err
}

// inRow says whether each event of the list stands on the one before it alone, and ours
// on the last.
func (b *backfilling) inRow() bool {
	if b.at.Outlier {
		return false
	}
	above := b.at.Event
	for _, ev := range slices.Backward(b.list) {
		if len(above.PrevEvents) != 1 || above.PrevEvents[0] != ev.ID {
			return false
		}
		above = ev
	}
	return true
}

// replaced returns what an event took the place of, as a change that puts it back;
// known is false where that cannot be told. The zero change is none: no state of ours
// has anything in that place.
func (b *backfilling) replaced(tx *store.Tx, ev *matrix.Event) (change store.StateChange, known bool, err error) {
	switch ev.Type {
	case "m.room.member", "m.room.power_levels":
	default:
		return store.StateChange{}, false, nil
	}
	if slot, ok := tx.Slot(b.at.RoomNum, ev.Type, *ev.StateKey); ok {
		change.Slot = slot
	} else {
		return store.StateChange{}, true, nil
	}
	for _, id := range ev.AuthEvents {
		place, here, err := tx.EventPlace(id)
		switch {
		case err != nil:
			return store.StateChange{}, false, err
		case !here:
			return store.StateChange{}, false, nil // it may be the one, or among the list
		case place.Room == b.at.RoomNum && place.HasSlot && place.Slot == change.Slot:
			change.Event = place.StateNum
			return change, !place.Rejected, nil
		}
	}
	return change, true, nil
}
