package state

import (
	"context"
	"fmt"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
)

const dora = matrix.UserID("@dora:home.example")

// club is the content of m.room.join_rules for a rule that lets members of rooms in,
// beside conditions that let in nobody.
func club(rule string, rooms ...matrix.RoomID) string {
	allow := `{"type":"org.example.moon","room_id":"!x:y"},{"type":"m.room_membership"},7,{"type":"m.room_membership","room_id":"!unknown:away.example"}`
	for _, room := range rooms {
		allow += fmt.Sprintf(`,{"type":"m.room_membership","room_id":%q}`, room)
	}
	return fmt.Sprintf(`{"join_rule":%q,"allow":[%s]}`, rule, allow)
}

// via is who let a user into a room, by the user's join.
func (h *house) via(room matrix.RoomID, user matrix.UserID) matrix.UserID {
	h.Helper()
	for _, ev := range h.all(room) {
		if ev.Is("m.room.member", string(user)) {
			if member := memberOf(h, ev); member.Membership == matrix.Join {
				return member.AuthorisedVia
			}
		}
	}
	return "nobody: there is no join"
}

// A restricted room in every version: who is in one of the rooms is let in by a
// member with the power to invite, and else nobody is. Before version 8 the rule is
// none that lets anybody in.
func TestRestrictedJoin(t *testing.T) {
	for _, v := range matrix.Versions() {
		for _, rule := range []string{"restricted", "knock_restricted"} {
			t.Run(v.ID+"/"+rule, func(t *testing.T) {
				h := newHouse(t)
				first := h.create(Creation{Creator: alice, Preset: PresetPublic})
				second := h.create(Creation{Creator: alice, Preset: PresetPublic})
				room := h.ruled(v.ID, club(rule, first, second))
				h.must(h.join(second, bob))
				if has := v.RestrictedJoins && rule == "restricted" || v.KnockRestricted; !has {
					h.wantReason("a join before there was the rule", h.join(room, bob), auth.JoinRefused)
					h.must(h.change(room, alice, bob, matrix.Invite))
					h.wantReason("a join upon an invite, before there was the rule", h.join(room, bob), auth.JoinRefused)
					return
				}
				h.wantReason("a join from no club", h.join(room, carol), ErrForbidden)
				h.must(h.join(room, bob))
				h.wantMember(room, bob, matrix.Join)
				if via := h.via(room, bob); via != alice {
					t.Errorf("bob was let in by %q", via)
				}
				h.must(h.rooms.Leave(context.Background(), room, bob, ""))
				h.must(h.rooms.Leave(context.Background(), second, bob, ""))
				h.wantReason("a join from a club that was left", h.join(room, bob), ErrForbidden)
				h.must(h.join(first, bob))
				h.must(h.join(room, bob)) // by the other

				h.must(h.change(room, alice, dora, matrix.Invite))
				h.must(h.join(room, dora))
				if via := h.via(room, dora); via != "" {
					t.Errorf("dora, who was invited, was let in by %q", via)
				}

				h.must(h.change(room, alice, carol, matrix.Ban))
				h.wantReason("a join of who is banned", h.join(room, carol), auth.JoinBanned)
				h.must(h.join(first, carol))
				h.wantReason("a join from a club of who is banned", h.join(room, carol), auth.JoinBanned)
				h.must(h.rooms.Unban(context.Background(), room, alice, carol, ""))
				h.must(h.join(room, carol))
			})
		}
	}
}

// Where no member here may invite, nobody is let in, but who is invited comes in.
func TestRestrictedJoinWithoutInviters(t *testing.T) {
	for _, v := range matrix.Versions() {
		if !v.RestrictedJoins {
			continue
		}
		h := newHouse(t)
		hall := h.create(Creation{Creator: alice, Preset: PresetPublic})
		room := h.create(Creation{Creator: alice, Preset: PresetPrivate, Version: v.ID, PowerOverride: []byte(`{"invite":50}`),
			Initial: []InitialEvent{{Type: "m.room.join_rules", Content: []byte(club("restricted", hall))}},
			Invite:  []matrix.UserID{bob, carol}})
		h.must(h.join(room, bob))
		h.must(h.rooms.Leave(context.Background(), room, alice, ""))
		h.must(h.join(hall, dora))
		h.wantReason("version "+v.ID+": a join that nobody may allow", h.join(room, dora), ErrUnableToGrantJoin)
		h.wantMember(room, dora, "")
		h.must(h.join(room, carol))
	}
}

// knock_restricted both ways: who is in the club joins, who is not knocks.
func TestKnockRestricted(t *testing.T) {
	for _, v := range matrix.Versions() {
		h := newHouse(t)
		hall := h.create(Creation{Creator: alice, Preset: PresetPublic})
		room := h.ruled(v.ID, club("knock_restricted", hall))
		h.must(h.join(hall, bob))
		switch {
		case v.KnockRestricted:
			h.must(h.join(room, bob))
			h.wantReason("a join from outside", h.join(room, carol), ErrForbidden)
			h.must(h.change(room, carol, carol, matrix.Knock))
			h.wantReason("a join upon a knock", h.join(room, carol), ErrForbidden)
			h.must(h.join(hall, carol))
			h.must(h.join(room, carol)) // who knocked may come by the other door
			h.must(h.change(room, dora, dora, matrix.Knock))
			h.must(h.change(room, bob, dora, matrix.Invite))
			h.must(h.join(room, dora))
		case v.Knocking:
			h.wantReason("version "+v.ID+": a knock", h.change(room, carol, carol, matrix.Knock), auth.KnockJoinRule)
			h.wantReason("version "+v.ID+": a join", h.join(room, bob), auth.JoinRefused)
		default:
			h.wantReason("version "+v.ID+": a knock", h.change(room, carol, carol, matrix.Knock), auth.MembershipUnknown)
			h.wantReason("version "+v.ID+": a join", h.join(room, bob), auth.JoinRefused)
		}
	}
}
