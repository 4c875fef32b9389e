package api

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Kind is a kind of request that has a rate of its own.
type Kind uint8

// The kinds of requests that are limited, and what the key of each is.
const (
	LimitRequest    Kind = iota // any request without an account, by address
	LimitLogin                  // a try to log in, by address
	LimitPassword               // a password tried, by the account it is tried on and the address or device
	LimitGuess                  // a password tried where the account is not at home, by account
	LimitRegister               // an account to be made, by address
	LimitTokenCheck             // a look whether a registration token is valid, by address
	LimitSend                   // an event sent, by user
	LimitInvite                 // an invite, by user
	LimitJoin                   // a join or a knock, by user
	LimitCreateRoom             // a room made, by user
	LimitUpload                 // a file uploaded, by user
	LimitKeys                   // keys uploaded, asked for or claimed, by user
	LimitToDevice               // a to-device request, by user
	LimitProfile                // a change of profile, by user
	LimitSearch                 // a search or a look into a directory, by user
	LimitReport                 // a report, by user
	LimitData                   // 16 KiB of account data or a part of that, by user
	LimitReceipt                // a receipt or read marker, by user
	LimitFederation             // a request of another server, by its name
	LimitElsewhere              // a look-up that another server must be asked for, by user or address
	limitKinds
)

// rate is how often something may happen: burst times at once, and once more
// each time every has passed.
type rate struct {
	burst int
	every time.Duration
}

// rates are made for a household: no person at a client meets them, and a
// password is not guessed through them.
var rates = [limitKinds]rate{
	LimitRequest:    {200, 50 * time.Millisecond},
	LimitLogin:      {20, 3 * time.Second},
	LimitPassword:   {10, 10 * time.Second},
	LimitGuess:      {60, 3 * time.Second},
	LimitRegister:   {5, 30 * time.Second},
	LimitTokenCheck: {10, 10 * time.Second},
	LimitSend:       {100, 100 * time.Millisecond},
	LimitInvite:     {50, 2 * time.Second},
	LimitJoin:       {30, 3 * time.Second},
	LimitCreateRoom: {30, 5 * time.Second},
	LimitUpload:     {50, time.Second},
	LimitKeys:       {200, 100 * time.Millisecond},
	LimitToDevice:   {200, 50 * time.Millisecond},
	LimitProfile:    {20, time.Second},
	LimitSearch:     {30, time.Second},
	LimitReport:     {10, 10 * time.Second},
	LimitData:       {300, 200 * time.Millisecond},
	LimitReceipt:    {600, 50 * time.Millisecond},
	LimitFederation: {500, 20 * time.Millisecond},
	LimitElsewhere:  {100, 200 * time.Millisecond},
}

// Limiter counts requests by kind and key. The zero Limiter limits nothing.
//
// It keeps one time per key and kind, the moment at which its bucket is full
// again (the generic cell rate algorithm), in a table of bounded size: some
// 0.5 MiB at most. When a flood of keys fills the table, entries are dropped; a
// dropped key starts with a full bucket.
type Limiter struct {
	on   bool
	seed maphash.Seed
	now  func() time.Time

	mu   sync.Mutex
	full map[uint64]time.Duration // guarded by mu: when a bucket is full, since begin
	max  int                      // the most entries of full

	begin time.Time
}

// limitEntries bounds the table of a Limiter.
const limitEntries = 16 << 10

// NewLimiter returns a limiter with the rates of this server.
func NewLimiter() *Limiter {
	return &Limiter{
		on: true, seed: maphash.MakeSeed(), now: time.Now, begin: time.Now(),
		full: make(map[uint64]time.Duration), max: limitEntries,
	}
}

// Take counts one request of a kind under key and returns nil, or
// M_LIMIT_EXCEEDED with the time to wait; a refused request does not count.
func (l *Limiter) Take(kind Kind, key string) error { return l.TakeN(kind, key, 1) }

// TakeN counts n requests at once, such as the invites of one createRoom. More
// than the burst at once count as the burst.
func (l *Limiter) TakeN(kind Kind, key string, n int) error {
	if !l.on || n <= 0 {
		return nil
	}
	r := rates[kind]
	cost := time.Duration(min(n, r.burst)) * r.every
	capacity := time.Duration(r.burst) * r.every
	id := l.id(kind, key)

	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now().Sub(l.begin)
	full := max(l.full[id], now) + cost
	if wait := full - now - capacity; wait > 0 {
		return TryAfter(wait)
	}
	if _, known := l.full[id]; !known && len(l.full) >= l.max {
		l.makeRoom(now)
	}
	l.full[id] = full
	return nil
}

// TakeIP is Take with an address as the key. Addresses of version 6 count by
// their /64, as one house has all of that.
func (l *Limiter) TakeIP(kind Kind, ip netip.Addr) error {
	if !l.on {
		return nil
	}
	return l.Take(kind, HouseKey(ip))
}

// HouseKey returns what stands for all addresses that one house may have beside ip.
func HouseKey(ip netip.Addr) string {
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr().String()
		}
	}
	return ip.String()
}

// id returns the table's key. Its seed is random, so that nobody can aim at the
// bucket of another.
func (l *Limiter) id(kind Kind, key string) uint64 {
	var h maphash.Hash
	h.SetSeed(l.seed)
	h.WriteByte(byte(kind))
	h.WriteString(key)
	return h.Sum64()
}

// makeRoom drops every bucket that is full again, and any eighth of the table if
// none is. Call it with mu held.
func (l *Limiter) makeRoom(now time.Duration) {
	for id, full := range l.full {
		if full <= now {
			delete(l.full, id)
		}
	}
	for id := range l.full {
		if len(l.full) <= l.max-l.max/8 {
			return
		}
		delete(l.full, id)
	}
}
