package state

import (
	"context"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// CheckInvitable refuses an invite from elsewhere to a local user who has no account
// (ErrUnknownUser), has given it up, or wants no invites (ErrInviteBlocked).
func CheckInvitable(tx *store.Tx, user matrix.UserID) error {
	num := tx.UserNum(user)
	account, err := tx.Account(num)
	switch {
	case err != nil:
		return refuse(ErrUnknownUser, "There is no user %s here", user)
	case account.Deactivated:
		return refuse(ErrForbidden, "%s takes no invites any more", user)
	}
	blocks, err := BlocksInvites(tx, num)
	if err == nil && blocks {
		err = refuse(ErrInviteBlocked, "%s does not accept invites", user)
	}
	return err
}

// ReceiveInvite notes an invite that another server asked this one to sign, for the
// local user that it is for; stripped is what [InviteState] returned. In a room that
// this server takes part in nothing is noted: there the event comes as all others do.
//
// Spec: SS Inviting to a room, "if the remote homeserver is already in the room, it
// will receive the invite event twice".
func (r *Rooms) ReceiveInvite(ctx context.Context, invite *matrix.Event, stripped jsontext.Value) error {
	user := matrix.UserID(*invite.StateKey)
	err := r.store.Update(ctx, func(tx *store.Tx) error {
		if err := CheckInvitable(tx, user); err != nil {
			return err
		}
		room, err := tx.PutRoomNum(invite.Room)
		if err != nil {
			return err
		}
		resident, err := Resident(tx, room)
		if resident || err != nil {
			return err
		}
		m, known, err := tx.LocalMembership(tx.UserNum(user), room)
		if err != nil {
			return err
		}
		if own, err := m.Own(); err != nil || known && own != nil && own.ID == invite.ID {
			return err // it came a second time
		}
		return tx.PutLocalMembership(tx.UserNum(user), store.LocalMembership{
			Room: room, Membership: matrix.Invite, Stripped: stripped, PDU: invite.JSON(), Version: invite.Version.ID,
		})
	})
	if err != nil {
		return fmt.Errorf("invite %s: %w", invite.ID, err)
	}
	return nil
}

// RevokeInvite takes an event of a room that this server is not in which says that a
// local user is not invited any more, or that a knock of his is refused. It says
// whether the event was that. Whether the room allows it cannot be told here. So of an
// invite the word of who invited counts alone; of a knock, that of who cites it, which
// nobody can who is not told of it in the room. Its form, hashes and signatures are
// checked by the caller, who finds the version by [InvitedVersion].
func (r *Rooms) RevokeInvite(ctx context.Context, ev *matrix.Event) (revoked bool, err error) {
	user, ok := r.dismissed(ev)
	if !ok {
		return false, nil
	}
	err = r.store.Update(ctx, func(tx *store.Tx) error {
		revoked = false
		num, room := tx.UserNum(user), tx.RoomNum(ev.Room)
		m, known, err := tx.LocalMembership(num, room)
		if !known || err != nil {
			return err
		}
		own, err := m.Own()
		if own == nil || err != nil {
			return err
		}
		switch m.Membership {
		case matrix.Invite:
			known = own.Sender == ev.Sender
		case matrix.Knock:
			known = slices.Contains(ev.AuthEvents, own.ID)
		default:
			known = false
		}
		if !known {
			return nil
		}
		resident, err := Resident(tx, room)
		if resident || err != nil {
			return err
		}
		revoked = true
		return PutDeparture(tx, num, room, ev)
	})
	if err != nil {
		return false, fmt.Errorf("end an invite or a knock by %s: %w", ev.ID, err)
	}
	return revoked, nil
}

// dismissed returns the local user whom an event of somebody else puts out of a room.
func (r *Rooms) dismissed(ev *matrix.Event) (matrix.UserID, bool) {
	if ev.Type != "m.room.member" || ev.StateKey == nil || *ev.StateKey == string(ev.Sender) {
		return "", false
	}
	user, err := matrix.ParseUserID(*ev.StateKey)
	if err != nil || !r.isLocal(user) {
		return "", false
	}
	member, err := ev.Member()
	return user, err == nil && (member.Membership == matrix.Leave || member.Membership == matrix.Ban)
}

// PutDeparture notes that a local user is out of a room that this server is not in:
// an invite or a knock has ended by ev, the user's new member event there.
func PutDeparture(tx *store.Tx, user store.UserNum, room store.RoomNum, ev *matrix.Event) error {
	member, err := ev.Member()
	if err != nil {
		return err
	}
	return tx.PutLocalMembership(user, store.LocalMembership{
		Room: room, Membership: member.Membership, PDU: ev.JSON(), Version: ev.Version.ID,
	})
}

// InvitedVersion returns the version of a room that this server is not in and that a
// local user is invited to; ok is false where nobody is.
func InvitedVersion(tx *store.Tx, id matrix.RoomID) (v *matrix.Version, ok bool, err error) {
	room := tx.RoomNum(id)
	err = tx.LocalMembers(room, func(user store.UserNum, membership matrix.Membership) (bool, error) {
		if membership != matrix.Invite && membership != matrix.Knock {
			return true, nil
		}
		m, _, err := tx.LocalMembership(user, room)
		if err != nil {
			return false, err
		}
		v, ok = matrix.VersionByID(m.Version)
		return !ok, nil
	})
	return v, ok, err
}

// Inviter returns who invited a local user, "" where nobody tells.
func Inviter(tx *store.Tx, invite store.LocalMembership) (matrix.UserID, error) {
	if invite.Event == 0 {
		own, err := invite.Own()
		if own == nil || err != nil {
			return strippedInviter(invite.Stripped), err
		}
		return own.Sender, nil
	}
	ev, err := tx.Event(invite.Room, invite.Event)
	if err != nil {
		return "", err
	}
	return ev.Sender, nil
}

// strippedInviter returns the sender of the last of some stripped events, which is
// the invite.
func strippedInviter(stripped []byte) matrix.UserID {
	var events []struct {
		Sender matrix.UserID `json:"sender"`
	}
	if json.Unmarshal(stripped, &events) != nil || len(events) == 0 {
		return ""
	}
	return events[len(events)-1].Sender
}

// Farewell drafts the leave of a local user from a room that this server is not in and
// where nobody answers: only the user learns of it. It stands on the invite or knock
// that it ends; where that is not known there is none, and it is nil.
func (r *Rooms) Farewell(was store.LocalMembership, reason string) (*matrix.Event, error) {
	own, err := was.Own()
	if own == nil || err != nil {
		return nil, err
	}
	hash, err := own.ReferenceHash()
	if err != nil {
		return nil, err
	}
	draft := matrix.Draft{
		Room: own.Room, Sender: matrix.UserID(*own.StateKey), Type: "m.room.member", StateKey: own.StateKey,
		Content: encode(memberContent{Membership: matrix.Leave, Reason: reason}), OriginServerTS: r.now().UnixMilli(),
	}
	cited := []matrix.EventID{own.ID}
	placing := matrix.Placing{Prev: cited, Auth: cited, PrevHashes: []matrix.Hash{hash}, AuthHashes: []matrix.Hash{hash}, Depth: own.Depth + 1}
	return draft.Build(own.Version, placing, r.server, r.Key())
}
