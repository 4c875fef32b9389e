package server

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"hearth/server/api"
)

// writeCertificate writes a certificate for name and its key, and returns the files.
func writeCertificate(t *testing.T, dir, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der},
		keyFile:  {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// servedName returns the name in the certificate that a server shows.
func servedName(t *testing.T, addr string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if p := conn.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
		t.Errorf("negotiated %q", p)
	}
	return conn.ConnectionState().PeerCertificates[0].DNSNames[0]
}

// A new certificate is served without a restart, and a broken one is not.
func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := writeCertificate(t, dir, "old.example")
	s := start(t, Config{
		Data: filepath.Join(dir, "data"), Listen: []string{}, ListenTLS: []string{"127.0.0.1:0"},
		TLSCert: certFile, TLSKey: keyFile,
	})
	addr := s.Addresses()[0].String()
	if name := servedName(t, addr); name != "old.example" {
		t.Fatal(name)
	}
	writeCertificate(t, dir, "new.example")
	time.Sleep(checkEvery + 50*time.Millisecond)
	if name := servedName(t, addr); name != "new.example" {
		t.Errorf("after the change it serves %s", name)
	}
	if err := os.WriteFile(certFile, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(checkEvery + 50*time.Millisecond)
	if name := servedName(t, addr); name != "new.example" {
		t.Errorf("with a broken file it serves %s", name)
	}
	if _, err := openCertificate(certFile, keyFile, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a broken certificate was accepted at start")
	}
}

// withRoutes returns a server of which a test knows the routes.
func withRoutes(t *testing.T, config Config, routes ...api.Route) *running {
	t.Helper()
	config.Data = t.TempDir()
	s, err := New(config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if s.handler, err = api.NewRouter(s.log, routes...); err != nil {
		t.Fatal(err)
	}
	return run(t, s)
}

// When the server stops, a long poll ends with an answer and a request under way is
// answered, both before the grace is over.
func TestStopEndsLongPolls(t *testing.T) {
	arrived := make(chan struct{}, 2)
	s := withRoutes(t, Config{Listen: []string{"127.0.0.1:0"}},
		api.Route{Pattern: "GET /poll", Handle: func(w http.ResponseWriter, r *http.Request) error {
			ctx, cancel := api.LongPoll(r, time.Hour)
			defer cancel()
			arrived <- struct{}{}
			<-ctx.Done()
			if err := r.Context().Err(); err != nil {
				return err // it was cut off
			}
			return api.WriteJSON(w, []int{1})
		}},
		api.Route{Pattern: "GET /work", Handle: func(w http.ResponseWriter, r *http.Request) error {
			arrived <- struct{}{}
			time.Sleep(300 * time.Millisecond)
			if err := r.Context().Err(); err != nil {
				return err
			}
			return api.WriteJSON(w, []int{2})
		}},
	)
	answers := make(chan string, 2)
	for _, path := range []string{"/poll", "/work"} {
		go func() {
			res, err := http.Get("http://" + s.Addresses()[0].String() + path)
			if err != nil {
				answers <- err.Error()
				return
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			answers <- string(body)
		}()
		<-arrived
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if a, b := <-answers, <-answers; a+b != "[1][2]" && a+b != "[2][1]" {
		t.Errorf("answers %q and %q", a, b)
	}
}

// The listener of a unix socket believes X-Forwarded-For, replaces the file that a
// crash left, and leaves a socket alone that somebody serves.
func TestUnixListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.sock")
	left, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	left.Close()
	s := withRoutes(t, Config{Listen: []string{unixPrefix + path}}, api.Route{
		Pattern: "GET /ip", Handle: func(w http.ResponseWriter, r *http.Request) error {
			return api.WriteJSON(w, api.ClientIP(r).String())
		}})
	if _, err := openListener(unixPrefix + path); err == nil {
		t.Error("two listeners have one socket")
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /ip HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); string(body) != `"203.0.113.9"` {
		t.Errorf("%s", body)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

// A header that does not end, and one that is too large, cost the client its
// connection.
func TestHeadersAreBounded(t *testing.T) {
	router, err := api.NewRouter(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	web := newHTTPServer(context.Background(), router, slog.New(slog.DiscardHandler))
	web.ReadHeaderTimeout = 100 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go web.Serve(l)
	defer web.Close()
	for name, first := range map[string]string{
		"slow":  "GET / HTTP/1.1\r\nHost: x\r\nX-A",
		"large": "GET / HTTP/1.1\r\nHost: x\r\nX-A: " + string(make([]byte, 2*maxHeaderBytes)),
	} {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, first) // the server may have closed it before the end
		conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.ReadAll(conn); err != nil && os.IsTimeout(err) {
			t.Errorf("%s: the connection stays open", name)
		}
		conn.Close()
	}
}

// tableServer serves a handler with a bound on its connections and returns a
// function that connects. The table's clock stands still until passed, in
// nanoseconds, is moved.
func tableServer(t *testing.T, most int, shared bool) (table *connTable, dial func() net.Conn, passed *atomic.Int64) {
	t.Helper()
	passed = new(atomic.Int64)
	router, err := api.NewRouter(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	web := newHTTPServer(context.Background(), router, slog.New(slog.DiscardHandler))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	table = newConnTable(most, func(net.Addr) bool { return shared })
	began := time.Now()
	table.now = func() time.Time { return began.Add(time.Duration(passed.Load())) }
	go web.Serve(&trackedListener{l, table})
	t.Cleanup(func() { web.Close() })
	return table, func() net.Conn {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}, passed
}

// awaitIdle waits until so many connections are idle: the server notes it after a
// client has its answer.
func awaitIdle(t *testing.T, table *connTable, want int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		idle := 0
		table.mu.Lock()
		for c := range table.conns {
			if !c.idle.IsZero() {
				idle++
			}
		}
		table.mu.Unlock()
		if idle == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are idle, want %d", idle, want)
		}
	}
}

// question is what asks sends.
const question = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// asks reports whether a request on conn is answered.
func asks(conn net.Conn) bool {
	io.WriteString(conn, question)
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return true
}

// When all places are taken, a new connection is closed while the others are
// young, and takes the place of the one that idles for longest afterwards, but not
// of one that has a request.
func TestConnectionsAreBounded(t *testing.T) {
	table, dial, passed := tableServer(t, 3, true)
	var conns []net.Conn
	for range 3 {
		conn := dial()
		if !asks(conn) {
			t.Fatal("no answer below the bound")
		}
		conns = append(conns, conn)
	}
	if asks(dial()) {
		t.Error("an answer above the bound")
	}
	awaitIdle(t, table, 3)
	passed.Store(int64(1100 * time.Millisecond))
	if !asks(conns[0]) { // the youngest now
		t.Fatal("a connection within the bound was closed")
	}
	awaitIdle(t, table, 3)
	fmt.Fprintf(conns[1], "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(question)) // the body follows below
	awaitIdle(t, table, 2)
	if !asks(dial()) {
		t.Error("no idle connection made room")
	}
	if !asks(conns[0]) {
		t.Error("the youngest connection made room")
	}
	if !asks(conns[1]) {
		t.Error("a connection that is in use made room")
	}
	table.mu.Lock()
	defer table.mu.Unlock()
	if len(table.conns) > 3 {
		t.Errorf("%d connections", len(table.conns))
	}
}

// One stranger gets half of the places at most.
func TestOneHostGetsHalf(t *testing.T) {
	table, dial, _ := tableServer(t, 6, false)
	for i := range 6 {
		if got, want := asks(dial()), i < 3; got != want {
			t.Errorf("connection %d: answered %v", i, got)
		}
	}
	table.mu.Lock()
	defer table.mu.Unlock()
	if len(table.conns) != 3 || len(table.from) != 1 {
		t.Errorf("%d connections from %d hosts", len(table.conns), len(table.from))
	}
}

// A setting that names a file by mistake must not remove it.
func TestSocketReplacesNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openListener(unixPrefix + path); err == nil {
		t.Error("a file was taken for a socket")
	}
	if text, err := os.ReadFile(path); string(text) != "text" {
		t.Errorf("the file holds %q, %v", text, err)
	}
}

// A house with a whole network of version 6 counts as one, or it could take all
// places.
func TestHouse(t *testing.T) {
	of := func(text string) string { return house(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(text))) }
	if a, b := of("[2001:db8:1:2::1]:5"), of("[2001:db8:1:2:ffff::9]:6"); a != b {
		t.Errorf("one network is two houses, %s and %s", a, b)
	}
	if a, b := of("192.0.2.1:5"), of("192.0.2.2:5"); a == b {
		t.Errorf("two addresses are one house, %s", a)
	}
}
