package remote

import "net/netip"

// special are the blocks of addresses that lead to no public host: the registries
// of special-purpose addresses of RFC 6890 and what has joined them since.
var special = []struct {
	prefix netip.Prefix
	is     string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("10.0.0.0/8"), "a private network"},
	{netip.MustParsePrefix("100.64.0.0/10"), "a carrier's shared network"},
	{netip.MustParsePrefix("127.0.0.0/8"), "this host"},
	{netip.MustParsePrefix("169.254.0.0/16"), "the local link"},
	{netip.MustParsePrefix("172.16.0.0/12"), "a private network"},
	{netip.MustParsePrefix("192.0.0.0/24"), "a reserved network"},
	{netip.MustParsePrefix("192.0.2.0/24"), "an example"},
	{netip.MustParsePrefix("192.88.99.0/24"), "a relay of 6to4"},
	{netip.MustParsePrefix("192.168.0.0/16"), "a private network"},
	{netip.MustParsePrefix("198.18.0.0/15"), "a network for benchmarks"},
	{netip.MustParsePrefix("198.51.100.0/24"), "an example"},
	{netip.MustParsePrefix("203.0.113.0/24"), "an example"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "a reserved network"},

	{netip.MustParsePrefix("::1/128"), "this host"},
	{netip.MustParsePrefix("fc00::/7"), "a private network"},
	{netip.MustParsePrefix("fe80::/10"), "the local link"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	{netip.MustParsePrefix("2001::/23"), "a reserved network"}, // Teredo and ORCHID are in it
	{netip.MustParsePrefix("2001:db8::/32"), "an example"},
	{netip.MustParsePrefix("3fff::/20"), "an example"},
}

// embedding are the blocks whose addresses hold one of version 4, from a byte on:
// a gateway passes on to that one what is sent to them.
var embedding = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12}, // NAT64, RFC 6052
	{netip.MustParsePrefix("2002::/16"), 2},     // 6to4, RFC 3056
}

// global are the addresses of version 6 that have been given to anybody.
var global = netip.MustParsePrefix("2000::/3")

// privacy says what an address is that is not of the public internet, and "" of one
// that is. What nobody has been given yet counts as not public.
func privacy(addr netip.Addr) string {
	if addr.Zone() != "" {
		return "the local link"
	}
	addr = addr.Unmap()
	for _, e := range embedding {
		if e.prefix.Contains(addr) {
			b := addr.As16()
			return privacy(netip.AddrFrom4([4]byte(b[e.at : e.at+4])))
		}
	}
	for _, s := range special {
		if s.prefix.Contains(addr) {
			return s.is
		}
	}
	if !addr.Is4() && !global.Contains(addr) {
		return "no address of the internet"
	}
	return ""
}
