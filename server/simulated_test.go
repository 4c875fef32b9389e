package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hearth/server/remote"
	"hearth/state/matrix"
	"hearth/store"
)

// A simulated server is a whole Hearth on a fabric: everything but sockets.
type simulated struct {
	t      *testing.T
	fabric *fabric
	addr   netip.Addr
	data   string
	lives  int           // how often it was started
	skew   time.Duration // of its clock
	log    io.Writer     // or nil

	server *Server
	inside http.Handler    // of the server, as nothing disturbs it
	ctx    context.Context // ends with the server
	stop   context.CancelFunc
	ended  chan error
}

func newSimulated(t *testing.T, f *fabric, number int, skew time.Duration) *simulated {
	addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(number + 1)})
	return &simulated{t: t, fabric: f, addr: addr, skew: skew, data: filepath.Join(t.TempDir(), "0")}
}

// start opens the data and runs the server.
func (s *simulated) start() {
	s.t.Helper()
	s.lives++
	level := slog.LevelDebug
	log := slog.New(slog.DiscardHandler)
	if s.log != nil {
		log = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: level})).With("at", s.addr)
	}
	config := Config{
		Data: s.data, ServerName: s.name(), Registration: RegistrationOpen, RateLimits: Off, PasswordCost: 4,
		FederationCA: s.fabric.file, AllowPrivateNetworks: On, URLPreviews: Off, Presence: PresenceOff,
	}.withDefaults()
	s.server = &Server{config: config, log: log, outside: outside{
		dial:  s.fabric.dialer(s.addr),
		now:   func() time.Time { return time.Now().Add(s.skew) },
		store: store.Options{NoSync: true},
	}}
	if err := s.server.openParts(remote.NewDialer(true)); err != nil {
		s.t.Fatalf("%s: %v", s.name(), err)
	}
	s.server.listeners = []net.Listener{s.fabric.listen(s.t, s.addr)}
	s.inside = s.server.handler
	s.server.handler = s.fabric.disturb(s.inside)
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.ended = make(chan error, 1)
	server, ctx := s.server, s.ctx
	go func() { s.ended <- server.Run(ctx) }()
}

// end stops the server as its owner would.
func (s *simulated) end() {
	s.stop()
	if err := <-s.ended; err != nil {
		s.t.Errorf("%s: %v", s.name(), err)
	}
	s.fabric.sever(s.addr)
	s.server = nil
}

// crash ends the server as a power cut would: what it had on disk at this moment is
// what the next life begins with. Nothing that its end does reaches anybody.
func (s *simulated) crash() {
	next := filepath.Join(filepath.Dir(s.data), fmt.Sprint(s.lives))
	if err := os.CopyFS(next, os.DirFS(s.data)); err != nil {
		s.t.Fatal(err)
	}
	s.fabric.sever(s.addr)
	s.stop()
	<-s.ended
	if err := os.RemoveAll(s.data); err != nil {
		s.t.Fatal(err)
	}
	s.data, s.server = next, nil
}

// up says whether the server runs.
func (s *simulated) up() bool { return s.server != nil }

func (s *simulated) name() matrix.ServerName {
	return matrix.ServerName(fmt.Sprintf("%s:8448", s.addr))
}

func (s *simulated) folder() string { return s.data }

// answer has the server answer a request of the client API, as if it had come by a
// socket. ok is false where it ended before it did. What the request sets off at this
// moment is done when it returns.
func (s *simulated) answer(r *http.Request) (status int, body []byte, ok bool) {
	if s.server == nil {
		return 0, nil, false
	}
	defer synctest.Wait()
	ctx, w := s.ctx, httptest.NewRecorder()
	func() {
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				panic(p)
			}
		}()
		s.inside.ServeHTTP(w, r.WithContext(ctx))
	}()
	return w.Code, w.Body.Bytes(), ctx.Err() == nil
}

// prefixed writes what one server logs.
type prefixed struct {
	t *testing.T
}

func (p prefixed) Write(b []byte) (int, error) {
	p.t.Log(strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}
