package client

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"hearth/store"
)

// A syncHouse is a server on which a few users live through a random session.
type syncHouse struct {
	t           *testing.T
	server      *testServer
	random      *rand.Rand
	users       []*syncUser
	rooms       []string
	models      []*syncModel
	replaced    map[string]string         // rooms by those that replaced them
	replacement map[string]string         // the newest, by the room that it replaces
	ignores     bool                      // users ignore each other
	events      map[string][]string       // messages by room, of the main timeline
	roots       map[string][]string       // of threads, by room
	urls        map[string]bool           // the events that had a url
	redacted    map[string]store.Position // when an event was redacted
	children    map[string][]childModel   // what relates to an event
	sent        map[string][]int          // messages by device
	txn         int
	whose       map[string]string         // whom a member event is about
	places      map[string]store.Position // of events
}

// childModel is an event that relates to another one.
type childModel struct {
	sender, typ string
	at          store.Position
}

type syncUser struct {
	name, id, token string
	receipts        map[string]map[string][]string // by room and thread ("": all): event IDs
	marks           map[string]map[string]string   // by room, and type, user and thread: the newest receipt
	data            map[string]string              // account data by type
	roomData        map[string]map[string]string   // by room and type
	tags            map[string]map[string]string   // by room
	forgotten       map[string]bool                // rooms, since the last stay
	keysAt          store.Position                 // when the keys of the device changed
	ignored         []ignoredModel                 // oldest first
}

// ignoredModel is whom ("": nobody) a user ignores from a position on.
type ignoredModel struct {
	from store.Position
	user string
}

// ignores says whether the user ignored another one at a position.
func (u *syncUser) ignores(other string, at store.Position) (yes bool) {
	for _, ignored := range u.ignored {
		if ignored.from <= at {
			yes = ignored.user == other
		}
	}
	return yes
}

// ignoring is the list of whom the user ignores now.
func (u *syncUser) ignoring() string {
	if n := len(u.ignored); n > 0 && u.ignored[n-1].user != "" {
		return fmt.Sprintf(`{%q:{}}`, u.ignored[n-1].user)
	}
	return "{}"
}

// Whatever happens, and however a client syncs and with what filter: in the end it
// knows the state and the timeline as one does who reads everything and then leaves
// out what the filter does not want; and what belongs to no timeline, receipts,
// account data, messages to devices and so on, as it was sent. The long form runs
// with SYNC_SEEDS=10000.
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
						h.visit(c)
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

// visit lets a client sync, and look whether it knows everything.
func (h *syncHouse) visit(c *syncModel) {
	switch c.random.IntN(16) {
	case 0:
		c.begin()
	case 1:
		c.refilter()
	case 2, 3:
		if c.syncDuring(h.speak) {
			return
		}
	}
	c.sync()
	if c.random.IntN(4) == 0 {
		c.verify()
	}
}

func newSyncHouse(t *testing.T, seed uint64) *syncHouse {
	h := &syncHouse{
		t: t, server: newTestServer(t, Config{}), random: rand.New(rand.NewPCG(seed, 1)),
		replaced: map[string]string{}, replacement: map[string]string{}, events: map[string][]string{}, roots: map[string][]string{}, whose: map[string]string{}, urls: map[string]bool{},
		redacted: map[string]store.Position{}, children: map[string][]childModel{}, sent: map[string][]int{}, places: map[string]store.Position{},
	}
	for _, name := range []string{"alice", "bob", "carol", "dave"} {
		h.users = append(h.users, &syncUser{
			name: name, id: "@" + name + ":" + string(testServerName), token: h.server.account(t, name, "secret"),
			receipts: map[string]map[string][]string{}, marks: map[string]map[string]string{}, data: map[string]string{},
			roomData: map[string]map[string]string{}, tags: map[string]map[string]string{}, forgotten: map[string]bool{},
		})
	}
	h.ignores = h.random.IntN(4) == 0
	for range 1 + h.random.IntN(2) {
		h.createRoom()
	}
	return h
}

// clients returns model clients of random users and habits.
func (h *syncHouse) clients(n int) []*syncModel {
	maker := filterMaker{rooms: h.rooms}
	for _, user := range h.users {
		maker.users = append(maker.users, user.id)
	}
	for i := range n {
		user, device := h.users[h.random.IntN(len(h.users))], fmt.Sprintf("MODEL%d", i)
		w := h.server.do(http.MethodPost, "/_matrix/client/v3/login", "",
			fmt.Sprintf(`{"type":"m.login.password","user":%q,"password":"secret","device_id":%q}`, user.name, device))
		var login struct {
			Token string `json:"access_token"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &login); err != nil || login.Token == "" {
			h.t.Fatalf("log in: %d %s", w.Code, w.Body)
		}
		random := rand.New(rand.NewPCG(h.random.Uint64(), 2))
		maker.Rand = random
		c := &syncModel{
			t: h.t, house: h, random: random, user: user, device: device, token: login.Token,
			make: maker, filter: maker.filter(), after: random.IntN(3) == 0,
		}
		c.begin()
		h.models = append(h.models, c)
	}
	return h.models
}

// restart makes the server anew, with and without what it writes at its end. It waits
// until the clock is past the changes in memory, which the next start counts from:
// one a millisecond is more than there are in life.
func (h *syncHouse) restart() {
	for uint64(time.Now().UnixMilli()) <= h.server.serials.now() {
		time.Sleep(time.Millisecond)
	}
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

func roomPath(room string, parts ...string) string {
	path := "/_matrix/client/v3/rooms/" + url.PathEscape(room)
	for _, part := range parts {
		path += "/" + url.PathEscape(part)
	}
	return path
}
