package remote

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// An invited is a server whose user we invite.
type invited struct {
	t    *testing.T
	name matrix.ServerName
	key  matrix.SigningKey
	as   string // how it answers
	got  map[string]jsontext.Value
	path string
}

func (i *invited) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	switch {
	case r.URL.Path == "/_matrix/key/v2/server":
		_, _ = w.Write(keyAnswerOf(i.t, i.name, time.Now().Add(time.Hour), nil, i.key))
		return
	case i.as == "old" && strings.Contains(r.URL.Path, "/v2/"):
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"errcode":"M_UNRECOGNIZED"}`)
		return
	case i.as == "refuses":
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"errcode":"M_INVITE_BLOCKED","error":"no"}`)
		return
	}
	i.path, i.got = r.URL.EscapedPath(), nil
	if err := json.Unmarshal(body, &i.got); err != nil {
		i.t.Errorf("asked %s: %v", body, err)
	}
	pdu, id := jsontext.Value(body), "1"
	if i.as != "old" {
		pdu = i.got["event"]
		_ = json.Unmarshal(i.got["room_version"], &id)
	}
	v, _ := matrix.VersionByID(id)
	key := i.key
	switch i.as {
	case "changes it":
		pdu = []byte(strings.Replace(string(pdu), `"depth":3`, `"depth":4`, 1))
	case "signs not":
		_, _ = fmt.Fprintf(w, `{"event":%s}`, pdu)
		return
	case "signs badly":
		key = seedKey(i.key.ID, 99)
	}
	signed, err := matrix.SignEvent(v, pdu, i.name, key)
	if err != nil {
		i.t.Errorf("asked to sign %s: %v", pdu, err)
	}
	form := `{"event":%s}`
	if i.as == "old" {
		form = `[200,{"event":%s}]`
	}
	_, _ = fmt.Fprintf(w, form, signed)
}

// The server of an invited user signs, and only what it was asked to sign. Old servers
// are asked in their way, in rooms of the versions that they know.
func TestInvite(t *testing.T) {
	for _, tt := range []struct {
		version, as, path string
		err               string
	}{
		{"12", "signs", "/_matrix/federation/v2/invite/", ""},
		{"1", "signs", "/_matrix/federation/v2/invite/", ""},
		{"1", "old", "/_matrix/federation/v1/invite/", ""},
		{"2", "old", "/_matrix/federation/v1/invite/", ""},
		{"12", "old", "", "M_UNRECOGNIZED"},
		{"12", "refuses", "", "M_INVITE_BLOCKED"},
		{"1", "refuses", "", "M_INVITE_BLOCKED"},
		{"11", "changes it", "/_matrix/federation/v2/invite/", "it has signed"},
		{"1", "changes it", "/_matrix/federation/v2/invite/", "signature"}, // under the same ID
		{"11", "signs not", "/_matrix/federation/v2/invite/", "signature"},
		{"11", "signs badly", "/_matrix/federation/v2/invite/", "signature"},
	} {
		t.Run(tt.version+"/"+tt.as, func(t *testing.T) {
			hosts := newInternet(t)
			n := openNetwork(t, hosts, t.TempDir(), nil)
			there := &invited{t: t, name: "192.0.2.7:8448", key: seedKey("ed25519:theirs", 7), as: tt.as}
			hosts.serve("192.0.2.7:8448", "192.0.2.7", there)
			v, _ := matrix.VersionByID(tt.version)
			build := func(typ, key, content string, depth int64) *matrix.Event {
				ev, err := matrix.Draft{
					Room: "!room:here.example", Sender: "@alice:here.example", Type: typ, StateKey: &key, Content: []byte(content),
				}.Build(v, matrix.Placing{Depth: depth}, ourName, n.key)
				if err != nil {
					t.Fatal(err)
				}
				return ev
			}
			name := build("m.room.name", "", `{"name":"Kitchen"}`, 2)
			invite := build("m.room.member", "@bob:192.0.2.7:8448", `{"membership":"invite"}`, 3)
			signatures, err := n.Invite(t.Context(), invite, []*matrix.Event{name})
			switch {
			case tt.err == "" && (err != nil || len(signatures) != 1 || signatures["ed25519:theirs"] == ""):
				t.Errorf("signatures %q: %v", signatures, err)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("%v, want %s", err, tt.err)
			}
			if refused, is := errors.AsType[*Error](err); tt.path == "" && !is || is && refused.Server != there.name {
				t.Errorf("the error is %#v", err)
			}
			if tt.path == "" {
				return
			}
			if !strings.HasPrefix(there.path, tt.path+url.PathEscape("!room:here.example")+"/") {
				t.Errorf("asked at %s", there.path)
			}
			known := there.got["invite_room_state"]
			if tt.as == "old" {
				known = there.got["unsigned"]
			}
			if !strings.Contains(string(known), string(name.JSON())) {
				t.Errorf("told of the room %s", known)
			}
		})
	}
}

// A policy server's own signatures are returned, as it gives them.
func TestSignByPolicy(t *testing.T) {
	hosts := newInternet(t)
	n := openNetwork(t, hosts, t.TempDir(), nil)
	hosts.serve("192.0.2.7:8448", "192.0.2.7", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPost || r.URL.Path != "/_matrix/policy/v1/sign" || !strings.Contains(string(body), `"m.room.message"`) {
			t.Errorf("%s %s %s", r.Method, r.URL.Path, body)
		}
		_, _ = io.WriteString(w, `{"192.0.2.7:8448":{"ed25519:policy_server":"c2ln"},"other.example":{"ed25519:policy_server":"bm8"}}`)
	}))
	v, _ := matrix.VersionByID("11")
	sign := func(sender matrix.UserID) (map[string]string, error) {
		t.Helper()
		ev, err := matrix.Draft{Room: "!r:here.example", Sender: sender, Type: "m.room.message", Content: []byte(`{}`)}.
			Build(v, matrix.Placing{Depth: 1}, ourName, n.key)
		if err != nil {
			t.Fatal(err)
		}
		return n.SignByPolicy(t.Context(), "192.0.2.7:8448", ev)
	}
	ours := matrix.UserID("@alice:" + string(ourName))
	signatures, err := sign(ours)
	if err != nil || len(signatures) != 1 || signatures["ed25519:policy_server"] != "c2ln" {
		t.Errorf("%q: %v", signatures, err)
	}
	// While it does not answer, no event of others waits for it.
	n.failed("192.0.2.7:8448", time.Now())
	if _, err := sign("@zoe:away.example"); !errors.Is(err, ErrBackingOff) {
		t.Errorf("asked about an event of others: %v", err)
	}
	if _, err := sign(ours); err != nil {
		t.Errorf("not asked about an event of ours: %v", err)
	}
}
