package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/remote"
	"hearth/state/matrix"
	"hearth/store"
)

// receiveHouse is a room of alice and bob, who are here.
func receiveHouse(t testing.TB) (s *testServer, alice string, room string) {
	t.Helper()
	s, alice, _, room = presenceHouse(t, Config{})
	return s, alice, room
}

// setACL denies other.test a room.
func setACL(t *testing.T, s *testServer, alice, room string) {
	t.Helper()
	w := s.do("PUT", roomPath(room, "state", "m.room.server_acl"), alice, `{"allow":["*"],"deny":["other.*"]}`)
	if w.Code != 200 {
		t.Fatal(w.Body)
	}
}

// ephemeral returns what is typed and read in a room, as a client hears it.
func (s *testServer) ephemeral(t *testing.T, token, room string) string {
	t.Helper()
	var answer struct {
		Rooms struct {
			Join map[string]struct {
				Ephemeral struct {
					Events []jsontext.Value `json:"events"`
				} `json:"ephemeral"`
			} `json:"join"`
		} `json:"rooms"`
	}
	w := s.do("GET", "/_matrix/client/v3/sync", token, "")
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, v := range answer.Rooms.Join[room].Ephemeral.Events {
		all = append(all, string(v))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// Users of other servers type where they are, as long as their server says so.
func TestReceiveTyping(t *testing.T) {
	s, alice, room := receiveHouse(t)
	putMember(t, s, room, "@dave:other.test", matrix.Join)
	putMember(t, s, room, "@gone:other.test", matrix.Join)
	putMember(t, s, room, "@gone:other.test", matrix.Leave)
	putMember(t, s, room, "@erin:third.test", matrix.Join)
	typing := func(room, user string, typing bool) error {
		return s.ReceiveTyping(t.Context(), "other.test", fmt.Appendf(nil, `{"room_id":%q,"user_id":%q,"typing":%v}`, room, user, typing))
	}
	for _, user := range []string{"@gone:other.test", "@erin:third.test", "@alice:hearth.test", "@nobody:other.test", "dave", ""} {
		if err := typing(room, user, true); err == nil {
			t.Errorf("%s types", user)
		}
	}
	if err := typing("!other:other.test", "@dave:other.test", true); err == nil {
		t.Error("somebody types in a room that is not known")
	}
	for _, text := range []string{`{}`, `{"room_id":1}`, `{"typing":"yes"}`} {
		if err := s.ReceiveTyping(t.Context(), "other.test", jsontext.Value(text)); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
	if got := s.ephemeral(t, alice, room); got != "" {
		t.Errorf("told %s", got)
	}
	const types = `{"type":"m.typing","content":{"user_ids":["@dave:other.test"]}}`
	if err := typing(room, "@dave:other.test", true); err != nil {
		t.Error(err)
	}
	if got := s.ephemeral(t, alice, room); got != types {
		t.Errorf("told %s", got)
	}
	if err := typing(room, "@dave:other.test", false); err != nil {
		t.Error(err)
	}
	if got := s.ephemeral(t, alice, room); strings.Contains(got, "dave") {
		t.Errorf("told %s", got)
	}
	if err := typing(room, "@dave:other.test", true); err != nil {
		t.Error(err)
	}
	s.typing.expire(s.clock.Now().Add(remoteTyping + time.Second))
	if got := s.ephemeral(t, alice, room); strings.Contains(got, "dave") {
		t.Errorf("told for ever %s", got)
	}
	setACL(t, s, alice, room)
	if err := typing(room, "@dave:other.test", true); err == nil {
		t.Error("somebody types against the ACL")
	}
}

// Users of other servers read where they are, each thread on its own.
func TestReceiveReceipts(t *testing.T) {
	s, alice, room := receiveHouse(t)
	putMember(t, s, room, "@dave:other.test", matrix.Join)
	putMember(t, s, room, "@erin:third.test", matrix.Join)
	send := func() string {
		w := s.do("PUT", roomPath(room, "send", "m.room.message", fmt.Sprint(s.clock.Now().UnixNano())), alice, `{"body":"x","msgtype":"m.text"}`)
		s.clock.Advance(time.Second)
		var answer struct {
			ID string `json:"event_id"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.ID == "" {
			t.Fatal(w.Body)
		}
		return answer.ID
	}
	first, second := send(), send()
	receive := func(user, typ, event, data string) error {
		return s.ReceiveReceipts(t.Context(), "other.test", fmt.Appendf(nil, `{%q:{%q:{"@mallory:other.test":7,%q:{"event_ids":["%s"],"data":%s}}}}`, room, typ, user, event, data))
	}
	got := func() (receipts []string) {
		err := s.store.View(func(tx *store.Tx) error {
			return tx.ReceiptsSince(tx.RoomNum(matrix.RoomID(room)), 0, func(r store.Receipt) (bool, error) {
				receipts = append(receipts, fmt.Sprint(tx.UserID(r.User), r.Type, r.Thread, r.Event, r.TS))
				return true, nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		return receipts
	}
	for _, bad := range [][4]string{
		{"@erin:third.test", "m.read", first, `{"ts":1}`},
		{"@alice:hearth.test", "m.read", first, `{"ts":1}`},
		{"@nobody:other.test", "m.read", first, `{"ts":1}`},
		{"@dave:other.test", "m.read.private", first, `{"ts":1}`},
		{"@dave:other.test", "m.read", "first", `{"ts":1}`},
		{"@dave:other.test", "m.read", first, `{"ts":1,"thread_id":"$nowhere"}`},
		{"@dave:other.test", "m.read", first, `[]`},
	} {
		if err := receive(bad[0], bad[1], bad[2], bad[3]); err != nil {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if receipts := got(); len(receipts) != 0 {
		t.Errorf("got %q", receipts)
	}
	for _, good := range [][3]string{
		{second, `{"ts":5}`, ""},
		{first, `{"ts":6}`, "it goes back"},
		{first, `{"ts":7,"thread_id":"main"}`, ""},
		{second, `{"ts":1.5,"thread_id":"` + first + `"}`, ""},
	} {
		if err := receive("@dave:other.test", "m.read", good[0], good[1]); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	want := []string{
		fmt.Sprint("@dave:other.test", "m.read", "", second, 5),
		fmt.Sprint("@dave:other.test", "m.read", "main", first, 7),
		fmt.Sprint("@dave:other.test", "m.read", first, second, s.clock.Now().UnixMilli()),
	}
	if receipts := got(); !slices.Equal(receipts, want) {
		t.Errorf("got %q, want %q", receipts, want)
	}
	if err := receive("@dave:other.test", "m.read", "$not_here_yet", `{"ts":9,"thread_id":"main"}`); err != nil {
		t.Error(err)
	}
	if receipts := got(); !slices.Equal(receipts, want) {
		t.Errorf("an unknown event takes the place of a known one: %q", receipts)
	}
	for i := range 8 { // rooms come in any order
		third := send()
		content := fmt.Sprintf(`{"!a:b":{"m.read":{}},"!c:d":{"m.read":7},%q:{"m.read":{"@dave:other.test":{"event_ids":[%q],"data":{"ts":5}}}}}`, room, third)
		err := s.ReceiveReceipts(t.Context(), "other.test", jsontext.Value(content))
		if receipts := got(); !errors.Is(err, remote.ErrBadEDU) || !strings.Contains(strings.Join(receipts, " "), third) {
			t.Fatalf("%d: beside rooms that are none: %v, got %q", i, err, receipts)
		}
	}
	several := []string{"$not_here_yet", send(), first, "no ID"}
	if err := receive("@dave:other.test", "m.read", strings.Join(several, `","`), `{"ts":5}`); err != nil || !strings.Contains(strings.Join(got(), " "), several[1]) {
		t.Errorf("of several events the newest counts: %v, got %q", err, got())
	}
	var strange []string
	for i := range 2 * maxReceipts {
		strange = append(strange, fmt.Sprintf(`"!%d:b":{"m.read":{"@dave:other.test":{"event_ids":["$a"],"data":{}}}}`, i))
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel() // nothing can be written now
	if err := s.ReceiveReceipts(ended, "other.test", jsontext.Value("{"+strings.Join(strange, ",")+"}")); !errors.Is(err, remote.ErrBadEDU) {
		t.Errorf("for rooms that are none something is written: %v", err)
	}
	if err := s.ReceiveReceipts(ended, "other.test", fmt.Appendf(nil, `{%q:{"m.read":{"@dave:other.test":{"event_ids":[%q],"data":{"ts":6}}}}}`, room, send())); !errors.Is(err, context.Canceled) {
		t.Errorf("a receipt that cannot be written: %v", err)
	}
	setACL(t, s, alice, room)
	if err := receive("@dave:other.test", "m.read", send(), `{"ts":5}`); err == nil {
		t.Error("somebody reads against the ACL")
	}
	if err := s.ReceiveReceipts(t.Context(), "other.test", jsontext.Value(`{"x":"`+strings.Repeat("x", maxReceiptBytes)+`"}`)); err == nil {
		t.Error("a long one is taken")
	}
}

// What other servers say is held to its form, entry by entry.
func TestReceivePresenceForm(t *testing.T) {
	s, alice, _, room := presenceHouse(t, Config{Presence: PresenceOn})
	putMember(t, s, room, "@dave:other.test", matrix.Join)
	since := syncPresence(t, s, alice, "").Next
	err := s.ReceivePresence(t.Context(), "other.test", jsontext.Value(`{"push":[7,{"user_id":"@dave:other.test","presence":"dancing"},
		{"user_id":"@dave:other.test","presence":"unavailable","last_active_ago":3000,"status_msg":"sailing"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	answer := syncPresence(t, s, alice, "since="+since)
	if got := answer.states(); got != "dave=unavailable" {
		t.Errorf("told %q", got)
	}
	if c := answer.Presence.Events[0].Content; c.Status != "sailing" || *c.LastActiveAgo != 3000 {
		t.Errorf("dave: %+v", c)
	}
	for _, text := range []string{`{"push":{}}`, `{"push":[],"x":"` + strings.Repeat("x", maxPresenceBytes) + `"}`} {
		if err := s.ReceivePresence(t.Context(), "other.test", jsontext.Value(text)); err == nil {
			t.Errorf("%.20s is taken", text)
		}
	}
}

// Whatever the content of an EDU is, it is taken or refused as the other's fault: any
// other error would have it come again for ever.
func FuzzReceive(f *testing.F) {
	f.Add(`{"room_id":"!a:b","user_id":"@a:other.test","typing":true}`)
	f.Add(`{"!a:b":{"m.read":{"@a:other.test":{"event_ids":["$a"],"data":{"ts":1,"thread_id":"main"}}}}}`)
	f.Add(`{"push":[{"user_id":"@a:other.test","presence":"online","last_active_ago":9223372036854775807}]}`)
	s, _, room := receiveHouse(f)
	f.Add(`{"room_id":"` + room + `","user_id":"@dave:other.test","typing":true}`)
	f.Add(`{"` + room + `":{"m.read":{"@dave:other.test":{"event_ids":["$a"],"data":{"ts":-1}}}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		if v := jsontext.Value(text); v.IsValid() && v.Kind() == '{' {
			for _, receive := range []func(context.Context, matrix.ServerName, jsontext.Value) error{s.ReceiveTyping, s.ReceiveReceipts, s.ReceivePresence} {
				if err := receive(t.Context(), "other.test", v); err != nil && !errors.Is(err, remote.ErrBadEDU) {
					t.Error(err)
				}
			}
		}
	})
}
