package remote

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

const far = matrix.ServerName("far.example:1")

// oneHost returns our network with one other server, whose answers handler gives.
func oneHost(t *testing.T, handler http.HandlerFunc) *testNetwork {
	t.Helper()
	i := newInternet(t)
	i.addrs["far.example"] = []string{"10.0.0.1"}
	i.serve("10.0.0.1:1", "far.example", handler)
	return openNetwork(t, i, t.TempDir(), nil)
}

// What arrives is signed as it was sent: the target to the letter, the body as
// canonical JSON, and for the server that it goes to.
func TestRequestIsSigned(t *testing.T) {
	var header, uri, body string
	n := oneHost(t, func(w http.ResponseWriter, r *http.Request) {
		read, _ := io.ReadAll(r.Body)
		header, uri, body = r.Header.Get("Authorization"), r.RequestURI, string(read)
		fmt.Fprint(w, `{"a":1}`)
	})
	for _, tt := range []struct {
		method, path string
		body         any
		text         string
	}{
		{"GET", "/_matrix/x/%21a%3Ab/%2F%2f?b=%20&a=x+y&c=%C3%A9", nil, `{"destination":"far.example:1","method":"GET","origin":"here.example","uri":"/_matrix/x/%21a%3Ab/%2F%2f?b=%20&a=x+y&c=%C3%A9"}`},
		{"PUT", "/_matrix/y", jsontext.Value(`{"z":1,"a":"é<","n":1.5}`), `{"content":{"a":"é<","n":1.5,"z":1},"destination":"far.example:1","method":"PUT","origin":"here.example","uri":"/_matrix/y"}`},
		{"POST", "/_matrix/y?", struct{}{}, `{"content":{},"destination":"far.example:1","method":"POST","origin":"here.example","uri":"/_matrix/y"}`},
	} {
		var answer struct{ A int }
		if err := n.Do(t.Context(), far, Request{Method: tt.method, Path: tt.path, Body: tt.body}, &answer); err != nil {
			t.Fatal(err)
		}
		if strings.TrimSuffix(tt.path, "?") != uri {
			t.Errorf("sent %s as %s", tt.path, uri)
		}
		var sig string
		prefix := `X-Matrix origin="here.example",destination="far.example:1",key="ed25519:ours",sig="`
		if !strings.HasPrefix(header, prefix) {
			t.Fatalf("header %s", header)
		}
		sig = strings.TrimSuffix(strings.TrimPrefix(header, prefix), `"`)
		raw, err := decodeBase64(sig)
		if err != nil || !ed25519.Verify(n.key.Private.Public().(ed25519.PublicKey), []byte(tt.text), raw) {
			t.Errorf("%s %s: the signature is not on %s (body %s)", tt.method, tt.path, tt.text, body)
		}
	}
}

func TestAnswers(t *testing.T) {
	n := oneHost(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/forbidden":
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"errcode":"M_FORBIDDEN","error":"no","room_version":"9"}`)
		case "/plain":
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `<html>`)
		case "/long":
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(w, `{"errcode":"M_X","error":"%s"}`, strings.Repeat("é", 5000))
		case "/redirect":
			http.Redirect(w, r, "/good", http.StatusFound)
		case "/garbage":
			fmt.Fprint(w, `{"a":`)
		case "/type":
			fmt.Fprint(w, `{"a":"text"}`)
		case "/large":
			fmt.Fprintf(w, `{"a":1,"x":"%s"}`, strings.Repeat("x", 2000))
		case "/twice":
			fmt.Fprint(w, `{"a":1,"raw":{"b":1,"b":2}}`)
		default:
			fmt.Fprint(w, `{"a":7}`)
		}
	})
	for _, tt := range []struct {
		path   string
		status int // of the *Error; 0: none; 1: unreachable
		code   string
	}{
		{"/good", 0, ""},
		{"/twice", 0, ""},
		{"/forbidden", 403, "M_FORBIDDEN"},
		{"/plain", 404, ""},
		{"/long", 404, "M_X"},
		{"/redirect", 302, ""},
		{"/garbage", 1, ""},
		{"/type", 1, ""},
		{"/large", 1, ""},
	} {
		var answer struct {
			A   int            `json:"a"`
			Raw jsontext.Value `json:"raw"`
		}
		err := n.Do(t.Context(), far, Request{Method: "GET", Path: tt.path, MaxBytes: 1000}, &answer)
		var e *Error
		switch {
		case tt.status == 0 && err != nil, tt.status == 1 && !errors.Is(err, ErrUnreachable),
			tt.status > 1 && (!errors.As(err, &e) || e.Status != tt.status || e.Code != tt.code || len(e.Text) > 2*maxErrorText):
			t.Errorf("%s: %v", tt.path, err)
		}
		if tt.path == "/forbidden" && (e == nil || !strings.Contains(string(e.Answer), "room_version")) {
			t.Errorf("the answer is lost: %+v", e)
		}
	}
	if b := n.Backoff(far); b.Failures != 0 {
		t.Errorf("a server that answers is backing off: %+v", b)
	}
	err := n.Do(t.Context(), far, Request{Method: "PUT", Path: "/good", Body: jsontext.Value(`{"a":1,"a":2}`)}, nil)
	if err == nil || errors.Is(err, ErrUnreachable) || n.Backoff(far).Failures != 0 {
		t.Errorf("a bad body of ours: %v, %+v", err, n.Backoff(far))
	}
	if err := n.Do(t.Context(), ourName, Request{Method: "GET", Path: "/good"}, nil); !errors.Is(err, ErrUnreachable) {
		t.Errorf("asked ourselves: %v", err)
	}
}

// However slow a server is, a request ends; that a caller has no time is not the
// server's fault.
func TestSlowAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := oneHost(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/silent" {
				<-r.Context().Done()
				return
			}
			for r.Context().Err() == nil { // one byte now and then
				fmt.Fprint(w, " ")
				_ = http.NewResponseController(w).Flush()
				select {
				case <-time.After(5 * time.Second):
				case <-r.Context().Done():
				}
			}
		})
		ended := func(most time.Duration, fn func() error) {
			t.Helper()
			began := time.Now()
			if err := fn(); err == nil || time.Since(began) > most {
				t.Errorf("ended after %v: %v", time.Since(began), err)
			}
		}
		stream := func(path string) error {
			res, err := n.Stream(t.Context(), far, Request{Method: "GET", Path: path, Insist: true})
			if err != nil {
				return err
			}
			defer res.Body.Close()
			_, err = io.Copy(io.Discard, res.Body)
			return err
		}
		ended(30*time.Second, func() error { return n.Do(t.Context(), far, Request{Method: "GET", Path: "/drip"}, new(any)) })
		ended(2*streamStall, func() error { return stream("/drip") })
		hurry, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ended(time.Second, func() error { return n.Do(hurry, far, Request{Method: "GET", Path: "/silent"}, nil) })
		if b := n.Backoff(far); b.Failures != 0 {
			t.Errorf("the caller's hurry counts: %+v", b)
		}
		ended(30*time.Second, func() error {
			err := n.Do(t.Context(), far, Request{Method: "GET", Path: "/drip", Timeout: 10 * time.Second}, new(any))
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrUnreachable) {
				t.Errorf("who waits cannot tell that it took too long: %v", err)
			}
			return err
		})
		ended(30*time.Second, func() error { return stream("/silent") })
		if b := n.Backoff(far); b.Failures != 1 {
			t.Errorf("silence does not count: %+v", b)
		}
		n.stop()
	})
}

// The memory for a large answer is taken before the answer is, and given back.
func TestLargeAnswersAreWeighed(t *testing.T) {
	taken, times := int64(0), 0
	var refuse error
	i := newInternet(t)
	i.addrs["far.example"] = []string{"10.0.0.1"}
	i.serve("10.0.0.1:1", "far.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Path[1:])
		fmt.Fprintf(w, "%q", strings.Repeat("x", n))
	}))
	n := openNetwork(t, i, t.TempDir(), func(c *NetworkConfig) {
		c.Budget = func(_ context.Context, bytes int64) (func(), error) {
			if refuse != nil {
				return nil, refuse
			}
			taken += bytes
			times++
			return func() { taken -= bytes }, nil
		}
	})
	ask := func(size int) error {
		var answer string
		err := n.Do(t.Context(), far, Request{Method: "GET", Path: fmt.Sprint("/", size)}, &answer)
		if err == nil && len(answer) != size || taken != 0 {
			t.Errorf("an answer of %d of %d bytes, and %d are taken behind it", len(answer), size, taken)
		}
		return err
	}
	if err := ask(1000); err != nil || times != 0 {
		t.Errorf("a small answer takes memory %d times: %v", times, err)
	}
	if err := ask(smallAnswer * 2); err != nil || times != 1 {
		t.Errorf("a large answer takes memory %d times: %v", times, err)
	}
	refuse = errors.New("there is none")
	if err := ask(smallAnswer * 2); !errors.Is(err, refuse) || !errors.Is(err, ErrUnreachable) {
		t.Errorf("without memory: %v", err)
	}
	n.stop()
}

// A stream has its bound, and says so.
func TestStreamIsBounded(t *testing.T) {
	n := oneHost(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", 1000)) })
	for _, tt := range []struct{ limit, want int64 }{{999, 999}, {1000, 1000}, {2000, 1000}} {
		res, err := n.Stream(t.Context(), far, Request{Method: "GET", Path: "/x", MaxBytes: tt.limit})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.Copy(io.Discard, res.Body)
		if got != tt.want || (err != nil) != (tt.limit < 1000) {
			t.Errorf("limit %d: %d bytes, %v", tt.limit, got, err)
		}
		if err := res.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}

// No more requests are under way than the bound says, and users have a part of it
// that dead servers cannot take.
func TestRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInternet(t)
		var most, open atomic.Int64
		for h := range 40 {
			addr := fmt.Sprintf("10.0.1.%d:8448", h)
			if h < 20 {
				i.holes[addr] = true
				continue
			}
			i.serve(addr, strings.TrimSuffix(addr, ":8448"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if now := open.Add(1); now > most.Load() {
					most.Store(now)
				}
				time.Sleep(time.Second)
				open.Add(-1)
				fmt.Fprint(w, "{}")
			}))
		}
		n := openNetwork(t, i, t.TempDir(), func(c *NetworkConfig) { c.MaxConns = 8 })
		errs := make(chan error, 40)
		for h := range 40 {
			go func() {
				errs <- n.Do(t.Context(), matrix.ServerName(fmt.Sprintf("10.0.1.%d", h)), Request{Method: "GET", Path: "/x", Timeout: time.Minute}, nil)
			}()
		}
		synctest.Wait()
		began := time.Now()
		if err := n.Do(t.Context(), "10.0.1.39", Request{Method: "GET", Path: "/x", Insist: true}, nil); err != nil || time.Since(began) > 5*time.Second {
			t.Errorf("a user waited %v: %v", time.Since(began), err)
		}
		failed := 0
		for range 40 {
			if <-errs != nil {
				failed++
			}
		}
		if failed != 20 || most.Load() > 8 {
			t.Errorf("%d failed, %d at a time", failed, most.Load())
		}
		n.stop()
	})
}

// Connections are used again, and what a server closes meanwhile is no fault.
func TestConnectionsAreReused(t *testing.T) {
	n := oneHost(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	for range 3 {
		if err := n.Do(t.Context(), far, Request{Method: "PUT", Path: "/x", Body: struct{}{}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if dialed := n.taken(); len(dialed) != 1 {
		t.Errorf("dialed %v", dialed)
	}
}
