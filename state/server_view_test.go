package state

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"hearth/state/matrix"
	"hearth/store"
)

// viewed looks at events as a server does, and puts together what say says of each.
func (h *house) viewed(room matrix.RoomID, server matrix.ServerName, ids []matrix.EventID, say func(*ServerViewer, *store.StoredEvent) (string, error)) (said string) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) error {
		v, err := NewHistoryViewer(tx, room, server)
		if err != nil {
			return err
		}
		for _, id := range ids {
			_, num, _ := tx.EventByID(id)
			ev, err := tx.Event(v.Room(), num)
			if err != nil {
				return err
			}
			word, err := say(v, ev)
			if err != nil {
				return err
			}
			said += word
		}
		return nil
	}))
	return said
}

// shown says how a server gets events: + whole, r redacted, - not at all.
func (h *house) shown(room matrix.RoomID, server matrix.ServerName, ids ...matrix.EventID) string {
	h.Helper()
	return h.viewed(room, server, ids, func(v *ServerViewer, ev *store.StoredEvent) (string, error) {
		form, whole, err := v.Shown(ev)
		switch {
		case err != nil || form == nil:
			return "-", err
		case whole && form == ev.Event:
			return "+", nil
		case !whole && form.ID == ev.ID && string(form.Content) == "{}":
			return "r", nil
		}
		h.Errorf("%s is shown as %s", ev.ID, form.JSON())
		return "?", nil
	})
}

// stood says whether a server may know the states before events.
func (h *house) stood(room matrix.RoomID, server matrix.ServerName, ids ...matrix.EventID) string {
	h.Helper()
	return h.viewed(room, server, ids, func(v *ServerViewer, ev *store.StoredEvent) (string, error) {
		may, err := v.Stood(ev)
		return map[bool]string{false: "-", true: "+"}[may], err
	})
}

// grafted makes and accepts an event by whoever, on the newest of a room.
func (h *house) grafted(room matrix.RoomID, draft matrix.Draft) matrix.EventID {
	h.Helper()
	events := h.all(room)
	f := forkedRoom{id: room, events: events}
	h.graftOn(&f, events[len(events)-1:], draft)
	return last(f.events).ID
}

func memberDraft(sender, target matrix.UserID, to matrix.Membership) matrix.Draft {
	key := string(target)
	return matrix.Draft{Sender: sender, Type: "m.room.member", StateKey: &key, Content: fmt.Appendf(nil, `{"membership":%q}`, to)}
}

// What far.example gets of messages that were sent at each step: before eve was
// anything, while she was invited, in, out, and in again with dave.
func TestServerViewer(t *testing.T) {
	for visibility, want := range map[string]string{
		"world_readable": "+++++", "shared": "+++++", "invited": "r++r+", "joined": "rr+r+", "nonsense": "+++++",
	} {
		t.Run(visibility, func(t *testing.T) {
			h := newHouse(t)
			room := h.create(Creation{Creator: alice, Preset: PresetPublic, Initial: []InitialEvent{
				{Type: "m.room.history_visibility", Content: fmt.Appendf(nil, `{"history_visibility":%q}`, visibility)},
			}})
			var ids []matrix.EventID
			for _, steps := range [][]matrix.Draft{
				{}, {memberDraft(alice, eve, matrix.Invite)}, {memberDraft(eve, eve, matrix.Join)},
				{memberDraft(eve, eve, matrix.Leave)}, {memberDraft(dave, dave, matrix.Join)},
			} {
				for _, draft := range steps {
					h.grafted(room, draft)
				}
				ids = append(ids, h.send(room, alice, "m.room.message", `{"body":"x"}`))
			}
			if got := h.shown(room, "far.example", ids...); got != want {
				t.Errorf("far.example gets %s, want %s", got, want)
			}
			// What its own users sent is its own.
			said := h.grafted(room, matrix.Draft{Sender: dave, Type: "m.room.message", Content: []byte(`{"body":"mine"}`)})
			h.grafted(room, memberDraft(eve, eve, matrix.Join))
			if got := h.shown(room, "far.example", said); got != "+" {
				t.Errorf("far.example gets %s of what dave said", got)
			}
		})
	}
}

// A server whose users are all gone gets what it could see while one of them was there,
// how they went, and nothing of later; one that was never there gets nothing at all.
func TestHistoryViewer(t *testing.T) {
	for visibility, want := range map[string]string{"world_readable": "+++-", "shared": "+++-", "invited": "-++-", "joined": "-++-"} {
		h := newHouse(t)
		room := h.create(Creation{Creator: alice, Preset: PresetPublic, Initial: []InitialEvent{
			{Type: "m.room.history_visibility", Content: fmt.Appendf(nil, `{"history_visibility":%q}`, visibility)},
		}})
		say := func() matrix.EventID { return h.send(room, alice, "m.room.message", `{"body":"x"}`) }
		before := say()
		refused := h.store.View(func(tx *store.Tx) error {
			_, err := NewHistoryViewer(tx, room, "far.example")
			return err
		})
		if !errors.Is(refused, ErrForbidden) {
			t.Errorf("a server that was never there: %v", refused)
		}
		h.grafted(room, memberDraft(eve, eve, matrix.Join))
		during := say()
		ban := h.grafted(room, memberDraft(alice, eve, matrix.Ban))
		after := say()
		if got := h.shown(room, "far.example", before, during, ban, after); got != want {
			t.Errorf("%s: far.example gets %s", visibility, got)
		}
		if got := h.stood(room, "far.example", before, during, ban, after); got != "+++-" {
			t.Errorf("%s: far.example may know the states before %s", visibility, got)
		}
		_, err := h.set(room, alice, "m.room.server_acl", "", `{"allow":["*"],"deny":["far.example"]}`)
		h.must(err)
		refused = h.store.View(func(tx *store.Tx) error {
			_, err := NewHistoryViewer(tx, room, "far.example")
			return err
		})
		if !errors.Is(refused, ErrForbidden) {
			t.Errorf("a barred server: %v", refused)
		}
	}
}

// Who is not in the room gets nothing, nor who is barred from it; and neither
// learns whether there is such a room.
func TestServerViewerRefuses(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic})
	view := func(room matrix.RoomID) error {
		return h.store.View(func(tx *store.Tx) error {
			_, err := NewServerViewer(tx, room, "far.example")
			return err
		})
	}
	for what, id := range map[string]matrix.RoomID{"a room it is not in": room, "no room": "!none:home.example"} {
		if err := view(id); !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: %v", what, err)
		}
	}
	h.grafted(room, memberDraft(eve, eve, matrix.Join))
	h.must(view(room))
	_, err := h.set(room, alice, "m.room.server_acl", "", `{"allow":["*"],"deny":["far.example"]}`)
	h.must(err)
	if err := view(room); !errors.Is(err, ErrForbidden) {
		t.Errorf("a barred server: %v", err)
	}
}

// What a user here has wished to be forgotten goes redacted to servers that came later,
// and rejected events go to nobody.
func TestServerViewerAndTheForgotten(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic})
	h.must(h.join(room, bob))
	old := h.send(room, bob, "m.room.message", `{"body":"old"}`)
	h.grafted(room, memberDraft(eve, eve, matrix.Join))
	both := h.send(room, bob, "m.room.message", `{"body":"both"}`)
	rejected := h.grafted(room, memberDraft(dave, alice, matrix.Ban))
	h.must(h.store.Update(context.Background(), func(tx *store.Tx) error {
		num, err := tx.CreateAccount(bob, store.Account{})
		if err != nil {
			return err
		}
		return tx.Deactivate(num, true)
	}))
	if got := h.shown(room, "far.example", old, both, rejected); got != "r+-" {
		t.Errorf("far.example gets %s, want r+-", got)
	}
}

// The walks that other servers ask for.
func TestAncestorsAndBetween(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic})
	events := h.all(room)
	h.must(h.store.View(func(tx *store.Tx) error {
		num := tx.RoomNum(room)
		newest, oldest := last(events).ID, events[0].ID
		all, err := Ancestors(tx, num, []matrix.EventID{newest, "$none"}, 100)
		h.must(err)
		some, err := Ancestors(tx, num, []matrix.EventID{newest}, 3)
		h.must(err)
		if len(all) != len(events) || len(some) != 3 || some[0].ID != newest || all[len(all)-1].ID != oldest {
			t.Errorf("%d and %d events", len(all), len(some))
		}
		ask := MissingEvents{Room: room, Earliest: []matrix.EventID{events[1].ID}, Latest: []matrix.EventID{newest}, Limit: 100}
		between, err := Between(tx, num, ask, 0)
		h.must(err)
		if len(between) != len(events)-3 || between[0].ID != events[len(events)-2].ID {
			t.Errorf("%d events in between, want %d", len(between), len(events)-3)
		}
		deep, err := Between(tx, num, ask, events[4].Depth)
		h.must(err)
		ask.Limit = 2
		few, err := Between(tx, num, ask, 0)
		h.must(err)
		if len(deep) != len(events)-5 || len(few) != 2 {
			t.Errorf("%d deep ones and %d of two", len(deep), len(few))
		}
		return nil
	}))
}

// Of large events a walk takes no more than fit, and at least one.
func TestWalksAreBoundedInBytes(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice})
	body := `{"body":"` + strings.Repeat("x", 60<<10) + `"}`
	for range 100 {
		h.send(room, alice, "m.room.message", body)
	}
	h.must(h.store.View(func(tx *store.Tx) error {
		num, newest := tx.RoomNum(room), h.newest(room).ID
		older, err := Ancestors(tx, num, []matrix.EventID{newest}, 100)
		h.must(err)
		between, err := Between(tx, num, MissingEvents{Latest: []matrix.EventID{newest}, Limit: 100}, 0)
		h.must(err)
		for _, events := range [][]*store.StoredEvent{older, between} {
			bytes := 0
			for _, ev := range events {
				bytes += len(ev.JSON())
			}
			if bytes < maxWalkBytes/2 || bytes > maxWalkBytes+2*matrix.MaxEventBytes {
				t.Errorf("%d events of %d bytes", len(events), bytes)
			}
		}
		return nil
	}))
}
