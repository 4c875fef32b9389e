package client

import (
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// roomTruth is what the server says of a room to who asks for all of it.
type roomTruth struct {
	timeline []eventModel
	state    map[string]eventModel
	members  map[string][]string // users by membership
	name     string
}

// truth reads all that a user may know of a room; ok is false where that is
// nothing. He ignores nobody while he reads.
func (h *syncHouse) truth(room string, user *syncUser) (*roomTruth, bool) {
	if user.ignoring() != "{}" {
		h.putIgnored(user, "{}")
		defer h.putIgnored(user, user.ignoring())
	}
	truth := &roomTruth{state: map[string]eventModel{}, members: map[string][]string{}}
	w := h.server.do(http.MethodGet, roomPath(room, "state"), user.token, "")
	if w.Code == http.StatusForbidden {
		return nil, false
	}
	var state []eventModel
	if err := json.Unmarshal(w.Body.Bytes(), &state); err != nil {
		h.t.Fatalf("state: %v\n%s", err, w.Body)
	}
	for _, ev := range state {
		truth.state[ev.key()] = ev
		var content struct {
			Name string `json:"name"`
		}
		if err := json.Unmarshal(ev.Content, &content); err != nil {
			h.t.Fatal(err)
		}
		switch ev.Type {
		case "m.room.member":
			truth.members[memberOf(&ev)] = append(truth.members[memberOf(&ev)], *ev.StateKey)
		case "m.room.name":
			truth.name = content.Name
		}
	}
	var page struct {
		Chunk []eventModel `json:"chunk"`
	}
	h.get(roomPath(room, "messages")+"?dir=f&limit=1000", user.token, &page)
	truth.timeline = page.Chunk
	h.learn(page.Chunk)
	return truth, true
}

// learn remembers which member events are about whom.
func (h *syncHouse) learn(events []eventModel) {
	for _, ev := range events {
		if ev.Type == "m.room.member" {
			h.whose[ev.ID] = *ev.StateKey
		}
	}
}

// about says whether an event is a member event of a user.
func (h *syncHouse) about(event string, user *syncUser) bool {
	if whose, known := h.whose[event]; known {
		return whose == user.id
	}
	for _, room := range h.rooms {
		h.truth(room, h.users[0]) // who made the rooms sees it, if he is still there
	}
	whose, known := h.whose[event]
	return !known || whose == user.id
}

// now is the position of the newest change.
func (h *syncHouse) now() (at store.Position) {
	h.view(func(tx *store.Tx) error { at = tx.Position(); return nil })
	return at
}

// place is the position of an event.
func (h *syncHouse) place(event string) store.Position {
	at, known := h.places[event]
	if !known {
		h.view(func(tx *store.Tx) error {
			_, num, _ := tx.EventByID(matrix.EventID(event))
			at = num.Position()
			return nil
		})
		h.places[event] = at
	}
	return at
}

// membership is what the room's state says of a user, and who sent it.
func (h *syncHouse) membership(room string, user *syncUser) (membership, sender string) {
	h.view(func(tx *store.Tx) error {
		num, head, err := state.Head(tx, matrix.RoomID(room))
		if err != nil {
			return err
		}
		ev, err := state.EventAt(tx, num, head.Current, "m.room.member", user.id)
		if ev == nil || err != nil {
			return err
		}
		content, err := ev.Member()
		membership, sender = string(content.Membership), string(ev.Sender)
		return err
	})
	return membership, sender
}

// share says whether two users are in a room together.
func (h *syncHouse) share(a, b *syncUser) bool {
	return slices.ContainsFunc(h.rooms, func(room string) bool {
		one, _ := h.membership(room, a)
		other, _ := h.membership(room, b)
		return one == "join" && other == "join"
	})
}

// typing is who types in a room.
func (h *syncHouse) typing(room string) (users []string) {
	h.view(func(tx *store.Tx) error {
		content, ok := h.server.typing.Since(tx.RoomNum(matrix.RoomID(room)), 0, nil)
		if !ok {
			return nil
		}
		var list struct {
			Users []string `json:"user_ids"`
		}
		err := json.Unmarshal(content, &list)
		users = list.Users
		return err
	})
	return users
}

func (h *syncHouse) view(fn func(*store.Tx) error) {
	h.t.Helper()
	if err := h.server.store.View(fn); err != nil {
		h.t.Fatal(err)
	}
}
