package client

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// listWorld is users who come and go, and what a plain look at it says.
type listWorld struct {
	s       *testServer
	names   []string
	tokens  []string
	rooms   []string
	in      []map[int]bool // by room: who is in it
	moments []listMoment
	changed []store.Position // by user: the newest change of the device list
}

// listMoment is who was in which room at a position.
type listMoment struct {
	pos store.Position
	in  []map[int]bool
}

func newListWorld(t *testing.T, users, rooms int) *listWorld {
	w := &listWorld{s: newTestServer(t, Config{}), changed: make([]store.Position, users)}
	for i := range users {
		w.names = append(w.names, fmt.Sprintf("user%d", i))
		w.tokens = append(w.tokens, w.s.account(t, w.names[i], "secret"))
		w.changed[i] = w.s.store.Position()
	}
	owner := w.s.account(t, "owner", "secret")
	for range rooms {
		w.s.clock.Advance(time.Second)
		var room struct {
			ID string `json:"room_id"`
		}
		answer := w.s.do("POST", "/_matrix/client/v3/createRoom", owner, `{"preset":"public_chat"}`)
		if err := json.Unmarshal(answer.Body.Bytes(), &room); err != nil || room.ID == "" {
			t.Fatalf("create a room: %s: %v", answer.Body, err)
		}
		w.rooms = append(w.rooms, room.ID)
		w.in = append(w.in, make(map[int]bool))
	}
	w.note()
	return w
}

func (w *listWorld) note() {
	at := make([]map[int]bool, len(w.in))
	for i, in := range w.in {
		at[i] = make(map[int]bool)
		for user := range in {
			at[i][user] = true
		}
	}
	w.moments = append(w.moments, listMoment{w.s.store.Position(), at})
}

// step does something at random.
func (w *listWorld) step(t *testing.T, rnd *rand.Rand) {
	user, room := rnd.IntN(len(w.names)), rnd.IntN(len(w.rooms))
	path, body := "rooms/"+w.rooms[room]+"/join", "{}"
	switch rnd.IntN(4) {
	case 0:
		path = "keys/upload"
		id := strings.ToUpper(w.names[user])
		body = fmt.Sprintf(`{"device_keys":{"user_id":"@%s:hearth.test","device_id":%q,"algorithms":[],"keys":{"x:y":"%d"}}}`,
			w.names[user], id, rnd.Int())
	case 1:
		path = "rooms/" + w.rooms[room] + "/send/m.room.message/" + fmt.Sprint(rnd.Int())
		body = `{"body":"x"}`
		if !w.in[room][user] {
			return
		}
		if answer := w.s.do("PUT", "/_matrix/client/v3/"+path, w.tokens[user], body); answer.Code != 200 {
			t.Fatalf("%s: %s", path, answer.Body)
		}
		return
	default:
		if w.in[room][user] {
			path = "rooms/" + w.rooms[room] + "/leave"
			delete(w.in[room], user)
		} else {
			w.in[room][user] = true
		}
	}
	w.s.clock.Advance(time.Millisecond)
	if answer := w.s.do("POST", "/_matrix/client/v3/"+path, w.tokens[user], body); answer.Code != 200 {
		t.Fatalf("%s: %s", path, answer.Body)
	}
	if path == "keys/upload" {
		w.changed[user] = w.s.store.Position()
	}
}

// shares says whether two users were in one room.
func (m listMoment) shares(a, b int) bool {
	return slices.ContainsFunc(m.in, func(in map[int]bool) bool { return in[a] && in[b] })
}

// entered says whether a user is in a room where they were not before. The rooms'
// owner is in all of them.
func (m listMoment) entered(before listMoment, user int) bool {
	for i, in := range m.in {
		if in[user] && !before.in[i][user] {
			return true
		}
	}
	return false
}

// check compares what user is told behind a moment with what the moments say.
func (w *listWorld) check(t *testing.T, user int, since listMoment) {
	t.Helper()
	var lists deviceLists
	who := session{user: matrix.UserID("@" + w.names[user] + ":hearth.test")}
	err := w.s.store.View(func(tx *store.Tx) (err error) {
		who.num = tx.UserNum(who.user)
		lists, err = findDeviceLists(tx, who, since.pos)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	now := w.moments[len(w.moments)-1]
	for other := range w.names {
		id := matrix.UserID("@" + w.names[other] + ":hearth.test")
		changed, left := slices.Contains(lists.Changed, id), slices.Contains(lists.Left, id)
		news := w.changed[other] > since.pos
		shared, shares := since.shares(user, other), now.shares(user, other)
		switch {
		case changed && left:
			t.Errorf("%s is told of %s in both lists", who.user, id)
		case other == user:
			if met := now.entered(since, user); changed != (news || met) || left {
				t.Errorf("%s is told of the own devices: %t, changed: %t, met others: %t", id, changed, news, met)
			}
		case shares && (news || !shared) && !changed:
			t.Errorf("%s is not told of %s: shared %t, shares %t, changed %t", who.user, id, shared, shares, news)
		case !shares && changed:
			t.Errorf("%s is told of %s, with whom no room is shared", who.user, id)
		case left != (shared && !shares):
			t.Errorf("%s is told that %s left: %t; shared %t, shares %t", who.user, id, left, shared, shares)
		}
	}
}

// Whoever follows the lists from any moment knows the devices of those with
// whom a room is shared now, and hears of those who left.
func TestDeviceListsAgainstPlainLook(t *testing.T) {
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		w := newListWorld(t, 4, 3)
		for range 60 {
			w.step(t, rnd)
			w.note()
			since := w.moments[max(0, len(w.moments)-1-rnd.IntN(12))]
			w.check(t, rnd.IntN(len(w.names)), since)
		}
		for user := range w.names {
			w.check(t, user, w.moments[0])
		}
	}
}

// Users of other servers have no memberships of their own here; the rooms' state
// says where they are.
func TestDeviceListsOfRemoteUsers(t *testing.T) {
	w := newListWorld(t, 1, 2)
	who := session{user: "@user0:hearth.test"}
	const dave matrix.UserID = "@dave:other.test"
	for _, room := range w.rooms {
		if answer := w.s.do("POST", "/_matrix/client/v3/rooms/"+room+"/join", w.tokens[0], "{}"); answer.Code != 200 {
			t.Fatalf("join: %s", answer.Body)
		}
	}
	tell := func(since store.Position, changed, left bool) {
		t.Helper()
		var lists deviceLists
		err := w.s.store.View(func(tx *store.Tx) (err error) {
			who.num = tx.UserNum(who.user)
			lists, err = findDeviceLists(tx, who, since)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(lists.Changed, dave) != changed || slices.Contains(lists.Left, dave) != left {
			t.Errorf("told %+v, want changed %t, left %t", lists, changed, left)
		}
	}
	start := w.s.store.Position()
	putMember(t, w.s, w.rooms[0], dave, matrix.Join)
	tell(start, true, false)
	here := w.s.store.Position()
	tell(here, false, false)
	putMember(t, w.s, w.rooms[1], dave, matrix.Join)
	tell(here, true, false)
	both := w.s.store.Position()
	putMember(t, w.s, w.rooms[0], dave, matrix.Leave)
	tell(both, false, false)
	if answer := w.s.do("POST", "/_matrix/client/v3/rooms/"+w.rooms[1]+"/leave", w.tokens[0], "{}"); answer.Code != 200 {
		t.Fatalf("leave: %s", answer.Body)
	}
	tell(both, false, true)
	tell(start, false, false)
}

// putMember puts the member event of a remote user into a room, as it comes from
// the user's server.
func putMember(t *testing.T, s *testServer, room string, user matrix.UserID, membership matrix.Membership) {
	t.Helper()
	err := s.store.Update(t.Context(), func(tx *store.Tx) error {
		key, err := tx.SigningKey()
		if err != nil {
			return err
		}
		num, head, err := state.Head(tx, matrix.RoomID(room))
		if err != nil {
			return err
		}
		prev, err := tx.EventID(num, head.Latest)
		if err != nil {
			return err
		}
		stateKey := string(user)
		draft := matrix.Draft{
			Room: matrix.RoomID(room), Sender: user, Type: "m.room.member", StateKey: &stateKey,
			Content: []byte(`{"membership":"` + string(membership) + `"}`), OriginServerTS: s.clock.Now().UnixMilli(),
		}
		place := matrix.Placing{Prev: []matrix.EventID{prev}, Depth: head.Depth + 1}
		ev, err := draft.Build(head.Version, place, user.Server(), key)
		if err != nil {
			return err
		}
		slot, err := tx.PutSlot(num, "m.room.member", stateKey)
		if err != nil {
			return err
		}
		at, err := tx.NextEventNum(false)
		if err != nil {
			return err
		}
		stored := store.NewEvent{Event: ev, Before: head.Current, Slot: slot, HasSlot: true}
		if stored.After, err = tx.Derive(num, head.Current, store.StateChange{Slot: slot, Event: at}); err != nil {
			return err
		}
		head.Current, head.Extremities, head.Latest, head.Depth = stored.After, []store.EventNum{at}, at, ev.Depth
		if membership == matrix.Join {
			head.Joined++
		} else {
			head.Joined--
		}
		if err := tx.PutEvent(num, at, stored); err != nil {
			return err
		}
		n := int64(-1)
		if membership == matrix.Join {
			n = 1
		}
		return errors.Join(tx.CountRoomServer(num, user.Server(), n), tx.PutHead(num, head))
	})
	if err != nil {
		t.Fatal(err)
	}
}
