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
	"testing"
	"time"
)

// testStall is short enough to wait for and long enough for a busy machine.
const testStall = 500 * time.Millisecond

// startPaced serves routes with a pace that a test can wait for.
func startPaced(t *testing.T, routes ...Route) *httptest.Server {
	rt := newTestRouter(t, routes...)
	rt.pace = pace{stall: testStall, rate: 1 << 20, step: time.Millisecond}
	srv := httptest.NewUnstartedServer(rt)
	srv.Config.WriteTimeout = testStall
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

// drip sends a body of n parts, one each interval, and returns the status.
func drip(t *testing.T, srv *httptest.Server, n int, interval time.Duration) string {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 4*n)
	go func() {
		for range n {
			io.WriteString(conn, "1234") // fails when the server has had enough
			time.Sleep(interval)
		}
	}()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line)
}

// A body that makes progress arrives, one that stands still ends the request.
func TestBodiesMustMakeProgress(t *testing.T) {
	t.Parallel()
	srv := startPaced(t, Route{"POST /in", func(w http.ResponseWriter, r *http.Request) error {
		if _, err := readBody(r, 1000); err != nil {
			return err
		}
		time.Sleep(testStall * 3 / 2) // the body's deadline must not end the answer
		if err := r.Context().Err(); err != nil {
			return err
		}
		return WriteEmpty(w)
	}})
	if got := drip(t, srv, 4, 20*time.Millisecond); got != "HTTP/1.1 200 OK" {
		t.Errorf("a slow body: %q", got)
	}
	if got := drip(t, srv, 2, 3*time.Second); got != "HTTP/1.1 408 Request Timeout" {
		t.Errorf("a body that stands still: %q", got)
	}
}

// A handler that never reads the body does not keep the connection open for it.
func TestUnreadBodyIsBounded(t *testing.T) {
	t.Parallel()
	srv := startPaced(t, Route{"POST /in", func(w http.ResponseWriter, r *http.Request) error { return ErrForbidden }})
	start := time.Now()
	drip(t, srv, 2, 3*time.Second)
	if took := time.Since(start); took > 5*testStall {
		t.Errorf("took %v", took)
	}
}

// A parked request outlives every time limit, and is answered.
func TestParkedRequestIsAnswered(t *testing.T) {
	t.Parallel()
	srv := startPaced(t, Route{"GET /poll", func(w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := LongPoll(r, testStall*2)
		defer cancel()
		<-ctx.Done()
		return WriteEmpty(w)
	}})
	for range 2 { // the second request uses the same connection
		res, err := http.Get(srv.URL + "/poll")
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "{}" {
			t.Errorf("%q %v", body, err)
		}
		res.Body.Close()
		time.Sleep(testStall * 3 / 2) // the deadline of the answer passes
	}
}

// A download goes on for as long as it is read, and ends when it is not.
func TestDownloadsMustMakeProgress(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "file")
	const size = 24 << 20
	if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{}, 2)
	srv := startPaced(t, Route{"GET /file", func(w http.ResponseWriter, r *http.Request) error {
		defer func() { ended <- struct{}{} }()
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		http.ServeContent(w, r, "file", time.Time{}, f)
		return nil
	}})
	read := func(pause time.Duration) (n int64) {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
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
	if n := read(30 * time.Millisecond); n <= size {
		t.Errorf("a slow reader got %d bytes", n)
	}
	<-ended
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /file HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
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
	case <-time.After(5 * time.Second):
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
