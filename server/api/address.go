package api

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
)

// proxiesKey is the context key of the proxies that are believed.
type proxiesKey struct{}

// WithTrustedProxies returns the base context of a server whose requests may come
// through proxies: their X-Forwarded-For is believed where the peer's address is
// in one of the prefixes. A peer on a unix socket is always a proxy of this host.
func WithTrustedProxies(ctx context.Context, proxies []netip.Prefix) context.Context {
	return context.WithValue(ctx, proxiesKey{}, proxies)
}

// ClientIP returns the address of the client: the peer's or, behind trusted
// proxies, the last one in X-Forwarded-For that is not a trusted proxy itself. It
// is the zero Addr where nobody told, such as on a unix socket without the header.
func ClientIP(r *http.Request) netip.Addr {
	trusted, _ := r.Context().Value(proxiesKey{}).([]netip.Prefix)
	peer, local := peerIP(r.RemoteAddr)
	if !local && !isTrusted(peer, trusted) {
		return peer
	}
	client := peer
	hops := r.Header["X-Forwarded-For"]
	for i := len(hops) - 1; i >= 0; i-- {
		rest := hops[i]
		for rest != "" {
			var hop string
			if cut := strings.LastIndexByte(rest, ','); cut >= 0 {
				rest, hop = rest[:cut], rest[cut+1:]
			} else {
				rest, hop = "", rest
			}
			ip, err := parseHop(hop)
			if err != nil {
				return client // what stands before it is worth no more
			}
			client = ip
			if !isTrusted(ip, trusted) {
				return client
			}
		}
	}
	return client
}

// peerIP parses the address of a connection. local is true for a unix socket,
// whose peers have none.
func peerIP(remote string) (ip netip.Addr, local bool) {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}, remote == "" || remote[0] == '@' || remote[0] == '/'
	}
	return ap.Addr().Unmap(), false
}

// parseHop parses one entry of X-Forwarded-For; some proxies add a port.
func parseHop(hop string) (netip.Addr, error) {
	hop = strings.TrimSpace(hop)
	if ip, err := netip.ParseAddr(strings.Trim(hop, "[]")); err == nil {
		return ip.Unmap(), nil
	}
	ap, err := netip.ParseAddrPort(hop)
	return ap.Addr().Unmap(), err
}

func isTrusted(ip netip.Addr, trusted []netip.Prefix) bool {
	for _, p := range trusted {
		if p.Contains(ip.WithZone("")) {
			return true
		}
	}
	return false
}
