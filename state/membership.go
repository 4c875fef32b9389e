package state

import (
	"context"
	"errors"
	"maps"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// memberContent is the content of a member event that this server writes.
// Spec: CS m.room.member.
type memberContent struct {
	Membership       matrix.Membership `json:"membership"`
	DisplayName      *string           `json:"displayname,omitzero"`
	AvatarURL        *string           `json:"avatar_url,omitzero"`
	Reason           string            `json:"reason,omitzero"`
	Direct           bool              `json:"is_direct,omitzero"`
	AuthorisedVia    matrix.UserID     `json:"join_authorised_via_users_server,omitzero"`
	ThirdPartyInvite jsontext.Value    `json:"third_party_invite,omitzero"`

	Extra map[string]jsontext.Value `json:",embed"` // none of the keys above
}

// memberKeys are the keys of a member event that no client writes by joining.
var memberKeys = []string{
	"membership", "displayname", "avatar_url", "reason", "is_direct",
	"join_authorised_via_users_server", "third_party_invite",
}

// extend adds what a client wants a member event to say beyond what is specified.
func (c *memberContent) extend(extra map[string]jsontext.Value) {
	c.Extra = maps.Clone(extra)
	for _, key := range memberKeys {
		delete(c.Extra, key)
	}
}

// A MembershipChange is what one user wants to make of a user's membership,
// often his own.
type MembershipChange struct {
	Room       matrix.RoomID
	Sender     matrix.UserID
	Target     matrix.UserID
	Membership matrix.Membership
	Reason     string
	Direct     bool // of an invite: it makes a direct chat
}

// kick says whether the change removes somebody else without banning.
func (c MembershipChange) kick() bool {
	return c.Membership == matrix.Leave && c.Sender != c.Target
}

// ChangeMembership invites, knocks, leaves, kicks, bans or unbans. What the
// auth rules refuse is an [auth.Error]; a kick or unban of somebody who is not
// there or not banned is ErrForbidden. A change to what is already so returns
// the event that made it so. Joins are [Rooms.Join]'s.
func (r *Rooms) ChangeMembership(ctx context.Context, c MembershipChange) (matrix.EventID, error) {
	produce := r.produceAsMember
	if c.Membership == matrix.Knock {
		produce = r.produce
	}
	return produce(ctx, c.Room, func(rm *room) (matrix.EventID, error) {
		known, done, err := rm.standing(c)
		if err != nil || done {
			return known, err
		}
		return rm.addMember(c.Sender, c.Target, memberContent{Membership: c.Membership, Reason: c.Reason, Direct: c.Direct})
	})
}

// Unban lifts a ban; who was not banned is ErrForbidden.
func (r *Rooms) Unban(ctx context.Context, id matrix.RoomID, sender, target matrix.UserID, reason string) error {
	_, err := r.produceAsMember(ctx, id, func(rm *room) (matrix.EventID, error) {
		if err := rm.requireMember(sender); err != nil {
			return "", err
		}
		was, err := rm.membership(target)
		if err != nil {
			return "", err
		}
		if was != matrix.Ban {
			return "", refuse(ErrForbidden, "%s is not banned from this room", target)
		}
		return rm.addMember(sender, target, memberContent{Membership: matrix.Leave, Reason: reason})
	})
	return err
}

// requireMember refuses who is not in the room, before anything that he asks for
// tells him who is.
func (rm *room) requireMember(user matrix.UserID) error {
	membership, err := rm.membership(user)
	if err == nil && membership != matrix.Join {
		err = refuse(ErrForbidden, "You are not in the room %s", rm.id)
	}
	return err
}

// standing says whether a change is made already, and refuses those that the
// auth rules would let pass but that mean something else than was asked for.
func (rm *room) standing(c MembershipChange) (matrix.EventID, bool, error) {
	if c.Sender != c.Target {
		if err := rm.requireMember(c.Sender); err != nil {
			return "", false, err
		}
	}
	ev, err := rm.current("m.room.member", string(c.Target))
	if err != nil {
		return "", false, err
	}
	var was matrix.Membership
	if ev != nil {
		if member, err := ev.Member(); err == nil {
			was = member.Membership
		}
	}
	switch {
	case c.kick() && was != matrix.Join && was != matrix.Invite && was != matrix.Knock:
		return "", false, refuse(ErrForbidden, "%s is not in this room", c.Target)
	case c.Membership == matrix.Leave && c.Sender == c.Target && (was == "" || was == matrix.Ban):
		return "", false, refuse(ErrForbidden, "You are not in this room")
	case was == c.Membership && was != "" && was != matrix.Invite:
		return ev.ID, true, nil
	}
	return "", false, nil
}

// checkInvitee refuses an invite to a user who cannot be reached, or wants none.
func (rm *room) checkInvitee(user matrix.UserID) error {
	if rm.rooms.isLocal(user) {
		return rm.checkBlocking(user)
	}
	if err := rm.rooms.reaches(user); err != nil {
		return err
	}
	create, err := rm.auth("m.room.create", "")
	if create == nil || err != nil {
		return err
	}
	if content, err := create.CreateContent(); err == nil && !content.Federate {
		return refuse(ErrForbidden, "This room is not open to users of other servers, such as %s", user)
	}
	return nil
}

// reaches refuses a user of another server where that cannot be asked.
func (r *Rooms) reaches(user matrix.UserID) error {
	if !r.isLocal(user) && r.outside.Invite == nil {
		return refuse(ErrForbidden, "%s is on another server, and this server does not federate", user)
	}
	return nil
}

// checkBlocking refuses an invite to a local user who wants none.
func (rm *room) checkBlocking(user matrix.UserID) error {
	blocks, err := BlocksInvites(rm.tx, rm.tx.UserNum(user))
	if err == nil && blocks {
		err = refuse(ErrInviteBlocked, "%s does not accept invites", user)
	}
	return err
}

// BlocksInvites says whether a local user has said that he wants no invites.
// Spec: CS Invite permission.
func BlocksInvites(tx *store.Tx, user store.UserNum) (bool, error) {
	data, err := tx.AccountData(user, 0, "m.invite_permission_config")
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var config struct {
		Action jsontext.Value `json:"default_action"`
	}
	// "A missing, invalid or unsupported value means that the user wants to
	// receive invites as normal."
	return json.Unmarshal(data.Content, &config) == nil && string(config.Action) == `"block"`, nil
}

// addMember adds a member event, unless it is an invite to a user who cannot be
// reached or wants none.
func (rm *room) addMember(sender, target matrix.UserID, content memberContent) (matrix.EventID, error) {
	if content.Membership == matrix.Invite {
		if err := rm.checkInvitee(target); err != nil {
			return "", err
		}
	}
	return rm.writeMember(sender, target, content)
}

// writeMember adds a member event; joins, knocks and invites carry the target's
// profile where it is known here.
func (rm *room) writeMember(sender, target matrix.UserID, content memberContent) (matrix.EventID, error) {
	switch content.Membership {
	case matrix.Join, matrix.Invite, matrix.Knock:
		if rm.rooms.isLocal(target) {
			profile, err := rm.profile(target)
			if err != nil {
				return "", err
			}
			content.DisplayName, content.AvatarURL = profile.DisplayName, profile.AvatarURL
		}
	}
	key := string(target)
	draft := matrix.Draft{Sender: sender, Type: "m.room.member", StateKey: &key, Content: encode(content)}
	ev, err := rm.add(draft, store.TxnID{})
	if err != nil {
		return "", err
	}
	return ev.ID, nil
}
