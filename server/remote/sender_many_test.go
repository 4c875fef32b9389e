package remote

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
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
		var down atomic.Bool
		down.Store(true)
		o.refuse = func(dest matrix.ServerName, _ posted) error {
			if down.Load() && dead(dest) {
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
		if _, most := o.underWay(); most > workers {
			t.Errorf("%d connections at a time, want %d at most", most, workers)
		}
		settle(time.Minute)
		if n := len(h.behind()); n != (servers+2)/3 {
			t.Errorf("%d records, want %d", n, (servers+2)/3)
		}
		down.Store(false)
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

// meteredDial counts the connections that are open at a time.
type meteredDial struct {
	*internet
	mu         sync.Mutex // guards the fields below
	open, most int
}

func (m *meteredDial) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	m.count(1)
	conn, err := m.internet.dial(ctx, network, addr)
	if err != nil {
		m.count(-1)
		return nil, err
	}
	return &meteredConn{Conn: conn, close: sync.OnceFunc(func() { m.count(-1) })}, nil
}

func (m *meteredDial) count(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open += n
	m.most = max(m.most, m.open)
}

type meteredConn struct {
	net.Conn
	close func()
}

func (c *meteredConn) Close() error {
	c.close()
	return c.Conn.Close()
}

// Over real connections, of which a third is never answered, no more are open than
// the network may have beside those that idle.
func TestSendOverConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const servers, conns = 60, 16
		h, m := newHomestead(t, "here.test"), &meteredDial{internet: newInternet(t)}
		var mu sync.Mutex
		got := make(map[int]int)
		var users []matrix.UserID
		for i := range servers {
			host := fmt.Sprintf("10.1.0.%d", i)
			users = append(users, matrix.UserID("@u:"+host+":8448"))
			if i%3 == 0 {
				m.holes[host+":8448"] = true
				continue
			}
			m.serve(host+":8448", host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				got[i]++
				fmt.Fprint(w, `{"pdus":{}}`)
			}))
		}
		n := NewNetwork(NetworkConfig{
			Store: h.store, Key: h.rooms.Key, Dial: m.dial, Resolver: m.internet, Roots: m.roots, MaxConns: conns,
		})
		s := NewSender(n, SenderConfig{Workers: conns / 2})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() { done <- n.Run(ctx) }()
		go func() { done <- s.Run(ctx) }()
		room := h.create("12", 0)
		h.visitors(room, users...)
		settle(time.Second)
		for range 2 {
			h.post(room, "hello")
			settle(3 * time.Minute)
		}
		cancel()
		for range 2 {
			<-done
		}
		settle(time.Minute) // until dials that nobody waits for have ended
		mu.Lock()
		defer mu.Unlock()
		for i := range servers {
			if want := min(i%3, 1) * 2; got[i] != want {
				t.Errorf("server %d got %d transactions, want %d", i, got[i], want)
			}
		}
		if m.most > conns+max(idleConns, conns/4) {
			t.Errorf("%d connections at a time", m.most)
		}
	})
}
