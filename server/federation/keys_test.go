package federation

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// get asks for something and decodes the answer.
func (g *gate) get(method, uri, body string, answer any) int {
	g.Helper()
	r := httptest.NewRequest(method, uri, strings.NewReader(body))
	w := httptest.NewRecorder()
	g.router.ServeHTTP(w, r)
	if answer != nil {
		g.must(json.Unmarshal(w.Body.Bytes(), answer))
	}
	return w.Code
}

// Our keys are signed with each that signs, in canonical form; old ones stay.
func TestGetServerKey(t *testing.T) {
	g := newGate(t)
	g.must(g.store.Update(context.Background(), func(tx *store.Tx) error { return tx.NewSigningKey(time.Now()) }))
	for _, uri := range []string{"/_matrix/key/v2/server", "/_matrix/key/v2/server/", "/_matrix/key/v2/server/ed25519:x"} {
		var raw jsontext.Value
		if status := g.get("GET", uri, "", &raw); status != http.StatusOK {
			t.Fatalf("%s: %d", uri, status)
		}
		var doc ownKeys
		g.must(json.Unmarshal(raw, &doc))
		if canonical, err := matrix.Canonical(raw); err != nil || string(canonical) != string(raw) {
			t.Errorf("not canonical: %s", raw)
		}
		until := time.UnixMilli(doc.ValidUntil)
		if doc.Server != here || len(doc.Keys) != 1 || len(doc.OldKeys) != 1 || time.Until(until) < time.Hour || time.Until(until) > 7*24*time.Hour {
			t.Errorf("%s: %s", uri, raw)
		}
		for id, k := range doc.Keys {
			public, err := base64.RawStdEncoding.DecodeString(k.Key)
			g.must(err)
			if err := matrix.VerifyJSON(raw, string(here), id, ed25519.PublicKey(public)); err != nil || k.Expired != 0 {
				t.Errorf("%s: %v", id, err)
			}
		}
		for id, k := range doc.OldKeys {
			if k.Expired == 0 {
				t.Errorf("%s has no end", id)
			}
		}
	}
}

// As a notary we give what a server has said, with our own signature; of a server
// that does not answer, what it said before; of an unknown one, nothing.
func TestNotaryQueries(t *testing.T) {
	g := newGate(t)
	g.know("10.0.0.1", peerKey, time.Now().Add(-time.Hour)) // its word has ended, and it is not there
	type answer struct {
		Keys []jsontext.Value `json:"server_keys"`
	}
	for _, tt := range []struct {
		method, uri, body string
		want              []string
	}{
		{"GET", "/_matrix/key/v2/query/peer.test", "", []string{"peer.test"}},
		{"GET", "/_matrix/key/v2/query/peer.test?minimum_valid_until_ts=5", "", []string{"peer.test"}},
		{"GET", "/_matrix/key/v2/query/peer.test/ed25519:x", "", []string{"peer.test"}},
		{"GET", "/_matrix/key/v2/query/10.0.0.1", "", []string{"10.0.0.1"}},
		{"GET", "/_matrix/key/v2/query/10.0.0.2", "", nil},
		{"GET", "/_matrix/key/v2/query/here.test", "", []string{"here.test"}},
		{"POST", "/_matrix/key/v2/query", `{"server_keys":{}}`, nil},
		{"POST", "/_matrix/key/v2/query", `{"server_keys":{"peer.test":{"ed25519:a":{"minimum_valid_until_ts":7},"b":{}},"10.0.0.2":{},"here.test":{},"bad name":{}}}`, []string{"here.test", "peer.test"}},
	} {
		var got answer
		if status := g.get(tt.method, tt.uri, tt.body, &got); status != http.StatusOK || got.Keys == nil {
			t.Fatalf("%s: %d, %v", tt.uri, status, got)
		}
		var names []string
		for _, raw := range got.Keys {
			var doc ownKeys
			g.must(json.Unmarshal(raw, &doc))
			names = append(names, string(doc.Server))
			if err := matrix.VerifyJSON(raw, string(here), g.key.ID, g.key.Private.Public().(ed25519.PublicKey)); err != nil && doc.Server != here {
				t.Errorf("%s: our signature on %s: %v", tt.uri, doc.Server, err)
			}
			if err := matrix.VerifyJSON(raw, string(doc.Server), peerKey.ID, peerKey.Private.Public().(ed25519.PublicKey)); err != nil && doc.Server != here {
				t.Errorf("%s: its signature on %s: %v", tt.uri, doc.Server, err)
			}
		}
		slices.Sort(names)
		if !slices.Equal(names, tt.want) {
			t.Errorf("%s: %v, want %v", tt.uri, names, tt.want)
		}
	}
	many := make(map[string]map[string]any)
	for i := range maxQueriedServers + 1 {
		many[strings.Repeat("x", i+1)] = map[string]any{}
	}
	body, err := json.Marshal(map[string]any{"server_keys": many})
	g.must(err)
	for _, body := range []string{string(body), `{}`, `{"server_keys":7}`, `[]`} {
		if status := g.get("POST", "/_matrix/key/v2/query", body, nil); status != http.StatusBadRequest {
			t.Errorf("%.40s: %d", body, status)
		}
	}
	for _, uri := range []string{"/_matrix/key/v2/query/bad%20name", "/_matrix/key/v2/query/peer.test?minimum_valid_until_ts=x"} {
		if status := g.get("GET", uri, "", nil); status != http.StatusBadRequest {
			t.Errorf("%s: %d", uri, status)
		}
	}
}

// The document names the port that it was asked for at, of our own name alone.
func TestGetWellKnown(t *testing.T) {
	g := newGate(t)
	for host, want := range map[string]string{
		"here.test": "here.test:443", "HERE.test": "here.test:443", "here.test:8448": "here.test:8448",
		"there.test": "", "127.0.0.1": "", "": "",
	} {
		r := httptest.NewRequest("GET", "/.well-known/matrix/server", nil)
		r.Host = host
		w := httptest.NewRecorder()
		g.router.ServeHTTP(w, r)
		var doc delegation
		g.must(json.Unmarshal(w.Body.Bytes(), &doc))
		if doc.Server != want || (w.Code == http.StatusOK) != (want != "") {
			t.Errorf("%q: %d %q, want %q", host, w.Code, doc.Server, want)
		}
	}
}

func TestUnknownFederationEndpoints(t *testing.T) {
	g := newGate(t)
	for uri, want := range map[string]int{
		"PUT /_matrix/federation/v1/version": 405, "GET /_matrix/federation/v1/unknown": 404, "GET /_matrix/federation/unknown": 404,
		"PUT /_matrix/key/v2/query": 405, "GET /_matrix/key/v2/unknown": 404, "GET /_matrix/federation/v1/version": 200,
	} {
		method, path, _ := strings.Cut(uri, " ")
		var answer struct {
			Code   string          `json:"errcode"`
			Server versionOfServer `json:"server"`
		}
		status := g.get(method, path, "", &answer)
		if status != want || status != 200 && answer.Code != "M_UNRECOGNIZED" || status == 200 && answer.Server != (versionOfServer{"Hearth", "9.9"}) {
			t.Errorf("%s: %d %+v", uri, status, answer)
		}
	}
}
