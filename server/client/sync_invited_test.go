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

// An invite to a room of another server is told to the client and a push gateway,
// unless its sender is ignored, and so is its end to the client.
func TestInviteFromElsewhere(t *testing.T) {
	const far, bob, room = matrix.UserID("@far:far.example"), matrix.UserID("@bob:hearth.test"), matrix.RoomID("!room:far.example")
	ctx := context.Background()
	s := newTestServer(t, Config{})
	token := s.account(t, "bob", "secret")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	v, _ := matrix.VersionByID("11")
	key := string(bob)
	member := func(to matrix.Membership) *matrix.Event {
		t.Helper()
		ev, err := matrix.Draft{
			Room: room, Sender: far, Type: "m.room.member", StateKey: &key,
			Content: []byte(`{"membership":"` + string(to) + `"}`), OriginServerTS: s.clock.Now().UnixMilli(),
		}.Build(v, matrix.Placing{Depth: 7}, "far.example", matrix.SigningKey{ID: "ed25519:1", Private: ed25519.NewKeyFromSeed(make([]byte, 32))})
		must(err)
		return ev
	}
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
