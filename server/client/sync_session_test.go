package client

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"testing"

	"github.com/go-json-experiment/json"
)

// A syncHouse is a server on which a few users live through a random session.
type syncHouse struct {
	t      *testing.T
	server *testServer
	random *rand.Rand
	users  []*syncUser
	rooms  []string
	events map[string][]string // messages by room, of the main timeline
	roots  map[string][]string // of threads, by room
	txn    int
	whose  map[string]string // whom a member event is about
}

type syncUser struct {
	name, id, token string
	receipts        map[string]map[string][]string // by room and thread ("": all): event IDs
}

// Whatever happens, and however a client syncs: in the end it knows the state and
// the timeline as one does who reads everything. The long form runs with
// SYNC_SEEDS=10000.
func TestSyncModel(t *testing.T) {
	seeds := uint64(150)
	if n, err := strconv.ParseUint(os.Getenv("SYNC_SEEDS"), 10, 32); err == nil {
		seeds = n
	} else if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			h := newSyncHouse(t, seed)
			clients := h.clients(4)
			for range 60 {
				h.act()
				if h.random.IntN(25) == 0 {
					h.restart()
				}
				for _, c := range clients {
					if c.random.IntN(8) == 0 {
						c.sync()
						if c.random.IntN(4) == 0 {
							c.verify()
						}
					}
				}
			}
			for _, c := range clients {
				c.sync()
				c.verify()
			}
		})
	}
}

func newSyncHouse(t *testing.T, seed uint64) *syncHouse {
	h := &syncHouse{
		t: t, server: newTestServer(t, Config{}), random: rand.New(rand.NewPCG(seed, 1)),
		events: map[string][]string{}, roots: map[string][]string{}, whose: map[string]string{},
	}
	for _, name := range []string{"alice", "bob", "carol", "dave"} {
		h.users = append(h.users, &syncUser{
			name: name, id: "@" + name + ":" + string(testServerName), token: h.server.account(t, name, "secret"),
			receipts: map[string]map[string][]string{},
		})
	}
	for range 1 + h.random.IntN(2) {
		h.createRoom()
	}
	return h
}

// clients returns model clients of random users and habits.
func (h *syncHouse) clients(n int) (all []*syncModel) {
	for i := range n {
		user := h.users[h.random.IntN(len(h.users))]
		w := h.server.do(http.MethodPost, "/_matrix/client/v3/login", "",
			fmt.Sprintf(`{"type":"m.login.password","user":%q,"password":"secret","device_id":"MODEL%d"}`, user.name, i))
		var login struct {
			Token string `json:"access_token"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &login); err != nil || login.Token == "" {
			h.t.Fatalf("log in: %d %s", w.Code, w.Body)
		}
		all = append(all, &syncModel{
			t: h.t, house: h, random: rand.New(rand.NewPCG(h.random.Uint64(), 2)), user: user, token: login.Token,
			limit: 1 + h.random.IntN(12), lazy: h.random.IntN(2) == 0, after: h.random.IntN(3) == 0, thread: h.random.IntN(2) == 0,
			rooms: map[string]*roomModel{},
		})
	}
	return all
}

// restart makes the server anew, with and without what it writes at its end.
func (h *syncHouse) restart() {
	if h.random.IntN(2) == 0 {
		if err := h.server.writeUnread(h.t.Context(), 0); err != nil {
			h.t.Fatal(err)
		}
	}
	h.server.restart(h.t)
}

func (h *syncHouse) createRoom() {
	version := []string{"12", "12", "11", "10", "3", "1"}[h.random.IntN(6)]
	preset := []string{"public_chat", "private_chat"}[h.random.IntN(2)]
	var answer struct {
		Room string `json:"room_id"`
	}
	w := h.server.do(http.MethodPost, "/_matrix/client/v3/createRoom", h.users[0].token, fmt.Sprintf(
		`{"room_version":%q,"preset":%q,"power_level_content_override":{"users":{%s"@bob:%s":60},"users_default":10,"events_default":0,"state_default":10,"redact":20}}`,
		version, preset, map[bool]string{false: `"@alice:` + string(testServerName) + `":100,`}[version == "12"], testServerName))
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Room == "" {
		h.t.Fatalf("create: %d %s", w.Code, w.Body)
	}
	h.rooms = append(h.rooms, answer.Room)
}

// act lets a random user do something in a random room. That the server refuses
// it is fine.
func (h *syncHouse) act() {
	user, other := h.users[h.random.IntN(len(h.users))], h.users[h.random.IntN(len(h.users))]
	room := h.rooms[h.random.IntN(len(h.rooms))]
	target := fmt.Sprintf(`{"user_id":%q}`, other.id)
	switch h.random.IntN(24) {
	case 0, 1, 2, 3, 4, 5:
		h.say(user, room)
	case 6:
		h.reply(user, room)
	case 7, 8:
		h.post(user, room, "invite", target)
	case 9, 10, 11:
		h.join(user, room)
	case 12:
		h.post(user, room, "leave", "{}")
	case 13:
		h.post(user, room, []string{"kick", "ban"}[h.random.IntN(2)], target)
	case 14:
		h.post(user, room, "unban", target)
	case 15:
		h.setState(user, room, "m.room.name", "", fmt.Sprintf(`{"name":%q}`, []string{"", "", "Kitchen", "Cellar"}[h.random.IntN(4)]))
	case 16, 17:
		h.setState(user, room, "m.test", fmt.Sprint(h.random.IntN(3)), fmt.Sprintf(`{"n":%d}`, h.random.IntN(1000)))
	case 18:
		visibility := []string{"shared", "shared", "joined", "invited"}[h.random.IntN(4)]
		h.setState(user, room, "m.room.history_visibility", "", fmt.Sprintf(`{"history_visibility":%q}`, visibility))
	case 19:
		h.redact(user, room)
	case 20:
		h.server.do(http.MethodPut, "/_matrix/client/v3/profile/"+user.id+"/displayname", user.token, fmt.Sprintf(`{"displayname":"%s %d"}`, user.name, h.random.IntN(100)))
	default:
		h.readOn(user, room)
	}
}

func roomPath(room string, parts ...string) string {
	path := "/_matrix/client/v3/rooms/" + url.PathEscape(room)
	for _, part := range parts {
		path += "/" + url.PathEscape(part)
	}
	return path
}

// send sends an event and returns its ID, "" if the server refuses it.
func (h *syncHouse) send(user *syncUser, path, body string) string {
	var answer struct {
		ID string `json:"event_id"`
	}
	w := h.server.do(http.MethodPut, path, user.token, body)
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code >= http.StatusInternalServerError {
		h.t.Fatalf("PUT %s: %d %s", path, w.Code, w.Body)
	}
	return answer.ID
}

func (h *syncHouse) nextTxn() string {
	h.txn++
	return fmt.Sprint(h.txn)
}

func (h *syncHouse) say(user *syncUser, room string) {
	if id := h.send(user, roomPath(room, "send", "m.room.message", h.nextTxn()), `{"body":"hello"}`); id != "" {
		h.events[room] = append(h.events[room], id)
	}
}

// reply answers in a thread, which begins at some message.
func (h *syncHouse) reply(user *syncUser, room string) {
	events := h.events[room]
	if len(events) == 0 {
		return
	}
	root := events[h.random.IntN(len(events))]
	if roots := h.roots[room]; len(roots) > 0 && h.random.IntN(2) == 0 {
		root = roots[h.random.IntN(len(roots))]
	}
	body := fmt.Sprintf(`{"body":"answer","m.relates_to":{"rel_type":"m.thread","event_id":%q}}`, root)
	if id := h.send(user, roomPath(room, "send", "m.room.message", h.nextTxn()), body); id != "" {
		h.roots[room] = append(h.roots[room], root)
	}
}

func (h *syncHouse) setState(user *syncUser, room, typ, key, content string) {
	h.send(user, roomPath(room, "state", typ, key), content)
}

func (h *syncHouse) redact(user *syncUser, room string) {
	if events := h.events[room]; len(events) > 0 {
		h.send(user, roomPath(room, "redact", events[h.random.IntN(len(events))], h.nextTxn()), "{}")
	}
}

func (h *syncHouse) post(user *syncUser, room, deed, body string) {
	if w := h.server.do(http.MethodPost, roomPath(room, deed), user.token, body); w.Code >= http.StatusInternalServerError {
		h.t.Fatalf("%s: %d %s", deed, w.Code, w.Body)
	}
}

func (h *syncHouse) join(user *syncUser, room string) {
	h.post(user, room, "join", "{}")
}

// readOn sends a receipt for some message.
func (h *syncHouse) readOn(user *syncUser, room string) {
	events := h.events[room]
	if len(events) == 0 {
		return
	}
	event, thread := events[h.random.IntN(len(events))], ""
	body := "{}"
	if h.random.IntN(2) == 0 {
		thread, body = "main", `{"thread_id":"main"}`
	}
	typ := []string{"m.read", "m.read.private"}[h.random.IntN(2)]
	w := h.server.do(http.MethodPost, roomPath(room, "receipt", typ, event), user.token, body)
	if w.Code != http.StatusOK {
		return
	}
	if user.receipts[room] == nil {
		user.receipts[room] = map[string][]string{}
	}
	user.receipts[room][thread] = append(user.receipts[room][thread], event)
}

// roomTruth is what the server says of a room to who asks for all of it.
type roomTruth struct {
	timeline []eventModel
	state    map[string]string
	members  map[string][]string // users by membership
	name     string
}

// truth reads all that a user may know of a room; ok is false where that is nothing.
func (h *syncHouse) truth(room string, user *syncUser) (*roomTruth, bool) {
	truth := &roomTruth{state: map[string]string{}, members: map[string][]string{}}
	w := h.server.do(http.MethodGet, roomPath(room, "state"), user.token, "")
	if w.Code == http.StatusForbidden {
		return nil, false
	}
	var state []eventModel
	if err := json.Unmarshal(w.Body.Bytes(), &state); err != nil {
		h.t.Fatalf("state: %v\n%s", err, w.Body)
	}
	for _, ev := range state {
		truth.state[ev.key()] = ev.ID
		var content struct {
			Membership string `json:"membership"`
			Name       string `json:"name"`
		}
		if err := json.Unmarshal(ev.Content, &content); err != nil {
			h.t.Fatal(err)
		}
		switch ev.Type {
		case "m.room.member":
			truth.members[content.Membership] = append(truth.members[content.Membership], *ev.StateKey)
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
