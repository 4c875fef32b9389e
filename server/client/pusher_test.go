package client

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/push"
	"hearth/server/remote"
)

// pushGateway is a push gateway that keeps what it gets.
type pushGateway struct {
	*httptest.Server
	got    chan pushed
	fails  atomic.Int32 // so many requests are refused
	reject atomic.Bool  // the pushkey
}

// pushed is what a push gateway got.
type pushed struct {
	Notification struct {
		EventID    string                    `json:"event_id"`
		RoomID     string                    `json:"room_id"`
		Type       string                    `json:"type"`
		SenderName string                    `json:"sender_display_name"`
		RoomName   string                    `json:"room_name"`
		Prio       string                    `json:"prio"`
		Target     bool                      `json:"user_is_target"`
		Content    map[string]jsontext.Value `json:"content"`
		Counts     struct {
			Unread *int `json:"unread"`
		} `json:"counts"`
		Devices []struct {
			AppID   string                    `json:"app_id"`
			Pushkey string                    `json:"pushkey"`
			TS      int64                     `json:"pushkey_ts"`
			Data    map[string]jsontext.Value `json:"data"`
			Tweaks  map[string]jsontext.Value `json:"tweaks"`
		} `json:"devices"`
	} `json:"notification"`
}

func newPushGateway(t *testing.T) *pushGateway {
	g := &pushGateway{got: make(chan pushed, 100)}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var p pushed
		if err := json.Unmarshal(body, &p); err != nil || r.Method != http.MethodPost || r.URL.Path != pushPath || len(p.Notification.Devices) != 1 {
			t.Errorf("%s %s %s: %v", r.Method, r.URL, body, err)
			return
		}
		if g.fails.Add(-1) >= 0 {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		if g.reject.Load() {
			fmt.Fprintf(w, `{"rejected":[%q]}`, p.Notification.Devices[0].Pushkey)
		} else {
			fmt.Fprint(w, `{"rejected":[]}`)
		}
		g.got <- p
	}))
	t.Cleanup(g.Close)
	return g
}

// next returns the next notification.
func (g *pushGateway) next(t *testing.T) pushed {
	t.Helper()
	select {
	case p := <-g.got:
		return p
	case <-time.After(time.Minute):
		t.Fatal("no notification came in a minute")
		return pushed{}
	}
}

// pushHouse is a server with a push gateway, alice's and bob's room "Kitchen", and
// a pusher of bob's.
type pushHouse struct {
	*testServer
	gateway    *pushGateway
	alice, bob string // tokens
	room       string // escaped
	txn        int
}

func newPushHouse(t *testing.T, data string) *pushHouse {
	h := &pushHouse{testServer: newTestServer(t, Config{PrivateNetworks: true}), gateway: newPushGateway(t)}
	h.alice, h.bob = h.account(t, "alice", "her-password"), h.account(t, "bob", "his-password")
	var made struct {
		RoomID string `json:"room_id"`
	}
	h.call(t, "POST", "/createRoom", h.alice, `{"preset":"public_chat","name":"Kitchen","invite":["@bob:hearth.test"]}`, &made)
	h.room = "/rooms/" + made.RoomID
	h.call(t, "POST", h.room+"/join", h.bob, "{}", nil)
	h.call(t, "POST", "/pushers/set", h.bob, fmt.Sprintf(
		`{"kind":"http","app_id":"org.example.app","pushkey":"key","app_display_name":"App","device_display_name":"Phone","lang":"en","data":{"url":%q%s}}`,
		h.gateway.URL+pushPath, data), nil)
	return h
}

// call sends a request that must work.
func (s *testServer) call(t *testing.T, method, path, token, body string, answer any) {
	t.Helper()
	w := s.do(method, "/_matrix/client/v3"+path, token, body)
	if w.Code != http.StatusOK {
		t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	if answer == nil {
		return
	}
	if err := json.Unmarshal(w.Body.Bytes(), answer); err != nil {
		t.Fatal(err)
	}
}

// say sends a message of alice's or bob's and returns the event's ID.
func (h *pushHouse) say(t *testing.T, token, text string) string {
	t.Helper()
	h.txn++
	var sent struct {
		EventID string `json:"event_id"`
	}
	h.call(t, "PUT", fmt.Sprintf("%s/send/m.room.message/%d", h.room, h.txn), token, fmt.Sprintf(`{"msgtype":"m.text","body":%q}`, text), &sent)
	return sent.EventID
}

// push runs the sender of notifications until stop is called or the test ends.
func (h *pushHouse) push(t *testing.T) (stop func()) {
	t.Helper()
	client := remote.NewDialer(true).Client(remote.ClientConfig{})
	g := push.NewGateway(h.store, client, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Run(ctx, push.Sources{Notices: h.Notices, Invite: h.InviteNotice, Unread: h.UnreadCount})
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func TestPush(t *testing.T) {
	h := newPushHouse(t, `,"custom":{"x":1}`)
	h.push(t)
	h.call(t, "PUT", "/profile/@alice:hearth.test/displayname", h.alice, `{"displayname":"Alice"}`, nil)
	h.say(t, h.bob, "my own")
	var sent struct {
		EventID string `json:"event_id"`
	}
	h.call(t, "PUT", h.room+"/send/m.room.message/mention", h.alice, `{"msgtype":"m.text","body":"dinner, bob!","m.mentions":{"user_ids":["@bob:hearth.test"]}}`, &sent)
	id := sent.EventID
	n := h.gateway.next(t).Notification
	if n.EventID != id || n.RoomID != h.room[len("/rooms/"):] || n.Type != "m.room.message" || string(n.Content["body"]) != `"dinner, bob!"` {
		t.Errorf("the event: %+v", n)
	}
	if n.SenderName != "Alice" || n.RoomName != "Kitchen" || n.Prio != "high" || n.Target {
		t.Errorf("what is told of it: %+v", n)
	}
	if n.Counts.Unread == nil || *n.Counts.Unread != 1 {
		t.Errorf("unread: %v", n.Counts.Unread)
	}
	d := n.Devices[0]
	if d.AppID != "org.example.app" || d.Pushkey != "key" || d.TS != h.clock.Now().Unix() || d.Data["url"] != nil || d.Data["custom"] == nil {
		t.Errorf("the device: %+v", d)
	}
	if string(d.Tweaks["highlight"]) != "true" || string(d.Tweaks["sound"]) != `"default"` {
		t.Errorf("tweaks: %s", d.Tweaks)
	}

	// What is read counts no more, and the phone hears of it.
	h.call(t, "POST", h.room+"/receipt/m.read/"+id, h.bob, "{}", nil)
	n = h.gateway.next(t).Notification
	if n.EventID != "" || n.Counts.Unread == nil || *n.Counts.Unread != 0 {
		t.Errorf("after reading: %+v", n)
	}

	// Nothing comes of muted rooms and ignored users, and an invite is for him.
	kitchen := h.room
	h.call(t, "PUT", "/pushrules/global/room/"+kitchen[len("/rooms/"):], h.bob, `{"actions":[]}`, nil)
	h.say(t, h.alice, "muted")
	var hall struct {
		RoomID string `json:"room_id"`
	}
	carol := h.account(t, "carol", "her-password")
	h.call(t, "POST", "/createRoom", carol, `{"preset":"public_chat","invite":["@bob:hearth.test"]}`, &hall)
	n = h.gateway.next(t).Notification
	if !n.Target || n.Type != "m.room.member" || string(n.Content["membership"]) != `"invite"` || n.RoomID != hall.RoomID {
		t.Errorf("an invite: %+v", n)
	}
	h.room = "/rooms/" + hall.RoomID
	h.call(t, "POST", h.room+"/join", h.bob, "{}", nil)
	h.call(t, "POST", h.room+"/join", h.alice, "{}", nil)
	h.call(t, "PUT", "/user/@bob:hearth.test/account_data/m.ignored_user_list", h.bob, `{"ignored_users":{"@alice:hearth.test":{}}}`, nil)
	h.say(t, h.alice, "ignored")
	last := h.say(t, carol, "heard")
	if n = h.gateway.next(t).Notification; n.EventID != last {
		t.Errorf("from an ignored user: %+v, want %s", n, last)
	}
}

func TestPushEventIDOnly(t *testing.T) {
	h := newPushHouse(t, `,"format":"event_id_only"`)
	h.push(t)
	id := h.say(t, h.alice, "secret")
	n := h.gateway.next(t).Notification
	if n.EventID != id || n.RoomID == "" || n.Counts.Unread == nil {
		t.Errorf("%+v", n)
	}
	if n.Type != "" || n.Content != nil || n.SenderName != "" || n.RoomName != "" || n.Devices[0].Tweaks != nil {
		t.Errorf("too much is told: %+v", n)
	}
}

// A push gateway that fails is tried again, and what happened meanwhile comes in
// order, each once; so it does after a restart.
func TestPushSurvives(t *testing.T) {
	h := newPushHouse(t, "")
	h.gateway.fails.Store(1)
	stop := h.push(t)
	ids := []string{h.say(t, h.alice, "one"), h.say(t, h.alice, "two")}
	for i, id := range ids {
		if n := h.gateway.next(t).Notification; n.EventID != id {
			t.Errorf("notification %d: %s, want %s", i, n.EventID, id)
		}
	}
	stop()
	third := h.say(t, h.alice, "three")
	h.restart(t)
	h.push(t)
	n := h.gateway.next(t).Notification
	if n.EventID == ids[1] { // the server stopped before it had the answer
		n = h.gateway.next(t).Notification
	}
	if n.EventID != third {
		t.Errorf("after the restart: %+v, want %s", n, third)
	}
	select {
	case p := <-h.gateway.got:
		t.Errorf("one more: %+v", p)
	case <-time.After(100 * time.Millisecond):
	}
}

// A pushkey that the push gateway rejects is used no more.
func TestPushRejected(t *testing.T) {
	h := newPushHouse(t, "")
	h.gateway.reject.Store(true)
	h.push(t)
	h.say(t, h.alice, "one")
	h.gateway.next(t)
	var answer getPushersResponse
	for range 3000 {
		if h.call(t, "GET", "/pushers", h.bob, "", &answer); len(answer.Pushers) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("the pusher is still there: %+v", answer.Pushers)
}

// What the user read before it could be sent is no news.
func TestPushLeavesOutWhatIsRead(t *testing.T) {
	h := newPushHouse(t, "")
	first := h.say(t, h.alice, "one")
	h.call(t, "POST", h.room+"/receipt/m.read/"+first, h.bob, "{}", nil)
	second := h.say(t, h.alice, "two")
	h.push(t)
	n := h.gateway.next(t).Notification
	if n.EventID != second || n.Counts.Unread == nil || *n.Counts.Unread != 1 {
		t.Errorf("%+v, want %s", n, second)
	}
}

// A number that could not be told is told later.
func TestPushTellsTheCountAgain(t *testing.T) {
	h := newPushHouse(t, "")
	h.push(t)
	id := h.say(t, h.alice, "one")
	h.gateway.next(t)
	h.gateway.fails.Store(1)
	h.call(t, "POST", h.room+"/receipt/m.read/"+id, h.bob, "{}", nil)
	if n := h.gateway.next(t).Notification; n.EventID != "" || n.Counts.Unread == nil || *n.Counts.Unread != 0 {
		t.Errorf("%+v", n)
	}
}
