package client

import (
	"hash/maphash"
	"sync"

	"hearth/store"
)

// lazyMembers remembers which member events each device was given, so that a
// lazy-loading sync need not repeat them. It may forget: then an event is given
// twice. The zero value is ready.
//
// Spec: CS Lazy-loading room members.
type lazyMembers struct {
	mu       sync.Mutex // guards the two maps
	now, old map[uint64]struct{}
}

// maxLazyMembers bounds each of the two generations, in entries of some 16 bytes.
const maxLazyMembers = 16384

var lazySeed = maphash.MakeSeed()

// remember notes that the device is given an event, and says whether it was
// given it before.
func (l *lazyMembers) remember(who session, room store.RoomNum, num store.EventNum) (known bool) {
	key := maphash.Comparable(lazySeed, struct {
		user   store.UserNum
		device string
		room   store.RoomNum
		num    store.EventNum
	}{who.num, string(who.device), room, num})
	l.mu.Lock()
	defer l.mu.Unlock()
	_, now := l.now[key]
	_, old := l.old[key]
	if now {
		return true
	}
	if l.now == nil || len(l.now) >= maxLazyMembers {
		l.old, l.now = l.now, make(map[uint64]struct{})
	}
	l.now[key] = struct{}{}
	return old
}
