package client

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
)

// TestBadInput sends valid requests to every endpoint, with something changed in
// each: bodies, paths, queries, tokens. None may be answered with a 5xx, make a
// handler panic or log an error, and the heap stays flat. BAD_INPUT=100000 runs
// more of them.
func TestBadInput(t *testing.T) {
	n := 10_000
	if more, err := strconv.Atoi(os.Getenv("BAD_INPUT")); err == nil {
		n = more
	} else if testing.Short() {
		n = 1_000
	}
	b := newBadInput(t)
	b.tryValid()
	begin := heapInUse()
	for i := range n {
		if i == n/4 { // caches have filled
			begin = heapInUse()
		}
		if i%50 == 0 { // by now somebody has left
			b.furnish()
		}
		b.send(b.mutate(b.request(routes[b.random.IntN(len(routes))])))
		if t.Failed() {
			t.Fatalf("after %d requests", i+1)
		}
	}
	grown := heapInUse() - begin
	t.Logf("%d requests, answers by status: %v, heap grown by %d KiB", n, b.statuses, grown>>10)
	if grown > 4<<20 {
		t.Errorf("the heap has grown by %d KiB", grown>>10)
	}
}

// heapInUse is what the heap holds once all garbage is gone, in bytes.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// badInput is a server and who sends it nonsense.
type badInput struct {
	t        *testing.T
	server   *testServer
	log      *errorLog
	random   *rand.Rand
	values   map[string]string // what $names in paths, queries and bodies stand for
	count    int
	statuses map[int]int
}

// badRequest is a request that may be changed before it is sent.
type badRequest struct {
	method string
	parts  []string // of the path, not escaped
	named  []int    // which of them are names of something
	query  url.Values
	body   []byte
	token  string
	header http.Header
}

func (r *badRequest) String() string {
	body := r.body
	if len(body) > 300 {
		body = slices.Concat(body[:300], []byte("..."))
	}
	return fmt.Sprintf("%s %s?%s %s %v\n%q", r.method, r.address(), r.query.Encode(), r.token, r.header, body)
}

func (r *badRequest) address() string {
	escaped := make([]string, len(r.parts))
	for i, part := range r.parts {
		escaped[i] = url.PathEscape(part)
	}
	return "/" + strings.Join(escaped, "/")
}

// errorLog counts what a server logs as an error: the last of it tells why.
type errorLog struct {
	slog.Handler
	mu   sync.Mutex // guards last
	last string
}

// Handle keeps an error.
func (l *errorLog) Handle(_ context.Context, r slog.Record) error {
	if r.Level < slog.LevelError {
		return nil
	}
	var b strings.Builder
	b.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool { fmt.Fprintf(&b, " %s=%v", a.Key, a.Value); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = b.String()
	return nil
}

// Enabled lets errors through.
func (l *errorLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }

// take returns the last error and forgets it.
func (l *errorLog) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.last
	l.last = ""
	return last
}

func newBadInput(t *testing.T) *badInput {
	b := &badInput{
		t: t, log: &errorLog{Handler: slog.DiscardHandler}, random: rand.New(rand.NewPCG(1, 1)), statuses: map[int]int{},
	}
	b.server = newTestServer(t, Config{Registration: RegistrationOpen, SharedSecret: "shared", BaseURL: "https://hearth.test", Log: slog.New(b.log)})
	var err error
	if b.server.router, err = api.NewRouter(slog.New(b.log), b.server.Routes()...); err != nil {
		t.Fatal(err)
	}
	b.values = map[string]string{
		"alice": "@alice:hearth.test", "bob": "@bob:hearth.test", "carol": "@carol:hearth.test", "server": string(testServerName),
		"alice_token": b.server.account(t, "alice", "secret"), "bob_token": b.server.account(t, "bob", "secret"),
	}
	return b
}

// furnish makes what requests are about, as nonsense may have broken it.
func (b *badInput) furnish() {
	b.count++
	for _, name := range []string{"alice", "bob"} {
		b.logIn(name)
	}
	b.values["alias"] = fmt.Sprintf("#room%d:hearth.test", b.count)
	for _, step := range furniture {
		if step.once && b.values[step.name] != "" {
			continue
		}
		w := b.server.do(step.method, b.expand(step.path, url.PathEscape), b.values[step.user+"_token"], b.expand(step.body, jsonInner))
		if step.mayFail && w.Code != http.StatusOK || step.name == "" {
			continue
		}
		var answer map[string]jsontext.Value
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK {
			b.t.Fatalf("%s %s: %d %v %s", step.method, step.path, w.Code, err, w.Body)
		}
		b.values[step.name] = path.Base(strings.Trim(string(answer[step.member]), `"`))
	}
}

// logIn gives a user a token, if nonsense has logged out the one he had.
func (b *badInput) logIn(name string) {
	token := name + "_token"
	if b.server.do("GET", "/_matrix/client/v3/account/whoami", b.values[token], "").Code == http.StatusOK {
		return
	}
	w := b.server.do("POST", "/_matrix/client/v3/login", "", fmt.Sprintf(
		`{"type":"m.login.password","user":%q,"password":"secret","device_id":%q}`, name, strings.ToUpper(name)))
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Token == "" {
		b.t.Fatalf("log in: %d %v %s", w.Code, err, w.Body)
	}
	b.values[token] = answer.Token
}

var placeholder = regexp.MustCompile(`\$[a-z_]+`)

// expand puts values in the place of $names.
func (b *badInput) expand(text string, escape func(string) string) string {
	return placeholder.ReplaceAllStringFunc(text, func(name string) string {
		if name == "$n" {
			return fmt.Sprint(b.count)
		}
		return escape(b.values[name[1:]])
	})
}

// tryValid sends each request unchanged, to see that most of them are what the
// server wants: else the changes would prove nothing.
func (b *badInput) tryValid() {
	good := 0
	var bad []string
	for _, rt := range routes {
		b.furnish()
		if w := b.send(b.request(rt)); w.Code < 300 {
			good++
		} else {
			bad = append(bad, fmt.Sprint(w.Code, " ", rt.pattern))
		}
	}
	if good < len(routes)*3/4 {
		b.t.Errorf("only %d of %d requests are answered with a 2xx: not\n%s", good, len(routes), strings.Join(bad, "\n"))
	}
}

// request returns a valid request for an endpoint.
func (b *badInput) request(rt route) *badRequest {
	b.count++
	method, pattern, _ := strings.Cut(rt.pattern, " ")
	r := &badRequest{method: method, token: b.values["alice_token"], header: http.Header{}}
	types := stateSamples[b.random.IntN(len(stateSamples))]
	for _, part := range strings.Split(strings.TrimPrefix(pattern, "/"), "/") {
		if strings.HasPrefix(part, "{") {
			r.named = append(r.named, len(r.parts))
		}
		switch sample, known := pathSamples[part]; {
		case part == "{eventType}" && strings.Contains(pattern, "/state/"):
			part = types.typ
		case known:
			part = b.expand(sample, plain)
		}
		r.parts = append(r.parts, part)
	}
	r.query, _ = url.ParseQuery(b.expand(querySamples[rt.pattern], url.QueryEscape))
	if method == http.MethodGet {
		return r
	}
	body, known := bodySamples[rt.pattern]
	switch {
	case strings.Contains(pattern, "/state/"):
		body = types.content
	case !known:
		body = `{}`
	}
	r.body = []byte(b.expand(body, jsonInner))
	if sacrifices[rt.pattern] { // the request ends its session, or more
		b.values["victim"] = fmt.Sprintf("victim%d", b.count)
		r.token = b.server.account(b.t, b.values["victim"], "secret")
		r.body = []byte(b.expand(body, jsonInner))
	}
	return r
}

// send sends a request and looks at the answer.
func (b *badInput) send(r *badRequest) (w *httptest.ResponseRecorder) {
	b.t.Helper()
	defer func() {
		if p := recover(); p != nil {
			b.t.Errorf("%s\npanics: %v\n%s", r, p, debug.Stack())
		}
	}()
	target := "http://hearth.test" + r.address()
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	waits, over := context.WithTimeout(ctx, 20*time.Millisecond) // for what polls, whatever its timeout is
	defer over()
	ctx = api.WithStopping(ctx, waits)
	req, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(r.body))
	if err != nil {
		b.t.Fatalf("%s: %v", r, err)
	}
	req.RemoteAddr = "192.0.2.1:1234"
	req.Header = r.header
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	w = httptest.NewRecorder()
	b.server.router.ServeHTTP(w, req)
	b.statuses[w.Code]++
	if w.Code >= http.StatusInternalServerError {
		b.t.Errorf("%s\nis answered with %d %s", r, w.Code, w.Body)
	}
	if fault := b.log.take(); fault != "" {
		b.t.Errorf("%s\nmakes the server log: %s", r, fault)
	}
	if w.Code >= 400 && !strings.Contains(w.Body.String(), `"errcode"`) && !strings.Contains(w.Body.String(), `"flows"`) && !strings.Contains(w.Body.String(), "<html") &&
		w.Code != http.StatusRequestedRangeNotSatisfiable {
		b.t.Errorf("%s\nis answered with %d without an error code: %s", r, w.Code, w.Body)
	}
	return w
}
