package state

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"hearth/state/matrix"
	"hearth/store"
)

// bobsWay is what bob's membership goes through, by whose event.
var bobsWay = []struct {
	sender matrix.UserID
	to     matrix.Membership // "" for none yet
}{
	{"", ""}, {alice, matrix.Invite}, {bob, matrix.Join}, {bob, matrix.Leave}, {bob, matrix.Knock},
	{alice, matrix.Invite}, {bob, matrix.Join}, {alice, matrix.Ban}, {alice, matrix.Leave},
}

// What bob sees of messages that were sent at each step of his way, when he has gone
// so many steps of it. Every string has a letter for each message: + is seen.
func TestHistoryVisibility(t *testing.T) {
	for visibility, want := range map[string][]string{
		// sent while he was:  stranger, invited, in, out, knocking, invited again, in again, banned, unbanned
		"world_readable": {"+", "++", "+++", "++++", "+++++", "++++++", "+++++++", "++++++++", "+++++++++"},
		"shared":         {"-", "--", "+++", "+++-", "+++--", "+++---", "+++++++", "+++++++-", "+++++++--"},
		"invited":        {"-", "--", "-++", "-++-", "-++--", "-++--+", "-++--++", "-++--++-", "-++--++--"},
		"joined":         {"-", "--", "--+", "--+-", "--+--", "--+---", "--+---+", "--+---+-", "--+---+--"},
		// "if the value is not understood, the visibility is assumed to be `shared`"
		"nonsense": {"-", "--", "+++", "+++-", "+++--", "+++---", "+++++++", "+++++++-", "+++++++--"},
	} {
		t.Run(visibility, func(t *testing.T) {
			h := newHouse(t)
			room := h.create(Creation{Creator: alice, Preset: PresetPrivate, Initial: []InitialEvent{
				{Type: "m.room.join_rules", Content: []byte(`{"join_rule":"knock"}`)},
				{Type: "m.room.history_visibility", Content: fmt.Appendf(nil, `{"history_visibility":%q}`, visibility)},
			}})
			var ids []matrix.EventID
			for i, step := range bobsWay {
				if step.to == matrix.Join {
					h.must(h.join(room, bob))
				} else if step.to != "" {
					_, err := h.set(room, step.sender, "m.room.member", string(bob), fmt.Sprintf(`{"membership":%q}`, step.to))
					h.must(err)
				}
				ids = append(ids, h.send(room, alice, "m.room.message", fmt.Sprintf(`{"body":"%d"}`, i)))
				got := ""
				for _, id := range ids {
					got += map[bool]string{true: "+", false: "-"}[h.sees(bob, id)]
				}
				if got != want[i] {
					t.Errorf("after %d steps, now %q, bob sees %s, want %s", i, step.to, got, want[i])
				}
			}
			for i, id := range ids {
				if h.sees(carol, id) != (visibility == "world_readable") {
					t.Errorf("what a stranger sees of message %d", i)
				}
			}
		})
	}
}

// "For `m.room.history_visibility` events themselves, the user should be allowed to
// see the event if the `history_visibility` before or after the event would allow
// them to see it." And "the setting at that time" holds for all else, whatever comes.
func TestHistoryVisibilityChanges(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic})
	type sent struct{ change, message matrix.EventID }
	type seen struct{ change, message bool }
	var pairs []sent
	for _, visibility := range []string{"joined", "world_readable", "joined", "shared", "invited"} {
		change, err := h.set(room, alice, "m.room.history_visibility", "", fmt.Sprintf(`{"history_visibility":%q}`, visibility))
		h.must(err)
		pairs = append(pairs, sent{change, h.send(room, alice, "m.room.message", `{"body":"x"}`)})
	}
	h.must(h.join(room, bob))
	for user, want := range map[matrix.UserID][5]seen{
		carol: {{false, false}, {true, true}, {true, false}, {false, false}, {false, false}}, // a stranger
		bob:   {{true, false}, {true, true}, {true, false}, {true, true}, {true, false}},     // from shared before the first change
	} {
		for i, p := range pairs {
			if got := (seen{h.sees(user, p.change), h.sees(user, p.message)}); got != want[i] {
				t.Errorf("%s sees change %d and what follows: %v, want %v", user, i, got, want[i])
			}
		}
	}
}

// step is an event of a random room with what held before it.
type step struct {
	id         matrix.EventID
	typ        string
	visibility string
	membership matrix.Membership // bob's
	newVisible string            // set by the event
	newMember  matrix.Membership
}

// seesByText is the text of CS Room History Visibility, word by word, for bob in a room
// whose events are steps.
func seesByText(steps []step, i int) bool {
	everJoined, joinedAfter := false, false
	for j, s := range steps {
		if s.newMember == matrix.Join {
			everJoined = true
			joinedAfter = joinedAfter || j > i
		}
	}
	allow := func(visibility string, membership matrix.Membership) bool {
		switch {
		case visibility == "world_readable":
			return true
		case membership == matrix.Join:
			return true
		case visibility == "shared" && joinedAfter:
			return true
		case membership == matrix.Invite && visibility == "invited":
			return everJoined // "a user needs to join a room to view events in that room"
		}
		return false
	}
	s := steps[i]
	seen := allow(s.visibility, s.membership)
	if s.newVisible != "" {
		seen = seen || allow(s.newVisible, s.membership)
	}
	if s.newMember != "" {
		// His own join makes him one who joined: "a user can always see `m.room.member`
		// events which set their membership to `join`".
		seen = seen || allow(s.visibility, s.newMember)
	}
	return seen
}

// Rooms in which bob comes and goes and the visibility changes at random: what he
// sees, and what he was, is as the text has it, at every moment.
func TestHistoryVisibilityByText(t *testing.T) {
	h := newHouse(t)
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		room := h.create(Creation{Creator: alice, Preset: PresetPrivate, Initial: []InitialEvent{
			{Type: "m.room.join_rules", Content: []byte(`{"join_rule":"knock"}`)},
		}})
		now := step{visibility: "shared"}
		var steps []step
		for range 30 {
			next := h.randomStep(rnd, room, now)
			if next.id == "" {
				continue
			}
			steps = append(steps, next)
			if next.newVisible != "" {
				now.visibility = next.newVisible
			}
			if next.newMember != "" {
				now.membership = next.newMember
			}
			if rnd.IntN(4) == 0 {
				h.wantSeenByText(seed, steps)
			}
		}
		h.wantSeenByText(seed, steps)
	}
}

func (h *house) randomStep(rnd *rand.Rand, room matrix.RoomID, now step) step {
	h.Helper()
	switch rnd.IntN(4) {
	case 0:
		to := []string{"world_readable", "shared", "invited", "joined"}[rnd.IntN(4)]
		if to == now.visibility {
			return step{}
		}
		id, err := h.set(room, alice, "m.room.history_visibility", "", fmt.Sprintf(`{"history_visibility":%q}`, to))
		h.must(err)
		now.id, now.typ, now.newVisible = id, "m.room.history_visibility", to
	case 1, 2:
		to := []matrix.Membership{matrix.Invite, matrix.Join, matrix.Leave, matrix.Knock, matrix.Ban}[rnd.IntN(5)]
		sender := bob
		if to == matrix.Invite || to == matrix.Ban || rnd.IntN(2) == 0 && to == matrix.Leave {
			sender = alice
		}
		id, err := h.set(room, sender, "m.room.member", string(bob), fmt.Sprintf(`{"membership":%q}`, to))
		if err != nil || to == now.membership {
			return step{}
		}
		now.id, now.typ, now.newMember = id, "m.room.member", to
	default:
		now.id, now.typ = h.send(room, alice, "m.room.message", `{"body":"x"}`), "m.room.message"
	}
	return now
}

func (h *house) wantSeenByText(seed uint64, steps []step) {
	h.Helper()
	for i, s := range steps {
		if got, want := h.sees(bob, s.id), seesByText(steps, i); got != want {
			h.Errorf("seed %d, step %d, %s under %s by a user who was %q and became %q: seen %v, want %v",
				seed, i, s.typ, s.visibility, s.membership, s.newMember, got, want)
		}
		want := s.membership
		if s.newMember != "" {
			want = s.newMember
		}
		if want == "" {
			want = matrix.Leave
		}
		ev := h.event(s.id)
		h.must(h.store.View(func(tx *store.Tx) error {
			viewer, err := NewViewer(tx, ev.RoomNum, bob)
			if err != nil {
				return err
			}
			got, err := viewer.MembershipAt(ev)
			if got != want {
				h.Errorf("seed %d, step %d: membership %q, want %q", seed, i, got, want)
			}
			return err
		}))
	}
}
