package state

import (
	"errors"

	"hearth/state/matrix"
	"hearth/store"
)

// A ServerViewer answers which events of one room another server may see, and in
// which form. It is good within one View and remembers what it found, so that a walk
// over many events looks at each snapshot once.
//
// The history visibility of a room is about users. A server may see what any of its
// users may, as it is the server that keeps the events from the others: nothing more
// can be asked of it. Its work is bounded: of a room whose history not everybody may
// see, it knows so many members of the server and no more, and what only the others
// could see is hidden.
//
// Spec: CS Room History Visibility; SS Backfilling and retrieving missing events.
type ServerViewer struct {
	tx     *store.Tx
	room   store.RoomNum
	head   store.Head
	server matrix.ServerName
	former bool           // it is in the room no more: see NewHistoryViewer
	until  store.Position // what came here until then, did while it was there

	visibilitySlot *viewerSlot // nil: not looked up yet
	visibility     map[store.EventNum]string
	members        []store.Slot // of users of the server; the last that counted comes first
	listed         bool         // members are known
	memberships    map[store.EventNum]matrix.Membership
	seen           map[store.SnapshotID]*serverSight
}

// Bounds of what a ServerViewer looks at and remembers.
const (
	maxMemberLooks    = 1 << 15 // users who ever were anything to the room
	maxServerMembers  = 1 << 10 // of those users of the server
	maxMembersLearned = 1 << 12 // member events
)

// serverSight is what decides at one snapshot.
type serverSight struct {
	visibility string
	membership matrix.Membership // the most that a user of the server was: join, invite or ""
	looked     bool              // membership is known
}

// NewServerViewer returns the view that another server has of a room, by the room's
// ID. A server that is not in the room, or that the room's ACL bars, is
// refused with ErrForbidden; so is one that asks for a room that is not known here,
// as it shall not learn which are.
//
// Spec: SS Server Access Control Lists; events.yaml, 403.
func NewServerViewer(tx *store.Tx, id matrix.RoomID, server matrix.ServerName) (*ServerViewer, error) {
	num, head, err := Head(tx, id)
	if errors.Is(err, ErrUnknownRoom) {
		return nil, refuse(ErrForbidden, "%s is not in the room %s, as far as this server knows", server, id)
	}
	if err != nil {
		return nil, err
	}
	if !tx.ServerInRoom(num, tx.ServerNum(server)) {
		return nil, refuse(ErrForbidden, "%s is not in the room %s, as far as this server knows", server, id)
	}
	if allowed, err := ServerAllowed(tx, num, server); err != nil || !allowed {
		return nil, errors.Join(err, refuse(ErrForbidden, "%s is barred from the room by its server ACL", server))
	}
	return newServerViewer(tx, num, head, server), nil
}

func newServerViewer(tx *store.Tx, num store.RoomNum, head store.Head, server matrix.ServerName) *ServerViewer {
	return &ServerViewer{
		tx: tx, room: num, head: head, server: server,
		visibility: make(map[store.EventNum]string), memberships: make(map[store.EventNum]matrix.Membership),
		seen: make(map[store.SnapshotID]*serverSight),
	}
}

// NewHistoryViewer is NewServerViewer also for a server that was in the room and is no
// more. That one sees what happened while a user of it was there, and what became of
// its users; what came here before it was gone it sees as it did then, and nothing else. A server that was away when its users
// were banned learns so what the ban stands on: else it would believe itself in the
// room for ever.
//
// Spec: CS Room History Visibility: who was in the room when an event was sent may see
// it, whatever came later.
func NewHistoryViewer(tx *store.Tx, id matrix.RoomID, server matrix.ServerName) (*ServerViewer, error) {
	v, refusal := NewServerViewer(tx, id, server)
	if !errors.Is(refusal, ErrForbidden) {
		return v, refusal
	}
	num, head, err := Head(tx, id)
	if errors.Is(err, ErrUnknownRoom) {
		return nil, refusal
	}
	if err != nil {
		return nil, err
	}
	if allowed, err := ServerAllowed(tx, num, server); err != nil || !allowed {
		return nil, errors.Join(err, refusal)
	}
	v = newServerViewer(tx, num, head, server)
	v.former = true
	if v.until, err = tx.LeftAt(num, tx.ServerNum(server)); err != nil {
		return nil, err
	}
	if err := v.listMembers(); err != nil || len(v.members) == 0 {
		return nil, errors.Join(err, refusal)
	}
	return v, nil
}

// Room returns the number of the viewed room.
func (v *ServerViewer) Room() store.RoomNum { return v.room }

// Shown returns an event as the server gets it: whole if it may see it, else
// redacted, with whole false. An event that was rejected is nobody's to get: nil. Nor
// does a server that is in the room no more get what it may not see.
//
// Spec: SS Rejection, Soft failure; CS account deactivation, erase.
func (v *ServerViewer) Shown(ev *store.StoredEvent) (shown *matrix.Event, whole bool, err error) {
	if ev.Rejected {
		return nil, false, nil
	}
	if whole, err = v.sees(ev); err != nil {
		return nil, false, err
	}
	if !whole && v.former {
		return nil, false, nil
	}
	if whole {
		erased, err := v.erased(ev)
		if err != nil {
			return nil, false, err
		}
		whole = !erased
	}
	if whole {
		return ev.Event, true, nil
	}
	shown, err = ev.RedactedCopy()
	return shown, false, err
}

// Stood says whether the server may know the state before an event: it is in the room,
// or a user of it was right before that event. A server that was away when its users were
// put out of the room gets so the state that this stands on.
//
// Spec: SS Retrieving events.
func (v *ServerViewer) Stood(ev *store.StoredEvent) (bool, error) {
	if !v.former {
		return true, nil
	}
	if ev.Num.Aside() && ev.Sender.Server() == v.server {
		return false, nil // the state before it may be what the server gave itself
	}
	if !ev.Outlier && ev.Num.Position() <= v.until {
		return true, nil
	}
	return v.stood(ev)
}

// sees says whether a user of the server may see an event. That one was softly
// failed does not matter to other servers.
func (v *ServerViewer) sees(ev *store.StoredEvent) (bool, error) {
	if ev.Sender.Server() == v.server {
		return true, nil
	}
	if v.former {
		return v.saw(ev)
	}
	snap := ev.Before
	if ev.Outlier {
		snap = v.head.Current // what was before it is not known
	}
	s, err := v.at(snap)
	if err != nil {
		return false, err
	}
	visibilities := []string{s.visibility}
	if ev.Is("m.room.history_visibility", "") {
		visibilities = append(visibilities, ev.HistoryVisibility())
	}
	for _, visibility := range visibilities {
		switch visibility {
		case "world_readable", "shared": // the server is in the room, so its users came after the event or before
			return true, nil
		}
	}
	membership, err := v.membership(s, snap)
	if err != nil || membership == matrix.Join {
		return err == nil, err
	}
	after := v.membershipBy(ev)
	for _, visibility := range visibilities {
		if after == matrix.Join || visibility == "invited" && (membership == matrix.Invite || after == matrix.Invite) {
			return true, nil
		}
	}
	return false, nil
}

// saw says whether a user of the server was in the room at an event, or it is about
// one of them.
func (v *ServerViewer) saw(ev *store.StoredEvent) (bool, error) {
	if v.membershipBy(ev) != "" {
		return true, nil
	}
	if !ev.Outlier && ev.Num.Position() <= v.until {
		s, err := v.at(ev.Before)
		if err != nil || s.visibility == "shared" || s.visibility == "world_readable" {
			return err == nil, err
		}
	}
	return v.stood(ev)
}

// stood says whether a user of the server was in the room right before an event.
func (v *ServerViewer) stood(ev *store.StoredEvent) (bool, error) {
	if ev.Outlier {
		return false, nil // what was before it is not known
	}
	s, err := v.at(ev.Before)
	if err != nil {
		return false, err
	}
	membership, err := v.membership(s, ev.Before)
	return membership == matrix.Join, err
}

// membershipBy returns what an event makes of a user of the server, "" where it is not
// about one.
func (v *ServerViewer) membershipBy(ev *store.StoredEvent) matrix.Membership {
	if ev.Type != "m.room.member" || !ev.IsState() || matrix.UserID(*ev.StateKey).Server() != v.server {
		return ""
	}
	member, err := ev.Member()
	if err != nil {
		return ""
	}
	return member.Membership
}

// erased says whether the sender of an event is a user here who has wished that it be
// forgotten, and nobody of the server was there when it was sent. What the
// sender made of the room itself stays, as it is not about them.
func (v *ServerViewer) erased(ev *store.StoredEvent) (bool, error) {
	if ev.IsState() && !ev.Is("m.room.member", string(ev.Sender)) {
		return false, nil
	}
	account, err := v.tx.Account(ev.SenderNum) // others have none here
	if errors.Is(err, store.ErrNotFound) || err == nil && !account.Erased {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	s, err := v.at(ev.Before)
	if err != nil {
		return false, err
	}
	membership, err := v.membership(s, ev.Before)
	return membership != matrix.Join, err
}

// at returns what decides at a snapshot.
func (v *ServerViewer) at(snap store.SnapshotID) (*serverSight, error) {
	if s := v.seen[snap]; s != nil {
		return s, nil
	}
	if v.visibilitySlot == nil {
		slot, known := v.tx.Slot(v.room, "m.room.history_visibility", "")
		v.visibilitySlot = &viewerSlot{slot, known}
	}
	s := &serverSight{visibility: "shared"}
	if v.visibilitySlot.known {
		num, err := v.tx.StateAt(v.room, snap, v.visibilitySlot.slot)
		if err != nil {
			return nil, err
		}
		if num != 0 {
			if s.visibility, err = v.visibilityOf(num); err != nil {
				return nil, err
			}
		}
	}
	if len(v.seen) >= maxSights {
		clear(v.seen)
	}
	v.seen[snap] = s
	return s, nil
}

func (v *ServerViewer) visibilityOf(num store.EventNum) (string, error) {
	if is, ok := v.visibility[num]; ok {
		return is, nil
	}
	ev, err := v.tx.Event(v.room, num)
	if err != nil {
		return "", err
	}
	if len(v.visibility) >= maxSights {
		clear(v.visibility)
	}
	v.visibility[num] = ev.HistoryVisibility()
	return v.visibility[num], nil
}

// membership returns the most that a user of the server was at a snapshot. It looks
// at the members of that server alone, and first at the one that counted last.
func (v *ServerViewer) membership(s *serverSight, snap store.SnapshotID) (matrix.Membership, error) {
	if s.looked {
		return s.membership, nil
	}
	if err := v.listMembers(); err != nil {
		return "", err
	}
	for i, slot := range v.members {
		num, err := v.tx.StateAt(v.room, snap, slot)
		if err != nil {
			return "", err
		}
		is, err := v.membershipOf(num)
		if err != nil {
			return "", err
		}
		if is == matrix.Invite {
			s.membership = is
		}
		if is == matrix.Join {
			s.membership = is
			v.members[0], v.members[i] = v.members[i], v.members[0]
			break
		}
	}
	s.looked = true
	return s.membership, nil
}

func (v *ServerViewer) membershipOf(num store.EventNum) (matrix.Membership, error) {
	if num == 0 {
		return "", nil
	}
	if is, ok := v.memberships[num]; ok {
		return is, nil
	}
	ev, err := v.tx.Event(v.room, num)
	if err != nil {
		return "", err
	}
	if len(v.memberships) >= maxMembersLearned {
		clear(v.memberships)
	}
	member, err := ev.Member()
	if err == nil { // the auth rules let nothing else in; what is unreadable counts as absent
		v.memberships[num] = member.Membership
	}
	return v.memberships[num], nil
}

// listMembers finds the users of the server who ever were anything to the room.
func (v *ServerViewer) listMembers() error {
	if v.listed {
		return nil
	}
	looked := 0
	err := v.tx.MemberSlots(v.room, func(user store.UserNum, slot store.Slot) (bool, error) {
		if v.tx.UserID(user).Server() == v.server {
			v.members = append(v.members, slot)
		}
		looked++
		return looked < maxMemberLooks && len(v.members) < maxServerMembers, nil
	})
	v.listed = err == nil
	return err
}
