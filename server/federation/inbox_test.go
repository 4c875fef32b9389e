package federation

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

func ids(events []*matrix.Event) (ids []matrix.EventID) {
	for _, ev := range events {
		ids = append(ids, ev.ID)
	}
	return ids
}

// What lies between is fetched before the transaction is answered, and comes before
// the event that was sent.
func TestGap(t *testing.T) {
	p := newPair(t)
	var last *matrix.Event
	for n := range 10 {
		last = p.peer.send(p.room, fmt.Sprint(n))
	}
	if got := p.deliver(last); got[last.ID] != "" {
		t.Errorf("got %q", got)
	}
	if got, want := ids(p.here.timeline(p.room)), ids(p.peer.timeline(p.room)); !slices.Equal(got, want) {
		t.Errorf("the timeline is %d events, want %d", len(got), len(want))
	}
	if stored, counted := p.waiting(); stored != 0 || counted != 0 {
		t.Errorf("%d events wait, %d by the count", stored, counted)
	}
	if !slices.Equal(p.asked, []string{"missing"}) {
		t.Errorf("asked for %q", p.asked)
	}
}

// What was acknowledged is not lost: not while the peer is silent, not with a restart.
func TestInboxSurvives(t *testing.T) {
	p := newPair(t)
	p.become(true, false)
	lost := p.peer.send(p.room, "lost")
	waits := p.peer.send(p.room, "waits")
	if got := p.deliver(waits); len(got) != 1 || got[waits.ID] != "" {
		t.Errorf("got %q", got)
	}
	more := p.peer.send(p.room, "more")
	p.deliver(more)
	if stored, counted := p.waiting(); stored != 2 || counted != 2 {
		t.Errorf("%d events wait, %d by the count", stored, counted)
	}
	p.stop()
	p.start()
	p.eventually("the peer is asked again", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.asked) > 0
	})
	p.eventually("the try has ended", func() bool {
		p.server.inbox.queue.mu.Lock()
		defer p.server.inbox.queue.mu.Unlock()
		for _, r := range p.server.inbox.queue.rooms {
			return !r.busy && r.failures == 1
		}
		return false
	})
	p.stop()
	p.become(false, false)
	p.start()
	p.eventually("all is there", func() bool { return p.here.shown(lost.ID) && p.here.shown(waits.ID) && p.here.shown(more.ID) })
	p.eventually("nothing waits", func() bool { stored, counted := p.waiting(); return stored+counted == 0 })
}

// An event of which nobody has what it lacks is dropped, and taken when it comes again
// behind that.
func TestInboxGivesUp(t *testing.T) {
	p := newPair(t)
	p.become(false, true)
	a, b := p.peer.send(p.room, "a"), p.peer.send(p.room, "b")
	p.deliver(b)
	if stored, counted := p.waiting(); stored+counted != 0 || p.here.find(b.ID) != nil {
		t.Errorf("%d events wait, %d by the count", stored, counted)
	}
	p.deliver(a)
	if !p.here.shown(a.ID) || p.here.shown(b.ID) {
		t.Error("a alone should be there")
	}
	p.deliver(b)
	if !p.here.shown(b.ID) {
		t.Error("b is not there")
	}
}

// An event that is old by now is not waited for any longer.
func TestInboxAge(t *testing.T) {
	p := newPair(t)
	p.become(true, false)
	p.ahead.Store(int64(-inboxAge - time.Minute))
	p.peer.send(p.room, "lost")
	waits := p.peer.send(p.room, "waits")
	p.deliver(waits)
	if stored, _ := p.waiting(); stored != 1 {
		t.Errorf("%d events wait", stored)
	}
	p.stop()
	p.ahead.Store(0)
	p.start()
	p.eventually("it is dropped", func() bool { stored, counted := p.waiting(); return stored+counted == 0 })
	if p.here.find(waits.ID) != nil {
		t.Error("it was taken")
	}
}

// A purge takes what waits in the room with it, and the count follows.
func TestInboxOfPurgedRoom(t *testing.T) {
	p := newPair(t)
	p.become(true, false)
	p.peer.send(p.room, "lost")
	p.deliver(p.peer.send(p.room, "waits"))
	p.here.must(p.here.rooms.Purge(t.Context(), p.room, func(state.PurgeProgress) {}))
	if stored, counted := p.waiting(); stored != 0 || counted != 1 {
		t.Errorf("%d events wait, %d by the count", stored, counted)
	}
	p.ahead.Store(int64(time.Hour))
	p.server.inbox.queue.tell()
	p.eventually("the count follows", func() bool { _, counted := p.waiting(); return counted == 0 })
}

// Where too much waits, of a server or of all, the transaction is to come again, and
// what could be taken is.
func TestInboxIsBounded(t *testing.T) {
	p := newPair(t)
	p.become(true, false)
	<-p.server.inbox.queue.ready
	if !p.server.inbox.queue.reserve(4711, peer, inboxLoad{maxInboxOrigin, 1}) {
		t.Fatal("the inbox is full from the beginning")
	}
	good := p.peer.send(p.room, "good")
	p.peer.send(p.room, "lost")
	bad := p.peer.send(p.room, "bad")
	code, answer := p.transact(peer, "1", body(good, bad))
	if code != 429 || !p.here.shown(good.ID) {
		t.Errorf("%d %s", code, answer)
	}
	if code, _ := p.transact("other.test", "1", body(bad)); code != 200 {
		t.Errorf("another server: %d", code)
	}
	if stored, _ := p.waiting(); stored != 1 {
		t.Errorf("%d events wait", stored)
	}
	q := &p.server.inbox.queue
	if q.reserve(1, "c", inboxLoad{1, maxInboxOriginBytes + 1}) {
		t.Error("too many bytes of one server")
	}
	for n := range 8 {
		q.reserve(1, matrix.ServerName(fmt.Sprint("s", n)), inboxLoad{maxInboxOrigin, 1})
	}
	if q.all.count > maxInbox {
		t.Errorf("%d events", q.all.count)
	}
}

// The server that was served longest ago comes next, however many rooms another one
// has; a room that failed rests, unless the server speaks.
func TestQueueIsFair(t *testing.T) {
	var q inboxQueue
	q.init()
	for room := range store.RoomNum(20) {
		q.add(room+1, "many", inboxLoad{1, 1})
	}
	q.add(100, "one", inboxLoad{1, 1})
	now := time.Unix(1_700_000_000, 0)
	var first []store.RoomNum
	for range 2 {
		room, _ := q.next(now)
		first = append(first, room)
	}
	if !slices.Contains(first, 100) {
		t.Errorf("rooms %d come first", first)
	}
	q.rest(100, inboxOutcome{left: true}, now)
	for range 19 {
		if room, _ := q.next(now); room == 0 || room == 100 {
			t.Errorf("room %d comes", room)
		}
	}
	room, wait := q.next(now)
	if room != 0 || wait > inboxBackoff || wait < inboxBackoff/2 {
		t.Errorf("room %d comes, or one after %v", room, wait)
	}
	for range 8 {
		now = now.Add(wait)
		if room, _ = q.next(now); room != 100 {
			t.Errorf("room %d comes after the rest", room)
		}
		q.rest(100, inboxOutcome{left: true}, now)
		_, wait = q.next(now)
	}
	if wait <= inboxMaxRest {
		t.Errorf("one comes after %v", wait)
	}
	q.heard("another", false)
	if _, wait = q.next(now); wait <= inboxMaxRest {
		t.Errorf("one comes after %v, as another is heard", wait)
	}
	waits := q.rooms[100].due
	q.heard("another", true)
	if _, wait = q.next(now); wait != inboxMaxRest {
		t.Errorf("one comes after %v, as another is back", wait)
	}
	q.rooms[100].due = waits
	q.heard("one", false)
	if _, wait = q.next(now); wait != inboxRest {
		t.Errorf("one that is heard comes after %v", wait)
	}
	if room, _ := q.next(now.Add(wait)); room != 100 {
		t.Errorf("room %d comes after the rest", room)
	}
	q.release(100, "one", inboxLoad{1, 1})
	q.rest(100, inboxOutcome{left: false}, now)
	if len(q.origins) != 1 || q.rooms[100] != nil {
		t.Error("what does not wait is remembered")
	}
}

// Whose turn it is does not depend on chance: who was served longest ago, then the room
// that was tried longest ago, then the lowest room, then the first name.
func TestInboxTurn(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	inOrder := []inboxTurn{
		{1, time.Time{}, 9, "b"}, {1, at, 1, "b"}, {1, at, 2, "a"}, {1, at, 2, "b"}, {1, at.Add(1), 1, "a"}, {2, time.Time{}, 1, "a"},
	}
	for i, a := range inOrder {
		for k, b := range inOrder {
			if a.before(b) != (i < k) {
				t.Errorf("%v before %v: %v", a, b, a.before(b))
			}
		}
	}
	for range 20 {
		var q inboxQueue
		q.init()
		for _, origin := range []matrix.ServerName{"c", "a", "b"} {
			q.add(1, origin, inboxLoad{1, 1})
		}
		if q.next(at); q.origins["a"].served != 1 {
			t.Fatal("another origin was served")
		}
	}
}

func TestBackoff(t *testing.T) {
	for failures := range 100 {
		if wait := backoff(1, failures); wait < inboxBackoff/2 || wait > inboxMaxWait {
			t.Errorf("%d failures: %v", failures, wait)
		}
	}
	if backoff(1, 20) < inboxMaxWait/2 {
		t.Error("it does not grow")
	}
}
