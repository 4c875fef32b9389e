package client

import (
	"hash/maphash"
	"sync"

	"hearth/store"
)

// lazyMembers remembers which member events each device has, so that a
// lazy-loading sync need not repeat them. A device has an event once it comes
// back with a token from behind the sync that gave it: an answer that never
// arrived gave nothing. It may forget: then an event is given twice. The zero
// value is ready.
//
// Spec: CS Lazy-loading room members.
type lazyMembers struct {
	mu       sync.Mutex // guards the fields below
	now, old map[uint64]store.Position
	begun    map[deviceName]store.Position // when a device began anew, with nothing
}

// Bounds of what is remembered: entries in each of the two generations, of some 24
// bytes, and devices.
const (
	maxLazyMembers = 16384
	maxLazyDevices = 1024
)

var lazySeed = maphash.MakeSeed()

// lazyMember names a member event that a device may have.
type lazyMember struct {
	device deviceName
	room   store.RoomNum
	num    store.EventNum
}

// begin notes that a device begins anew at a position.
func (l *lazyMembers) begin(device deviceName, at store.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.begun == nil || len(l.begun) >= maxLazyDevices {
		l.begun, l.now, l.old = make(map[deviceName]store.Position), nil, nil
	}
	l.begun[device] = at
}

// has says whether a device that shows a token of some position has an event. It
// counts for nothing that it had it before it joined the room.
func (l *lazyMembers) has(m lazyMember, since, joined store.Position) bool {
	key := maphash.Comparable(lazySeed, m)
	l.mu.Lock()
	defer l.mu.Unlock()
	given, known := l.now[key]
	if !known {
		given, known = l.old[key]
	}
	return known && given <= since && given >= joined && given >= l.begun[m.device]
}

// give notes that a device is given an event by a sync up to a position.
func (l *lazyMembers) give(m lazyMember, at store.Position) {
	key := maphash.Comparable(lazySeed, m)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == nil || len(l.now) >= maxLazyMembers {
		l.old, l.now = l.now, make(map[uint64]store.Position)
	}
	l.now[key] = at
}
