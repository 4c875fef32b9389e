package server

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/remote"
	"hearth/state/matrix"
	"hearth/store"
)

// stranger is a server of which only the key is here, and dave its user.
const (
	stranger = matrix.ServerName("peer.test")
	dave     = matrix.UserID("@dave:peer.test")
)

var strangerKey = matrix.SigningKey{ID: "ed25519:peer", Private: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}

// A besieged server is a whole one that reaches nobody, whose user alice shares a room
// with dave.
type besieged struct {
	testing.TB
	*Server
	token string // alice's
	room  matrix.RoomID
	sent  int // transactions
}

func newBesieged(tb testing.TB) *besieged {
	tb.Helper()
	b := &besieged{TB: tb, Server: &Server{
		config: Config{Data: tb.TempDir(), ServerName: "here.test", Registration: RegistrationOpen, RateLimits: Off, PasswordCost: 4}.withDefaults(),
		log:    slog.New(slog.DiscardHandler),
		outside: outside{
			dial:  func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("nobody is there") },
			now:   time.Now,
			store: store.Options{NoSync: true},
		},
	}}
	b.must(b.openParts(remote.NewDialer(true)))
	tb.Cleanup(func() {
		if err := b.store.Check(context.Background(), func(fault string) { b.Error(fault) }); err != nil {
			b.Error(err)
		}
		if err := b.close(); err != nil {
			b.Error(err)
		}
	})
	until := time.Now().Add(24 * time.Hour)
	b.must(b.store.Update(context.Background(), func(tx *store.Tx) error {
		return tx.PutServerKeys(stranger, store.KeyAnswer{JSON: []byte("{}"), Fetched: time.Now(), ValidUntil: until},
			[]store.VerifyKey{{ID: strangerKey.ID, Public: strangerKey.Private.Public().(ed25519.PublicKey), ValidUntil: until}})
	}))
	var account struct {
		Token string `json:"access_token"`
	}
	var created struct {
		Room matrix.RoomID `json:"room_id"`
	}
	answer := b.askClient("POST", "/_matrix/client/v3/register", `{"username":"alice","password":"secret of alice","auth":{"type":"m.login.dummy"}}`)
	b.must(json.Unmarshal([]byte(answer), &account))
	b.token = account.Token
	answer = b.askClient("POST", "/_matrix/client/v3/createRoom", `{"preset":"public_chat","room_version":"11"}`)
	b.must(json.Unmarshal([]byte(answer), &created))
	b.room = created.Room
	b.enter()
	return b
}

func (b *besieged) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// enter has dave join the room, as his server would.
func (b *besieged) enter() {
	b.Helper()
	room := url.PathEscape(string(b.room))
	code, template := b.ask("GET", "/_matrix/federation/v1/make_join/"+room+"/"+url.PathEscape(string(dave))+"?ver=11", "")
	var made struct {
		Event jsontext.Value `json:"event"`
	}
	if err := json.Unmarshal([]byte(template), &made); err != nil || code != http.StatusOK {
		b.Fatalf("make_join: %d %s", code, template)
	}
	v, _ := matrix.VersionByID("11")
	join, err := matrix.HashAndSign(v, made.Event, stranger, strangerKey)
	b.must(err)
	ev, err := matrix.Parse(v, join)
	b.must(err)
	if code, answer := b.ask("PUT", "/_matrix/federation/v2/send_join/"+room+"/"+url.PathEscape(string(ev.ID)), string(join)); code != http.StatusOK {
		b.Fatalf("send_join: %d %s", code, answer)
	}
}

// askClient makes a request of alice's client.
func (b *besieged) askClient(method, uri, body string) string {
	b.Helper()
	r := httptest.NewRequest(method, uri, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+b.token)
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		b.Fatalf("%s %s: %d %s", method, uri, w.Code, w.Body)
	}
	return w.Body.String()
}

// ask makes a request in the stranger's name.
func (b *besieged) ask(method, uri, body string) (int, string) {
	doc := fmt.Sprintf(`{"destination":"here.test","method":%q,"origin":%q,"uri":%q}`, method, stranger, uri)
	if body != "" {
		doc = `{"content":` + body + "," + doc[1:]
	}
	var signed struct {
		Signatures map[string]map[string]string `json:"signatures"`
	}
	text, err := matrix.SignJSON([]byte(doc), string(stranger), strangerKey)
	if err == nil {
		err = json.Unmarshal(text, &signed)
	}
	signature := signed.Signatures[string(stranger)][strangerKey.ID]
	if err != nil { // it has no canonical form, and is signed as it is written
		signature = base64.RawStdEncoding.EncodeToString(ed25519.Sign(strangerKey.Private, []byte(doc)))
	}
	r := httptest.NewRequest(method, uri, strings.NewReader(body))
	r.Header.Set("Authorization", fmt.Sprintf(`X-Matrix origin="%s",destination="here.test",key="%s",sig="%s"`, stranger, strangerKey.ID, signature))
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// FuzzEDUs has another server send any EDUs in one transaction, to all that take them in
// a running server. None is a fault of ours, which would have the transaction come again
// for ever, and the last, which is good, is taken whatever comes before it.
func FuzzEDUs(f *testing.F) {
	b := newBesieged(f)
	for _, seed := range []string{
		`{"edu_type":"m.typing","content":{"room_id":"ROOM","user_id":"@dave:peer.test","typing":true}}`,
		`{"edu_type":"m.typing","content":{"room_id":"ROOM","user_id":"@alice:here.test","typing":true}},7,null,{"edu_type":"m.typing"}`,
		`{"edu_type":"m.presence","content":{"push":[{"user_id":"@dave:peer.test","presence":"online","last_active_ago":-1},{"user_id":7}]}}`,
		`{"edu_type":"m.receipt","content":{"ROOM":{"m.read":{"@dave:peer.test":{"data":{"ts":9007199254740991,"thread_id":"main"},"event_ids":["$a"]}}}}}`,
		`{"edu_type":"m.direct_to_device","content":{"sender":"@dave:peer.test","type":"m.x","message_id":"1","messages":{"@alice:here.test":{"*":{"a":1}}}}}`,
		`{"edu_type":"m.device_list_update","content":{"user_id":"@dave:peer.test","device_id":"D","stream_id":5,"prev_id":[4],"deleted":false,"keys":{"user_id":"@dave:peer.test","device_id":"D","algorithms":[],"keys":{},"signatures":{}}}},` +
			`{"edu_type":"m.device_list_update","content":{"user_id":"@dave:peer.test","device_id":"D","stream_id":-5,"prev_id":[9007199254740991],"deleted":true}}`,
		`{"edu_type":"m.signing_key_update","content":{"user_id":"@dave:peer.test","master_key":{"user_id":"@dave:peer.test","usage":["master"],"keys":{"ed25519:a":"a"}},"self_signing_key":null}}`,
		`{"edu_type":"m.typing","edu_type":"m.presence","content":{}},{"content":{"a":1e400,"a":"\ud800"},"edu_type":"m.receipt"},[[[]]]`,
	} {
		f.Add(strings.ReplaceAll(seed, "ROOM", string(b.room)))
	}
	f.Fuzz(func(t *testing.T, edus string) {
		b.TB = t
		defer func() { b.TB = f }()
		in := `{"room_id":"` + string(b.room) + `","user_id":"` + string(dave) + `","typing":`
		b.must(b.client.ReceiveTyping(t.Context(), stranger, jsontext.Value(in+`false}`)))
		last := `{"content":` + in + `true},"edu_type":"m.typing"}`
		all := "[" + edus + "," + last + "]"
		b.sent++
		code, answer := b.ask("PUT", fmt.Sprintf("/_matrix/federation/v1/send/%d", b.sent), `{"edus":`+all+`,"origin":"peer.test","origin_server_ts":1,"pdus":[]}`)
		if code >= http.StatusInternalServerError {
			t.Errorf("%d %s", code, answer)
		}
		var list []jsontext.Value
		if err := json.Unmarshal([]byte(all), &list); err != nil || len(list) > 100 {
			return
		}
		if sync := b.askClient("GET", "/_matrix/client/v3/sync", ""); code != http.StatusOK || !strings.Contains(sync, `"user_ids":["@dave:peer.test"]`) {
			t.Errorf("%d %s, and then %s", code, answer, sync)
		}
	})
}
