package state

import (
	"slices"

	"hearth/store"
)

// Events of before we came into a room may come after we did: who took us for a member
// earlier, as a join that failed on its way back left it, has kept them for us. Most of
// them are below our join, though that cannot be told without what lies between. Such an
// event must not count as a fork: the state behind it is old, and in a resolution with
// today's each member who came since is held to the join rules again, which may be
// closed by now. It is history. Where it was a fork after all, the event that joins it
// with ours brings its say.

// isLate says whether the event is of before the join by which we came into the room, by
// their depths. A depth is what its server likes, and those of all that stand on the
// event go on from it: what stands on an event of since is of since. What we vouch for
// to others, or have made, is to be seen here as there.
func (a *acceptance) isLate(tx *store.Tx) (bool, error) {
	since := func(num store.EventNum) bool { return !num.Aside() && num >= a.head.Entered }
	switch {
	case a.head.Entered == 0, a.ev.Depth >= a.head.Depth, slices.ContainsFunc(a.prev, since):
		return false, nil
	case a.how.relay == a.ev.ID, a.rooms.isLocal(a.ev.Sender):
		return false, nil
	}
	join, err := a.cache.event(tx, a.num, a.head.Entered)
	if err != nil {
		return false, err
	}
	return a.ev.Depth < join.Depth, nil
}

// takeLate stores an accepted event as history before that join.
func (a *acceptance) takeLate(before store.SnapshotID) error {
	place := store.TimelinePlace(a.head.Entered.Position())
	place.Height = min(a.ev.Depth, place.Height-1)
	return a.putHistory(place, before, Accepted)
}
