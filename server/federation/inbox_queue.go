package federation

import (
	"cmp"
	"context"
	"sync"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// How much may wait in the inbox.
const (
	maxInbox            = 10_000
	maxInboxBytes       = 64 << 20
	maxInboxOrigin      = 2_000
	maxInboxOriginBytes = 16 << 20
	// What cannot be checked is kept only where less than that waits, so that it leaves
	// room for what can.
	maxUnsure       = maxInbox / 2
	maxUnsureOrigin = 1000
)

// inboxLoad is how much waits, of all or of one server.
type inboxLoad struct {
	count, bytes int
}

func (l *inboxLoad) add(more inboxLoad, sign int) {
	l.count += sign * more.count
	l.bytes += sign * more.bytes
}

// An inboxQueue knows which rooms have events in the inbox and which of them comes
// next. It holds nothing for a room that has none.
type inboxQueue struct {
	ready chan struct{} // closed once it knows what is in the store
	news  chan struct{} // a room may be due

	mu      sync.Mutex // guards what is below
	all     inboxLoad
	origins map[matrix.ServerName]*inboxOrigin
	rooms   map[store.RoomNum]*inboxRoom
	turn    uint64
}

type inboxOrigin struct {
	load   inboxLoad
	served uint64 // the turn in which it was served last
}

type inboxRoom struct {
	of       map[matrix.ServerName]inboxLoad // what waits, by its origin
	coming   int                             // how often something is being stored
	due      time.Time                       // not tried before
	tried    time.Time
	failures int
	slow     matrix.ServerName // for whose events the last try was given up; the next passes over them
	yields   int               // how often in a row that was so, and nothing came of it
	busy     bool
	fresh    bool            // events came since the try that is under way began
	waiting  []chan struct{} // closed after the next whole try
}

func (q *inboxQueue) init() {
	q.ready, q.news = make(chan struct{}), make(chan struct{}, inboxWorkers)
	q.origins = make(map[matrix.ServerName]*inboxOrigin)
	q.rooms = make(map[store.RoomNum]*inboxRoom)
}

// load counts what is in the store.
func (q *inboxQueue) load(s *store.Store) error {
	defer close(q.ready)
	return s.View(func(tx *store.Tx) error {
		return tx.InboxRooms(func(room store.RoomNum) (bool, error) {
			return true, tx.Inbox(room, 0, func(e store.InboxEvent) (bool, error) {
				q.add(e.Room, e.Origin, inboxLoad{1, len(e.PDU)})
				return true, nil
			})
		})
	})
}

// loaded waits until the queue knows what is in the store.
func (q *inboxQueue) loaded(ctx context.Context) error {
	select {
	case <-q.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (q *inboxQueue) add(room store.RoomNum, origin matrix.ServerName, load inboxLoad) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.addLocked(room, origin, load)
}

func (q *inboxQueue) addLocked(room store.RoomNum, origin matrix.ServerName, load inboxLoad) {
	o := q.origins[origin]
	if o == nil {
		o = &inboxOrigin{served: q.turn}
		q.origins[origin] = o
	}
	r := q.rooms[room]
	if r == nil {
		r = &inboxRoom{of: make(map[matrix.ServerName]inboxLoad)}
		q.rooms[room] = r
	}
	q.all.add(load, 1)
	o.load.add(load, 1)
	sum := r.of[origin]
	sum.add(load, 1)
	r.of[origin] = sum
}

// reserve counts a server's events that are about to be stored, if they fit; awake or
// cancel must follow.
func (q *inboxQueue) reserve(room store.RoomNum, origin matrix.ServerName, load inboxLoad) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	own := inboxLoad{}
	if o := q.origins[origin]; o != nil {
		own = o.load
	}
	if q.all.count+load.count > maxInbox || q.all.bytes+load.bytes > maxInboxBytes ||
		own.count+load.count > maxInboxOrigin || own.bytes+load.bytes > maxInboxOriginBytes {
		return false
	}
	q.addLocked(room, origin, load)
	q.rooms[room].coming++
	return true
}

// spare says whether a server's events may wait although they cannot be checked.
func (q *inboxQueue) spare(origin matrix.ServerName, count int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if o := q.origins[origin]; o != nil {
		count += o.load.count
	}
	return count <= maxUnsureOrigin && q.all.count <= maxUnsure
}

// cancel takes back what was reserved and could not be stored.
func (q *inboxQueue) cancel(room store.RoomNum, origin matrix.ServerName, load inboxLoad) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rooms[room].coming--
	q.releaseLocked(room, origin, load)
}

// release takes off what was removed from the store.
func (q *inboxQueue) release(room store.RoomNum, origin matrix.ServerName, load inboxLoad) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.releaseLocked(room, origin, load)
}

func (q *inboxQueue) releaseLocked(room store.RoomNum, origin matrix.ServerName, load inboxLoad) {
	r := q.rooms[room]
	if r == nil {
		return
	}
	sum := r.of[origin]
	load.count, load.bytes = min(load.count, sum.count), min(load.bytes, sum.bytes)
	if sum.add(load, -1); sum.count > 0 {
		r.of[origin] = sum
	} else {
		delete(r.of, origin)
	}
	q.all.add(load, -1)
	if o := q.origins[origin]; o != nil {
		if o.load.add(load, -1); o.load.count == 0 {
			delete(q.origins, origin)
		}
	}
	q.forget(room, r)
}

// forget drops a room in which nothing waits and nobody works.
func (q *inboxQueue) forget(room store.RoomNum, r *inboxRoom) {
	if len(r.of) > 0 || r.busy || r.coming > 0 {
		return
	}
	for _, done := range r.waiting {
		close(done)
	}
	delete(q.rooms, room)
}

// awake has a room tried at once, since what was reserved is stored now, and returns what is closed
// after the next try.
func (q *inboxQueue) awake(room store.RoomNum) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	done := make(chan struct{})
	r := q.rooms[room]
	r.coming--
	r.due, r.fresh = time.Time{}, true
	r.waiting = append(r.waiting, done)
	q.tell()
	return done
}

// heard has the rooms tried again in which events of a server wait, as it speaks; and all
// in which some wait, where it is back: they may wait for its keys.
func (q *inboxQueue) heard(server matrix.ServerName, back bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.origins[server] == nil && !back {
		return
	}
	for _, r := range q.rooms {
		rest := inboxRest
		if r.of[server].count == 0 {
			rest = inboxMaxRest
		}
		if again := r.tried.Add(rest); (back || rest == inboxRest) && again.Before(r.due) {
			r.due = again
		}
	}
	q.tell()
}

// tell wakes a worker.
func (q *inboxQueue) tell() {
	select {
	case q.news <- struct{}{}:
	default:
	}
}

// next takes the room that is due and whose turn it is. If there is none it is 0, and
// wait says when to look again.
func (q *inboxQueue) next(now time.Time) (room store.RoomNum, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	wait = inboxMaxWait
	var longest inboxTurn
	for num, r := range q.rooms {
		if r.busy || len(r.of) == 0 {
			continue
		}
		if r.due.After(now) {
			wait = min(wait, r.due.Sub(now))
			continue
		}
		for origin := range r.of {
			o := q.origins[origin]
			if o == nil {
				continue
			}
			if turn := (inboxTurn{o.served, r.tried, num, origin}); longest.room == 0 || turn.before(longest) {
				longest = turn
			}
		}
	}
	if longest.room != 0 {
		q.turn++
		q.origins[longest.origin].served = q.turn
		r := q.rooms[longest.room]
		r.busy, r.fresh, r.tried = true, false, now
		q.tell() // there may be more
	}
	return longest.room, wait
}

// An inboxTurn is when a room's events of one server come next: who was served longest
// ago comes first, of that server's rooms the one that was tried longest ago, and of
// equals always the same.
type inboxTurn struct {
	served uint64
	tried  time.Time
	room   store.RoomNum
	origin matrix.ServerName
}

func (t inboxTurn) before(u inboxTurn) bool {
	return cmp.Or(cmp.Compare(t.served, u.served), t.tried.Compare(u.tried),
		cmp.Compare(t.room, u.room), cmp.Compare(t.origin, u.origin)) < 0
}

// begin returns the servers whose events a try of a room passes over, and how long it may
// take until it makes way for others: the longer, the oftener it had to.
func (q *inboxQueue) begin(room store.RoomNum) (passed map[matrix.ServerName]bool, least time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	passed, least = make(map[matrix.ServerName]bool), inboxLeast
	if r := q.rooms[room]; r != nil {
		if r.slow != "" && len(r.of) > 1 {
			passed[r.slow] = true
		}
		least = min(inboxLeast<<min(r.yields, 10), inboxPatience)
		r.slow = ""
	}
	return passed, least
}

// rest notes that a room was tried, and when it is tried again where events are left.
func (q *inboxQueue) rest(room store.RoomNum, is inboxOutcome, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.rooms[room]
	if r == nil {
		return
	}
	r.busy = false
	if is.moved {
		r.failures, r.yields = 0, 0
	}
	if r.slow = is.slow; r.slow != "" {
		r.yields++
	}
	if is.left {
		r.due = now.Add(backoff(room, r.failures))
		r.failures++
	} else {
		r.due, r.failures = now.Add(inboxRest), 0 // what is still to come awakes it
	}
	if r.fresh {
		r.due = time.Time{} // they came too late for this try
		return
	}
	for _, done := range r.waiting {
		close(done)
	}
	r.waiting = nil
	if !is.left && r.coming == 0 {
		for origin, load := range r.of {
			q.releaseLocked(room, origin, load) // a purge has removed them
		}
	}
	q.forget(room, r)
}
