package federation

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/server/remote"
	"hearth/state/matrix"
	"hearth/store"
)

// A gate is a server with a route of its own, and a peer whose key it knows. It
// reaches nobody.
type gate struct {
	*house
	server *Server
	router *api.Router
	from   matrix.ServerName // who came through last
	body   string            // with what
	heard  int
}

var peerKey = matrix.SigningKey{ID: "ed25519:peer", Private: ed25519.NewKeyFromSeed([]byte("12345678901234567890123456789012"))}

func newGate(t *testing.T) *gate {
	t.Helper()
	g := &gate{house: openHouse(t, here, t.TempDir())}
	t.Cleanup(g.close)
	network := remote.NewNetwork(remote.NetworkConfig{
		Store: g.store, Key: g.rooms.Key,
		Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("nobody is there") },
	})
	network.OnHeard(func(matrix.ServerName, bool) { g.heard++ })
	g.server = New(Config{Store: g.store, Rooms: g.rooms, Network: network, Version: "9.9"})
	routes := g.server.Routes()
	for _, method := range []string{"GET", "PUT"} {
		rt := route{pattern: method + " /_matrix/federation/v1/test/{x}", body: 300 << 10, handle: g.pass}
		routes = append(routes, g.server.endpoint(rt))
	}
	var err error
	g.router, err = api.NewRouter(slog.New(slog.DiscardHandler), routes...)
	g.must(err)
	g.know(peer, peerKey, time.Now().Add(time.Hour))
	return g
}

func (g *gate) pass(_ *Server, w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	body, err := io.ReadAll(r.Body)
	g.from, g.body = from, string(body)
	if err != nil {
		return err
	}
	return api.WriteEmpty(w)
}

// know puts a server's key on the disk, as if it had been fetched.
func (g *gate) know(server matrix.ServerName, key matrix.SigningKey, until time.Time) {
	g.Helper()
	public := key.Private.Public().(ed25519.PublicKey)
	doc, err := json.Marshal(ownKeys{
		Server: server, Keys: map[string]publishedKey{key.ID: {Key: base64.RawStdEncoding.EncodeToString(public)}},
		OldKeys: map[string]publishedKey{}, ValidUntil: until.UnixMilli(),
	})
	g.must(err)
	doc, err = matrix.SignJSON(doc, string(server), key)
	g.must(err)
	g.must(g.store.Update(context.Background(), func(tx *store.Tx) error {
		return tx.PutServerKeys(server, store.KeyAnswer{JSON: doc, Fetched: time.Now(), ValidUntil: until},
			[]store.VerifyKey{{ID: key.ID, Public: public, ValidUntil: until}})
	}))
}

// sign returns the signature of a request.
func (g *gate) sign(key matrix.SigningKey, method, uri string, to matrix.ServerName, body string) string {
	g.Helper()
	doc := map[string]any{"method": method, "uri": uri, "origin": peer}
	if to != "" {
		doc["destination"] = to
	}
	if body != "" {
		doc["content"] = jsontext.Value(body)
	}
	text, err := json.Marshal(doc)
	g.must(err)
	text, err = matrix.SignJSON(text, "x", key)
	g.must(err)
	var signed struct {
		Signatures map[string]map[string]string `json:"signatures"`
	}
	g.must(json.Unmarshal(text, &signed))
	return signed.Signatures["x"][key.ID]
}

// signRaw is sign for a body that need not have a canonical form.
func (g *gate) signRaw(method, uri, body string) string {
	if body != "" {
		body = `"content":` + body + ","
	}
	text := fmt.Sprintf(`{%s"destination":%q,"method":%q,"origin":%q,"uri":%q}`, body, here, method, peer, uri)
	return base64.RawStdEncoding.EncodeToString(ed25519.Sign(peerKey.Private, []byte(text)))
}

// request sends one and returns the status and the code of the answer.
func (g *gate) request(method, uri, body string, headers ...string) (int, string) {
	g.Helper()
	r := httptest.NewRequest(method, uri, strings.NewReader(body))
	if body == "" {
		r = httptest.NewRequest(method, uri, nil)
	}
	r.Header["Authorization"] = headers
	w := httptest.NewRecorder()
	g.from, g.body = "", ""
	g.router.ServeHTTP(w, r)
	var answer struct {
		Code string `json:"errcode"`
	}
	g.must(json.Unmarshal(w.Body.Bytes(), &answer))
	return w.Code, answer.Code
}

func TestAuthenticate(t *testing.T) {
	g := newGate(t)
	const uri = "/_matrix/federation/v1/test/%21a:b?x=%2f&y=a+b"
	const body = `{"b":[1,2.5],"a":"é"}`
	header := func(method, uri, body string) string {
		return fmt.Sprintf(`X-Matrix origin="%s",destination="%s",key="%s",sig="%s"`, peer, here, peerKey.ID, g.sign(peerKey, method, uri, here, body))
	}
	old := fmt.Sprintf(`X-Matrix origin=%s,key=%s,sig=%s`, peer, peerKey.ID, g.sign(peerKey, "GET", uri, "", ""))
	elsewhere := fmt.Sprintf(`X-Matrix origin=%s,destination=there.test,key=%s,sig=%s`, peer, peerKey.ID, g.sign(peerKey, "GET", uri, "there.test", ""))
	stranger := matrix.SigningKey{ID: "ed25519:stranger", Private: g.key.Private}
	// The body is signed before its integers, as our signing knows no others.
	const whole = `{"b":[1,2],"a":"é"}`
	large := `{"a":"` + strings.Repeat("x", 290<<10) + `"}`
	tooLarge := `{"a":"` + strings.Repeat("x", 310<<10) + `"}`
	for _, tt := range []struct {
		name, method, uri, body string
		headers                 []string
		status                  int
		code                    string
	}{
		{"GET", "GET", uri, "", []string{header("GET", uri, "")}, 200, ""},
		{"PUT", "PUT", uri, whole, []string{header("PUT", uri, whole)}, 200, ""},
		{"other spaces", "PUT", uri, ` { "a": "\u00e9" , "b":[1,2]} `, []string{header("PUT", uri, whole)}, 200, ""},
		{"large", "PUT", uri, large, []string{header("PUT", uri, large)}, 200, ""},
		{"old server", "GET", uri, "", []string{old}, 200, ""},
		{"two keys", "GET", uri, "", []string{strings.Replace(header("GET", uri, ""), peerKey.ID, stranger.ID, 1), header("GET", uri, "")}, 200, ""},
		{"beside a token", "GET", uri, "", []string{"Bearer abc", header("GET", uri, "")}, 200, ""},

		{"none", "GET", uri, "", nil, 401, "M_UNAUTHORIZED"},
		{"token", "GET", uri, "", []string{"Bearer abc"}, 401, "M_UNAUTHORIZED"},
		{"malformed", "GET", uri, "", []string{"X-Matrix a"}, 401, "M_UNAUTHORIZED"},
		{"other method", "GET", uri, "", []string{header("PUT", uri, "")}, 401, "M_UNAUTHORIZED"},
		{"other target", "GET", uri, "", []string{header("GET", "/_matrix/federation/v1/test/!a:b?x=%2f&y=a+b", "")}, 401, "M_UNAUTHORIZED"},
		{"no query", "GET", uri, "", []string{header("GET", "/_matrix/federation/v1/test/%21a:b", "")}, 401, "M_UNAUTHORIZED"},
		{"other body", "PUT", uri, body, []string{header("PUT", uri, whole)}, 401, "M_UNAUTHORIZED"},
		{"body left out", "PUT", uri, whole, []string{header("PUT", uri, "")}, 401, "M_UNAUTHORIZED"},
		{"for another", "GET", uri, "", []string{elsewhere}, 401, "M_UNAUTHORIZED"},
		{"from us", "GET", uri, "", []string{strings.Replace(header("GET", uri, ""), "peer.test", "here.test", 1)}, 401, "M_UNAUTHORIZED"},
		{"from two", "GET", uri, "", []string{header("GET", uri, ""), strings.Replace(header("GET", uri, ""), "peer.test", "poor.test", 1)}, 401, "M_UNAUTHORIZED"},
		{"unknown key", "GET", uri, "", []string{strings.Replace(header("GET", uri, ""), peerKey.ID, stranger.ID, 1)}, 401, "M_UNAUTHORIZED"},
		{"unknown server", "GET", uri, "", []string{strings.Replace(header("GET", uri, ""), "peer.test", "1.2.3.4", 1)}, 401, "M_UNAUTHORIZED"},
		{"too large", "PUT", uri, tooLarge, []string{header("PUT", uri, tooLarge)}, 413, "M_TOO_LARGE"},
		{"not JSON", "PUT", uri, `{`, []string{header("PUT", uri, whole)}, 400, "M_NOT_JSON"},
		{"twice", "PUT", uri, `{"a":1,"a":2}`, []string{header("PUT", uri, whole)}, 401, "M_UNAUTHORIZED"},
	} {
		heard := g.heard
		status, code := g.request(tt.method, tt.uri, tt.body, tt.headers...)
		through := status == http.StatusOK
		if status != tt.status || code != tt.code || through && (g.from != peer || g.body != tt.body) || !through && g.from != "" || (g.heard > heard) != through {
			t.Errorf("%s: %d %s, from %q with %.40q, heard %d", tt.name, status, code, g.from, g.body, g.heard-heard)
		}
	}
	if b := &g.server.bodies; b.sum != 0 || len(b.held) != 0 {
		t.Errorf("the memory of bodies is not given back: %d, %v", b.sum, b.held)
	}
	const half = bodyBudget / 2
	if b := &g.server.bodies; !b.take("one", half) || b.take("one", half) || !b.take("another", half) {
		t.Errorf("one house has %d bytes, another %d", b.held["one"], b.held["another"])
	}
	status, code := g.request("PUT", uri, large, header("PUT", uri, large))
	if status != http.StatusServiceUnavailable || code != "M_LIMIT_EXCEEDED" {
		t.Errorf("without memory: %d %s", status, code)
	}
	g.server.bodies.giveBack("one", half)
	if status, _ := g.request("PUT", uri, large, header("PUT", uri, large)); status != http.StatusOK {
		t.Errorf("with memory again: %d", status)
	}
}

// One event that no room version would have must not spoil what comes with it: a body
// without a canonical form is held to the signature as it was written, but for blanks.
func TestAuthenticateOddBodies(t *testing.T) {
	g := newGate(t)
	const uri = "/_matrix/federation/v1/test/x"
	for _, tt := range []struct {
		name, body, signed string
		status             int
	}{
		{"name twice", `{"pdus":[{"b":1,"a":2,"a":3}]}`, `{"pdus":[{"b":1,"a":2,"a":3}]}`, 200},
		{"name twice, and blanks", ` {"pdus" : [{"a":2, "a":3}]}`, `{"pdus":[{"a":2,"a":3}]}`, 200},
		{"fraction", `{"pdus":[{"a":1.5}]}`, `{"pdus":[{"a":1.5}]}`, 200},
		{"fraction of other digits", `{"pdus":[{"a":1.50}]}`, `{"pdus":[{"a":1.5}]}`, 200},
		{"fraction as it stands", `{"pdus":[{"a":1.50}]}`, `{"pdus":[{"a":1.50}]}`, 200},
		{"half a character", `{"a":"\ud800"}`, `{"a":"\ud800"}`, 200},
		{"no Unicode", "{\"a\":\"\xff\"}", "{\"a\":\"\xff\"}", 200},
		{"deep", strings.Repeat("[", 2000) + strings.Repeat("]", 2000), strings.Repeat("[", 2000) + strings.Repeat("]", 2000), 200},

		{"one of the two", `{"a":1,"a":2}`, `{"a":2}`, 401},
		{"another order", `{"a":1,"a":2}`, `{"a":2,"a":1}`, 401},
		{"another fraction", `{"a":1.5}`, `{"a":1.6}`, 401},
		{"an end of its own", `{"a":1,"a":2},"destination":"here.test"`, `{"a":1,"a":2},"destination":"here.test"`, 400},
		{"too deep", strings.Repeat("[", 20_000), strings.Repeat("[", 20_000), 400},
	} {
		header := fmt.Sprintf(`X-Matrix origin="%s",destination="%s",key="%s",sig="%s"`, peer, here, peerKey.ID, g.signRaw("PUT", uri, tt.signed))
		if status, code := g.request("PUT", uri, tt.body, header); status != tt.status || status == 200 && g.body != tt.body {
			t.Errorf("%s: %d %s, body %.60q", tt.name, status, code, g.body)
		}
	}
}

// A key that its server has retired signs no requests, and one whose time is over
// does not, either.
func TestRetiredKeySignsNothing(t *testing.T) {
	g := newGate(t)
	const uri = "/_matrix/federation/v1/test/x"
	header := fmt.Sprintf(`X-Matrix origin="%s",destination="%s",key="%s",sig="%s"`, peer, here, peerKey.ID, g.sign(peerKey, "GET", uri, here, ""))
	if status, _ := g.request("GET", uri, "", header); status != http.StatusOK {
		t.Fatalf("%d", status)
	}
	g.know(peer, peerKey, time.Now().Add(-time.Second))
	if status, _ := g.request("GET", uri, "", header); status != http.StatusUnauthorized {
		t.Errorf("%d", status)
	}
}

// Whoever guesses is slowed down by his address, and cannot use up what another
// server has.
func TestGuessesAreLimited(t *testing.T) {
	g := newGate(t)
	g.server.limits = api.NewLimiter()
	const uri = "/_matrix/federation/v1/test/x"
	bad := fmt.Sprintf(`X-Matrix origin="%s",destination="%s",key="%s",sig="%s"`, peer, here, peerKey.ID, g.sign(peerKey, "PUT", uri, here, ""))
	limited := false
	for range 1000 {
		status, _ := g.request("GET", uri, "", bad)
		limited = limited || status == http.StatusTooManyRequests
	}
	good := fmt.Sprintf(`X-Matrix origin="%s",destination="%s",key="%s",sig="%s"`, peer, here, peerKey.ID, g.sign(peerKey, "GET", uri, here, ""))
	if status, _ := g.request("GET", uri, "", good); status != http.StatusOK || !limited {
		t.Errorf("limited: %v; then %d", limited, status)
	}
}
