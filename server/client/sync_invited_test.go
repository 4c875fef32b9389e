package client

import (
	"context"
	"crypto/ed25519"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/push"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// memberElsewhere is the member event of a local user in a room of another server, by
// @far:far.example.
func (s *testServer) memberElsewhere(t *testing.T, user matrix.UserID, to matrix.Membership) *matrix.Event {
	t.Helper()
	v, _ := matrix.VersionByID("11")
	key := string(user)
	ev, err := matrix.Draft{
		Room: "!room:far.example", Sender: "@far:far.example", Type: "m.room.member", StateKey: &key,
		Content: []byte(`{"membership":"` + string(to) + `"}`), OriginServerTS: s.clock.Now().UnixMilli(),
	}.Build(v, matrix.Placing{Depth: 7}, "far.example", matrix.SigningKey{ID: "ed25519:1", Private: ed25519.NewKeyFromSeed(make([]byte, 32))})
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

// A push gateway learns of such an invite, and what the stripped state tells.
func TestPushInviteFromElsewhere(t *testing.T) {
	h := newPushHouse(t, "")
	h.push(t)
	invite := h.memberElsewhere(t, "@bob:hearth.test", matrix.Invite)
	stripped := jsontext.Value(`[{"content":{"name":"Far away"},"sender":"@far:far.example","state_key":"","type":"m.room.name"},
		{"content":{"displayname":"Far","membership":"join"},"sender":"@far:far.example","state_key":"@far:far.example","type":"m.room.member"},` +
		string(state.StrippedForm(invite)) + `]`)
	if err := h.rooms.ReceiveInvite(t.Context(), invite, stripped); err != nil {
		t.Fatal(err)
	}
	n := h.gateway.next(t).Notification
	if n.EventID != string(invite.ID) || n.RoomID != "!room:far.example" || n.Type != "m.room.member" || !n.Target ||
		n.RoomName != "Far away" || n.SenderName != "Far" || string(n.Devices[0].Tweaks["sound"]) != `"default"` {
		t.Errorf("%+v", n)
	}
}

// An invite to a room of another server is told to the client, unless its
// sender is ignored, and so is its end.
func TestInviteFromElsewhere(t *testing.T) {
	const bob, room = matrix.UserID("@bob:hearth.test"), matrix.RoomID("!room:far.example")
	ctx := context.Background()
	s := newTestServer(t, Config{})
	token := s.account(t, "bob", "secret")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	member := func(to matrix.Membership) *matrix.Event { return s.memberElsewhere(t, bob, to) }
	sync := func(since string) string {
		t.Helper()
		w := s.do("GET", `/_matrix/client/v3/sync?filter={"room":{"include_leave":true}}&since=`+since, token, "")
		if w.Code != 200 {
			t.Fatalf("sync: %d %s", w.Code, w.Body)
		}
		return w.Body.String()
	}
	notice := func() (ev *store.StoredEvent, n push.Notice) {
		t.Helper()
		must(s.store.View(func(tx *store.Tx) (err error) {
			ev, n, err = s.InviteNotice(tx, tx.UserNum(bob), tx.RoomNum(room))
			return err
		}))
		return ev, n
	}
	before := syncDevice(t, s, token, "").Next
	invite := member(matrix.Invite)
	stripped := jsontext.Value(`[{"content":{"name":"Kitchen"},"sender":"@far:far.example","state_key":"","type":"m.room.name"},` + string(state.StrippedForm(invite)) + `]`)
	must(s.rooms.ReceiveInvite(ctx, invite, stripped))
	for _, since := range []string{before, ""} {
		if got := sync(since); !strings.Contains(got, `"invite":{"!room:far.example":{"invite_state":{"events":`+string(stripped)) {
			t.Errorf("since %q: %s", since, got)
		}
	}
	if ev, n := notice(); ev == nil || ev.ID != invite.ID || n.Rule == nil || n.Rule.ID != ".m.rule.invite_for_me" {
		t.Errorf("the invite is notified by %+v", n.Rule)
	}
	ignore := func(users string) {
		t.Helper()
		w := s.do("PUT", "/_matrix/client/v3/user/@bob:hearth.test/account_data/m.ignored_user_list", token, `{"ignored_users":{`+users+`}}`)
		if w.Code != 200 {
			t.Fatalf("ignore: %d %s", w.Code, w.Body)
		}
	}
	ignore(`"@far:far.example":{}`)
	if got := sync(""); strings.Contains(got, string(room)) {
		t.Errorf("an invite by who is ignored: %s", got)
	}
	if _, n := notice(); n.Rule != nil {
		t.Error("an invite by who is ignored is notified")
	}
	ignore("")
	since := syncDevice(t, s, token, "").Next
	leave := member(matrix.Leave)
	revoked, err := s.rooms.RevokeInvite(ctx, leave)
	must(err)
	if !revoked {
		t.Fatal("the invite is not revoked")
	}
	for _, since := range []string{since, ""} {
		got := sync(since)
		if !strings.Contains(got, `"leave":{"!room:far.example":{"timeline":{"events":[{"content":{"membership":"leave"},"event_id":"`+string(leave.ID)) ||
			strings.Contains(got, `"invite":{`) {
			t.Errorf("revoked, since %q: %s", since, got)
		}
	}
	if _, n := notice(); n.Rule != nil {
		t.Error("a revoked invite is notified")
	}
}
