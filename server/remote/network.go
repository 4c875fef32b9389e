package remote

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// Network is all other Matrix servers as they are seen from here: it finds them,
// asks them, knows their keys and which of them do not answer. There is one in a
// process, and none where federation is off. Its methods may be called by several
// goroutines at once.
type Network struct {
	config NetworkConfig
	store  *store.Store
	server matrix.ServerName
	log    *slog.Logger

	mu    sync.Mutex // guards heard
	heard []func(matrix.ServerName)
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
	// Now is the clock. If nil, time.Now.
	Now func() time.Time
	// Log takes what goes wrong where nobody waits. If nil, nothing is logged.
	Log *slog.Logger
}

// Resolver looks up names in the DNS, as net.Resolver does.
type Resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

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
	return &Network{config: config, store: config.Store, server: config.Store.Server(), log: config.Log}
}

// Run writes down, until ctx ends, what is learned about other servers and no
// request waits for.
func (n *Network) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Server returns the name of our own server.
func (n *Network) Server() matrix.ServerName { return n.server }

// OnHeard has fn told of each server that speaks to us or answers. fn must not
// block. Call it before Run.
func (n *Network) OnHeard(fn func(matrix.ServerName)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heard = append(n.heard, fn)
}

// Heard notes that a server is there, as it has spoken to us: it is tried again at
// once, whatever was before.
func (n *Network) Heard(server matrix.ServerName) {
	n.mu.Lock()
	heard := n.heard
	n.mu.Unlock()
	for _, fn := range heard {
		fn(server)
	}
}
