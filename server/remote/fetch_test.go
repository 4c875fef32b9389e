package remote

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
)

// A peerAnswer is what a server answers a request with.
type peerAnswer = func(q Request) (io.Reader, error)

// fakeNetwork is servers by their names; others cannot be reached.
type fakeNetwork map[matrix.ServerName]peerAnswer

func (n fakeNetwork) stream(ctx context.Context, dest matrix.ServerName, q Request) (*http.Response, error) {
	answer := n[dest]
	if answer == nil {
		return nil, fmt.Errorf("%s: %w", dest, ErrUnreachable)
	}
	body, err := answer(q)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(io.LimitReader(body, min(q.MaxBytes, 8<<20)))}, ctx.Err()
}

var testKey = matrix.SigningKey{ID: "ed25519:1", Private: ed25519.NewKeyFromSeed(make([]byte, 32))}

// verifyTest holds the events of peer.test to its key.
func verifyTest(_ context.Context, events []*matrix.Event) []error {
	errs := make([]error, len(events))
	for i, ev := range events {
		errs[i] = ev.VerifySignature("peer.test", testKey.ID, testKey.Private.Public().(ed25519.PublicKey))
	}
	return errs
}

func (n fakeNetwork) source(servers ...matrix.ServerName) state.Source {
	v, _ := matrix.VersionByID("10")
	f := &fetcher{version: v, servers: servers, stream: n.stream, verify: verifyTest}
	return state.Source{Missing: f.missing, Events: f.events, StateIDs: f.stateIDs}
}

// testEvents makes events that stand on each other.
func testEvents(tb testing.TB, n int) (events []*matrix.Event) {
	tb.Helper()
	v, _ := matrix.VersionByID("10")
	prev := []matrix.EventID{"$first"}
	for i := range n {
		ev, err := matrix.Draft{
			Room: "!room:peer.test", Sender: "@bob:peer.test", Type: "m.room.message",
			Content: jsontext.Value(fmt.Sprintf(`{"body":"%d"}`, i)), OriginServerTS: 1,
		}.Build(v, matrix.Placing{Prev: prev, Auth: []matrix.EventID{"$create"}, Depth: int64(i)}, "peer.test", testKey)
		if err != nil {
			tb.Fatal(err)
		}
		events, prev = append(events, ev), []matrix.EventID{ev.ID}
	}
	return events
}

// listOf is the answer that has these events in a list.
func listOf(name string, events ...*matrix.Event) io.Reader {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"origin":"x","x":{"y":[[]]},%q:[`, name)
	for i, ev := range events {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(ev.JSON())
	}
	b.WriteString(`],"z":[1,2]}`)
	return &b
}

func says(code int) peerAnswer {
	return func(Request) (io.Reader, error) { return nil, &Error{Server: "x", Status: code} }
}

func answers(text string) peerAnswer {
	return func(Request) (io.Reader, error) { return strings.NewReader(text), nil }
}

// Servers are asked in their order until one gives something. Nobody having it is no
// failure; nobody having it while one could not be asked is.
func TestFetchMissing(t *testing.T) {
	all := testEvents(t, 40)
	gives := func(q Request) (io.Reader, error) { return listOf("events", all...), nil }
	for _, tt := range []struct {
		name    string
		net     fakeNetwork
		servers string
		want    int
		failed  bool
	}{
		{"the first has it", fakeNetwork{"a": gives}, "a b", 40, false},
		{"the first is gone", fakeNetwork{"b": gives}, "a b", 40, false},
		{"the first refuses", fakeNetwork{"a": says(403), "b": gives}, "a b", 40, false},
		{"the first has none", fakeNetwork{"a": answers(`{"events":[]}`), "b": gives}, "a b", 40, false},
		{"nobody has it", fakeNetwork{"a": answers(`{}`), "b": says(404)}, "a b", 0, false},
		{"who may have it is gone", fakeNetwork{"b": says(404)}, "a b", 0, true},
		{"it is overloaded", fakeNetwork{"a": says(429)}, "a", 0, true},
		{"it fails", fakeNetwork{"a": says(502)}, "a", 0, true},
		{"no object", fakeNetwork{"a": answers(`[]`)}, "a", 0, true},
		{"no list", fakeNetwork{"a": answers(`{"events":{}}`)}, "a", 0, true},
		{"no JSON", fakeNetwork{"a": answers(`{"events":[{]}`)}, "a", 0, true},
		{"nothing", fakeNetwork{"a": answers(``)}, "a", 0, true},
		{"deep", fakeNetwork{"a": answers(`{"events":[` + strings.Repeat("[", 20_000))}, "a", 0, true},
		{"cut off", fakeNetwork{"a": func(Request) (io.Reader, error) { return io.LimitReader(listOf("events", all...), 16_000), nil }}, "a", 38, true},
	} {
		var got []matrix.EventID
		var servers []matrix.ServerName
		for _, name := range strings.Fields(tt.servers) {
			servers = append(servers, matrix.ServerName(name))
		}
		err := tt.net.source(servers...).Missing(t.Context(), state.MissingEvents{Room: "!room:peer.test", Limit: 100}, func(ev *matrix.Event) error {
			got = append(got, ev.ID)
			return nil
		})
		if len(got) != tt.want || (err != nil) != tt.failed {
			t.Errorf("%s: %d events, %v", tt.name, len(got), err)
		}
	}
}

var errFull = errors.New("no more")

// What does not pass the checks is left out, what was changed comes redacted, and
// who has enough is asked no further.
func TestFetchChecks(t *testing.T) {
	all := testEvents(t, 4)
	unsigned, _ := matrix.Draft{
		Room: "!room:peer.test", Sender: "@bob:peer.test", Type: "m.x", Content: jsontext.Value(`{}`),
	}.Build(all[0].Version, matrix.Placing{Prev: []matrix.EventID{"$first"}}, "evil.test", testKey)
	changed := strings.Replace(string(all[1].JSON()), `"body":"1"`, `"body":"changed"`, 1)
	text := fmt.Sprintf(`{"events":[%s,%s,{"a":1},7,{"type":"m.room.message","type":"x"},%s,%s]}`,
		all[0].JSON(), changed, unsigned.JSON(), strings.Replace(string(all[2].JSON()), `"depth":2`, `"depth":2.5`, 1))
	var got []*matrix.Event
	asked := 0
	net := fakeNetwork{"a": answers(text), "b": func(Request) (io.Reader, error) { asked++; return nil, ErrUnreachable }}
	take := func(ev *matrix.Event) error { got = append(got, ev); return nil }
	if err := net.source("a", "b").Missing(t.Context(), state.MissingEvents{}, take); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].ID != all[0].ID || got[1].ID != all[1].ID || string(got[1].Content) != `{}` {
		t.Errorf("got %v", got)
	}
	err := net.source("a", "b").Missing(t.Context(), state.MissingEvents{}, func(*matrix.Event) error { return errFull })
	if !errors.Is(err, errFull) || asked != 0 {
		t.Errorf("refused: %v, and %d asked after it", err, asked)
	}
}

// Single events are asked for some at a time, of each server what is still left.
func TestFetchEvents(t *testing.T) {
	all := testEvents(t, 64)
	var under, most atomic.Int32
	has := func(which func(i int) bool) peerAnswer {
		return func(q Request) (io.Reader, error) {
			defer under.Add(-1)
			for now := under.Add(1); now > most.Load(); {
				most.Store(now)
			}
			runtime.Gosched()
			name, _ := url.PathUnescape(path.Base(q.Path))
			i := slices.IndexFunc(all, func(ev *matrix.Event) bool { return string(ev.ID) == name })
			if i < 0 || !which(i) {
				return nil, &Error{Status: http.StatusNotFound}
			}
			return listOf("pdus", all[i], all[0]), nil
		}
	}
	net := fakeNetwork{"odd": has(func(i int) bool { return i%2 == 1 }), "some": has(func(i int) bool { return i != 10 })}
	var ids []matrix.EventID
	for _, ev := range all {
		ids = append(ids, ev.ID)
	}
	for _, tt := range []struct {
		servers []matrix.ServerName
		want    int
		failed  bool
	}{
		{[]matrix.ServerName{"odd"}, 32, false},
		{[]matrix.ServerName{"odd", "some"}, 63, false},
		{[]matrix.ServerName{"gone", "some", "odd"}, 63, true},
		{[]matrix.ServerName{"gone"}, 0, true},
	} {
		got := make(map[matrix.EventID]int)
		err := net.source(tt.servers...).Events(t.Context(), "!room:peer.test", ids, func(ev *matrix.Event) error {
			got[ev.ID]++
			return nil
		})
		if len(got) != tt.want || (err != nil) != tt.failed {
			t.Errorf("%s: %d events, %v", tt.servers, len(got), err)
		}
		for id, n := range got {
			if n != 1 {
				t.Errorf("%s came %d times", id, n)
			}
		}
	}
	if most.Load() > eventsAtOnce {
		t.Errorf("%d requests at once", most.Load())
	}
}

// The IDs of a state are taken as they come; what is no ID ends the answer.
func TestFetchStateIDs(t *testing.T) {
	chain := `"auth_chain_ids":["$x"],`
	for _, tt := range []struct {
		name, text string
		want       int
		failed     bool
	}{
		{"both lists", `{` + chain + `"pdu_ids":["$a","$b"]}`, 2, false},
		{"the other way round", `{"pdu_ids":["$a","$b"],` + chain[:len(chain)-1] + `}`, 2, false},
		{"no state", `{` + chain + `"pdu_ids":[]}`, 0, false},
		{"a number", `{"pdu_ids":["$a",1]}`, 1, true},
		{"no event ID", `{"pdu_ids":["$a","b"]}`, 1, true},
		{"cut off", `{"pdu_ids":["$a","$b"`, 2, true},
	} {
		got := 0
		source := fakeNetwork{"a": answers(tt.text)}.source("a")
		err := source.StateIDs(t.Context(), "!room:peer.test", "$ev", func(matrix.EventID) error { got++; return nil })
		if got != tt.want || (err != nil) != tt.failed {
			t.Errorf("%s: %d IDs, %v", tt.name, got, err)
		}
	}
}

// endless repeats a text for ever.
type endless struct {
	text string
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.text[(e.at+i)%len(e.text)]
	}
	e.at = (e.at + len(p)) % len(e.text)
	return len(p), nil
}

// An answer that never ends, in whatever part of it, costs no more memory than one
// element may have.
func TestFetchFromHostileServer(t *testing.T) {
	for _, tt := range []struct {
		name, begin, rest string
	}{
		{"a name", `{"`, "a"},
		{"a text that is skipped", `{"auth_chain_ids":["`, "a"},
		{"a list that is skipped", `{"auth_chain_ids":[`, `"$a",`},
		{"an ID", `{"pdu_ids":["$`, "a"},
		{"white space", `{`, " "},
		{"white space in the list", `{"pdu_ids":[`, " "},
		{"names", `{`, `"a":1,`},
		{"depth", `{"a":`, `{"a":`},
		{"depth in the list", `{"pdu_ids":`, `[`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			net := fakeNetwork{"a": func(Request) (io.Reader, error) {
				return io.MultiReader(strings.NewReader(tt.begin), &endless{text: tt.rest}), nil
			}}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := net.source("a").StateIDs(t.Context(), "!room:peer.test", "$ev", func(matrix.EventID) error { return nil })
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Error("it is an answer")
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 64<<20 {
				t.Errorf("%d bytes were allocated", took)
			}
		})
	}
}

// Whatever the answer, the functions of a source end.
func FuzzAnswers(f *testing.F) {
	f.Add(`{"events":[{"type":"m.x"}],"pdu_ids":["$a"],"pdus":[{}]}`)
	f.Add(`{"pdus":[` + string(testEvents(f, 1)[0].JSON()) + `]}`)
	f.Add(`{"pdu_ids":["$a","\ud800",{"a":1,"a":2}]`)
	f.Fuzz(func(t *testing.T, text string) {
		source := fakeNetwork{"a": answers(text), "b": answers(text)}.source("a", "b")
		event := func(*matrix.Event) error { return nil }
		_ = source.Missing(t.Context(), state.MissingEvents{Room: "!room:peer.test"}, event)
		_ = source.Events(t.Context(), "!room:peer.test", []matrix.EventID{"$a", "$b"}, event)
		_ = source.StateIDs(t.Context(), "!room:peer.test", "$a", func(id matrix.EventID) error {
			if _, err := matrix.ParseEventID(string(id)); err != nil {
				t.Errorf("%q was taken", id)
			}
			return nil
		})
	})
}
