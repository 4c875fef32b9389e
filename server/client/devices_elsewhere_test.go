package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/remote"
	"hearth/state/matrix"
	"hearth/store"
)

// withServers gives a server other servers, which answer as they are told to.
func withServers(s *testServer, ask func(dest matrix.ServerName, q remote.Request) (answer string, err error)) {
	s.devices = remote.NewDeviceLists(remote.DeviceListsConfig{
		Store: s.store,
		Ask: func(_ context.Context, dest matrix.ServerName, q remote.Request, answer any) error {
			text, err := ask(dest, q)
			if err != nil {
				return err
			}
			return json.Unmarshal([]byte(text), answer)
		},
	})
}

// Messages of other servers' users are delivered once, to devices here alone, and
// only in the name of that server's users.
func TestReceiveToDevice(t *testing.T) {
	s := newTestServer(t, Config{})
	s.account(t, "alice", "secret")
	receive := func(content string) error {
		return s.ReceiveToDevice(t.Context(), "other.test", jsontext.Value(content))
	}
	edu := func(sender, id, user, device string) string {
		return fmt.Sprintf(`{"sender":%q,"type":"m.test","message_id":%q,"messages":{%q:{%q:{"n":%q}}}}`, sender, id, user, device, id)
	}
	for _, content := range []string{
		edu("@dave:other.test", "1", "@alice:hearth.test", "ALICE"),
		edu("@dave:other.test", "1", "@alice:hearth.test", "ALICE"), // again
		edu("@dave:other.test", "2", "@alice:hearth.test", "*"),
		edu("@erin:other.test", "2", "@alice:hearth.test", "ALICE"), // erin's own second
		edu("@dave:other.test", "3", "@alice:hearth.test", "NONE"),
		edu("@dave:other.test", "4", "@nobody:hearth.test", "*"),
		edu("@dave:other.test", "5", "@x:third.test", "*"),
	} {
		if err := receive(content); err != nil {
			t.Errorf("%s: %v", content, err)
		}
	}
	for _, content := range []string{
		edu("@alice:hearth.test", "6", "@alice:hearth.test", "ALICE"),
		edu("@dave:third.test", "6", "@alice:hearth.test", "ALICE"),
		edu("@dave:other.test", "", "@alice:hearth.test", "ALICE"),
		edu("dave", "6", "@alice:hearth.test", "ALICE"),
		`{"sender":"@dave:other.test","type":"m.test","message_id":"7","messages":{"@alice:hearth.test":{"ALICE":7}}}`,
		`{"sender":"@dave:other.test","type":"","message_id":"7","messages":{}}`,
		`[]`,
	} {
		if err := receive(content); !errors.Is(err, remote.ErrBadEDU) {
			t.Errorf("%s: %v", content, err)
		}
	}
	var got []string
	err := s.store.View(func(tx *store.Tx) error {
		events, _, _, err := tx.ToDevice(tx.UserNum("@alice:hearth.test"), "ALICE", tx.Position(), 100)
		for _, event := range events {
			got = append(got, string(event))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`{"content":{"n":"1"},"sender":"@dave:other.test","type":"m.test"}`,
		`{"content":{"n":"2"},"sender":"@dave:other.test","type":"m.test"}`,
		`{"content":{"n":"2"},"sender":"@erin:other.test","type":"m.test"}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("alice has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Messages to devices of other servers' users wait in the outbox, an EDU for each
// server and request unless they are large, and a repeated request adds none.
func TestToDeviceElsewhere(t *testing.T) {
	s := newTestServer(t, Config{})
	alice := s.account(t, "alice", "secret")
	withServers(s, nil)
	waiting := func(server matrix.ServerName) (edus []directEDU) {
		err := s.store.View(func(tx *store.Tx) error {
			return tx.Outbox(tx.ServerNum(server), 0, func(_ store.Position, text jsontext.Value) (bool, error) {
				var edu directEDU
				edus = append(edus, edu)
				return true, json.Unmarshal(text, &edus[len(edus)-1])
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		return edus
	}
	send := func(txn, body string) {
		t.Helper()
		if w := s.do("PUT", "/_matrix/client/v3/sendToDevice/m.test/"+txn, alice, body); w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	body := `{"messages":{"@dave:other.test":{"A":{"n":1},"B":{"n":2}},"@erin:other.test":{"*":{"n":3}},"@x:third.test":{"C":{"n":4}},` +
		`"@alice:hearth.test":{"ALICE":{"n":5}}}}`
	send("1", body)
	send("1", body)
	one, three := waiting("other.test"), waiting("third.test")
	if len(one) != 1 || len(three) != 1 {
		t.Fatalf("%d and %d EDUs wait", len(one), len(three))
	}
	content := one[0].Content
	if one[0].Type != "m.direct_to_device" || content.Sender != "@alice:hearth.test" || content.Type != "m.test" ||
		len(content.Messages) != 2 || string(content.Messages["@erin:other.test"]["*"]) != `{"n":3}` {
		t.Errorf("the EDU is %+v", one[0])
	}
	if content.MessageID == three[0].Content.MessageID || content.MessageID == "" || len(content.MessageID) > 32 {
		t.Errorf("message IDs %q and %q", content.MessageID, three[0].Content.MessageID)
	}
	large := strings.Repeat("x", 25_000)
	var messages []string
	for i := range 5 {
		messages = append(messages, fmt.Sprintf(`"D%d":{"x":%q}`, i, large))
	}
	send("2", `{"messages":{"@dave:other.test":{`+strings.Join(messages, ",")+`}}}`)
	got, devices := waiting("other.test")[1:], 0
	for _, edu := range got {
		devices += len(edu.Content.Messages["@dave:other.test"])
	}
	if len(got) != 3 || devices != 5 {
		t.Errorf("%d devices in %d EDUs", devices, len(got))
	}
}

// Keys of other servers' users are asked for there; what does not answer is a
// failure, and the rest of the answer comes.
func TestQueryKeysElsewhere(t *testing.T) {
	s := newTestServer(t, Config{})
	alice := s.account(t, "alice", "secret")
	public := strings.Repeat("1", 42) + "A"
	master := fmt.Sprintf(`{"user_id":"@dave:other.test","usage":["master"],"keys":{"ed25519:%s":%q}}`, public, public)
	withServers(s, func(dest matrix.ServerName, q remote.Request) (string, error) {
		switch {
		case dest == "refuses.test":
			return "", &remote.Error{Server: dest, Status: 403, Code: "M_FORBIDDEN", Text: "no"}
		case dest != "other.test":
			return "", fmt.Errorf("%s: %w", dest, remote.ErrUnreachable)
		case strings.HasSuffix(q.Path, "/claim"):
			return `{"one_time_keys":{"@dave:other.test":{"D":{"signed_curve25519:1":{"key":"k"}}}}}`, nil
		}
		return `{"device_keys":{"@dave:other.test":{"D":{"user_id":"@dave:other.test","device_id":"D","algorithms":[],"keys":{},` +
			`"signatures":{},"unsigned":{"device_display_name":"phone","more":1}}}},"master_keys":{"@dave:other.test":` + master + `}}`, nil
	})
	w := s.do("POST", "/_matrix/client/v3/keys/query", alice,
		`{"device_keys":{"@dave:other.test":[],"@x:gone.test":[],"@y:refuses.test":[],"@alice:hearth.test":[]},"timeout":500}`)
	var answer queryKeysResponse
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 200 {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	want := `{"user_id":"@dave:other.test","device_id":"D","algorithms":[],"keys":{},"unsigned":{"device_display_name":"phone"}}`
	if got := string(answer.DeviceKeys["@dave:other.test"]["D"]); got != want {
		t.Errorf("the device is\n%s\nwant\n%s", got, want)
	}
	if len(answer.Failures) != 2 || answer.Failures["refuses.test"].Code != "M_FORBIDDEN" || answer.Failures["gone.test"].Code != "M_UNKNOWN" {
		t.Errorf("failures are %v", answer.Failures)
	}
	if _, found := answer.DeviceKeys["@alice:hearth.test"]; !found || answer.Master["@dave:other.test"] == nil {
		t.Errorf("the answer is %s", w.Body)
	}
	w = s.do("POST", "/_matrix/client/v3/keys/claim", alice,
		`{"one_time_keys":{"@dave:other.test":{"D":"signed_curve25519"},"@x:gone.test":{"D":"signed_curve25519"}}}`)
	claimed := w.Body.String()
	if w.Code != 200 || !strings.Contains(claimed, `"one_time_keys":{"@dave:other.test":{"D":{"signed_curve25519:1":{"key":"k"}}}}`) ||
		!strings.Contains(claimed, `"failures":{"gone.test":{`) {
		t.Errorf("claimed %d %s", w.Code, w.Body)
	}
}

// Messages that are too many to queue are dropped as a whole: sent again, they would be
// too many again.
func TestReceiveTooMuchToDevice(t *testing.T) {
	s := newTestServer(t, Config{})
	s.account(t, "alice", "secret")
	err := s.store.Update(t.Context(), func(tx *store.Tx) error {
		for n := range maxToDeviceQueued/maxToDeviceContent + 1 {
			d := store.Device{ID: matrix.DeviceID(fmt.Sprint("D", n))}
			if err := tx.PutDevice(tx.UserNum("@alice:hearth.test"), d); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	content := `{"sender":"@dave:other.test","type":"m.test","message_id":"1","messages":{"@alice:hearth.test":{"*":{"x":"` +
		strings.Repeat("x", maxToDeviceContent-100) + `"}}}}`
	if err := s.ReceiveToDevice(t.Context(), "other.test", jsontext.Value(content)); !errors.Is(err, remote.ErrBadEDU) {
		t.Error(err)
	}
}

// FuzzReceiveToDevice takes anything as an m.direct_to_device.
func FuzzReceiveToDevice(f *testing.F) {
	s := newTestServer(f, Config{})
	s.account(f, "alice", "secret")
	f.Add([]byte(`{"sender":"@dave:other.test","type":"m.test","message_id":"1","messages":{"@alice:hearth.test":{"ALICE":{"n":1},"*":{}}}}`))
	f.Add([]byte(`{"sender":"@dave:other.test","type":"m.test","message_id":"1","messages":{"@alice:hearth.test":{"ALICE":null}}}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := s.ReceiveToDevice(t.Context(), "other.test", content); err != nil && !errors.Is(err, remote.ErrBadEDU) {
			t.Error(err)
		}
	})
}
