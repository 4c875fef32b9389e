package client

import (
	"hash/maphash"
	"sync"

	"hearth/store"
)

// lazyMembers remembers which member events each client has, so that a
// lazy-loading sync need not repeat them. A client is a device with a filter:
// what one filter gave, a sync with another one cannot count on. It
// has an event once it comes back with a token from behind the sync that gave it: an
// answer that never arrived gave nothing. It may forget: then an event is given twice. The zero
// value is ready.
//
// Spec: CS Lazy-loading room members.
type lazyMembers struct {
	mu       sync.Mutex // guards the fields below
	now, old map[uint64]store.Position
	begun    map[lazyClient]store.Position // when a client began anew, with nothing
}

// Bounds of what is remembered: entries in each of the two generations, of some 24
// bytes, and clients.
const (
	maxLazyMembers = 16384
	maxLazyClients = 1024
)

var lazySeed = maphash.MakeSeed()

// lazyClient is a device that syncs with a filter, which the hash of its text
// stands for.
type lazyClient struct {
	device deviceName
	filter uint64
}

// hashFilter returns what stands for the filter that a parameter names.
func hashFilter(param string) uint64 { return maphash.String(lazySeed, param) }

// lazyMember names a member event that a client may have.
type lazyMember struct {
	client lazyClient
	room   store.RoomNum
	num    store.EventNum
}

// begin notes that a client begins anew at a position.
func (l *lazyMembers) begin(client lazyClient, at store.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.begun == nil || len(l.begun) >= maxLazyClients {
		l.begun, l.now, l.old = make(map[lazyClient]store.Position), nil, nil
	}
	l.begun[client] = at
}

// has says whether a client that shows a token of some position has an event. It
// counts for nothing that it had it before it joined the room.
func (l *lazyMembers) has(m lazyMember, since, joined store.Position) bool {
	key := maphash.Comparable(lazySeed, m)
	l.mu.Lock()
	defer l.mu.Unlock()
	given, known := l.now[key]
	if !known {
		given, known = l.old[key]
	}
	return known && given <= since && given >= joined && given >= l.begun[m.client]
}

// give notes that a client is given an event by a sync up to a position.
func (l *lazyMembers) give(m lazyMember, at store.Position) {
	key := maphash.Comparable(lazySeed, m)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == nil || len(l.now) >= maxLazyMembers {
		l.old, l.now = l.now, make(map[uint64]store.Position)
	}
	l.now[key] = at
}
