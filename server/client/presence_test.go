package client

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"hearth/state/matrix"
	"hearth/store"
)

// The presence of a user with several devices, as time passes.
func TestLocalPresence(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var serials memorySerials
	serials.start(now)
	var p presences
	p.start(&serials)
	p.add(1, "@a:x", store.Presence{})
	for i, step := range []struct {
		after time.Duration
		do    func(u *localPresence, now time.Time) // nil: time passes
		want  string                                // state, currently active, news
	}{
		{0, func(u *localPresence, now time.Time) { u.act("A", now) }, "offline false false"}, // no device is connected
		{0, func(u *localPresence, now time.Time) { u.connect("A", Online, now) }, "online true true"},
		{59 * time.Second, nil, "online true false"},
		{time.Second, nil, "online false true"},
		{0, func(u *localPresence, now time.Time) { u.act("A", now) }, "online true true"},
		{30 * time.Second, func(u *localPresence, now time.Time) { u.act("A", now) }, "online true false"},
		{time.Minute, nil, "online false true"},
		{4*time.Minute - time.Second, nil, "online false false"},
		{time.Second, nil, "unavailable false true"}, // idle
		// A sync is no activity.
		{0, func(u *localPresence, now time.Time) { u.connect("A", Online, now) }, "unavailable false false"},
		{0, func(u *localPresence, now time.Time) { u.act("A", now) }, "online true true"},
		// The most present device counts.
		{0, func(u *localPresence, now time.Time) { u.connect("B", Unavailable, now) }, "online true false"},
		{0, func(u *localPresence, now time.Time) { u.set("A", Offline, "away", now) }, "unavailable false true"},
		{0, func(u *localPresence, now time.Time) { u.act("B", now) }, "online true true"},
		{0, func(u *localPresence, now time.Time) { u.disconnect("B", now) }, "online true false"},
		{29 * time.Second, nil, "online true false"},
		// Who wants to be seen as offline is, though two syncs wait and he writes.
		{time.Second, nil, "offline false true"},
		{0, func(u *localPresence, now time.Time) { u.act("A", now) }, "offline false false"},
		{0, func(u *localPresence, now time.Time) { u.set("A", Unavailable, "away", now) }, "unavailable false true"},
		{0, func(u *localPresence, now time.Time) { u.set("A", Unavailable, "", now) }, "unavailable false true"},
		{0, func(u *localPresence, now time.Time) { u.renamed = true }, "unavailable false true"},
		// One of the two syncs ends, and then the other.
		{0, func(u *localPresence, now time.Time) { u.disconnect("A", now) }, "unavailable false false"},
		{time.Hour, nil, "unavailable false false"},
		{0, func(u *localPresence, now time.Time) { u.disconnect("A", now) }, "unavailable false false"},
		{connectedFor, nil, "offline false true"},
	} {
		now = now.Add(step.after)
		do := step.do
		if do == nil {
			do = func(*localPresence, time.Time) {}
		}
		before := serials.now()
		told, news := p.change(1, now, do)
		if got := fmt.Sprintf("%s %t %t", told.State, told.Active, news); got != step.want {
			t.Fatalf("step %d: %s, want %s", i, got, step.want)
		}
		if changed := len(p.since(before)) == 1; changed != news {
			t.Fatalf("step %d: since says %t, news %t", i, changed, news)
		}
	}
	if n := len(p.local[1].devices); n != 0 {
		t.Errorf("%d devices are left", n)
	}
}

// The devices of one user are bounded, and what outlives a restart is stored once.
func TestLocalPresenceBounds(t *testing.T) {
	now := time.Now()
	u := newLocalPresence("@a:x", store.Presence{})
	for i := range 2 * maxPresenceDevices {
		u.connect(matrix.DeviceID(fmt.Sprint(i)), Online, now)
	}
	if len(u.devices) != maxPresenceDevices {
		t.Errorf("%d devices are remembered", len(u.devices))
	}
	for _, text := range []string{"", "héllo", strings.Repeat("é", 200), strings.Repeat("x", 255) + "é"} {
		if got := shorten(text, 256); len(got) > 256 || len(text) <= 256 && got != text || len(text) > 256 && len(got) < 253 || !strings.HasPrefix(text, got) {
			t.Errorf("%d bytes are shortened to %q", len(text), got)
		}
	}
}

// However many remote users are told of, those of whom something was heard last
// stay.
func TestRemotePresenceIsBounded(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var serials memorySerials
	serials.start(now)
	var p presences
	p.start(&serials)
	begin := serials.now()
	say := func(num int, state PresenceState) bool {
		user := matrix.UserID(fmt.Sprintf("@u%d:other.test", num))
		return p.receive(store.UserNum(num), Presence{User: user, State: state, Status: strings.Repeat("é", 1000), LastActive: now.Add(time.Hour)}, now)
	}
	for num := 1; num <= maxRemotePresences+10; num++ {
		if !say(num, Online) {
			t.Fatalf("that user %d is online is no news", num)
		}
	}
	if len(p.remote) != maxRemotePresences || p.order.Len() != maxRemotePresences {
		t.Errorf("%d and %d users are remembered", len(p.remote), p.order.Len())
	}
	if _, known := p.get(10); known {
		t.Error("the oldest is remembered")
	}
	if got, known := p.get(11); !known || len(got.Status) > maxRemoteStatus || got.LastActive.After(now) {
		t.Errorf("user 11: %v", got)
	}
	if say(11, Online) {
		t.Error("that user 11 is still online is news")
	}
	if n := len(p.since(begin)); n != maxPresenceLook {
		t.Errorf("%d changes at once", n)
	}
	middle := serials.now()
	if !say(11, "hungry") || !say(12, Unavailable) {
		t.Error("a change is no news")
	}
	if list := p.since(middle); len(list) != 2 || list[0].User != "@u12:other.test" || list[1].State != Offline {
		t.Errorf("changes: %v", list)
	}
	if p.since(serials.now()) != nil {
		t.Error("there is always something new")
	}
	if list := p.since(0); len(list) != maxPresenceLook || list[0].State != Unavailable || list[1].State != Online {
		t.Errorf("to who begins: %v", list[:2])
	}
	// Of whom nothing is heard is offline in the end.
	now = now.Add(30 * time.Minute)
	say(13, Online)
	p.expire(now)
	now = now.Add(15 * time.Minute)
	p.expire(now)
	for num, want := range map[store.UserNum]PresenceState{13: Online, 14: Offline, 12: Offline} {
		if got, _ := p.get(num); got.State != want {
			t.Errorf("user %d is %s, want %s", num, got.State, want)
		}
	}
}

// presenceAnswer is what a sync says about presence.
type presenceAnswer struct {
	Next     string `json:"next_batch"`
	Presence struct {
		Events []presenceEvent `json:"events"`
	} `json:"presence"`
}

// states returns the presence of a sync as user=state, in order.
func (a presenceAnswer) states() string {
	var states []string
	for _, ev := range a.Presence.Events {
		states = append(states, ev.Sender.Localpart()+"="+string(ev.Content.Presence))
	}
	return strings.Join(states, " ")
}

func syncPresence(t testing.TB, s *testServer, token, query string) (answer presenceAnswer) {
	t.Helper()
	w := s.do("GET", "/_matrix/client/v3/sync?set_presence=offline&"+query, token, "")
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK {
		t.Fatalf("sync: %d %s", w.Code, w.Body)
	}
	return answer
}

// presenceHouse is a server with a room of alice and bob.
func presenceHouse(t testing.TB, config Config) (s *testServer, alice, bob, room string) {
	t.Helper()
	s = newTestServer(t, config)
	alice, bob = s.account(t, "alice", "secret"), s.account(t, "bob", "secret")
	var answer struct {
		Room string `json:"room_id"`
	}
	w := s.do("POST", "/_matrix/client/v3/createRoom", alice, `{"preset":"public_chat"}`)
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	if w := s.do("POST", roomPath(answer.Room, "join"), bob, "{}"); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	return s, alice, bob, answer.Room
}

func putPresence(t testing.TB, s *testServer, token, user, body string) {
	t.Helper()
	if w := s.do("PUT", "/_matrix/client/v3/presence/@"+user+":hearth.test/status", token, body); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
}

// A client that comes back after a restart is told who is not here any more; what a
// user said last, and when, is kept.
func TestPresenceOverRestart(t *testing.T) {
	s, alice, bob, _ := presenceHouse(t, Config{})
	putPresence(t, s, bob, "bob", `{"presence":"online","status_msg":"at sea"}`)
	before := syncPresence(t, s, alice, "")
	if got := before.states(); got != "bob=online" {
		t.Fatalf("before: %s", got)
	}
	if err := s.writePresence(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	s.restart(t)
	s.clock.Advance(time.Hour)
	after := syncPresence(t, s, alice, "since="+before.Next)
	if got := after.states(); got != "bob=offline" {
		t.Fatalf("after: %s", got)
	}
	if c := after.Presence.Events[0].Content; c.Status != "at sea" || *c.LastActiveAgo != time.Hour.Milliseconds() {
		t.Errorf("bob: %+v", c)
	}
	if got := syncPresence(t, s, alice, "since="+after.Next).states(); got != "" {
		t.Errorf("told again: %s", got)
	}
	// An activity takes what was stored on, and stores itself.
	putPresence(t, s, bob, "bob", `{"presence":"online","status_msg":"ashore"}`)
	if err := s.writePresence(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	position := s.store.Position()
	if err := s.writePresence(t.Context(), 0); err != nil || s.store.Position() != position {
		t.Errorf("nothing has changed: %v", err)
	}
	err := s.store.View(func(tx *store.Tx) error {
		p, err := tx.Presence(tx.UserNum("@bob:hearth.test"))
		if p.Status != "ashore" || !p.LastActive.Equal(s.clock.Now()) {
			t.Errorf("stored: %+v", p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What times out wakes a sync that waits, and other servers hear of each change.
func TestPresenceTimesOut(t *testing.T) {
	sent := make(chan Presence, 10)
	s, alice, bob, _ := presenceHouse(t, Config{OnPresence: func(p Presence) { sent <- p }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	putPresence(t, s, bob, "bob", `{"presence":"online"}`)
	if p := <-sent; p.User != "@bob:hearth.test" || p.State != Online || !p.Active || !p.LastActive.Equal(s.clock.Now()) {
		t.Errorf("sent: %+v", p)
	}
	since := syncPresence(t, s, alice, "").Next
	waits := make(chan presenceAnswer, 1)
	go func() { waits <- syncPresence(t, s, alice, fmt.Sprintf("timeout=%d&since=%s", longSync, since)) }()
	s.clock.Advance(connectedFor)
	go func() { done <- s.Run(ctx) }()
	if got := woken(t, waits).states(); got != "bob=offline" {
		t.Errorf("told: %s", got)
	}
	if p := <-sent; p.State != Offline {
		t.Errorf("sent: %+v", p)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	err := s.store.View(func(tx *store.Tx) error {
		p, err := tx.Presence(tx.UserNum("@bob:hearth.test"))
		if p.LastActive.IsZero() {
			t.Error("the end stores nothing")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Other servers are told again that a user is there, long before they forget.
func TestPresenceIsSentAgain(t *testing.T) {
	s, _, bob, _ := presenceHouse(t, Config{})
	s.noteSync(s.who(t, bob), Online)
	s.clock.Advance(idleAfter)
	if changed, lasting := s.presences.expire(s.clock.Now()); len(changed) != 1 || len(lasting) != 0 {
		t.Errorf("idle: %v, %v", changed, lasting)
	}
	s.clock.Advance(sendAgain)
	if changed, lasting := s.presences.expire(s.clock.Now()); len(changed) != 0 || len(lasting) != 1 {
		t.Errorf("later: %v, %v", changed, lasting)
	}
	if changed, lasting := s.presences.expire(s.clock.Now()); len(changed)+len(lasting) != 0 {
		t.Errorf("at once again: %v, %v", changed, lasting)
	}
}

// who returns the session of a token.
func (s *testServer) who(t testing.TB, token string) (who session) {
	t.Helper()
	err := s.store.View(func(tx *store.Tx) error {
		found, err := tx.Token(store.HashToken(token))
		who = session{user: tx.UserID(found.User), num: found.User, device: found.Device}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return who
}

// Presence from other servers: of their own users, and of those who share a room.
func TestReceivePresence(t *testing.T) {
	for _, mode := range []PresenceMode{PresenceOn, PresenceLocal, PresenceOff} {
		s, alice, _, room := presenceHouse(t, Config{Presence: mode})
		putMember(t, s, room, "@dave:other.test", matrix.Join)
		putMember(t, s, room, "@gone:other.test", matrix.Join)
		putMember(t, s, room, "@gone:other.test", matrix.Leave)
		putMember(t, s, room, "@erin:third.test", matrix.Join)
		since := syncPresence(t, s, alice, "").Next
		waits := make(chan presenceAnswer, 1)
		wait := longSync
		if mode != PresenceOn { // there will be no news
			wait = 500
		}
		go func() { waits <- syncPresence(t, s, alice, fmt.Sprintf("timeout=%d&since=%s", wait, since)) }()
		time.Sleep(20 * time.Millisecond)
		list := []Presence{
			{User: "@alice:hearth.test", State: Online}, {User: "@erin:third.test", State: Online},
			{User: "@gone:other.test", State: Online}, {User: "@stranger:other.test", State: Online},
			{User: "@dave:other.test", State: Unavailable, Status: "sailing", LastActive: s.clock.Now().Add(-time.Second)},
		}
		if err := s.receivePresence("other.test", list); err != nil {
			t.Fatal(err)
		}
		want := map[PresenceMode]string{PresenceOn: "dave=unavailable"}[mode]
		answer := woken(t, waits)
		if got := answer.states(); got != want {
			t.Errorf("mode %d: told %q, want %q", mode, got, want)
		}
		if mode != PresenceOn {
			continue
		}
		if c := answer.Presence.Events[0].Content; c.Status != "sailing" || *c.LastActiveAgo != 1000 || c.DisplayName != "" {
			t.Errorf("dave: %+v", c)
		}
		if w := s.do("GET", "/_matrix/client/v3/presence/@dave:other.test/status", alice, ""); !strings.Contains(w.Body.String(), "sailing") {
			t.Errorf("asked: %s", w.Body)
		}
		// To who comes later nothing is told of those who are offline.
		if err := s.receivePresence("other.test", []Presence{{User: "@dave:other.test", State: Offline}}); err != nil {
			t.Fatal(err)
		}
		if got := syncPresence(t, s, alice, "since="+answer.Next).states(); got != "dave=offline" {
			t.Errorf("then told %q", got)
		}
		if got := syncPresence(t, s, alice, "").states(); got != "" {
			t.Errorf("at first told %q", got)
		}
	}
}

// A server that comes to a room is told who of our users there is here, and the
// servers of a room of who comes to it; of that somebody is not here nobody is told.
func TestPresenceAtMeeting(t *testing.T) {
	var told []string
	s, alice, _, room := presenceHouse(t, Config{OnMeeting: func(p Presence, _ matrix.RoomID, server matrix.ServerName) {
		told = append(told, fmt.Sprintf("%s=%s to %q", p.User.Localpart(), p.State, server))
	}})
	carol := s.account(t, "carol", "secret")
	putPresence(t, s, alice, "alice", `{"presence":"online"}`)
	putPresence(t, s, carol, "carol", `{"presence":"unavailable"}`)
	at := s.store.Position()
	for _, step := range []struct {
		about string
		do    func()
		want  string
	}{
		{"a server comes", func() { putMember(t, s, room, "@dave:other.test", matrix.Join) }, `alice=online to "other.test"`},
		{"another user of it", func() { putMember(t, s, room, "@erin:other.test", matrix.Join) }, ""},
		{"one of ours writes", func() { s.do("PUT", roomPath(room, "send/m.room.message/1"), alice, `{"body":"x"}`) }, ""},
		{"one of ours comes", func() { s.do("POST", roomPath(room, "join"), carol, "{}") }, `carol=unavailable to ""`},
		{"one of ours goes", func() { s.do("POST", roomPath(room, "leave"), carol, "{}") }, ""},
		{"the server goes", func() {
			putMember(t, s, room, "@dave:other.test", matrix.Leave)
			putMember(t, s, room, "@erin:other.test", matrix.Leave)
		}, ""},
		{"and comes again", func() { putMember(t, s, room, "@dave:other.test", matrix.Join) }, `alice=online to "other.test"`},
	} {
		told = nil
		step.do()
		var err error
		if at, err = s.meet(at); err != nil || at != s.store.Position() {
			t.Fatalf("%s: %v", step.about, err)
		}
		if got := strings.Join(told, ", "); got != step.want {
			t.Errorf("%s: told %s, want %s", step.about, got, step.want)
		}
	}
}
