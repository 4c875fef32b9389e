package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fabric is the network of a simulation: connections in memory between servers
// that have an address each, with links that are slow or cut, and transactions that
// are lost, repeated and delayed. What befalls a message depends on the seed and on
// when it comes from where, so that a seed means the same world each time.
type fabric struct {
	seed  uint64
	log   io.Writer // or nil
	roots *x509.CertPool
	ca    *x509.Certificate
	caKey *ecdsa.PrivateKey
	file  string // the certificate of ca, as the servers are told it

	mu        sync.Mutex // guards what follows
	listeners map[netip.Addr]*gate
	cut       map[[2]netip.Addr]bool
	wires     map[*wire]bool
	calm      bool   // nothing is lost, repeated or delayed any more
	digest    uint64 // of all that came to a server, in whatever order
}

func newFabric(t *testing.T, seed uint64) *fabric {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &fabric{
		seed: seed, caKey: key, roots: x509.NewCertPool(), file: t.TempDir() + "/ca.pem",
		listeners: make(map[netip.Addr]*gate), cut: make(map[[2]netip.Addr]bool), wires: make(map[*wire]bool),
	}
	f.ca = f.certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: "the fabric"}, IsCA: true, BasicConstraintsValid: true}, key, nil)
	f.roots.AddCert(f.ca)
	if err := os.WriteFile(f.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.ca.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

// certify signs a certificate, by itself where there is no authority yet.
func (f *fabric) certify(t *testing.T, cert *x509.Certificate, key *ecdsa.PrivateKey, by *x509.Certificate) *x509.Certificate {
	cert.SerialNumber = big.NewInt(int64(len(f.listeners)) + 1)
	cert.NotBefore, cert.NotAfter = time.Unix(0, 0), time.Unix(1<<33, 0)
	if by == nil {
		by = cert
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, by, &key.PublicKey, f.caKey)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// listen opens the gate of a server, with TLS.
func (f *fabric) listen(t *testing.T, addr netip.Addr) net.Listener {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := f.certify(t, &x509.Certificate{IPAddresses: []net.IP{addr.AsSlice()}}, key, f.ca)
	g := &gate{addr: addr, fabric: f, conns: make(chan net.Conn), done: make(chan struct{})}
	f.mu.Lock()
	f.listeners[addr] = g
	f.mu.Unlock()
	return tls.NewListener(g, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}})
}

// dialer returns how the server at an address reaches the others.
func (f *fabric) dialer(from netip.Addr) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, address string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, fmt.Errorf("dial %s: no address", address)
		}
		time.Sleep(f.latency(from, to.Addr()))
		f.mu.Lock()
		g, cut := f.listeners[to.Addr()], f.cut[link(from, to.Addr())]
		f.mu.Unlock()
		switch {
		case cut:
			<-ctx.Done()
			time.Sleep(time.Millisecond) // who asked sees first that it took too long
			return nil, fmt.Errorf("dial %s: %w", address, ctx.Err())
		case g == nil:
			return nil, fmt.Errorf("dial %s: connection refused", address)
		}
		near, far := f.connect(from, to.Addr())
		select {
		case g.conns <- far:
			return near, nil
		case <-g.done:
			return nil, fmt.Errorf("dial %s: connection refused", address)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// note adds to the digest what happens now.
func (f *fabric) note(what ...any) {
	now := time.Now()
	sum := f.chance(now.UnixNano(), what)
	if f.log != nil {
		fmt.Fprintf(f.log, "%s %016x %s\n", now.Format("15:04:05.000000"), sum, what)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.digest += sum
}

// setCut cuts a link or mends it. What is under way on it is lost.
func (f *fabric) setCut(a, b host, cut bool) {
	between := link(a.(*simulated).addr, b.(*simulated).addr)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut[between] = cut
	for w := range f.wires {
		if cut && w.link == between {
			w.reset()
		}
	}
}

// sever ends all that is connected to an address, as its end does.
func (f *fabric) sever(addr netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if g := f.listeners[addr]; g != nil {
		delete(f.listeners, addr)
		g.once.Do(func() { close(g.done) })
	}
	for w := range f.wires {
		if w.link[0] == addr || w.link[1] == addr {
			w.reset()
		}
	}
}

// settle ends all that goes wrong.
func (f *fabric) settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calm = true
	clear(f.cut)
}

func link(a, b netip.Addr) [2]netip.Addr {
	if b.Less(a) {
		a, b = b, a
	}
	return [2]netip.Addr{a, b}
}

// chance returns a number that depends on the seed and what it is for.
func (f *fabric) chance(of ...any) uint64 {
	x := f.seed ^ 0x9e3779b97f4a7c15
	for _, b := range fmt.Append(nil, of...) {
		x = (x ^ uint64(b)) * 0x100000001b3
	}
	x ^= x >> 29
	x *= 0xbf58476d1ce4e5b9
	return x ^ x>>32
}

// latency is how long a link takes: 1 to 200 ms, another for each.
func (f *fabric) latency(a, b netip.Addr) time.Duration {
	l := link(a, b)
	return time.Millisecond + time.Duration(f.chance("latency", l[0], l[1])%200_000)*time.Microsecond
}

// disturb lets transactions be lost on their way to a server or back, come twice,
// and be late.
func (f *fabric) disturb(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		calm := f.calm
		f.mu.Unlock()
		fate := f.chance("fate", time.Now().UnixNano(), r.Host, r.RemoteAddr) % 100
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		about, _, _ := strings.Cut(r.URL.Path, "/send/") // who numbers transactions side by side may do so in any order
		f.note(r.RemoteAddr, r.Host, r.Method, about, r.URL.RawQuery, body)
		if calm || r.Method != http.MethodPut {
			r.Body = io.NopCloser(bytes.NewReader(body))
			h.ServeHTTP(w, r)
			return
		}
		again := func(w http.ResponseWriter) {
			copied := r.Clone(context.WithoutCancel(r.Context()))
			copied.Body = io.NopCloser(bytes.NewReader(body))
			h.ServeHTTP(w, copied)
		}
		switch {
		case fate < 8: // lost
			panic(http.ErrAbortHandler)
		case fate < 16: // the answer is lost
			again(httptest.NewRecorder())
			panic(http.ErrAbortHandler)
		case fate < 24: // comes twice
			again(httptest.NewRecorder())
		case fate < 32: // is late
			time.Sleep(time.Duration(fate) * time.Second)
		}
		again(w)
	})
}

// A gate is the listener of a server.
type gate struct {
	addr   netip.Addr
	fabric *fabric
	conns  chan net.Conn
	done   chan struct{}
	once   sync.Once
}

func (g *gate) Accept() (net.Conn, error) {
	select {
	case c := <-g.conns:
		return c, nil
	case <-g.done:
		return nil, net.ErrClosed
	}
}

func (g *gate) Close() error {
	g.once.Do(func() { close(g.done) })
	return nil
}

func (g *gate) Addr() net.Addr { return net.TCPAddrFromAddrPort(netip.AddrPortFrom(g.addr, 8448)) }

// connect returns the two ends of a new connection.
func (f *fabric) connect(from, to netip.Addr) (near, far net.Conn) {
	w := &wire{fabric: f, link: link(from, to), delay: f.latency(from, to), changed: make(chan struct{})}
	f.mu.Lock()
	f.wires[w] = true
	f.mu.Unlock()
	return &end{wire: w, side: 0, local: from, remote: to}, &end{wire: w, side: 1, local: to, remote: from}
}

// A wire carries bytes both ways.
type wire struct {
	fabric *fabric
	link   [2]netip.Addr
	delay  time.Duration

	mu      sync.Mutex      // guards what follows
	changed chan struct{}   // closed and replaced at each change
	under   [2][]parcel     // to each side
	ended   [2]bool         // by each side
	broken  bool            // neither side reads or writes any more
	limit   [2][2]time.Time // each side's deadlines of reading and writing
}

// A parcel is bytes and when they arrive.
type parcel struct {
	at    time.Time
	bytes []byte
}

var errReset = errors.New("connection reset")

// change runs fn and wakes who waits. It returns what fn does.
func (w *wire) change(fn func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := fn()
	close(w.changed)
	w.changed = make(chan struct{})
	return err
}

func (w *wire) reset() {
	w.change(func() error {
		w.broken = true
		return nil
	})
}

// An end is one side of a wire.
type end struct {
	wire          *wire
	side          int
	local, remote netip.Addr
}

func (e *end) Read(p []byte) (int, error) {
	w := e.wire
	for {
		w.mu.Lock()
		now := time.Now()
		limit, changed, wait := w.limit[e.side][0], w.changed, time.Duration(-1)
		switch queue := w.under[e.side]; {
		case w.broken:
			w.mu.Unlock()
			return 0, errReset
		case !limit.IsZero() && !now.Before(limit):
			w.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case len(queue) > 0 && !now.Before(queue[0].at):
			n := copy(p, queue[0].bytes)
			if queue[0].bytes = queue[0].bytes[n:]; len(queue[0].bytes) == 0 {
				w.under[e.side] = queue[1:]
			}
			w.mu.Unlock()
			return n, nil
		case len(queue) > 0:
			wait = queue[0].at.Sub(now)
		case w.ended[1-e.side] || w.ended[e.side]:
			w.mu.Unlock()
			return 0, io.EOF
		}
		w.mu.Unlock()
		if !limit.IsZero() && (wait < 0 || limit.Sub(now) < wait) {
			wait = limit.Sub(now)
		}
		if wait < 0 {
			<-changed
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (e *end) Write(p []byte) (n int, err error) {
	err = e.wire.change(func() error {
		if e.wire.broken || e.wire.ended[0] || e.wire.ended[1] {
			return errReset
		}
		parcel := parcel{at: time.Now().Add(e.wire.delay), bytes: bytes.Clone(p)}
		e.wire.under[1-e.side] = append(e.wire.under[1-e.side], parcel)
		n = len(p)
		return nil
	})
	return n, err
}

func (e *end) Close() error {
	e.wire.fabric.mu.Lock()
	delete(e.wire.fabric.wires, e.wire)
	e.wire.fabric.mu.Unlock()
	return e.wire.change(func() error {
		e.wire.ended[e.side] = true
		return nil
	})
}

func (e *end) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.AddrPortFrom(e.local, 8448)) }
func (e *end) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(e.remote, 8448))
}

func (e *end) SetDeadline(t time.Time) error {
	return errors.Join(e.SetReadDeadline(t), e.SetWriteDeadline(t))
}

func (e *end) SetReadDeadline(t time.Time) error {
	return e.wire.change(func() error {
		e.wire.limit[e.side][0] = t
		return nil
	})
}

func (e *end) SetWriteDeadline(t time.Time) error {
	return e.wire.change(func() error {
		e.wire.limit[e.side][1] = t
		return nil
	})
}
