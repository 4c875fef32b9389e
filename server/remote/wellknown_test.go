package remote

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hearth/state/matrix"
)

func TestParseWellKnown(t *testing.T) {
	for _, tt := range []struct {
		body string
		want matrix.ServerName // "": refused
	}{
		{`{"m.server":"to.example"}`, "to.example"},
		{` {"x":[1],"m.server":"to.example:443"} `, "to.example:443"},
		{`{"m.server":"[::1]:5"}`, "[::1]:5"},
		{`{"m.server":""}`, ""},
		{`{"m.server":7}`, ""},
		{`{"m.server":"https://to.example"}`, ""},
		{`{"m.server":"to.example/"}`, ""},
		{`{}`, ""},
		{``, ""},
		{`not found`, ""},
		{`{"m.server":"to.example","x":"` + strings.Repeat("x", maxWellKnown) + `"}`, ""},
	} {
		got, err := parseWellKnown([]byte(tt.body))
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%.40s: %q, %v", tt.body, got, err)
		}
	}
}

func FuzzParseWellKnown(f *testing.F) {
	f.Add([]byte(`{"m.server":"to.example:443"}`))
	f.Add([]byte(`{"m.server":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		name, err := parseWellKnown(body)
		if err != nil {
			return
		}
		if _, err := matrix.ParseServerName(string(name)); err != nil {
			t.Errorf("%q: %v", body, err)
		}
		if p, ok := direct(name); ok && (len(p.targets) != 1 || p.cert == "") {
			t.Errorf("%q leads to %+v", body, p)
		}
	})
}

func TestKeepFor(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		control, expires string
		want             time.Duration
	}{
		{"", "", wellKnownDefault},
		{"max-age=7200", "", 2 * time.Hour},
		{`public, Max-Age="7200"`, "", 2 * time.Hour},
		{"max-age=1", "", wellKnownLeast},
		{"max-age=99999999", "", wellKnownMost},
		{"max-age=-1", "", wellKnownDefault},
		{"no-store", "", wellKnownLeast},
		{"max-age=7200, no-cache", "", wellKnownLeast},
		{"", now.Add(3 * time.Hour).Format(http.TimeFormat), 3 * time.Hour},
		{"", "0", wellKnownLeast},
		{"max-age=7200", "0", 2 * time.Hour},
	} {
		h := http.Header{}
		if tt.control != "" {
			h.Set("Cache-Control", tt.control)
		}
		if tt.expires != "" {
			h.Set("Expires", tt.expires)
		}
		if got := keepFor(h, now); got != tt.want {
			t.Errorf("%q, %q: %v, want %v", tt.control, tt.expires, got, tt.want)
		}
	}
}

// Redirects are followed, to an end.
func TestWellKnownRedirects(t *testing.T) {
	i := newInternet(t)
	i.addrs["far.example"], i.addrs["www.example"] = []string{"10.0.0.1"}, []string{"10.0.0.2"}
	asked := 0
	i.serve("10.0.0.1:443", "far.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		http.Redirect(w, r, "https://www.example/elsewhere", http.StatusFound)
	}))
	loop := false
	i.serve("10.0.0.2:443", "www.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if loop {
			http.Redirect(w, r, "https://far.example/.well-known/matrix/server", http.StatusFound)
			return
		}
		fmt.Fprint(w, `{"m.server":"to.example"}`)
	}))
	n := openNetwork(t, i, t.TempDir(), nil)
	if name, _, err := n.askWellKnown(t.Context(), "far.example"); name != "to.example" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
	loop, asked = true, 0
	if _, _, err := n.askWellKnown(t.Context(), "far.example"); err == nil || asked > wellKnownRedirects {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

// A name that is delegated is not asked for a document of its own: delegations that lead
// back, to the name itself or in a ring, end with the first.
//
// Spec: SS Resolving server names, 3.3 to 3.5.
func TestDelegationLeadsBack(t *testing.T) {
	for _, to := range []matrix.ServerName{"far.example", "ring.example"} {
		i := newInternet(t)
		i.addrs["far.example"], i.addrs["ring.example"] = []string{"10.0.0.1"}, []string{"10.0.0.2"}
		i.serve("10.0.0.1:443", "far.example", text(`{"m.server":"`+string(to)+`"}`))
		i.serve("10.0.0.2:443", "ring.example", text(`{"m.server":"far.example"}`))
		n := openNetwork(t, i, t.TempDir(), nil)
		if err := n.Do(t.Context(), "far.example", Request{Method: "GET", Path: "/x"}, nil); !errors.Is(err, ErrUnreachable) {
			t.Errorf("delegated to %s: %v", to, err)
		}
		if got := i.taken(); !slices.Equal(got, []string{"10.0.0.1:443", i.addrs[to.Host()][0] + ":8448"}) {
			t.Errorf("delegated to %s: dialed %v", to, got)
		}
	}
}

// A document is asked for again when its time is over; that there is none, sooner
// at first, and later each time. While nobody answers, the old one holds for a while.
func TestWellKnownCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInternet(t)
		i.addrs["far.example"] = []string{"10.0.0.1"}
		asked, status := 0, http.StatusNotFound
		i.serve("10.0.0.1:443", "far.example", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked++
			w.Header().Set("Cache-Control", "max-age=3600")
			w.WriteHeader(status)
			fmt.Fprint(w, `{"m.server":"to.example"}`)
		}))
		n := openNetwork(t, i, t.TempDir(), nil)
		// counts how often the document is asked for in a time, with a request each 15 seconds
		in := func(d time.Duration) (host string, times int) {
			before := asked
			for range d / (15 * time.Second) {
				time.Sleep(15 * time.Second)
				p, err := n.find(t.Context(), "far.example")
				if err != nil {
					t.Fatal(err)
				}
				host = p.host
			}
			return host, asked - before
		}
		if host, times := in(10 * time.Minute); host != "far.example" || times < 3 || times > 5 {
			t.Errorf("none: %s, asked %d times in ten minutes", host, times)
		}
		if _, times := in(5 * time.Hour); times < 5 || times > 12 {
			t.Errorf("none: asked %d times in five hours", times)
		}
		status = http.StatusOK
		if host, _ := in(90 * time.Minute); host != "to.example" {
			t.Errorf("one has come: %s", host)
		}
		if host, times := in(5 * time.Hour); host != "to.example" || times < 4 || times > 6 {
			t.Errorf("there is one: %s, asked %d times in five hours", host, times)
		}
		status = http.StatusBadGateway
		if host, _ := in(90 * time.Minute); host != "to.example" {
			t.Errorf("nobody answers: %s", host)
		}
		if host, _ := in(12 * time.Hour); host != "far.example" {
			t.Errorf("nobody answers for long: %s", host)
		}
		n.stop()
	})
}
