package auth

import (
	"hearth/state/matrix"
)

// Join rules that the rules know by name (client-server API, m.room.join_rules).
const (
	joinPublic          = "public"
	joinInvite          = "invite"
	joinKnock           = "knock"
	joinRestricted      = "restricted"
	joinKnockRestricted = "knock_restricted"
)

// membership is the current membership of user, "" where the room has no
// m.room.member event for them.
func (c *check) membership(user matrix.UserID) (matrix.Membership, error) {
	ev, err := c.get(typeMember, string(user))
	if err != nil || ev == nil {
		return "", err
	}
	v, _ := property(ev.Content, "membership")
	membership, _ := stringOf(v)
	return matrix.Membership(membership), nil
}

// joinRule is the room's join rule: "invite" where the room has none, and "" where
// it is nothing that the rules could know.
func (c *check) joinRule() (string, error) {
	ev, err := c.get(typeJoinRules, "")
	if err != nil {
		return "", err
	}
	if ev == nil {
		return joinInvite, nil
	}
	v, has := property(ev.Content, "join_rule")
	if !has {
		return joinInvite, nil
	}
	rule, _ := stringOf(v)
	return rule, nil
}

// memberChange is an m.room.member event before the rules.
type memberChange struct {
	*check
	target  matrix.UserID // whose membership changes: the state key
	content matrix.MemberContent
	// Membership before the event; sender is target's where they are one.
	sender, was matrix.Membership
}

// member applies the rules for m.room.member.
func (c *check) member() error {
	content, err := c.ev.Member()
	if c.ev.StateKey == nil || err != nil {
		return c.malformedMember()
	}
	m := memberChange{check: c, target: matrix.UserID(*c.ev.StateKey), content: content}
	if m.sender, err = c.membership(c.ev.Sender); err != nil {
		return err
	}
	m.was = m.sender
	if m.target != c.ev.Sender {
		if m.was, err = c.membership(m.target); err != nil {
			return err
		}
	}
	switch content.Membership {
	case matrix.Join:
		return m.join()
	case matrix.Invite:
		return m.invite()
	case matrix.Leave:
		return m.leave()
	case matrix.Ban:
		return m.ban()
	case matrix.Knock:
		if c.v.Knocking {
			return m.knock()
		}
	}
	// MembershipUnknown. v1-5 5.6, v6 4.6, v7 4.7, v8-11 4.8, v12 5.8: "Otherwise,
	// the membership is unknown. Reject."
	return c.refuse(MembershipUnknown, "There is no membership %s in this room's version",
		quote(string(content.Membership)))
}

// malformedMember is the refusal of a membership that cannot be read.
func (c *check) malformedMember() error {
	// MemberMalformed. v1-5 5.1, v6-11 4.1, v12 5.1: "If there is no `state_key`
	// property, or no `membership` property in `content`, reject."
	if c.ev.StateKey == nil {
		return c.refuse(MemberMalformed, "A membership needs a user as its state key")
	}
	v, _ := property(c.ev.Content, "membership")
	_, authorised := property(c.ev.Content, "join_authorised_via_users_server")
	if membership, _ := stringOf(v); membership == "" || !authorised || !c.v.RestrictedJoins {
		return c.refuse(MemberMalformed, "The membership is missing")
	}
	// MemberUnsigned. v8-11 4.2.1, v12 5.2.1: "If the event is not validly signed by
	// the homeserver of the user ID denoted by the key" join_authorised_via_users_server,
	// "reject." Here it denotes no user; a signature of one is checked elsewhere.
	return c.refuse(MemberUnsigned, "The user who let you join is not a user ID")
}

func (m *memberChange) join() error {
	ev := m.ev
	// v1-5 5.2.1, v6-7 4.2.1, v8-10 4.3.1: "If the only previous event is an
	// `m.room.create` and the `state_key` is the creator, allow."
	// v11 4.3.1, v12 5.3.1: "… the `state_key` is the sender of the
	// `m.room.create`, allow."
	if len(ev.PrevEvents) == 1 && ev.PrevEvents[0] == m.create.ID && m.target == creator(m.create) {
		return nil
	}
	// JoinNotOneself. v1-5 5.2.2, v6-7 4.2.2, v8-11 4.3.2, v12 5.3.2: "If the
	// `sender` does not match `state_key`, reject."
	if ev.Sender != m.target {
		return m.refuse(JoinNotOneself, "You cannot make %s join", quote(string(m.target)))
	}
	// JoinBanned. v1-5 5.2.3, v6-7 4.2.3, v8-11 4.3.3, v12 5.3.3: "If the `sender` is
	// banned, reject."
	if m.sender == matrix.Ban {
		return m.refuse(JoinBanned, "You are banned from this room")
	}
	rule, err := m.joinRule()
	if err != nil {
		return err
	}
	invited := m.sender == matrix.Invite || m.sender == matrix.Join
	switch {
	// v1-5 5.2.4, v6 4.2.4: "If the `join_rule` is `invite` then allow if membership
	// state is `invite` or `join`."
	// v7 4.2.4, v8-11 4.3.4, v12 5.3.4: "If the `join_rule` is `invite` or `knock`
	// then allow if membership state is `invite` or `join`."
	case rule == joinInvite, rule == joinKnock && m.v.Knocking:
		if invited {
			return nil
		}
	// v8-9 4.3.5: "If the `join_rule` is `restricted`:"
	// v10-11 4.3.5, v12 5.3.5: "If the `join_rule` is `restricted` or
	// `knock_restricted`:"
	case rule == joinRestricted && m.v.RestrictedJoins, rule == joinKnockRestricted && m.v.KnockRestricted:
		// v8-11 4.3.5.1, v12 5.3.5.1: "If membership state is `join` or `invite`, allow."
		if invited {
			return nil
		}
		return m.joinAuthorised()
	// v1-5 5.2.5, v6-7 4.2.5, v8-11 4.3.6, v12 5.3.6: "If the `join_rule` is `public`,
	// allow."
	case rule == joinPublic:
		return nil
	}
	// JoinRefused. v1-5 5.2.6, v6-7 4.2.6, v8-11 4.3.7, v12 5.3.7: "Otherwise, reject."
	return m.refuse(JoinRefused, "You need an invite to join this room")
}

// joinAuthorised decides about a join that a member's server let in on its word,
// as the joining user is in another room that the join rule names.
func (m *memberChange) joinAuthorised() error {
	// JoinUnauthorised. v8-11 4.3.5.2, v12 5.3.5.2: "If the
	// `join_authorised_via_users_server` key in `content` is not a user with
	// sufficient permission to invite other users or is not a joined member of the
	// room, reject."
	via := m.content.AuthorisedVia
	if via == "" {
		return m.refuse(JoinUnauthorised,
			"You need an invite, or to be in a room whose members may join this one")
	}
	membership, err := m.membership(via)
	if err != nil {
		return err
	}
	if membership != matrix.Join {
		return m.refuse(JoinUnauthorised, "%s let you join but is not in the room", via)
	}
	l, err := m.levels(via)
	if err != nil {
		return err
	}
	if level := l.user(via); level < l.Invite {
		return m.refuse(JoinUnauthorised, "%s let you join, for which they need power level %d but have %d",
			via, l.Invite, level)
	}
	// v8-11 4.3.5.3, v12 5.3.5.3: "Otherwise, allow."
	return nil
}

func (m *memberChange) invite() error {
	// v1-5 5.3.1, v6-7 4.3.1, v8-11 4.4.1, v12 5.4.1: "If `content` has a
	// `third_party_invite` property:"
	if m.content.ThirdPartyInvite != nil {
		return m.thirdPartyInvite()
	}
	// InviteNotJoined. v1-5 5.3.2, v6-7 4.3.2, v8-11 4.4.2, v12 5.4.2: "If the
	// `sender`'s current membership state is not `join`, reject."
	if m.sender != matrix.Join {
		return m.refuse(InviteNotJoined, "You are not in this room")
	}
	// InvitePointless. v1-5 5.3.3, v6-7 4.3.3, v8-11 4.4.3, v12 5.4.3: "If *target
	// user*'s current membership state is `join` or `ban`, reject."
	switch m.was {
	case matrix.Join:
		return m.refuse(InvitePointless, "%s is already in this room", quote(string(m.target)))
	case matrix.Ban:
		return m.refuse(InvitePointless, "%s is banned from this room", quote(string(m.target)))
	}
	l, err := m.levels(m.ev.Sender)
	if err != nil {
		return err
	}
	// InviteLevel. v1-5 5.3.4, v6-7 4.3.4, v8-11 4.4.4, v12 5.4.4: "If the `sender`'s
	// power level is greater than or equal to the *invite level*, allow."
	// v1-5 5.3.5, v6-7 4.3.5, v8-11 4.4.5, v12 5.4.5: "Otherwise, reject."
	if mine := l.user(m.ev.Sender); mine < l.Invite {
		return m.refuse(InviteLevel, "You need power level %d to invite, yours is %d", l.Invite, mine)
	}
	return nil
}

func (m *memberChange) leave() error {
	if m.ev.Sender == m.target {
		return m.leaveOneself()
	}
	// KickNotJoined. v1-5 5.4.2, v6-7 4.4.2, v8-11 4.5.2, v12 5.5.2: "If the
	// `sender`'s current membership state is not `join`, reject."
	if m.sender != matrix.Join {
		return m.refuse(KickNotJoined, "You are not in this room")
	}
	l, err := m.levels(m.ev.Sender, m.target)
	if err != nil {
		return err
	}
	mine, theirs := l.user(m.ev.Sender), l.user(m.target)
	// UnbanLevel. v1-5 5.4.3, v6-7 4.4.3, v8-11 4.5.3, v12 5.5.3: "If the *target
	// user*'s current membership state is `ban`, and the `sender`'s power level is
	// less than the *ban level*, reject."
	if m.was == matrix.Ban && mine < l.Ban {
		return m.refuse(UnbanLevel, "You need power level %d to unban, yours is %d", l.Ban, mine)
	}
	// KickLevel. v1-5 5.4.4, v6-7 4.4.4, v8-11 4.5.4, v12 5.5.4: "If the `sender`'s
	// power level is greater than or equal to the *kick level*, and the *target
	// user*'s power level is less than the `sender`'s power level, allow."
	// v1-5 5.4.5, v6-7 4.4.5, v8-11 4.5.5, v12 5.5.5: "Otherwise, reject."
	deed := "kick"
	if m.was == matrix.Ban {
		deed = "unban" // needs the kick level too
	}
	return m.above(KickLevel, deed, l.Kick, mine, theirs)
}

func (m *memberChange) leaveOneself() error {
	// LeaveNotIn. v1-5 5.4.1, v6 4.4.1: "If the `sender` matches `state_key`, allow if
	// and only if that user's current membership state is `invite` or `join`."
	// v7 4.4.1, v8-11 4.5.1, v12 5.5.1: "… is `invite`, `join`, or `knock`."
	switch {
	case m.sender == matrix.Invite, m.sender == matrix.Join, m.sender == matrix.Knock && m.v.Knocking:
		return nil
	case m.sender == matrix.Ban:
		return m.refuse(LeaveNotIn, "You are banned from this room")
	}
	return m.refuse(LeaveNotIn, "You are not in this room")
}

func (m *memberChange) ban() error {
	// BanNotJoined. v1-5 5.5.1, v6-7 4.5.1, v8-11 4.6.1, v12 5.6.1: "If the `sender`'s
	// current membership state is not `join`, reject."
	if m.sender != matrix.Join {
		return m.refuse(BanNotJoined, "You are not in this room")
	}
	l, err := m.levels(m.ev.Sender, m.target)
	if err != nil {
		return err
	}
	// BanLevel. v1-5 5.5.2, v6-7 4.5.2, v8-11 4.6.2, v12 5.6.2: "If the `sender`'s power
	// level is greater than or equal to the *ban level*, and the *target user*'s power
	// level is less than the `sender`'s power level, allow."
	// v1-5 5.5.3, v6-7 4.5.3, v8-11 4.6.3, v12 5.6.3: "Otherwise, reject."
	return m.above(BanLevel, "ban", l.Ban, l.user(m.ev.Sender), l.user(m.target))
}

// above refuses for that reason unless the sender has the level for the deed and
// more power than the target.
func (m *memberChange) above(why Reason, deed string, required, mine, theirs int64) error {
	switch {
	case mine < required:
		return m.refuse(why, "You need power level %d to %s, yours is %d", required, deed, mine)
	case theirs < mine:
		return nil
	case theirs == Infinite && m.v.PrivilegedCreators:
		return m.refuse(why, "You cannot %s %s, who created this room", deed, quote(string(m.target)))
	}
	return m.refuse(why, "You cannot %s %s, whose power level %d is not below yours, %d",
		deed, quote(string(m.target)), theirs, mine)
}

func (m *memberChange) knock() error {
	rule, err := m.joinRule()
	if err != nil {
		return err
	}
	// KnockJoinRule. v7 4.6.1, v8-9 4.7.1: "If the `join_rule` is anything other than
	// `knock`, reject."
	// v10-11 4.7.1, v12 5.7.1: "If the `join_rule` is anything other than `knock` or
	// `knock_restricted`, reject."
	if rule != joinKnock && !(rule == joinKnockRestricted && m.v.KnockRestricted) {
		return m.refuse(KnockJoinRule, "This room does not take requests to join")
	}
	// KnockNotOneself. v7 4.6.2, v8-11 4.7.2, v12 5.7.2: "If `sender` does not match
	// `state_key`, reject."
	if m.ev.Sender != m.target {
		return m.refuse(KnockNotOneself, "You cannot ask for %s to join", quote(string(m.target)))
	}
	// KnockRefused. v7 4.6.3, v8-11 4.7.3, v12 5.7.3: "If the `sender`'s current
	// membership is not `ban`, `invite`, or `join`, allow."
	// v7 4.6.4, v8-11 4.7.4, v12 5.7.4: "Otherwise, reject."
	switch m.sender {
	case matrix.Ban:
		return m.refuse(KnockRefused, "You are banned from this room")
	case matrix.Invite:
		return m.refuse(KnockRefused, "You are invited to this room already")
	case matrix.Join:
		return m.refuse(KnockRefused, "You are in this room already")
	}
	return nil
}
