package client

import (
	"cmp"
	"container/list"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of presence.
const (
	maxRemotePresences = 8192 // remote users: some 3 MB with the longest statuses
	maxRemoteStatus    = 256  // bytes of a remote user's status
	maxPresenceLook    = 2000 // changes that one sync looks at
)

// presences is who is there. It lives in memory; of local users the status and when
// they were last active are stored now and then. Every local user who was here since
// the start is in it; of remote users those of whom something was heard last, as a
// server that wished could send the presence of millions.
type presences struct {
	serials *memorySerials
	mu      sync.Mutex // guards the fields below
	local   map[store.UserNum]*localPresence
	remote  map[store.UserNum]*list.Element // of *remotePresence
	order   *list.List                      // of *remotePresence, the newest change first
	newest  uint64                          // the serial of the newest change
	aged    time.Time                       // when remote users were last looked through
}

// remotePresence is the presence of a remote user as it was last told.
type remotePresence struct {
	Presence
	num    store.UserNum
	serial uint64
	heard  time.Time // when the other server last said anything
}

// presenceChange is one change, for a sync.
type presenceChange struct {
	Presence
	local  bool
	serial uint64
}

// start begins with nobody there.
func (p *presences) start(serials *memorySerials) {
	p.serials = serials
	p.local = make(map[store.UserNum]*localPresence)
	p.remote = make(map[store.UserNum]*list.Element)
	p.order = list.New()
}

// knows says whether a local user was here since the start.
func (p *presences) knows(user store.UserNum) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.local[user] != nil
}

// add makes a local user known, with what was stored.
func (p *presences) add(num store.UserNum, user matrix.UserID, stored store.Presence) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.local[num] == nil {
		p.local[num] = newLocalPresence(user, stored)
	}
}

// change changes a local user who is known and returns what to tell of it, if
// anything.
func (p *presences) change(num store.UserNum, now time.Time, change func(*localPresence, time.Time)) (told Presence, news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.local[num]
	if u == nil {
		return Presence{}, false
	}
	change(u, now)
	return p.publish(u, now)
}

// publish gives a local user's presence a serial if it has changed.
func (p *presences) publish(u *localPresence, now time.Time) (Presence, bool) {
	news := u.settle(now)
	if news {
		u.serial = p.serials.take()
		p.newest = u.serial
		u.sent = now
	}
	return u.Presence, news
}

// get returns the presence of a user of whom something is known in memory.
func (p *presences) get(num store.UserNum) (Presence, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u := p.local[num]; u != nil {
		return u.Presence, true
	}
	if e := p.remote[num]; e != nil {
		return e.Value.(*remotePresence).Presence, true
	}
	return Presence{}, false
}

// receive takes what a remote server says of a user and returns whether it is news.
func (p *presences) receive(num store.UserNum, said Presence, now time.Time) bool {
	if said.State.rank() == 0 {
		said.State = Offline
	}
	said.Active = said.Active && said.State == Online
	said.Status = shorten(said.Status, maxRemoteStatus)
	if said.LastActive.After(now) {
		said.LastActive = now
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.remote[num]
	if e == nil {
		e = p.order.PushFront(&remotePresence{num: num})
		p.remote[num] = e
		p.evict()
	}
	r := e.Value.(*remotePresence)
	news := r.State != said.State || r.Status != said.Status || r.Active != said.Active
	r.Presence, r.heard = said, now
	if news {
		p.moved(e)
	}
	return news
}

// moved gives a remote user's change its serial.
func (p *presences) moved(e *list.Element) {
	r := e.Value.(*remotePresence)
	r.serial = p.serials.take()
	p.newest = r.serial
	p.order.MoveToFront(e)
}

// evict forgets the remote users who have not changed for longest.
func (p *presences) evict() {
	for p.order.Len() > maxRemotePresences {
		e := p.order.Back()
		delete(p.remote, e.Value.(*remotePresence).num)
		p.order.Remove(e)
	}
}

// since returns who has changed behind a serial, the newest change first, and at
// most maxPresenceLook. To who was never here (0) remote users who are offline are
// no news; to who was here before the start all that is known is.
func (p *presences) since(since uint64) []presenceChange {
	before := p.serials.fromBefore(since)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !before && p.newest <= since {
		return nil
	}
	all := since == 0 || before
	news := func(u *localPresence) bool { return u.serial != 0 && (all || u.serial > since) }
	count := 0
	for _, u := range p.local {
		if news(u) {
			count++
		}
	}
	found := make([]presenceChange, 0, count) // every sync that waits makes one
	for _, u := range p.local {
		if news(u) {
			found = append(found, presenceChange{u.Presence, true, u.serial})
		}
	}
	for e := p.order.Front(); e != nil && len(found) < len(p.local)+maxPresenceLook; e = e.Next() {
		r := e.Value.(*remotePresence)
		if !all && r.serial <= since {
			break
		}
		if since != 0 || r.State != Offline {
			found = append(found, presenceChange{r.Presence, false, r.serial})
		}
	}
	slices.SortFunc(found, func(a, b presenceChange) int { return cmp.Compare(b.serial, a.serial) })
	return found[:min(len(found), maxPresenceLook)]
}

// How long what a remote server said is good, and how often it is looked for what
// is not.
//
// A server that has users online says so again long before.
const (
	remoteGood = 45 * time.Minute
	remoteLook = time.Minute
)

// expire lets time pass. It returns whose presence has changed by that, and the
// local users whose presence other servers shall hear of again though it has not.
func (p *presences) expire(now time.Time) (changed map[store.UserNum]Presence, lasting []Presence) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for num, u := range p.local {
		if told, news := p.publish(u, now); news {
			if changed == nil {
				changed = make(map[store.UserNum]Presence)
			}
			changed[num] = told
		} else if u.State != Offline && now.Sub(u.sent) >= sendAgain {
			u.sent = now
			lasting = append(lasting, u.Presence)
		}
	}
	if now.Sub(p.aged) >= remoteLook {
		p.aged = now
		p.expireRemote(now)
	}
	return changed, lasting
}

// expireRemote takes remote users for offline of whom nothing was heard for long.
// Nobody is woken for it.
func (p *presences) expireRemote(now time.Time) {
	var gone []*list.Element
	for e := p.order.Front(); e != nil; e = e.Next() {
		if r := e.Value.(*remotePresence); r.State != Offline && now.Sub(r.heard) >= remoteGood {
			gone = append(gone, e)
		}
	}
	for _, e := range gone {
		r := e.Value.(*remotePresence)
		r.State, r.Active = Offline, false
		p.moved(e)
	}
}

// takeChanged returns what of local users has to be stored.
func (p *presences) takeChanged() map[store.UserNum]store.Presence {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[store.UserNum]store.Presence)
	for num, u := range p.local {
		if u.dirty {
			u.dirty = false
			all[num] = store.Presence{LastActive: u.LastActive, Status: u.Status}
		}
	}
	return all
}

// shorten cuts text to at most n bytes, between two characters.
func shorten(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}
