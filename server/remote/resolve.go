package remote

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// defaultPort is where a server answers whose name and records say nothing else.
const defaultPort = 8448

const (
	// maxTargets bounds the SRV records that are looked at.
	maxTargets = 8
	// targetsTime is how long SRV records are kept; the DNS's own time is not told.
	targetsTime = time.Hour
	// targetsRetry is when they are looked up again after the DNS did not answer.
	targetsRetry = time.Minute
)

// place is where the requests to a server go, and by which names.
type place struct {
	host    string             // the header Host
	cert    string             // the name or address that the certificate must be for
	targets []store.HostTarget // to be tried in this order
}

// direct returns the place of a server whose name says it all: it is an address or
// has a port.
//
// Spec: SS Resolving server names, steps 1 and 2; and 3.1 and 3.2, where the name
// is a delegated one.
func direct(server matrix.ServerName) (place, bool) {
	host := strings.Trim(server.Host(), "[]")
	port, hasPort := strings.CutPrefix(string(server), server.Host()+":")
	_, err := netip.ParseAddr(host)
	if err != nil && !hasPort {
		return place{}, false
	}
	number := uint64(defaultPort)
	if hasPort {
		if number, err = strconv.ParseUint(port, 10, 16); err != nil {
			number = 0 // nobody answers there
		}
	}
	return place{string(server), host, []store.HostTarget{{Name: host, Port: uint16(number)}}}, true
}

// placeOf returns the place of a server that is not direct, by what was found out
// about it.
//
// Spec: SS Resolving server names, steps 3 to 6.
func placeOf(server matrix.ServerName, h store.Host) place {
	if h.Delegated != "" {
		if p, ok := direct(h.Delegated); ok {
			return p
		}
		server = h.Delegated
	}
	p := place{string(server), string(server), h.Targets}
	if len(p.targets) == 0 {
		p.targets = []store.HostTarget{{Name: string(server), Port: defaultPort}}
	}
	return p
}

// resolve finds out again what is too old in h. It fails only when ctx ends: where
// there are neither a well-known document nor SRV records, the name itself is left.
func (n *Network) resolve(ctx context.Context, server matrix.ServerName, h store.Host) (store.Host, error) {
	before := h.Delegated
	if now := n.now(); !now.Before(h.DelegatedUntil) {
		n.delegate(ctx, server, &h)
	}
	if h.Delegated != before {
		h.Targets = nil // they are another name's
	}
	name := server
	if h.Delegated != "" {
		name = h.Delegated
	}
	_, isDirect := direct(name)
	switch {
	case isDirect:
		h.Targets, h.TargetsUntil = nil, h.DelegatedUntil
	case h.Delegated != before || !n.now().Before(h.TargetsUntil):
		n.lookUpTargets(ctx, name, &h)
	}
	return h, ctx.Err()
}

// lookUpTargets looks up the SRV records of a name: the registered service first,
// then the old one.
//
// Spec: SS Resolving server names, steps 3.3 to 3.5 and 4 to 6.
func (n *Network) lookUpTargets(ctx context.Context, name matrix.ServerName, h *store.Host) {
	for _, service := range []string{"matrix-fed", "matrix"} {
		_, records, err := n.config.Resolver.LookupSRV(ctx, service, "tcp", string(name))
		var dns *net.DNSError
		switch targets := targetsOf(records); {
		case len(targets) > 0:
			h.Targets, h.TargetsUntil = targets, n.now().Add(targetsTime)
			return
		case err != nil && !(errors.As(err, &dns) && dns.IsNotFound):
			// The DNS does not say. What was known holds a while longer.
			h.TargetsUntil = n.now().Add(targetsRetry)
			return
		}
	}
	h.Targets, h.TargetsUntil = nil, n.now().Add(targetsTime)
}

// targetsOf returns the hosts of SRV records, which come in the order to be tried.
// A lone dot stands for no host at all (RFC 2782).
func targetsOf(records []*net.SRV) []store.HostTarget {
	var targets []store.HostTarget
	for _, r := range records {
		if name := strings.TrimSuffix(r.Target, "."); name != "" && len(name) < 256 && len(targets) < maxTargets {
			targets = append(targets, store.HostTarget{Name: name, Port: r.Port})
		}
	}
	return targets
}

// Bounds of connecting.
const (
	// maxAddrs bounds the addresses of one name that are tried.
	maxAddrs = 8
	// nextAddr is how long an address is waited for before the next one is tried
	// beside it (RFC 8305).
	nextAddr = 250 * time.Millisecond
)

// connect connects to a name or address, the addresses of both versions by turns.
func (n *Network) connect(ctx context.Context, name string, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if ip, err := netip.ParseAddr(name); err == nil {
		return n.config.Dial(ctx, "tcp", netip.AddrPortFrom(ip, port).String())
	}
	addrs, err := n.config.Resolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no addresses", Name: name, IsNotFound: true}
	}
	return n.dialFirst(ctx, byTurns(addrs), port)
}

// byTurns returns addresses of version 6 and 4 by turns, at most maxAddrs.
func byTurns(addrs []netip.Addr) []netip.Addr {
	var six, four, all []netip.Addr
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	for i := range max(len(six), len(four)) {
		if i < len(six) {
			all = append(all, six[i])
		}
		if i < len(four) {
			all = append(all, four[i])
		}
	}
	return slices.Clip(all[:min(len(all), maxAddrs)])
}

// dialed is what became of one address.
type dialed struct {
	conn net.Conn
	err  error
}

// dialFirst returns the connection to the first address that answers. Each gets a
// moment before the next one is tried beside it.
func (n *Network) dialFirst(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan dialed, len(addrs))
	next := time.NewTimer(0)
	defer next.Stop()
	var won net.Conn
	var errs error
	for started, ended := 0, 0; ended < started || won == nil && started < len(addrs); {
		select {
		case <-next.C:
			if won != nil || started == len(addrs) {
				continue
			}
			addr := netip.AddrPortFrom(addrs[started], port).String()
			started++
			go func() {
				conn, err := n.config.Dial(ctx, "tcp", addr)
				results <- dialed{conn, err}
			}()
			next.Reset(nextAddr)
		case r := <-results:
			ended++
			switch {
			case r.err != nil:
				errs = also(errs, r.err)
				next.Reset(0)
			case won != nil:
				r.conn.Close()
			default:
				won = r.conn
				cancel() // the others end at once
			}
		}
	}
	cancel()
	if won != nil {
		return won, nil
	}
	return nil, errs
}
