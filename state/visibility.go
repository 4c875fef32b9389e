package state

import (
	"fmt"

	"hearth/state/matrix"
	"hearth/store"
)

// A Viewer answers which events of one room one local user may see. It is
// good within one View and remembers what it found, so that walking a
// timeline looks at each snapshot once. Spec: CS Room History Visibility.
type Viewer struct {
	tx     *store.Tx
	room   store.RoomNum
	user   matrix.UserID
	member store.LocalMembership // zero: the room was never anything to the user
	seen   map[store.SnapshotID]sight
	last   learned

	visibilitySlot, memberSlot *viewerSlot // nil: not looked up yet
}

// maxSights bounds what a Viewer remembers; then it begins anew.
const maxSights = 256

// sight is what decides about events at one snapshot.
type sight struct {
	visibility string
	membership matrix.Membership
}

// learned is what two events decide.
type learned struct {
	known              bool
	visibility, member store.EventNum // the events, 0 for none
	sight              sight
}

// NewViewer returns the view that a local user has of a room.
func NewViewer(tx *store.Tx, room store.RoomNum, user matrix.UserID) (*Viewer, error) {
	member, _, err := tx.LocalMembership(tx.UserNum(user), room)
	if err != nil {
		return nil, err
	}
	return &Viewer{tx: tx, room: room, user: user, member: member, seen: make(map[store.SnapshotID]sight)}, nil
}

// Reach says how far the user may ask for the room's history and state: ok is
// false where he may not at all, and last is the position behind which he sees
// nothing, 0 for no end. Who is joined reads on, and so does everybody where it is
// world readable now; who was joined reads up to when he left, until he forgets
// the room.
func (v *Viewer) Reach(head store.Head) (last store.Position, ok bool, err error) {
	if v.member.Membership == matrix.Join {
		return 0, true, nil
	}
	now, err := v.at(head.Current)
	if err != nil || now.visibility == "world_readable" {
		return 0, err == nil, err
	}
	return v.member.Left, v.member.Joined != 0 && !v.member.Forgotten, nil
}

// Sees says whether the user may see an event. Spec: CS Room History
// Visibility, Server behaviour; the rules are quoted in allows. Nobody sees what was
// rejected or soft-failed, or of what is not known where it stands.
func (v *Viewer) Sees(ev *store.StoredEvent) (bool, error) {
	if ev.Rejected || ev.SoftFailed || ev.Outlier {
		return false, nil
	}
	before, err := v.at(ev.Before)
	if err != nil {
		return false, err
	}
	after := before
	switch {
	case ev.Is("m.room.history_visibility", ""):
		after.visibility = ev.HistoryVisibility()
	case ev.Is("m.room.member", string(v.user)):
		if member, err := ev.Member(); err == nil {
			after.membership = member.Membership
		}
	}
	return v.allows(before, ev.Num) || before != after && v.allows(after, ev.Num), nil
}

// MembershipAt returns the user's membership as an event was sent, "leave"
// where he had none; his own member event counts as sent. Spec: CS Syncing,
// unsigned.membership.
func (v *Viewer) MembershipAt(ev *store.StoredEvent) (matrix.Membership, error) {
	if ev.Is("m.room.member", string(v.user)) {
		if member, err := ev.Member(); err == nil {
			return member.Membership, nil
		}
	}
	s, err := v.at(ev.Before)
	if s.membership == "" {
		s.membership = matrix.Leave
	}
	return s.membership, err
}

func (v *Viewer) allows(s sight, num store.EventNum) bool {
	// "1. If the history_visibility was set to world_readable, allow.
	//  2. If the user's membership was join, allow."
	if s.visibility == "world_readable" || s.membership == matrix.Join {
		return true
	}
	// "3. If history_visibility was set to shared, and the user joined the
	//  room at any point after the event was sent, allow."
	if s.visibility == "shared" && v.joinedAfter(num) {
		return true
	}
	// "4. If the user's membership was invite, and the history_visibility was
	//  set to invited, allow. 5. Otherwise, deny." That the user has joined
	//  since is the module's first sentence: "a user needs to join a room".
	return s.visibility == "invited" && s.membership == matrix.Invite && v.member.Joined != 0
}

// joinedAfter says whether the user was joined at some time after an event.
// Events that are no part of our timeline came before we did.
func (v *Viewer) joinedAfter(num store.EventNum) bool {
	if v.member.Membership == matrix.Join {
		return true
	}
	return v.member.Left != 0 && (num.Aside() || num.Position() < v.member.Left)
}

func (v *Viewer) at(snap store.SnapshotID) (sight, error) {
	if s, ok := v.seen[snap]; ok {
		return s, nil
	}
	if v.visibilitySlot == nil {
		v.visibilitySlot = v.slot("m.room.history_visibility", "")
		v.memberSlot = v.slot("m.room.member", string(v.user))
	}
	visibility, err := v.eventAt(snap, *v.visibilitySlot)
	if err != nil {
		return sight{}, err
	}
	member, err := v.eventAt(snap, *v.memberSlot)
	if err != nil {
		return sight{}, err
	}
	if err := v.learn(visibility, member); err != nil {
		return sight{}, err
	}
	if len(v.seen) >= maxSights {
		clear(v.seen)
	}
	v.seen[snap] = v.last.sight
	return v.last.sight, nil
}

// A viewerSlot is the slot of what decides, if the room has one for it.
type viewerSlot struct {
	slot  store.Slot
	known bool
}

func (v *Viewer) slot(typ, stateKey string) *viewerSlot {
	slot, known := v.tx.Slot(v.room, typ, stateKey)
	return &viewerSlot{slot, known}
}

// eventAt returns what stands in a slot of a snapshot, 0 for nothing.
func (v *Viewer) eventAt(snap store.SnapshotID, at viewerSlot) (store.EventNum, error) {
	if !at.known {
		return 0, nil
	}
	num, err := v.tx.StateAt(v.room, snap, at.slot)
	if err != nil {
		return 0, fmt.Errorf("what %s sees in room %d: %w", v.user, v.room, err)
	}
	return num, nil
}

// learn makes of two events, 0 for none, what they decide. In most rooms it is the
// same two for all of the timeline.
func (v *Viewer) learn(visibility, member store.EventNum) error {
	if v.last.known && visibility == v.last.visibility && member == v.last.member {
		return nil
	}
	s := sight{visibility: "shared"}
	if visibility != 0 {
		event, err := v.tx.Event(v.room, visibility)
		if err != nil {
			return err
		}
		s.visibility = event.HistoryVisibility()
	}
	if member != 0 {
		event, err := v.tx.Event(v.room, member)
		if err != nil {
			return err
		}
		if content, err := event.Member(); err == nil {
			s.membership = content.Membership
		}
	}
	v.last = learned{true, visibility, member, s}
	return nil
}
