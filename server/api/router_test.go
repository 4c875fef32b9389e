package api

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// echo answers with the route it is and the path values it got.
func echo(pattern string, names ...string) Route {
	return Route{pattern, func(w http.ResponseWriter, r *http.Request) error {
		fmt.Fprint(w, pattern)
		for _, name := range names {
			fmt.Fprintf(w, " %s=%q", name, r.PathValue(name))
		}
		return nil
	}}
}

func newTestRouter(t testing.TB, routes ...Route) *Router {
	t.Helper()
	rt, err := NewRouter(slog.New(slog.DiscardHandler), routes...)
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

// Paths are split first and decoded after, and nothing is cleaned or redirected.
func TestRouterPaths(t *testing.T) {
	rt := newTestRouter(t,
		echo("GET /versions"),
		echo("GET /rooms/{room}/event/{event}", "room", "event"),
		echo("GET /rooms/{room}/state", "room"),
		echo("GET /rooms/{room}/state/{type}/{key?}", "room", "type", "key"),
		echo("PUT /rooms/{room}/state/{type}/{key?}", "room", "type", "key"),
		echo("GET /rooms/aliases/{any}", "any"),
		echo("GET /pushrules/"),
		echo("POST /keys/{name}", "name"),
	)
	tests := []struct{ method, target, want string }{
		{"GET", "/versions", "GET /versions"},
		{"GET", "/versions?access_token=x", "GET /versions"},
		{"HEAD", "/versions", "GET /versions"},
		{"GET", "/versions/", "404"},
		{"GET", "//versions", "404"},
		{"GET", "/./versions", "404"},
		{"GET", "/x/../versions", "404"},
		{"GET", "/", "404"},
		{"GET", "/version%73", "GET /versions"},
		{"POST", "/versions", "405 GET, HEAD, OPTIONS"},
		{"GET", "/rooms/!a:b/event/$c", `GET /rooms/{room}/event/{event} room="!a:b" event="$c"`},
		{"GET", "/rooms/%21a%3Ab/event/%24c%2Fd", `GET /rooms/{room}/event/{event} room="!a:b" event="$c/d"`},
		{"GET", "/rooms/a%2Fevent%2Fb", "404"},
		{"GET", "/rooms/../event/..", `GET /rooms/{room}/event/{event} room=".." event=".."`},
		{"GET", "/rooms/%2e%2e/event/.", `GET /rooms/{room}/event/{event} room=".." event="."`},
		{"GET", "/rooms//event/x", "404"},
		{"GET", "/rooms/a/event/", "404"},
		{"GET", "/rooms/a/event/%2F", `GET /rooms/{room}/event/{event} room="a" event="/"`},
		{"GET", "/rooms/a%2525/event/x", `GET /rooms/{room}/event/{event} room="a%25" event="x"`},
		{"GET", "/rooms/a+b/event/%2B%20", `GET /rooms/{room}/event/{event} room="a+b" event="+ "`},
		{"GET", "/rooms/%23%C3%A9:b/event/x%3Fy", `GET /rooms/{room}/event/{event} room="#é:b" event="x?y"`},
		{"GET", "/rooms/a%2Fb|c/event/x", `GET /rooms/{room}/event/{event} room="a/b|c" event="x"`},
		{"GET", "/rooms/%FF/event/x", "400"},
		{"GET", "/rooms/a/state", `GET /rooms/{room}/state room="a"`},
		{"GET", "/rooms/a/state/t", `GET /rooms/{room}/state/{type}/{key?} room="a" type="t" key=""`},
		{"GET", "/rooms/a/state/t/", `GET /rooms/{room}/state/{type}/{key?} room="a" type="t" key=""`},
		{"PUT", "/rooms/a/state/t/", `PUT /rooms/{room}/state/{type}/{key?} room="a" type="t" key=""`},
		{"PUT", "/rooms/a/state/t/@k:x%2F", `PUT /rooms/{room}/state/{type}/{key?} room="a" type="t" key="@k:x/"`},
		{"PUT", "/rooms/a/state/t//", "404"},
		{"DELETE", "/rooms/a/state/t", "405 GET, HEAD, OPTIONS, PUT"},
		{"GET", "/rooms/aliases/event", `GET /rooms/aliases/{any} any="event"`},
		{"GET", "/rooms/aliases/event/x", `GET /rooms/{room}/event/{event} room="aliases" event="x"`},
		{"GET", "/pushrules/", "GET /pushrules/"},
		{"GET", "/pushrules", "404"},
		{"GET", "/keys/x", "405 OPTIONS, POST"},
		{"GET", strings.Repeat("/x", 4000), "404"},
		{"BREW", "/versions", "405 GET, HEAD, OPTIONS"},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.target[:min(len(tt.target), 60)], func(t *testing.T) {
			rec := httptest.NewRecorder()
			rt.ServeHTTP(rec, httptest.NewRequest(tt.method, tt.target, nil))
			got := rec.Body.String()
			if rec.Code != http.StatusOK {
				got = strings.TrimSpace(fmt.Sprint(rec.Code, " ", rec.Header().Get("Allow")))
				wantJSONError(t, rec)
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if rec.Header().Get("Access-Control-Allow-Origin") != "*" {
				t.Error("no CORS header")
			}
		})
	}
}

// The same through a real server: net/http hands paths on as they were sent.
func TestRouterOverTCP(t *testing.T) {
	srv := httptest.NewServer(newTestRouter(t, echo("GET /a/{x}/{y?}", "x", "y")))
	defer srv.Close()
	for _, tt := range []struct{ path, want string }{
		{"/a/%2F%2e/..", `GET /a/{x}/{y?} x="/." y=".."`},
		{"//a/x", "404"},
		{"/a//x", "404"},
	} {
		res, err := http.Get(srv.URL + tt.path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if got := string(body); got != tt.want && fmt.Sprint(res.StatusCode) != tt.want {
			t.Errorf("%s: got %d %s, want %s", tt.path, res.StatusCode, got, tt.want)
		}
	}
}

// A preflight of any path, known or not, gets CORS headers and runs nothing.
func TestOptionsRunsNothing(t *testing.T) {
	rt := newTestRouter(t, Route{"POST /x", func(http.ResponseWriter, *http.Request) error {
		t.Error("the handler ran")
		return nil
	}})
	for _, path := range []string{"/x", "/unknown"} {
		rec := httptest.NewRecorder()
		rt.ServeHTTP(rec, httptest.NewRequest("OPTIONS", path, nil))
		if rec.Code != http.StatusNoContent || !strings.Contains(rec.Header().Get("Access-Control-Allow-Headers"), "Authorization") {
			t.Errorf("%s: %d %v", path, rec.Code, rec.Header())
		}
	}
}

func TestRouterRefusesBadPatterns(t *testing.T) {
	ok := echo("GET /x").Handle
	for _, routes := range [][]Route{
		{{"GET", ok}},
		{{"/x", ok}},
		{{"GET x", ok}},
		{{"GET /{x", ok}},
		{{"GET /{}", ok}},
		{{"GET /{x}/{x}", ok}},
		{{"GET /{x?}/y", ok}},
		{{"GET /x", nil}},
		{{"GET /x", ok}, {"GET /x", ok}},
		{{"GET /{a}/x", ok}, {"GET /{b}/x", ok}},
		{{"GET /x", ok}, {"GET /x/{y?}", ok}},
	} {
		if _, err := NewRouter(slog.New(slog.DiscardHandler), routes...); err == nil {
			t.Errorf("%q was accepted", routes[len(routes)-1].Pattern)
		}
	}
}

// No path makes the router panic or answer anything but a known status.
func FuzzRouter(f *testing.F) {
	rt := newTestRouter(f, echo("GET /a/{x}/b/{y?}", "x", "y"), echo("GET /a/b/{z}", "z"))
	for _, s := range []string{"/a/x/b", "/a//b/", "//", "/a/%2F/b/%", "/a/b/\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r := httptest.NewRequest("GET", "/", nil)
		u, err := r.URL.Parse(path)
		if err != nil {
			return
		}
		r.URL = u
		rec := httptest.NewRecorder()
		rt.ServeHTTP(rec, r)
		if rec.Code != 200 && rec.Code != 400 && rec.Code != 404 {
			t.Errorf("%q: %d", path, rec.Code)
		}
	})
}

func BenchmarkRouter(b *testing.B) {
	rt := newTestRouter(b,
		Route{"PUT /_matrix/client/v3/rooms/{roomID}/send/{eventType}/{txnID}", func(http.ResponseWriter, *http.Request) error { return nil }},
		echo("GET /_matrix/client/v3/sync"),
	)
	r := httptest.NewRequest("PUT", "/_matrix/client/v3/rooms/!abc:example.org/send/m.room.message/123", nil)
	w := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		rt.ServeHTTP(w, r)
	}
}
