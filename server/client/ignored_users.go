package client

import (
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// ignoredType is the account data in which clients keep whom a user ignores.
const ignoredType = "m.ignored_user_list"

// ignoredUsers are the users of whom a user wants to hear nothing.
//
// Spec: CS Ignoring Users.
type ignoredUsers map[matrix.UserID]jsontext.Value

// readIgnored returns whom a user ignores, never himself. What a client has put there
// and is no list of users ignores nobody.
func readIgnored(tx *store.Tx, user store.UserNum) (ignoredUsers, error) {
	d, err := tx.AccountData(user, 0, ignoredType)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list struct {
		Users ignoredUsers `json:"ignored_users"`
	}
	if json.Unmarshal(d.Content, &list) != nil {
		return nil, nil
	}
	delete(list.Users, tx.UserID(user))
	return list.Users, nil
}

// has says whether a user is ignored.
func (i ignoredUsers) has(user matrix.UserID) bool {
	_, ignored := i[user]
	return ignored
}

// hides says whether an event is not to be shown. "Servers must still send state
// events sent by ignored users to clients."
func (i ignoredUsers) hides(ev *matrix.Event) bool { return !ev.IsState() && i.has(ev.Sender) }

// hiddenInvites says which invites a user does not want to see.
type hiddenInvites struct {
	all     bool // he blocks invites
	ignored ignoredUsers
	changed store.Position // when he last decided about that: invites may be shown again
}

func readHiddenInvites(tx *store.Tx, who session) (h hiddenInvites, err error) {
	if h.all, err = state.BlocksInvites(tx, who.num); err != nil {
		return h, err
	}
	for _, typ := range []string{ignoredType, "m.invite_permission_config"} {
		h.changed = max(h.changed, tx.AccountDataPosition(who.num, 0, typ))
	}
	h.ignored, err = readIgnored(tx, who.num)
	return h, err
}

// hides says whether an invite is not to be shown. "Servers must not send room
// invites from ignored users to clients"; "invite events for this user already in
// the database [...] MUST NOT be served".
//
// Spec: CS Ignoring Users; Invite permission.
func (h hiddenInvites) hides(tx *store.Tx, invite store.LocalMembership) (bool, error) {
	if h.all || len(h.ignored) == 0 {
		return h.all, nil
	}
	inviter, err := state.Inviter(tx, invite)
	return h.ignored.has(inviter), err
}

// hidesRoom says whether a user is invited to a room and does not want to see that.
func hidesRoom(tx *store.Tx, who session, member store.LocalMembership) (bool, error) {
	if member.Membership != matrix.Invite {
		return false, nil
	}
	hidden, err := readHiddenInvites(tx, who)
	if err != nil {
		return false, err
	}
	return hidden.hides(tx, member)
}
