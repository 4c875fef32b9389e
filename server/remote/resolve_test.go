package remote

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hearth/state/matrix"
)

// Every step of SS Resolving server names: where the request goes, what its Host
// header says, and which name the certificate must be for.
func TestResolve(t *testing.T) {
	srv := func(target string, port uint16) []*net.SRV { return []*net.SRV{{Target: target, Port: port}} }
	for _, tt := range []struct {
		step, server string
		wellKnown    string // document at the name's host; "": none
		srv          map[string][]*net.SRV
		addr         string // where it answers
		host, cert   string
	}{
		{step: "1, v4", server: "1.2.3.4", addr: "1.2.3.4:8448", host: "1.2.3.4", cert: "1.2.3.4"},
		{step: "1, v4, port", server: "1.2.3.4:99", addr: "1.2.3.4:99", host: "1.2.3.4:99", cert: "1.2.3.4"},
		{step: "1, v6", server: "[2001:db8::1]", addr: "[2001:db8::1]:8448", host: "[2001:db8::1]", cert: "2001:db8::1"},
		{step: "1, v6, port", server: "[2001:db8::1]:99", addr: "[2001:db8::1]:99", host: "[2001:db8::1]:99", cert: "2001:db8::1"},
		{step: "2", server: "far.example:99", wellKnown: "not.asked.example", addr: "10.0.0.1:99", host: "far.example:99", cert: "far.example"},
		{step: "3.1", server: "far.example", wellKnown: "1.2.3.4", addr: "1.2.3.4:8448", host: "1.2.3.4", cert: "1.2.3.4"},
		{step: "3.1, port", server: "far.example", wellKnown: "[2001:db8::1]:5", addr: "[2001:db8::1]:5", host: "[2001:db8::1]:5", cert: "2001:db8::1"},
		{step: "3.2", server: "far.example", wellKnown: "to.example:443", addr: "10.0.0.2:443", host: "to.example:443", cert: "to.example"},
		{step: "3.3", server: "far.example", wellKnown: "to.example",
			srv:  map[string][]*net.SRV{"_matrix-fed._tcp.to.example": srv("srv.example.", 7), "_matrix._tcp.to.example": srv("old.example.", 8), "_matrix-fed._tcp.far.example": srv("old.example.", 9)},
			addr: "10.0.0.3:7", host: "to.example", cert: "to.example"},
		{step: "3.4", server: "far.example", wellKnown: "to.example",
			srv:  map[string][]*net.SRV{"_matrix._tcp.to.example": srv("srv.example.", 7)},
			addr: "10.0.0.3:7", host: "to.example", cert: "to.example"},
		{step: "3.5", server: "far.example", wellKnown: "to.example", addr: "10.0.0.2:8448", host: "to.example", cert: "to.example"},
		{step: "4", server: "far.example",
			srv:  map[string][]*net.SRV{"_matrix-fed._tcp.far.example": srv("srv.example.", 7), "_matrix._tcp.far.example": srv("old.example.", 8)},
			addr: "10.0.0.3:7", host: "far.example", cert: "far.example"},
		{step: "5", server: "far.example",
			srv:  map[string][]*net.SRV{"_matrix._tcp.far.example": srv("srv.example.", 7)},
			addr: "10.0.0.3:7", host: "far.example", cert: "far.example"},
		{step: "6", server: "far.example", addr: "10.0.0.1:8448", host: "far.example", cert: "far.example"},
		{step: "6, dot", server: "far.example",
			srv: map[string][]*net.SRV{"_matrix-fed._tcp.far.example": srv(".", 0)}, addr: "10.0.0.1:8448", host: "far.example", cert: "far.example"},
	} {
		t.Run(tt.step, func(t *testing.T) {
			i := newInternet(t)
			i.addrs = map[string][]string{"far.example": {"10.0.0.1"}, "to.example": {"10.0.0.2"}, "srv.example": {"10.0.0.3"}, "old.example": {"10.0.0.4"}}
			i.srv = tt.srv
			if tt.wellKnown != "" {
				i.serve("10.0.0.1:443", "far.example", text(`{"m.server":"`+tt.wellKnown+`"}`))
			}
			var host, name string
			i.serve(tt.addr, tt.cert, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				host, name = r.Host, r.TLS.ServerName
				fmt.Fprint(w, "{}")
			}))
			n := openNetwork(t, i, t.TempDir(), nil)
			if err := n.Do(t.Context(), matrix.ServerName(tt.server), Request{Method: "GET", Path: "/x"}, nil); err != nil {
				t.Fatal(err, i.taken())
			}
			wantName := tt.cert
			if net.ParseIP(tt.cert) != nil {
				wantName = "" // SS TLS: no name is sent for an address
			}
			if host != tt.host || name != wantName {
				t.Errorf("Host %q and name %q, want %q and %q", host, name, tt.host, wantName)
			}
		})
	}
}

// A certificate for another name is refused at each kind of place.
func TestCertificateMustFit(t *testing.T) {
	i := newInternet(t)
	i.addrs["far.example"] = []string{"10.0.0.1"}
	i.srv["_matrix-fed._tcp.far.example"] = []*net.SRV{{Target: "10.0.0.9.", Port: 1}, {Target: "srv.example.", Port: 7}}
	i.addrs["srv.example"] = []string{"10.0.0.3"}
	i.serve("10.0.0.3:7", "srv.example", text("{}")) // the target's own name does not do
	n := openNetwork(t, i, t.TempDir(), nil)
	err := n.Do(t.Context(), "far.example", Request{Method: "GET", Path: "/x"}, nil)
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v", err)
	}
}

// The targets are tried in order until one answers, and the addresses of each by
// turns of their versions.
func TestFallBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInternet(t)
		i.srv["_matrix-fed._tcp.far.example"] = []*net.SRV{{Target: "a.example.", Port: 1}, {Target: "b.example.", Port: 2}, {Target: "c.example.", Port: 3}}
		i.addrs["far.example"] = []string{"10.0.0.1"}
		i.addrs["a.example"] = []string{"10.0.0.1"}
		i.addrs["b.example"] = []string{"10.0.0.2", "10.0.0.3", "2001:db8::2"}
		i.addrs["c.example"] = []string{"10.0.0.4"}
		i.holes["[2001:db8::2]:2"] = true
		i.serve("10.0.0.1:1", "another.example", text("{}"))
		i.serve("10.0.0.3:2", "far.example", text("{}"))
		i.serve("10.0.0.4:3", "far.example", text("{}"))
		n := openNetwork(t, i, t.TempDir(), nil)
		began := time.Now()
		if err := n.Do(t.Context(), "far.example", Request{Method: "GET", Path: "/x"}, nil); err != nil {
			t.Fatal(err)
		}
		want := []string{"10.0.0.1:443", "10.0.0.1:1", "[2001:db8::2]:2", "10.0.0.2:2", "10.0.0.3:2"}
		if got := i.taken(); !slices.Equal(got, want) {
			t.Errorf("dialed %v, want %v", got, want)
		}
		if took := time.Since(began); took < nextAddr || took > 4*nextAddr {
			t.Errorf("it took %v", took)
		}
		n.stop()
	})
}

// Where a server was found is known after a restart, while neither the DNS nor the
// well-known document answer.
func TestHostsSurviveRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, dir := newInternet(t), t.TempDir()
		i.addrs["far.example"], i.addrs["srv.example"] = []string{"10.0.0.1"}, []string{"10.0.0.3"}
		i.srv["_matrix-fed._tcp.to.example"] = []*net.SRV{{Target: "srv.example.", Port: 7}}
		stop := i.serve("10.0.0.1:443", "far.example", text(`{"m.server":"to.example"}`))
		i.serve("10.0.0.3:7", "to.example", text("{}"))
		n := openNetwork(t, i, dir, nil)
		ask := func() error { return n.Do(t.Context(), "far.example", Request{Method: "GET", Path: "/x"}, nil) }
		if err := ask(); err != nil {
			t.Fatal(err)
		}
		n.stop()
		stop()
		i.taken()
		i.change(func() { clear(i.srv) })
		n = openNetwork(t, i, dir, nil)
		if err := ask(); err != nil {
			t.Fatal(err)
		}
		if got := i.taken(); !slices.Equal(got, []string{"10.0.0.3:7"}) {
			t.Errorf("dialed %v", got)
		}
		n.stop()
	})
}

// The hosts of a name are not those of another that a server goes by since.
func TestDelegationChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInternet(t)
		i.addrs["far.example"], i.addrs["srv.example"], i.addrs["new.example"] = []string{"10.0.0.1"}, []string{"10.0.0.3"}, []string{"10.0.0.9"}
		i.srv["_matrix-fed._tcp.old.example"] = []*net.SRV{{Target: "srv.example.", Port: 7}}
		i.broken["_matrix-fed._tcp.new.example"] = true
		name := "old.example"
		i.serve("10.0.0.1:443", "far.example", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"m.server":%q}`, name)
		}))
		i.serve("10.0.0.3:7", "old.example", text("{}"))
		i.serve("10.0.0.9:8448", "new.example", text("{}"))
		n := openNetwork(t, i, t.TempDir(), nil)
		ask := func() error { return n.Do(t.Context(), "far.example", Request{Method: "GET", Path: "/x"}, nil) }
		if err := ask(); err != nil {
			t.Fatal(err)
		}
		name = "new.example"
		time.Sleep(49 * time.Hour)
		i.taken()
		err := ask()
		if got := i.taken(); err != nil || !slices.Equal(got, []string{"10.0.0.1:443", "10.0.0.9:8448"}) {
			t.Errorf("dialed %v: %v", got, err)
		}
		n.stop()
	})
}

// Names of which no server has ever answered do not reach the disk.
func TestUnknownHostsAreNotStored(t *testing.T) {
	i, dir := newInternet(t), t.TempDir()
	n := openNetwork(t, i, dir, nil)
	if err := n.Do(t.Context(), "none.example", Request{Method: "GET", Path: "/x", quiet: true}, nil); err == nil {
		t.Fatal("nobody has answered")
	}
	n.stop()
	n = openNetwork(t, i, dir, nil)
	if h, err := n.knownHost("none.example"); err != nil || !h.DelegatedUntil.IsZero() || !n.RetryAt("none.example").IsZero() {
		t.Errorf("stored: %+v, %v", h, err)
	}
}
