package state

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// Who is not in a room learns nothing of its members by trying to change them.
func TestStrangerLearnsNoMembership(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPrivate, Invite: []matrix.UserID{bob}})
	tries := func() (answers []string) {
		for _, to := range []matrix.Membership{matrix.Leave, matrix.Ban, matrix.Invite} {
			answers = append(answers, text(h.change(room, carol, bob, to)))
		}
		return append(answers, text(h.rooms.Unban(context.Background(), room, carol, bob, "")))
	}
	invited := tries()
	h.must(h.change(room, alice, bob, matrix.Ban))
	banned := tries()
	h.must(h.rooms.Unban(context.Background(), room, alice, bob, ""))
	left := tries()
	for i := range invited {
		if invited[i] != banned[i] || invited[i] != left[i] || !strings.Contains(invited[i], "You are not in") {
			t.Errorf("try %d: %q, %q and %q", i, invited[i], banned[i], left[i])
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// wantReason holds an error to be a refusal of that reason, nil for none at all.
func (h *house) wantReason(what string, err, reason error) {
	h.Helper()
	if reason == nil && err != nil || reason != nil && !errors.Is(err, reason) {
		h.Errorf("%s: %v, want %v", what, err, reason)
	}
}

// wantMember holds a user's membership in the room's state, and what is kept of it
// for the user, to be that.
func (h *house) wantMember(room matrix.RoomID, user matrix.UserID, want matrix.Membership) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) error {
		ev, err := Current(tx, room, "m.room.member", string(user))
		if err != nil {
			return err
		}
		var is matrix.Membership
		if ev != nil {
			is = memberOf(h, ev.Event).Membership
		}
		m, _, err := tx.LocalMembership(tx.UserNum(user), tx.RoomNum(room))
		if is != want || m.Membership != want {
			h.Errorf("%s is %q by the state and %q by the record, want %q", user, is, m.Membership, want)
		}
		return err
	}))
}

func memberOf(h *house, ev *matrix.Event) matrix.MemberContent {
	h.Helper()
	member, err := ev.Member()
	h.must(err)
	return member
}

// ruled makes a room of alice's under a join rule, the content of m.room.join_rules.
func (h *house) ruled(version, rule string) matrix.RoomID {
	h.Helper()
	return h.create(Creation{Creator: alice, Preset: PresetPrivate, Version: version,
		Initial: []InitialEvent{{Type: "m.room.join_rules", Content: []byte(rule)}}})
}

// What becomes of a knock in every version that has them: it is answered by an
// invite, withdrawn, refused, or ended by a ban.
func TestKnock(t *testing.T) {
	for _, v := range matrix.Versions() {
		t.Run(v.ID, func(t *testing.T) {
			h := newHouse(t)
			room := h.ruled(v.ID, `{"join_rule":"knock"}`)
			if !v.Knocking {
				h.wantReason("a knock", h.change(room, bob, bob, matrix.Knock), auth.MembershipUnknown)
				h.wantReason("a join", h.join(room, bob), auth.JoinRefused)
				h.wantMember(room, bob, "")
				return
			}
			h.wantReason("a join without a knock", h.join(room, bob), auth.JoinRefused)
			h.must(h.change(room, bob, bob, matrix.Knock))
			h.wantMember(room, bob, matrix.Knock)
			h.wantReason("a join upon the knock", h.join(room, bob), auth.JoinRefused)
			before := len(h.timeline(room))
			h.must(h.change(room, bob, bob, matrix.Knock))
			if after := len(h.timeline(room)); after != before {
				t.Error("a second knock is a second event")
			}
			h.must(h.change(room, alice, bob, matrix.Invite))
			h.wantReason("a knock of who is invited", h.change(room, bob, bob, matrix.Knock), auth.KnockRefused)
			h.must(h.join(room, bob))
			h.wantMember(room, bob, matrix.Join)
			h.wantReason("a knock of who is in", h.change(room, bob, bob, matrix.Knock), auth.KnockRefused)

			h.must(h.change(room, carol, carol, matrix.Knock))
			h.must(h.rooms.Leave(context.Background(), room, carol, "changed my mind"))
			h.wantMember(room, carol, matrix.Leave)
			h.must(h.change(room, carol, carol, matrix.Knock))
			h.wantReason("a refusal by who may not", h.change(room, bob, carol, matrix.Leave), auth.KickLevel)
			h.must(h.change(room, alice, carol, matrix.Leave))
			h.wantMember(room, carol, matrix.Leave)
			h.wantReason("a join after the refusal", h.join(room, carol), auth.JoinRefused)
			h.must(h.change(room, carol, carol, matrix.Knock))
			h.must(h.change(room, alice, carol, matrix.Ban))
			h.wantMember(room, carol, matrix.Ban)
			h.wantReason("a knock of who is banned", h.change(room, carol, carol, matrix.Knock), auth.KnockRefused)
			h.wantReason("a join of who is banned", h.join(room, carol), auth.JoinBanned)
			h.wantReason("an invite of who is banned", h.change(room, alice, carol, matrix.Invite), auth.InvitePointless)
		})
	}
}

// Under all other rules nobody knocks, where there are knocks.
func TestKnockUnderOtherRules(t *testing.T) {
	for _, v := range matrix.Versions() {
		h := newHouse(t)
		for _, rule := range []string{"invite", "public", "private", "restricted", "knock_restricted", "nonsense"} {
			want := error(auth.KnockJoinRule)
			switch {
			case !v.Knocking:
				want = auth.MembershipUnknown
			case v.KnockRestricted && rule == "knock_restricted":
				want = nil
			}
			room := h.ruled(v.ID, fmt.Sprintf(`{"join_rule":%q}`, rule))
			h.wantReason("version "+v.ID+", a knock under "+rule, h.change(room, bob, bob, matrix.Knock), want)
		}
	}
}
