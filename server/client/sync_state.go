package client

import (
	"maps"
	"slices"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// roomSummary tells a client what to call a room without a name.
//
// Spec: CS Syncing, Room Summary.
type roomSummary struct {
	Heroes  []matrix.UserID `json:"m.heroes,omitzero"`
	Joined  uint64          `json:"m.joined_member_count"`
	Invited uint64          `json:"m.invited_member_count"`
}

// collectState finds the state that the client lacks: what differs between what
// it has (nothing, if the room is new to it) and the state before the timeline,
// or behind it with use_state_after. With lazy loading only those members are in
// it whom the timeline needs, and those who changed in the gap before it.
//
// State that changes within the timeline in events that its filter leaves out is
// told as it is behind the timeline: no other sync would tell of it.
func (rs *roomSync) collectState() error {
	to := rs.before
	if rs.req.stateAfter != "" {
		to = rs.after
	}
	lazy := rs.req.filter.Room.State.LazyLoadMembers
	whole := rs.since == 0 || rs.req.fullState
	if whole {
		if err := rs.addWhole(to, lazy); err != nil {
			return err
		}
	}
	if rs.since != 0 && rs.since < rs.upto && (!whole || lazy) {
		if err := rs.addChanged(to, whole); err != nil {
			return err
		}
	}
	if err := rs.addHidden(lazy && rs.since == 0); err != nil {
		return err
	}
	if lazy {
		if err := rs.addLazyMembers(to); err != nil {
			return err
		}
	}
	if rs.farewell != 0 && rs.req.stateAfter != "" { // the timeline changes no state then
		return rs.endWithFarewell()
	}
	return nil
}

// endWithFarewell puts the farewell in the place of the user's member event at the
// end of his stay.
func (rs *roomSync) endWithFarewell() error {
	own, err := memberAt(rs.tx, rs.room.member.Room, rs.after, rs.req.who.user)
	if err != nil {
		return err
	}
	rs.state = slices.DeleteFunc(rs.state, func(num store.EventNum) bool { return num == own })
	return rs.addState(rs.farewell)
}

// addWhole adds all state, or all but the members.
func (rs *roomSync) addWhole(to store.SnapshotID, lazy bool) error {
	part := store.StateAll
	if lazy {
		part = store.StateOthers
	}
	return rs.tx.WalkState(rs.room.member.Room, to, part, func(slot store.Slot, num store.EventNum) (bool, error) {
		if rs.hidden[slot] {
			return true, nil
		}
		return true, rs.addState(num)
	})
}

// addChanged adds the state that changed behind the token, or its members alone.
func (rs *roomSync) addChanged(to store.SnapshotID, members bool) error {
	from, err := rs.tx.CurrentAt(rs.room.member.Room, rs.since)
	if err != nil {
		return err
	}
	return rs.tx.DiffSnapshots(rs.room.member.Room, from, to, func(slot store.Slot, _, is store.EventNum) (bool, error) {
		if is == 0 || members && !slot.Member() || rs.hidden[slot] {
			return true, nil // state never goes; a reset of the room is federation's to tell
		}
		return true, rs.addState(is)
	})
}

// addHidden adds the state that changed within the timeline unshown; without the
// members, where those are wanted only as they are needed.
func (rs *roomSync) addHidden(lazy bool) error {
	for _, slot := range slices.Sorted(maps.Keys(rs.hidden)) {
		if lazy && slot.Member() {
			continue
		}
		num, err := rs.tx.StateAt(rs.room.member.Room, rs.after, slot)
		if err != nil {
			return err
		}
		if num != 0 {
			if err := rs.addState(num); err != nil {
				return err
			}
		}
	}
	return nil
}

// addState adds a state event that the filter lets through, unless the timeline begins
// with it.
func (rs *roomSync) addState(num store.EventNum) error {
	if num == rs.told {
		return nil
	}
	ev, err := rs.tx.Event(rs.room.member.Room, num)
	if err == nil && rs.req.filter.Room.State.MatchEvent(ev.Event) {
		rs.state = append(rs.state, num)
	}
	return err
}

// addLazyMembers adds the member events of the timeline's senders that the
// device does not have yet, and the user's own where the whole state is told.
//
// Spec: CS Lazy-loading room members.
func (rs *roomSync) addLazyMembers(at store.SnapshotID) error {
	users := rs.senders()
	if rs.since == 0 || rs.req.fullState {
		users = append(users, rs.req.who.user)
	}
	redundant := rs.req.filter.Room.State.IncludeRedundantMembers || rs.req.fullState || rs.since == 0
	for _, user := range users {
		if err := rs.addMember(at, user, redundant); err != nil {
			return err
		}
	}
	return nil
}

// senders returns who sent the events of the timeline.
func (rs *roomSync) senders() []matrix.UserID {
	var users []matrix.UserID
	for _, ev := range rs.shown {
		if !slices.Contains(users, ev.Sender) {
			users = append(users, ev.Sender)
		}
	}
	return users
}

// addMember adds a user's member event to the state section, unless it is there
// or in the timeline or, where redundant ones are not wanted, known to the device.
func (rs *roomSync) addMember(at store.SnapshotID, user matrix.UserID, redundant bool) error {
	slot, ok := rs.tx.Slot(rs.room.member.Room, "m.room.member", string(user))
	if !ok {
		return nil
	}
	if rs.hidden[slot] {
		at = rs.after
	}
	num, err := rs.tx.StateAt(rs.room.member.Room, at, slot)
	if err != nil || num == 0 || slices.Contains(rs.state, num) {
		return err
	}
	given := lazyMember{rs.req.lazyClient(), rs.room.member.Room, num}
	if !redundant && rs.lazy.has(given, rs.req.since.pos, rs.room.member.Joined) {
		return nil
	}
	rs.lazy.give(given, rs.next.pos)
	return rs.addState(num)
}

// maxHeroes is how many members a summary names. maxHeroSearch bounds how many
// are looked at for them.
const (
	maxHeroes     = 5
	maxHeroSearch = 500
)

// summarize tells the counts of members, and the heroes where the room has no
// name, if the client may not know them yet.
func (rs *roomSync) summarize() error {
	if rs.since != 0 && !rs.req.fullState && !rs.namesChanged() {
		return nil
	}
	rs.entry.Summary = &roomSummary{Joined: rs.head.Joined, Invited: rs.head.Invited}
	named, err := rs.hasName()
	if err != nil || named {
		return err
	}
	if rs.entry.Summary.Heroes, err = rs.heroes(); err != nil {
		return err
	}
	if !rs.req.filter.Room.State.LazyLoadMembers {
		return nil
	}
	at := rs.before
	if rs.req.stateAfter != "" {
		at = rs.after
	}
	for _, user := range rs.entry.Summary.Heroes {
		if err := rs.addMember(at, user, rs.since == 0 || rs.req.fullState); err != nil {
			return err
		}
	}
	return nil
}

// namesChanged says whether anything that a summary depends on may have changed.
func (rs *roomSync) namesChanged() bool {
	return rs.named || rs.entry.Timeline.Limited || len(rs.state) > 0
}

// names says whether a summary depends on an event.
func names(ev *store.StoredEvent) bool {
	switch ev.Type {
	case "m.room.member", "m.room.name", "m.room.canonical_alias":
		return ev.IsState()
	}
	return false
}

// hasName says whether the room has a name or a canonical alias.
func (rs *roomSync) hasName() (bool, error) {
	for _, s := range []struct{ typ, key string }{
		{"m.room.name", "name"},
		{"m.room.canonical_alias", "alias"},
	} {
		ev, err := state.EventAt(rs.tx, rs.room.member.Room, rs.after, s.typ, "")
		if err != nil {
			return false, err
		}
		if ev != nil && contentString(ev.Content, s.key) != "" {
			return true, nil
		}
	}
	return false, nil
}

// heroes returns the first members who are in the room or invited, or of those
// who were, if there are no others. The user himself is never one.
func (rs *roomSync) heroes() ([]matrix.UserID, error) {
	here, gone := []matrix.UserID{}, []matrix.UserID{}
	looked := 0
	err := rs.tx.WalkState(rs.room.member.Room, rs.after, store.StateMembers, func(_ store.Slot, num store.EventNum) (bool, error) {
		ev, err := rs.tx.Event(rs.room.member.Room, num)
		if err != nil {
			return false, err
		}
		looked++
		user := matrix.UserID(*ev.StateKey)
		member, err := ev.Member()
		if err != nil || user == rs.req.who.user {
			return looked < maxHeroSearch, nil
		}
		switch member.Membership {
		case matrix.Join, matrix.Invite:
			here = append(here, user)
		case matrix.Leave, matrix.Ban:
			gone = append(gone, user)
		}
		return len(here) < maxHeroes && looked < maxHeroSearch, nil
	})
	if len(here) == 0 {
		here = gone[:min(len(gone), maxHeroes)]
	}
	return here, err
}
