package state

import (
	"context"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// A Join is a local user's wish to be in a room.
type Join struct {
	Room   matrix.RoomID
	User   matrix.UserID
	Reason string
	Proof  *ThirdPartyProof // that an invite by address is the user's; or nil

	// Extra is what else the member event shall say. Of the keys that member
	// events have by the specification none is taken from here.
	Extra map[string]jsontext.Value
}

// Join joins a local user to a room that this server knows. A user who is in
// it stays in it. A proof of an invite by address becomes an invite first; who is
// invited already needs none. In a
// restricted room a local member with the power to invite vouches for who meets a
// condition; who meets none is ErrForbidden, and where nobody here may vouch it is
// ErrUnableToGrantJoin. Spec: CS Joining rooms, Restricted rooms, Third-party
// invites.
func (r *Rooms) Join(ctx context.Context, j Join) error {
	if j.Proof != nil {
		wanted := func(*room) error { return nil } // who brings a proof wants the invite
		if err := r.redeem(ctx, *j.Proof, wanted); err != nil {
			return err
		}
	}
	_, err := r.produce(ctx, j.Room, func(rm *room) (matrix.EventID, error) {
		was, err := rm.membership(j.User)
		if err != nil || was == matrix.Join {
			return "", err
		}
		content := memberContent{Membership: matrix.Join, Reason: j.Reason}
		content.extend(j.Extra)
		if was != matrix.Invite && was != matrix.Ban { // a ban is the auth rules' to tell
			if content.AuthorisedVia, err = rm.vouch(j.User); err != nil {
				return "", err
			}
		}
		return rm.addMember(j.User, j.User, content)
	})
	return err
}

// vouch finds the member who authorises a join to a restricted room. It is
// nobody where the room's rule needs none.
func (rm *room) vouch(user matrix.UserID) (matrix.UserID, error) {
	rules, err := rm.current("m.room.join_rules", "")
	if rules == nil || err != nil {
		return "", err
	}
	rule, allow, err := rules.JoinRule()
	if err != nil || !restricted(rm.head.Version, rule) {
		return "", nil // the auth rules judge it
	}
	meets, err := joinedAny(rm.tx, rm.tx.UserNum(user), allow)
	if err != nil {
		return "", err
	}
	if !meets {
		return "", refuse(ErrForbidden, "You are in none of the rooms whose members may join this one")
	}
	return rm.inviter()
}

// restricted says whether a join rule lets members of other rooms in.
func restricted(v *matrix.Version, rule string) bool {
	return v.RestrictedJoins && rule == "restricted" || v.KnockRestricted && rule == "knock_restricted"
}

// joinedAny says whether a local user is joined to one of the rooms.
func joinedAny(tx *store.Tx, user store.UserNum, rooms []matrix.RoomID) (bool, error) {
	for _, id := range rooms {
		m, ok, err := tx.LocalMembership(user, tx.RoomNum(id))
		if err != nil {
			return false, err
		}
		if ok && m.Membership == matrix.Join {
			return true, nil
		}
	}
	return false, nil
}

// inviter returns a joined local user with the power to invite.
func (rm *room) inviter() (matrix.UserID, error) {
	create, levels, err := rm.powers()
	if err != nil {
		return "", err
	}
	var found matrix.UserID
	err = rm.tx.LocalMembers(rm.num, func(num store.UserNum, m matrix.Membership) (bool, error) {
		user := rm.tx.UserID(num)
		if m == matrix.Join && levels.holds(create, user, levels.Invite) {
			found = user
		}
		return found == "", nil
	})
	if err == nil && found == "" {
		err = refuse(ErrUnableToGrantJoin, "Nobody of this server has the power to let you into this room")
	}
	return found, err
}

// powerLevels is what holds in a room, with the event that says so, if any.
type powerLevels struct {
	*matrix.PowerLevels
	event *matrix.Event
}

// holds says whether a user has at least a level.
func (p powerLevels) holds(create *matrix.Event, user matrix.UserID, level int64) bool {
	return auth.UserPower(create, p.event, user) >= level
}

// powers returns the create event and the power levels of the current state.
func (rm *room) powers() (*matrix.Event, powerLevels, error) {
	create, err := rm.auth("m.room.create", "")
	if err != nil {
		return nil, powerLevels{}, err
	}
	event, err := rm.auth("m.room.power_levels", "")
	if err != nil {
		return nil, powerLevels{}, err
	}
	levels := matrix.DefaultPowerLevels(create)
	if event != nil {
		if levels, err = event.PowerLevels(); err != nil {
			return nil, powerLevels{}, err
		}
	}
	return create, powerLevels{levels, event}, nil
}

// Leave takes a user out of a room, declines an invite or withdraws a knock.
func (r *Rooms) Leave(ctx context.Context, id matrix.RoomID, user matrix.UserID, reason string) error {
	_, err := r.ChangeMembership(ctx, MembershipChange{
		Room: id, Sender: user, Target: user, Membership: matrix.Leave, Reason: reason,
	})
	return err
}

// Joined returns the rooms that a local user is in, in the order of their IDs.
func Joined(tx *store.Tx, user store.UserNum) ([]matrix.RoomID, error) {
	var rooms []matrix.RoomID
	err := tx.LocalMemberships(user, func(m store.LocalMembership) (bool, error) {
		if m.Membership == matrix.Join {
			rooms = append(rooms, tx.RoomID(m.Room))
		}
		return true, nil
	})
	slices.Sort(rooms)
	return rooms, err
}
