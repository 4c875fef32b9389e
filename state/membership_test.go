package state

import (
	"context"
	"strings"
	"testing"

	"hearth/state/matrix"
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
