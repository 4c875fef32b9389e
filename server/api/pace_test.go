package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// testStall is a stall that a test waits for in real time.
const testStall = 500 * time.Millisecond

// pipes is a listener whose connections are pipes: in a bubble of synctest they live in
// virtual time, and a busy machine cannot be too slow for anything.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if conn, open := <-p; open {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error {
	close(p)
	return nil
}

func (p pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// startPiped serves routes with the pace of a server, and returns what connects to it.
func startPiped(t *testing.T, routes ...Route) (dial func() net.Conn) {
	l := make(pipes)
	srv := &http.Server{Handler: newTestRouter(t, routes...), WriteTimeout: serverPace.stall}
	go srv.Serve(l)
	t.Cleanup(func() {
		srv.Close()
		time.Sleep(time.Second) // net/http lingers where it ends a connection
	})
	return func() net.Conn {
		here, there := net.Pipe()
		l <- there
		return here
	}
}

// startPaced serves routes in real time, with the stall that is asked for.
func startPaced(t *testing.T, stall time.Duration, routes ...Route) *httptest.Server {
	rt := newTestRouter(t, routes...)
	rt.pace = pace{stall: stall, rate: 1 << 20, step: time.Millisecond}
	srv := httptest.NewUnstartedServer(rt)
	srv.Config.WriteTimeout = testStall
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

// drip sends a body in equal parts, with a pause before each but the first, and returns
// the status of the answer and when it came.
func drip(conn net.Conn, part int, pauses ...time.Duration) (status string, took time.Duration) {
	fmt.Fprintf(conn, "POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", part*(len(pauses)+1))
	start := time.Now()
	var sender sync.WaitGroup
	sender.Go(func() {
		io.WriteString(conn, strings.Repeat("x", part))
		for _, pause := range pauses {
			time.Sleep(pause)
			io.WriteString(conn, strings.Repeat("x", part)) // fails when the server has had enough
		}
	})
	line, _ := bufio.NewReader(conn).ReadString('\n')
	took = time.Since(start)
	conn.Close()
	sender.Wait()
	return strings.TrimSpace(line), took
}

// A body that makes progress arrives, one that stands still, or hardly moves, ends the
// request.
func TestBodiesMustMakeProgress(t *testing.T) {
	short, long := serverPace.stall/2, serverPace.stall*3/2
	for _, tc := range []struct {
		name   string
		part   int
		pauses []time.Duration
		want   string
	}{
		{"slow", 40 << 10, []time.Duration{short, short, short}, "HTTP/1.1 200 OK"},
		{"stands still", 400 << 10, []time.Duration{short, long}, "HTTP/1.1 408 Request Timeout"},
		{"hardly moves", 4, []time.Duration{short, short, short}, "HTTP/1.1 408 Request Timeout"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial := startPiped(t, Route{"POST /in", func(w http.ResponseWriter, r *http.Request) error {
					if _, err := readBody(r, 2<<20); err != nil {
						return err
					}
					time.Sleep(long) // the body's deadline must not end the answer
					if err := r.Context().Err(); err != nil {
						return err
					}
					return WriteEmpty(w)
				}})
				if got, _ := drip(dial(), tc.part, tc.pauses...); got != tc.want {
					t.Errorf("the answer is %q", got)
				}
			})
		})
	}
}

// A handler that never reads the body does not keep the connection open for it.
func TestUnreadBodyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := startPiped(t, Route{"POST /in", func(w http.ResponseWriter, r *http.Request) error { return ErrForbidden }})
		if _, took := drip(dial(), 4, time.Hour); took > serverPace.stall+time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// A parked request outlives every time limit, and is answered.
func TestParkedRequestIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := startPiped(t, Route{"GET /poll", func(w http.ResponseWriter, r *http.Request) error {
			ctx, cancel := LongPoll(r, serverPace.stall*2)
			defer cancel()
			<-ctx.Done()
			return WriteEmpty(w)
		}})
		conn := dial()
		defer conn.Close()
		answers := bufio.NewReader(conn)
		for range 2 { // the second request uses the same connection
			fmt.Fprint(conn, "GET /poll HTTP/1.1\r\nHost: x\r\n\r\n")
			res, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(res.Body); err != nil || string(body) != "{}" {
				t.Errorf("%q %v", body, err)
			}
			res.Body.Close()
			time.Sleep(serverPace.stall * 3 / 2) // the deadline of the answer passes
		}
	})
}

// testFile is a file to download, too large for the buffers of a connection.
const testFile = 24 << 20

// download is a route of testFile. It says on ended when the handler has returned.
func download(t *testing.T, ended chan<- struct{}) Route {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, make([]byte, testFile), 0o600); err != nil {
		t.Fatal(err)
	}
	return Route{"GET /file", func(w http.ResponseWriter, r *http.Request) error {
		defer func() { ended <- struct{}{} }()
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		http.ServeContent(w, r, "file", time.Time{}, f)
		return nil
	}}
}

// read reads the answer to a download with a pause after each MiB, and returns its length.
func read(conn net.Conn, pause time.Duration) (n int64) {
	defer conn.Close()
	fmt.Fprint(conn, "GET /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	for {
		m, err := io.CopyN(io.Discard, conn, 1<<20)
		n += m
		if err != nil {
			return n
		}
		time.Sleep(pause)
	}
}

// A download goes on for as long as it is read, and ends when it is not.
func TestDownloadsMustMakeProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{}, 1)
		dial := startPiped(t, download(t, ended))
		if n := read(dial(), serverPace.stall/2); n <= testFile {
			t.Errorf("a slow reader got %d bytes", n)
		}
		<-ended
		conn := dial()
		defer conn.Close()
		start := time.Now()
		fmt.Fprint(conn, "GET /file HTTP/1.1\r\nHost: x\r\n\r\n")
		select {
		case <-ended:
		case <-time.After(time.Hour):
		}
		if took := time.Since(start); took > serverPace.stall+time.Second {
			t.Errorf("the server waits %v for a client that does not read", took)
		}
	})
}

// The same holds for a real connection, to which the system copies the file.
func TestDownloadsOverTCP(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{}, 1)
	route := download(t, ended)
	dial := func(stall time.Duration) net.Conn {
		conn, err := net.Dial("tcp", startPaced(t, stall, route).Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	if n := read(dial(time.Minute), 2*testStall*(1<<20)/testFile); n <= testFile {
		t.Errorf("a slow reader got %d bytes", n)
	}
	<-ended
	conn := dial(testStall)
	defer conn.Close()
	fmt.Fprint(conn, "GET /file HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("the server waits for a client that does not read")
	}
}

// A long poll ends when the server begins to stop, and its request does not.
func TestLongPollEndsWithTheServer(t *testing.T) {
	stopping, stop := context.WithCancel(context.Background())
	r := httptest.NewRequest("GET", "/", nil)
	r = r.WithContext(WithStopping(context.Background(), stopping))
	ctx, cancel := LongPoll(r, time.Hour)
	defer cancel()
	if ctx.Err() != nil {
		t.Fatal(ctx.Err())
	}
	stop()
	select {
	case <-ctx.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the wait goes on")
	}
	if r.Context().Err() != nil {
		t.Error("the request was cut short")
	}
}

// Await ends by news, by time, by the client's leaving and by the server's stop,
// and only the first of them is news.
func TestAwait(t *testing.T) {
	closed, expired := make(chan struct{}), make(chan time.Time, 1)
	close(closed)
	expired <- time.Time{}
	gone, leave := context.WithCancel(context.Background())
	leave()
	for _, tc := range []struct {
		name           string
		base, stopping context.Context
		timeout        <-chan time.Time
		news           <-chan struct{}
		want           bool
	}{
		{name: "news", base: t.Context(), stopping: t.Context(), news: closed, want: true},
		{name: "time", base: t.Context(), stopping: t.Context(), timeout: expired},
		{name: "left", base: gone, stopping: t.Context()},
		{name: "stop", base: t.Context(), stopping: gone},
	} {
		r := httptest.NewRequest("GET", "/", nil).WithContext(WithStopping(tc.base, tc.stopping))
		if got := Await(r, tc.timeout, tc.news); got != tc.want {
			t.Errorf("%s: news is %v, want %v", tc.name, got, tc.want)
		}
	}
}
