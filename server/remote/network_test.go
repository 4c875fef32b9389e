package remote

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"hearth/state/matrix"
	"hearth/store"
)

const ourName = matrix.ServerName("here.example")

// An internet is hosts that live in memory, and the DNS that names them.
type internet struct {
	t     testing.TB
	roots *x509.CertPool
	ca    *x509.Certificate
	caKey *ecdsa.PrivateKey
	now   func() time.Time

	mu      sync.Mutex // guards the fields below
	srv     map[string][]*net.SRV
	addrs   map[string][]string
	broken  map[string]bool // names for which the DNS does not answer
	hosts   map[string]chan net.Conn
	holes   map[string]bool // addresses that never answer
	dialed  []string
	lookups int
}

func newInternet(t testing.TB) *internet {
	t.Helper()
	i := &internet{
		t: t, roots: x509.NewCertPool(), now: time.Now, srv: make(map[string][]*net.SRV), addrs: make(map[string][]string),
		broken: make(map[string]bool), hosts: make(map[string]chan net.Conn), holes: make(map[string]bool),
	}
	var err error
	if i.caKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: i.now().Add(-time.Hour), NotAfter: i.now().AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, i.caKey.Public(), i.caKey)
	if err != nil {
		t.Fatal(err)
	}
	if i.ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	i.roots.AddCert(i.ca)
	return i
}

// certificate returns one for a name or an address.
func (i *internet) certificate(name string) tls.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: i.now().Add(-time.Hour), NotAfter: i.now().AddDate(1, 0, 0),
	}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.ca, key.Public(), i.caKey)
	if err != nil {
		i.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// pipes is a listener whose connections come from memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// serve has handler answer at "ip:port" with a certificate for a name. It returns
// what ends that, and waits until the last connection is closed: where the other end
// closes at the same time, each waits a while for the other to read that.
func (i *internet) serve(addr, cert string, handler http.Handler) (stop func()) {
	l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	config := &tls.Config{Certificates: []tls.Certificate{i.certificate(cert)}}
	var open sync.WaitGroup
	web := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0), ConnState: func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed, http.StateHijacked:
			open.Done()
		}
	}}
	i.mu.Lock()
	i.hosts[addr] = l.conns
	i.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = web.Serve(tls.NewListener(l, config))
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			i.mu.Lock()
			delete(i.hosts, addr)
			i.mu.Unlock()
			_ = web.Close()
			<-ended
			open.Wait()
		})
	}
	i.t.Cleanup(stop)
	return stop
}

func (i *internet) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	i.mu.Lock()
	i.dialed = append(i.dialed, addr)
	conns, hole := i.hosts[addr], i.holes[addr]
	i.mu.Unlock()
	if hole {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if conns == nil {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	near, far := net.Pipe()
	select {
	case conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// change edits what the internet is like while it is being used.
func (i *internet) change(edit func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	edit()
}

// taken returns the addresses that were dialed since the last time.
func (i *internet) taken() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	dialed := i.dialed
	i.dialed = nil
	return dialed
}

func (i *internet) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.lookups++
	full := "_" + service + "._" + proto + "." + name
	if i.broken[full] {
		return "", nil, &net.DNSError{Err: "server misbehaving", Name: full, IsTemporary: true}
	}
	if len(i.srv[full]) == 0 {
		return "", nil, &net.DNSError{Err: "no such host", Name: full, IsNotFound: true}
	}
	return full, i.srv[full], nil
}

func (i *internet) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.lookups++
	var all []netip.Addr
	for _, a := range i.addrs[host] {
		all = append(all, netip.MustParseAddr(a))
	}
	if all == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return all, nil
}

// A testNetwork is our network among the hosts of an internet.
type testNetwork struct {
	*Network
	*internet
	key  matrix.SigningKey
	stop func()
}

// openNetwork returns our network over the data in dir.
func openNetwork(t testing.TB, i *internet, dir string, change func(*NetworkConfig)) *testNetwork {
	t.Helper()
	st, err := store.Open(dir, ourName, store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	key := seedKey("ed25519:ours", 1)
	config := NetworkConfig{
		Store: st, Key: func() matrix.SigningKey { return key }, Dial: i.dial, Resolver: i, Roots: i.roots,
	}
	if change != nil {
		change(&config)
	}
	n := &testNetwork{Network: NewNetwork(config), internet: i, key: key}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			cancel()
			err := <-ended
			err = errors.Join(err, st.Check(context.Background(), func(fault string) { t.Error(fault) }), st.Close())
			if err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(n.stop)
	return n
}

// seedKey returns a key that is the same for the same seed.
func seedKey(id string, seed byte) matrix.SigningKey {
	return matrix.SigningKey{ID: id, Private: ed25519.NewKeyFromSeed(append(make([]byte, 31), seed))}
}

func publicOf(key matrix.SigningKey) string {
	return base64.RawStdEncoding.EncodeToString(key.Private.Public().(ed25519.PublicKey))
}

// keyAnswerOf is what a server says about its keys, signed with the current ones.
func keyAnswerOf(t *testing.T, server matrix.ServerName, until time.Time, old map[string]oldKey, current ...matrix.SigningKey) []byte {
	t.Helper()
	doc := serverKeys{string(server), make(map[string]verifyKey), old, until.UnixMilli()}
	for _, k := range current {
		doc.Keys[k.ID] = verifyKey{publicOf(k)}
	}
	text, err := json.Marshal(doc)
	for _, k := range current {
		if err == nil {
			text, err = matrix.SignJSON(text, string(server), k)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// text answers every request with a body.
func text(body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
}
