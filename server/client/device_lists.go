package client

import (
	"maps"
	"slices"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// deviceLists are the users whose devices a client must look at again, and those
// whose devices are not its business any more.
type deviceLists struct {
	Changed []matrix.UserID `json:"changed,omitzero"`
	Left    []matrix.UserID `json:"left,omitzero"`

	met []matrix.UserID // who share a room with the user now that they did not
}

func (l deviceLists) empty() bool { return len(l.Changed)+len(l.Left) == 0 }

// maxSharers bounds how many members of one room are looked at for those who
// begin or end to share a room with the user. A client that enters a larger room
// has no list of its members' devices yet, so it needs no word of their changes.
const maxSharers = 2000

// listSearch finds who shares rooms with a user, and who did at an earlier
// position, within one View.
type listSearch struct {
	tx      *store.Tx
	who     session
	since   store.Position
	rooms   []store.RoomNum // that the user is in now; see joined
	found   bool            // rooms has been filled
	changed map[matrix.UserID]bool
	met     map[matrix.UserID]bool // those of changed who came into a room that the user is in, or the user to them
	gone    map[matrix.UserID]bool // who may have stopped sharing any room
}

// findDeviceLists returns what has changed for a user behind a position: users
// whose device list, cross-signing keys or visible signatures have changed, and
// users who share a room with this one now and did not, or the other way round.
//
// "a server may add Alice to changed when Alice and Bob share a new room, even if
// they previously already shared a room." Whether a room is encrypted does not
// matter: it may become so.
//
// Spec: CS Tracking the device list for a user; Extensions to /sync.
func findDeviceLists(tx *store.Tx, who session, since store.Position) (deviceLists, error) {
	l := &listSearch{
		tx: tx, who: who, since: since,
		changed: make(map[matrix.UserID]bool), met: make(map[matrix.UserID]bool), gone: make(map[matrix.UserID]bool),
	}
	if err := l.searchLists(); err != nil {
		return deviceLists{}, err
	}
	if err := l.searchRooms(); err != nil {
		return deviceLists{}, err
	}
	var left []matrix.UserID
	for _, user := range slices.Sorted(maps.Keys(l.gone)) {
		shares, err := l.shares(user)
		if err != nil {
			return deviceLists{}, err
		}
		if !shares {
			left = append(left, user)
		}
	}
	return deviceLists{
		Changed: slices.Sorted(maps.Keys(l.changed)), Left: left, met: slices.Sorted(maps.Keys(l.met)),
	}, nil
}

// searchLists adds the users whose lists have changed: the user, those who share
// a room with the user, and those whose keys the user has signed.
func (l *listSearch) searchLists() error {
	err := l.tx.DeviceListChanges(l.since, func(num store.UserNum) (bool, error) {
		user := l.tx.UserID(num)
		shares, err := l.shares(user)
		if shares {
			l.changed[user] = true
		}
		return true, err
	})
	if err != nil {
		return err
	}
	return l.tx.SignedSince(l.who.num, l.since, func(num store.UserNum) (bool, error) {
		l.changed[l.tx.UserID(num)] = true
		return true, nil
	})
}

// searchRooms looks for changes of membership in the rooms where anything
// happened.
func (l *listSearch) searchRooms() error {
	rooms, err := changedRooms(l.tx, syncRequest{since: streamToken{pos: l.since}}, streamToken{pos: l.tx.Position()})
	if err != nil || rooms != nil && len(rooms) == 0 {
		return err
	}
	return l.tx.LocalMemberships(l.who.num, func(m store.LocalMembership) (bool, error) {
		if !rooms.has(m.Room) || m.Joined == 0 {
			return true, nil
		}
		return true, l.searchRoom(m.Room, m.Membership == matrix.Join)
	})
}

// searchRoom compares who was in a room with who is in it now.
func (l *listSearch) searchRoom(room store.RoomNum, isIn bool) error {
	before, err := l.tx.CurrentAt(room, l.since)
	if err != nil {
		return err
	}
	wasIn, err := l.isJoined(room, before, l.who.user)
	if err != nil || !wasIn && !isIn {
		return err
	}
	if !isIn { // whoever comes or goes later is none of the user's business
		return l.eachMember(room, 0, before, func(user matrix.UserID, _, was bool) {
			if was {
				l.gone[user] = true
			}
		})
	}
	now, err := l.tx.CurrentAt(room, l.tx.Position())
	if err != nil {
		return err
	}
	if !wasIn {
		before = 0
	}
	return l.eachMember(room, before, now, func(user matrix.UserID, was, is bool) {
		switch {
		case is && !was:
			l.changed[user], l.met[user] = true, true
			if !wasIn { // their servers are told of the user's devices
				l.changed[l.who.user] = true
			}
		case was && !is:
			l.gone[user] = true
		}
	})
}

// eachMember calls fn for the members in whom two snapshots of a room differ, but
// for the user, with whether they are joined in each.
func (l *listSearch) eachMember(room store.RoomNum, a, b store.SnapshotID, fn func(user matrix.UserID, inA, inB bool)) error {
	looked := 0
	return l.tx.DiffSnapshots(room, a, b, func(slot store.Slot, inA, inB store.EventNum) (bool, error) {
		if !slot.Member() {
			return true, nil
		}
		looked++
		user, was, err := l.member(room, inA)
		if err != nil {
			return false, err
		}
		other, is, err := l.member(room, inB)
		if err != nil {
			return false, err
		}
		if other != "" {
			user = other
		}
		if user != l.who.user {
			fn(user, was, is)
		}
		return looked < maxSharers, nil
	})
}

// member returns whose membership an event of a room is and whether they are
// joined; event 0 is nobody's.
func (l *listSearch) member(room store.RoomNum, num store.EventNum) (user matrix.UserID, joined bool, err error) {
	if num == 0 {
		return "", false, nil
	}
	ev, err := l.tx.Event(room, num)
	if err != nil {
		return "", false, err
	}
	content, err := ev.Member()
	return matrix.UserID(*ev.StateKey), err == nil && content.Membership == matrix.Join, nil
}

// shares says whether a user is this one or is in one of the rooms that this one
// is in.
func (l *listSearch) shares(user matrix.UserID) (bool, error) {
	if user == l.who.user {
		return true, nil
	}
	rooms, err := l.joined()
	if err != nil {
		return false, err
	}
	num := l.tx.UserNum(user)
	local := l.tx.IsLocal(num)
	for _, room := range rooms {
		is := false
		if local {
			var m store.LocalMembership
			m, is, err = l.tx.LocalMembership(num, room)
			is = is && m.Membership == matrix.Join
		} else if _, known := l.tx.Slot(room, "m.room.member", string(user)); known {
			var now store.SnapshotID
			if now, err = l.tx.CurrentAt(room, l.tx.Position()); err == nil {
				is, err = l.isJoined(room, now, user)
			}
		}
		if is || err != nil {
			return is, err
		}
	}
	return false, nil
}

// joined returns the rooms that the user is in.
func (l *listSearch) joined() ([]store.RoomNum, error) {
	if l.found {
		return l.rooms, nil
	}
	l.found = true
	err := l.tx.LocalMemberships(l.who.num, func(m store.LocalMembership) (bool, error) {
		if m.Membership == matrix.Join {
			l.rooms = append(l.rooms, m.Room)
		}
		return true, nil
	})
	return l.rooms, err
}

// isJoined says whether a user is joined in a snapshot of a room.
func (l *listSearch) isJoined(room store.RoomNum, at store.SnapshotID, user matrix.UserID) (bool, error) {
	ev, err := state.EventAt(l.tx, room, at, "m.room.member", string(user))
	if ev == nil || err != nil {
		return false, err
	}
	content, err := ev.Member()
	return err == nil && content.Membership == matrix.Join, nil
}
