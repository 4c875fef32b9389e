package federation

import (
	"testing"
	"testing/synctest"
	"time"

	"hearth/state/matrix"
)

// gap makes a room that both are in, and an event of it that stands on what is not here.
func (p *pair) gap() (matrix.RoomID, *matrix.Event) {
	p.Helper()
	room, _, finish := p.arrive(nil)
	finish()
	p.peer.send(room, "missing")
	return room, p.peer.send(room, "newest")
}

// Servers that let us wait for their answers hold up nobody, in however many rooms: what
// lacks nothing comes at once, and what must be asked for of others has its turn.
func TestSlowSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		slow := make(map[matrix.RoomID]time.Duration)
		var held []*matrix.Event
		for range 2 * inboxWorkers {
			room, ev := p.gap()
			slow[room], held = 9*time.Minute, append(held, ev)
		}
		patient, long := p.gap()
		slow[patient] = 30 * time.Second
		_, short := p.gap()
		p.mu.Lock()
		p.slow = slow
		p.mu.Unlock()
		for _, ev := range held {
			p.deliver(ev)
		}
		began := time.Now()
		plain := p.peer.send(p.room, "plain")
		p.deliver(plain)
		p.deliver(short)
		p.deliver(long)
		for _, step := range []struct {
			what   string
			ev     *matrix.Event
			within time.Duration
		}{
			{"what lacks nothing", plain, time.Minute}, {"what is told at once", short, time.Minute},
			{"what is told after a while", long, 30 * time.Minute},
		} {
			for time.Since(began) < step.within && !p.here.shown(step.ev.ID) {
				time.Sleep(time.Second)
			}
			if !p.here.shown(step.ev.ID) {
				t.Errorf("%s has not come after %v", step.what, time.Since(began))
			}
		}
		for _, ev := range held {
			for time.Since(began) < inboxAge && !p.here.shown(ev.ID) {
				time.Sleep(time.Minute)
			}
			if !p.here.shown(ev.ID) {
				t.Errorf("what is told slowly is lost")
			}
		}
		t.Logf("all came after %v", time.Since(began))
	})
}

// A try is slow after a while. Of too many slow ones the oldest ends, if it has had its
// turn, and the newest otherwise.
func TestSlowTries(t *testing.T) {
	var s slowTries
	now := time.UnixMilli(1_700_000_000_000)
	ended := make(map[int]bool)
	tries := make([]*slowTry, inboxSlow+4)
	for i := range tries {
		tries[i] = &slowTry{least: inboxLeast, yield: func() { ended[i] = true }}
	}
	want := func(running int, over ...int) {
		t.Helper()
		if len(s.running) != running || len(ended) != len(over) {
			t.Errorf("%d run, %v have ended", len(s.running), ended)
		}
		for _, i := range over {
			if !ended[i] {
				t.Errorf("try %d goes on", i)
			}
		}
	}
	for i := range inboxSlow {
		s.enter(tries[i], now.Add(time.Duration(i)*time.Second))
	}
	want(inboxSlow)
	s.enter(tries[inboxSlow], now.Add(inboxLeast-1))
	want(inboxSlow, inboxSlow)
	s.enter(tries[inboxSlow+1], now.Add(inboxLeast))
	want(inboxSlow, inboxSlow, 0)
	s.leave(tries[0])
	s.leave(tries[1])
	s.leave(tries[1])
	want(inboxSlow-1, inboxSlow, 0)
	s.leave(tries[inboxSlow+2])
	s.enter(tries[inboxSlow+2], now.Add(inboxLeast)) // which has ended before it was slow
	want(inboxSlow-1, inboxSlow, 0)
	s.enter(tries[inboxSlow+3], now.Add(inboxLeast))
	want(inboxSlow, inboxSlow, 0)
}

// After a try that was too slow the next passes over the server for whose events it was,
// where others have some too, and may take longer; what moves makes up for that.
func TestSlowIsPassedOver(t *testing.T) {
	var q inboxQueue
	q.init()
	q.add(1, "slow", inboxLoad{2, 2})
	q.add(1, "quick", inboxLoad{1, 1})
	now := time.UnixMilli(1_700_000_000_000)
	for _, step := range []struct {
		is     inboxOutcome
		passed bool
		least  time.Duration
		due    time.Duration // at most, after that
	}{
		{inboxOutcome{left: true, slow: "slow"}, true, 2 * inboxLeast, inboxBackoff},
		{inboxOutcome{left: true}, false, 2 * inboxLeast, 2 * inboxBackoff},
		{inboxOutcome{left: true, slow: "slow"}, true, 4 * inboxLeast, 4 * inboxBackoff},
		{inboxOutcome{left: true, slow: "slow"}, true, 8 * inboxLeast, 8 * inboxBackoff},
		{inboxOutcome{left: true, slow: "slow"}, true, inboxPatience, 16 * inboxBackoff},
		{inboxOutcome{left: true, slow: "slow", moved: true}, true, 2 * inboxLeast, inboxBackoff},
	} {
		q.rest(1, step.is, now)
		if due := q.rooms[1].due.Sub(now); due > step.due || due < step.due/2 {
			t.Errorf("%+v: due after %v", step.is, due)
		}
		if passed, least := q.begin(1); passed["slow"] != step.passed || passed["quick"] || least != step.least {
			t.Errorf("%+v: passes over %v, may take %v", step.is, passed, least)
		}
	}
	q.release(1, "quick", inboxLoad{1, 1})
	q.rest(1, inboxOutcome{left: true, slow: "slow"}, now)
	if passed, _ := q.begin(1); len(passed) > 0 {
		t.Errorf("passes over %v, who alone has events there", passed)
	}
}
