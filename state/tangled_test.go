package state

import (
	"context"
	"fmt"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// A state that another server gives and that cannot be resolved with ours is not
// believed from somebody whom we know to be banned: who makes the forks tangled would
// else be in the room again, with whatever state he likes. From a member it is.
func TestTangledStateIsNoWayAroundABan(t *testing.T) {
	for _, version := range []string{"1", "11", "12"} {
		for name, tc := range map[string]struct {
			sender  matrix.UserID
			verdict Verdict
		}{
			"a banned user": {bob, SoftFailed},
			"a member":      {carol, Accepted},
		} {
			t.Run(version+"/"+name, func(t *testing.T) {
				h := newHouse(t)
				room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: version})
				h.must(h.join(room, bob))
				h.must(h.join(room, carol))
				end := h.send(room, carol, "m.room.message", `{}`)
				old := h.stateBefore(end)
				for i := range 5 { // the given state lacks all of these
					_, err := h.set(room, alice, "m.x", fmt.Sprint(i), `{}`)
					h.must(err)
				}
				// What bob may do he cites from before his ban.
				lost := h.build(room, nil, 50, matrix.Draft{Sender: tc.sender, Type: "m.room.message", Content: []byte(`{}`)})
				draft := matrix.Draft{Sender: tc.sender, Type: "m.room.message", Content: []byte(`{"body":"here I am"}`)}
				back := h.build(room, []*matrix.Event{lost}, 51, draft)
				h.must(h.change(room, alice, bob, matrix.Ban))
				placing := matrix.Placing{Prev: []matrix.EventID{last(h.all(room)).ID, lost.ID}, Auth: back.AuthEvents, Depth: 51}
				draft.Room = room
				back, err := draft.Build(back.Version, placing, "home.example", h.rooms.Key())
				h.must(err)
				draft.Content = []byte(`{"body":"and here I stay"}`)
				top, err := draft.Build(back.Version, matrix.Placing{Prev: []matrix.EventID{back.ID}, Auth: back.AuthEvents, Depth: 52}, "home.example", h.rooms.Key())
				h.must(err)
				before := h.current(room)
				lowerBounds(t, 2)
				source := Source{
					Missing: func(_ context.Context, _ MissingEvents, take func(*matrix.Event) error) error { return take(back) },
					Events: func(context.Context, matrix.RoomID, []matrix.EventID, func(*matrix.Event) error) error {
						return nil
					},
					StateIDs: func(_ context.Context, _ matrix.RoomID, _ matrix.EventID, take func(matrix.EventID) error) error {
						for _, id := range old {
							if err := take(id); err != nil {
								return err
							}
						}
						return nil
					},
				}
				verdicts, err := h.rooms.AcceptFrom(context.Background(), []*matrix.Event{top}, source)
				h.must(err)
				if verdicts[0] != tc.verdict {
					t.Errorf("verdict %d, want %d", verdicts[0], tc.verdict)
				}
				want := before
				if tc.verdict == Accepted {
					want = old
				}
				sameState(t, "current", h.current(room), want)
				if got := h.current(room)[auth.Key{Type: "m.room.create"}]; got != before[auth.Key{Type: "m.room.create"}] {
					t.Errorf("the room begins with %s", got)
				}
			})
		}
	}
}
