package state

import (
	"context"
	"errors"
	"fmt"

	"hearth/state/matrix"
	"hearth/store"
)

// Resident says whether this server takes part in a room: a local user has joined,
// so that the room's events come here and its state is the one that others have.
func Resident(tx *store.Tx, room store.RoomNum) (resident bool, err error) {
	err = tx.LocalMembers(room, func(_ store.UserNum, m matrix.Membership) (bool, error) {
		resident = m == matrix.Join
		return !resident, nil
	})
	return resident, err
}

// openResident is open for a room that this server takes part in; any other is
// ErrUnknownRoom.
func (r *Rooms) openResident(tx *store.Tx, id matrix.RoomID) (*room, error) {
	rm, err := r.open(tx, id)
	if err != nil {
		return nil, err
	}
	resident, err := Resident(tx, rm.num)
	if err == nil && !resident {
		err = refuse(ErrUnknownRoom, "This server is not in the room %s", id)
	}
	return rm, err
}

// admits finds the local member who authorises that a user of another server joins a
// restricted room. It is nobody where the room's rule needs none, or the user is in
// the room or invited.
//
// "If no conditions are available, or none match the required schema, then the
// joining server is considered to have failed all conditions", which is ErrForbidden.
// Where nothing is known here of any of the rooms that the conditions name it is
// ErrUnableToAuthoriseJoin, and where nobody here may let anybody in
// ErrUnableToGrantJoin. Spec: SS Restricted rooms.
func (rm *room) admits(user matrix.UserID) (matrix.UserID, error) {
	was, err := rm.membership(user)
	if err != nil || was == matrix.Join || was == matrix.Invite || was == matrix.Ban {
		return "", err
	}
	rules, err := rm.current("m.room.join_rules", "")
	if rules == nil || err != nil {
		return "", err
	}
	rule, allow, err := rules.JoinRule()
	if err != nil || !restricted(rm.head.Version, rule) {
		return "", nil // the auth rules judge it
	}
	known := len(allow) == 0
	for _, id := range allow {
		other, err := rm.rooms.openResident(rm.tx, id)
		if errors.Is(err, ErrUnknownRoom) {
			continue
		}
		if err != nil {
			return "", err
		}
		known = true
		there, err := other.membership(user)
		if err != nil {
			return "", err
		}
		if there == matrix.Join {
			return rm.inviter()
		}
	}
	if !known {
		return "", refuse(ErrUnableToAuthoriseJoin, "This server is in none of the rooms whose members may join this one")
	}
	return "", refuse(ErrForbidden, "%s is in none of the rooms whose members may join this one", user)
}

// Vouch adds this server's signature to the join of a user of another server, if the
// join names a user of ours as who authorises it and the user meets one of the
// room's conditions. Other events are returned as they are. The event's own
// signatures are not looked at. Errors are those of [Rooms.Template]. Spec: SS
// Restricted rooms; send_join: "The resident server which owns the provided user ID
// must have a valid signature on the event."
func (r *Rooms) Vouch(ev *matrix.Event) (*matrix.Event, error) {
	member, err := ev.Member()
	if err != nil || member.Membership != matrix.Join || member.AuthorisedVia == "" || !r.isLocal(member.AuthorisedVia) {
		return ev, nil
	}
	err = r.store.View(func(tx *store.Tx) error {
		rm, err := r.openResident(tx, ev.Room)
		if err != nil {
			return err
		}
		_, err = rm.admits(ev.Sender)
		return err
	})
	if err != nil {
		return nil, err
	}
	signed, err := ev.Signed(r.server, r.Key())
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", ev.ID, err)
	}
	return signed, nil
}

// Admit takes the join, knock or leave that a server made of a [Template] and that
// this server sends to all others in the room. What the event stands on and this
// server has not got comes from the source. An event that the room does not take is
// ErrForbidden. One that is here already is returned again. Its form, hashes and
// signatures are checked by the caller. Spec: SS send_join, send_knock, send_leave.
func (r *Rooms) Admit(ctx context.Context, ev *matrix.Event, from Source) (*store.StoredEvent, error) {
	err := r.store.View(func(tx *store.Tx) error {
		_, err := r.openResident(tx, ev.Room)
		return err
	})
	if err != nil {
		return nil, err
	}
	if _, err := r.acceptFrom(ctx, []*matrix.Event{ev}, from, reception{relay: ev.ID}); err != nil {
		return nil, err
	}
	return r.taken(ev)
}

// taken returns an event that came here and is part of the timeline. If it is not,
// that is ErrForbidden; so it is where another event has its ID, as versions 1 and 2
// permit: whoever asked is told nothing of that one.
func (r *Rooms) taken(ev *matrix.Event) (stored *store.StoredEvent, err error) {
	err = r.store.View(func(tx *store.Tx) error {
		room, num, _ := tx.EventByID(ev.ID)
		if stored, err = tx.Event(room, num); err != nil {
			return err
		}
		same, err := sameEvent(stored.Event, ev)
		if err != nil {
			return err
		}
		if !same || stored.Rejected || stored.SoftFailed || stored.Outlier {
			return refuse(ErrForbidden, "The room does not allow that to %s", ev.Sender)
		}
		return nil
	})
	return stored, err
}

// sameEvent says whether two events of one ID are the same, redacted or not.
func sameEvent(a, b *matrix.Event) (bool, error) {
	one, err := a.ReferenceHash()
	if err != nil {
		return false, err
	}
	other, err := b.ReferenceHash()
	return a.Version == b.Version && one == other, err
}

// A Template is the member event that another server signs to bring one of its users
// into a room, or out of it. Spec: SS make_join, make_knock, make_leave.
type Template struct {
	Version *matrix.Version
	Event   *matrix.Event // signed by this server, which does not count
}

// Template drafts the join, knock or leave of a user of another server. A room that
// this server is not in is ErrUnknownRoom, one of a version that the other server
// does not support, by takes, is an [IncompatibleError]; who may not do that is an
// [auth.Error] or ErrForbidden. For a restricted room see admits.
func (r *Rooms) Template(id matrix.RoomID, user matrix.UserID, to matrix.Membership, takes func(version string) bool) (t Template, err error) {
	err = r.store.View(func(tx *store.Tx) error {
		rm, err := r.openResident(tx, id)
		if err != nil {
			return err
		}
		if t.Version = rm.head.Version; !takes(t.Version.ID) {
			return &IncompatibleError{Version: t.Version}
		}
		content := memberContent{Membership: to}
		if to == matrix.Join {
			if content.AuthorisedVia, err = rm.admits(user); err != nil {
				return err
			}
		}
		key := string(user)
		t.Event, err = rm.build(matrix.Draft{Sender: user, Type: "m.room.member", StateKey: &key, Content: encode(content)})
		return err
	})
	return t, err
}

// An IncompatibleError says that a room is of a version that the other server does
// not support. Spec: SS make_join, M_INCOMPATIBLE_ROOM_VERSION.
type IncompatibleError struct {
	Version *matrix.Version
}

// Error names the version.
func (e *IncompatibleError) Error() string { return "the room is of version " + e.Version.ID }

// Bounds of the members whom [WithoutMembers] gives: as many as a room is named
// after, of the first that are looked at.
const (
	maxHeroes     = 5
	maxHeroesSeen = 1000
)

// WithoutMembers returns the state before a join without the members: "If the room to
// be joined has no m.room.name nor m.room.canonical_alias events in its current state,
// the resident server should determine the room members who would be included in the
// m.heroes property", which are among it. Spec: SS send_join, omit_members.
func WithoutMembers(tx *store.Tx, join *store.StoredEvent) (nums []store.EventNum, err error) {
	err = tx.WalkState(join.RoomNum, join.Before, store.StateOthers, func(_ store.Slot, num store.EventNum) (bool, error) {
		nums = append(nums, num)
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	for _, typ := range []string{"m.room.name", "m.room.canonical_alias"} {
		if num, err := numAt(tx, join.RoomNum, join.Before, typ, ""); num != 0 || err != nil {
			return nums, err
		}
	}
	heroes, seen := 0, 0
	err = tx.WalkState(join.RoomNum, join.Before, store.StateMembers, func(_ store.Slot, num store.EventNum) (bool, error) {
		ev, err := tx.Event(join.RoomNum, num)
		if err != nil {
			return false, err
		}
		member, err := ev.Member()
		if err == nil && (member.Membership == matrix.Join || member.Membership == matrix.Invite) && *ev.StateKey != string(join.Sender) {
			nums = append(nums, num)
			heroes++
		}
		seen++
		return heroes < maxHeroes && seen < maxHeroesSeen, nil
	})
	return nums, err
}
