package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"hearth/server/api"
)

// Time limits and sizes of the web server. Those of bodies and answers move with
// their progress; package api has them.
const (
	headerLimit    = 10 * time.Second // for a request's header, and for a TLS handshake
	idleLimit      = 2 * time.Minute  // between two requests of a connection
	answerLimit    = 60 * time.Second // for what net/http writes before api's limits hold
	maxHeaderBytes = 32 << 10         // a filter may stand in the query of /sync
)

// newHTTPServer returns the web server for all listeners. It speaks HTTP/1.1
// alone: a parked long poll then costs its two buffers and two small stacks, which
// an HTTP/2 connection (flow control, header tables, a frame buffer and three
// stacks) does not reach, and a household's clients have a connection or two each.
// Behind a proxy, the proxy speaks what it likes with clients.
func newHTTPServer(base context.Context, handler http.Handler, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:                      handler,
		Protocols:                    protocols,
		ReadHeaderTimeout:            headerLimit,
		IdleTimeout:                  idleLimit,
		WriteTimeout:                 answerLimit,
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return base },
		ConnState:                    trackState,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// openListener listens on host:port or unix:/path. A socket's file that nobody
// serves any more is replaced; its owner and group may connect.
func openListener(addr string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(addr, unixPrefix)
	if !isUnix {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", addr, err)
		}
		return l, nil
	}
	return listenUnix(path, 0o660)
}

// listenUnix listens on a socket file with the given mode.
func listenUnix(path string, mode fs.FileMode) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("listen on %s: another process does", path)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("listen on %s: that is a file, and no socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), l.Close())
	}
	return l, nil
}

// connTable bounds the connections of all listeners together. When it is full, a
// new connection takes the place of the one that is idle for longest; where none
// is idle, and where one house has half of the table, it is closed instead.
type connTable struct {
	max    int
	shared func(net.Addr) bool // addresses that stand for many clients: proxies
	now    func() time.Time

	mu    sync.Mutex // guards the fields below and the idle field of each conn
	conns map[*trackedConn]struct{}
	from  map[string]int // connections of one house
}

func newConnTable(most int, shared func(net.Addr) bool) *connTable {
	return &connTable{max: most, shared: shared, now: time.Now, conns: make(map[*trackedConn]struct{}), from: make(map[string]int)}
}

// trackedConn is a connection in a table.
type trackedConn struct {
	net.Conn
	table *connTable
	host  string    // "" where the address is shared
	idle  time.Time // since when it waits for a request; zero while it has one
}

// ReadFrom lets net/http send files the system's way.
func (c *trackedConn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

// Close closes the connection and frees its place.
func (c *trackedConn) Close() error {
	c.table.remove(c)
	return c.Conn.Close()
}

// trackedListener is a listener whose connections are in a table.
type trackedListener struct {
	net.Listener
	table *connTable
}

// Accept returns the next connection that the table has a place for.
func (l *trackedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.table.add(conn); c != nil {
			return c, nil
		}
		conn.Close()
	}
}

// add gives conn a place, or returns nil.
func (t *connTable) add(conn net.Conn) *trackedConn {
	c := &trackedConn{Conn: conn, table: t, idle: t.now()}
	if !t.shared(conn.RemoteAddr()) {
		c.host = house(conn.RemoteAddr())
	}
	t.mu.Lock()
	var evicted *trackedConn
	full := len(t.conns) >= t.max
	if full {
		evicted = t.longestIdle()
	}
	if full && evicted == nil || c.host != "" && t.from[c.host] >= t.max/2 {
		t.mu.Unlock()
		return nil
	}
	t.conns[c] = struct{}{}
	if c.host != "" {
		t.from[c.host]++
	}
	t.mu.Unlock()
	if evicted != nil {
		evicted.Close()
	}
	return c
}

// house returns what connections from one place have in common, "" for what is no
// address.
func house(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return ""
	}
	return api.HouseKey(tcp.AddrPort().Addr())
}

// longestIdle returns the connection that waits for a request for longest, but
// for at least a second: a new one must get the time to ask. t.mu is held.
func (t *connTable) longestIdle() *trackedConn {
	var longest *trackedConn
	before := t.now().Add(-time.Second)
	for c := range t.conns {
		if !c.idle.IsZero() && c.idle.Before(before) {
			longest, before = c, c.idle
		}
	}
	return longest
}

// remove frees the place of c.
func (t *connTable) remove(c *trackedConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, there := t.conns[c]; !there {
		return
	}
	delete(t.conns, c)
	if c.host == "" {
		return
	}
	if t.from[c.host]--; t.from[c.host] == 0 {
		delete(t.from, c.host)
	}
}

// trackState keeps the idle field of a connection; it is the server's ConnState.
func trackState(conn net.Conn, state http.ConnState) {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	c, ok := conn.(*trackedConn)
	if !ok {
		return
	}
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	switch state {
	case http.StateActive:
		c.idle = time.Time{}
	case http.StateIdle:
		c.idle = c.table.now()
	}
}
