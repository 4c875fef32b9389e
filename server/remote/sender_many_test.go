package remote

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// serverName returns the name of one of many servers.
func serverName(i int) matrix.ServerName { return matrix.ServerName(fmt.Sprintf("s%d.test", i)) }

// Messages into a room with 2,000 servers, a third of them dead, keep nobody who
// sends waiting and have no more connections than workers; the living get them soon,
// and later ones at once. The dead have their records, and get all when they return.
func TestSendToManyServers(t *testing.T) {
	if testing.Short() {
		t.Skip("2,000 servers")
	}
	const servers, workers = 2000, 32
	synctest.Test(t, func(t *testing.T) {
		h, o := newHomestead(t, "here.test"), newPostOffice(t)
		dead := func(dest matrix.ServerName) bool {
			var i int
			fmt.Sscanf(string(dest), "s%d.", &i)
			return i%3 == 0
		}
		down := true
		o.refuse = func(dest matrix.ServerName, _ posted) error {
			if down && dead(dest) {
				time.Sleep(10 * time.Second) // until the dialer gives up
				return fmt.Errorf("%s: %w", dest, ErrUnreachable)
			}
			return nil
		}
		room := h.create("12", 0)
		users := make([]matrix.UserID, servers)
		for i := range users {
			users[i] = matrix.UserID("@u:" + serverName(i))
		}
		h.visitors(room, users...)
		_, stop := o.sending(h, workers)
		defer stop()
		settle(time.Second)
		missing := func(want int) (living int) {
			for i := range servers {
				if dest := serverName(i); !dead(dest) && len(o.events(dest)) < want {
					living++
				}
			}
			return living
		}

		began := time.Now()
		h.post(room, "first")
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("who sends waits %v", waited)
		}
		settle(5 * time.Minute)
		if n := missing(1); n > 0 {
			t.Errorf("%d living servers have nothing after five minutes", n)
		}
		h.post(room, "second")
		settle(10 * time.Second)
		if n := missing(2); n > 0 {
			t.Errorf("%d living servers wait for the dead", n)
		}
		if o.most > workers {
			t.Errorf("%d connections at a time, want %d at most", o.most, workers)
		}
		settle(time.Minute)
		if n := len(h.behind()); n != (servers+2)/3 {
			t.Errorf("%d records, want %d", n, (servers+2)/3)
		}
		down = false
		settle(7 * time.Hour) // as long as anybody is left alone
		for i := range servers {
			if n := len(o.events(serverName(i))); n != 2 {
				t.Fatalf("server %d got %d events", i, n)
			}
		}
		if n := len(h.behind()); n > 0 {
			t.Errorf("%d records of servers that have everything", n)
		}
	})
}

// BenchmarkDispatch measures how a message into a room with 2,000 servers is noted
// for all of them, and all of their transactions made and taken.
func BenchmarkDispatch(b *testing.B) {
	const servers = 2000
	h := newBenchHomestead(b)
	room := h.create("12", 0)
	h.must(h.store.Update(context.Background(), func(tx *store.Tx) error {
		for i := range servers {
			server, err := tx.PutServerNum(serverName(i))
			if err != nil {
				return err
			}
			if err := tx.PutRoomServer(tx.RoomNum(room), server, 1); err != nil {
				return err
			}
		}
		return nil
	}))
	taken := make(chan struct{}, servers)
	do := func(context.Context, matrix.ServerName, Request, any) error {
		taken <- struct{}{}
		return nil
	}
	s := newSender(h.store, do, func(matrix.ServerName) time.Time { return time.Time{} }, SenderConfig{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	h.must(s.begin(ctx))
	go func() { done <- s.Run(ctx) }()
	b.ReportAllocs()
	for b.Loop() {
		h.post(room, "x")
		for range servers {
			<-taken
		}
	}
	cancel()
	<-done
}

// newBenchHomestead is newHomestead without the check at the end: the servers of its
// rooms are not there.
func newBenchHomestead(b *testing.B) *homestead {
	h := &homestead{TB: b, name: "here.test", dir: b.TempDir()}
	h.open()
	b.Cleanup(func() { h.must(h.store.Close()) })
	return h
}
