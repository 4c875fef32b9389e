package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"hearth/state/matrix"
	"hearth/store"
)

// Network is all other Matrix servers as they are seen from here: it finds them,
// asks them, knows their keys and which of them do not answer. There is one in a
// process, and none where federation is off. Its methods may be called by several
// goroutines at once.
type Network struct {
	config    NetworkConfig
	store     *store.Store
	server    matrix.ServerName
	log       *slog.Logger
	now       func() time.Time
	transport *http.Transport
	documents *http.Client

	free     *semaphore.Weighted // of the requests under way
	patient  *semaphore.Weighted // of those that no user waits for, who leave some to users
	finding  singleflight.Group  // of hosts, by server
	fetching singleflight.Group  // of keys, by server
	fetches  *semaphore.Weighted // of the fetches of keys
	replies  replies             // of other servers, for a while
	learned  atomic.Int64        // answers about keys since the last were forgotten
	forgot   time.Time           // when what is old was forgotten last; Run's alone

	mu             sync.Mutex // guards the fields below
	heard          []func(server matrix.ServerName, back bool)
	hosts          map[matrix.ServerName]cachedHost
	unwrittenHosts map[matrix.ServerName]store.Host
	backoffs       map[matrix.ServerName]backing
	silent         map[matrix.ServerName]silence // whose keys could not be had
}

// NetworkConfig is what a Network needs; Store, Key and Dial are required.
type NetworkConfig struct {
	Store *store.Store
	// Key returns the key that signs for this server now.
	Key func() matrix.SigningKey
	// Dial connects to an address, "ip:port". It refuses what must not be reached.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Resolver looks up names. If nil, net.DefaultResolver.
	Resolver Resolver
	// Roots are the certificates that another server's must lead to. If nil, the
	// system's.
	Roots *x509.CertPool
	// Notaries are asked for the keys of servers that do not answer.
	Notaries []matrix.ServerName
	// MaxConns is how many requests may be under way, each with a connection. If
	// zero, 64.
	MaxConns int
	// Budget takes the memory for an answer that is large and not streamed. If nil,
	// none is taken.
	Budget func(ctx context.Context, bytes int64) (release func(), err error)
	// Now is the clock. If nil, time.Now.
	Now func() time.Time
	// Log takes what goes wrong where nobody waits. If nil, nothing is logged.
	Log *slog.Logger
}

// Resolver looks up names in the DNS, as net.Resolver does: SRV records come in the
// order to be tried, and where there are none the error says IsNotFound.
type Resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

const (
	// defaultConns is how many requests may be under way where nobody says.
	defaultConns = 64
	// userShare is which part of the requests under way users alone may have.
	userShare = 4
	// connsPerServer bounds the connections to one server.
	connsPerServer = 4
)

// NewNetwork returns the network as a store's server sees it. Let [Network.Run]
// run as long as it is used.
func NewNetwork(config NetworkConfig) *Network {
	if config.Resolver == nil {
		config.Resolver = net.DefaultResolver
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Budget == nil {
		config.Budget = func(context.Context, int64) (func(), error) { return func() {}, nil }
	}
	if config.MaxConns <= 0 {
		config.MaxConns = defaultConns
	}
	n := &Network{
		config: config, store: config.Store, server: config.Store.Server(), log: config.Log, now: config.Now,
		free:           semaphore.NewWeighted(int64(config.MaxConns)),
		patient:        semaphore.NewWeighted(int64(max(1, config.MaxConns-config.MaxConns/userShare))),
		fetches:        semaphore.NewWeighted(int64(min(maxKeyFetches, max(1, config.MaxConns/2)))),
		hosts:          make(map[matrix.ServerName]cachedHost),
		unwrittenHosts: make(map[matrix.ServerName]store.Host),
		backoffs:       make(map[matrix.ServerName]backing),
		silent:         make(map[matrix.ServerName]silence),
	}
	n.transport = n.newTransport()
	n.documents = n.newDocumentClient()
	return n
}

// newTransport returns what carries the requests. Its connections are by server
// name, each to where that server is at the time.
func (n *Network) newTransport() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialTLSContext:         n.dialServer,
		DisableCompression:     true, // a kilobyte could stand for a megabyte
		MaxResponseHeaderBytes: maxHeaderBytes,
		MaxConnsPerHost:        connsPerServer,
		MaxIdleConns:           max(idleConns, n.config.MaxConns/4),
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        idleTimeout,
		Protocols:              protocols,
	}
}

// tlsConfig returns how connections are secured for a certificate's name; with "",
// whoever uses it says the name.
func (n *Network) tlsConfig(name string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: n.config.Roots, ServerName: name, Time: n.config.Now}
}

const (
	// writeEvery is how often what was learned is written.
	writeEvery = 2 * time.Second
	// maxWritten bounds the records of one write.
	maxWritten = 500
	// lastWrite bounds the write after the end.
	lastWrite = 5 * time.Second
)

// Run writes down, until ctx ends, what is learned about other servers and no
// request waits for.
func (n *Network) Run(ctx context.Context) error {
	defer n.transport.CloseIdleConnections()
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	for {
		n.forget(ctx)
		select {
		case <-tick.C:
			if err := n.write(ctx, writeEvery/2); err != nil && ctx.Err() == nil {
				n.log.Error("write what is known about other servers", "err", err)
			}
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
			defer cancel()
			if err := n.write(last, 0); err != nil && !errors.Is(err, store.ErrClosed) {
				n.log.Error("write what is known about other servers", "err", err)
			}
			return nil
		}
	}
}

// write writes down what was learned since the last time; it may wait for company.
// What a failed write loses is learned again.
func (n *Network) write(ctx context.Context, patience time.Duration) error {
	hosts, backoffs := n.takeHosts(), n.takeBackoffs()
	if len(hosts)+len(backoffs) == 0 {
		return nil
	}
	return n.store.UpdatePatiently(ctx, patience, func(tx *store.Tx) error {
		for server, h := range hosts {
			if err := tx.PutHost(server, h); err != nil {
				return err
			}
		}
		for server, b := range backoffs {
			if err := tx.PutBackoff(server, b); err != nil {
				return err
			}
		}
		return nil
	})
}

// Server returns the name of our own server.
func (n *Network) Server() matrix.ServerName { return n.server }

// OnHeard has fn told of each server that speaks to us, and of each that answers
// after it did not; back says whether we had thought that it was not there. fn must not
// block. Call it before Run.
func (n *Network) OnHeard(fn func(server matrix.ServerName, back bool)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heard = append(n.heard, fn)
}

// Heard notes that a server is there, as it has spoken to us: it is tried again at
// once, whatever was before.
func (n *Network) Heard(server matrix.ServerName) {
	n.tell(server, n.recovered(server))
}

// tell calls those who want to know which servers are there.
func (n *Network) tell(server matrix.ServerName, back bool) {
	n.mu.Lock()
	heard := n.heard
	n.mu.Unlock()
	for _, fn := range heard {
		fn(server, back)
	}
}
