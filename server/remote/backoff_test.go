package remote

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hearth/state/matrix"
)

func TestWaitAfter(t *testing.T) {
	for _, tt := range []struct {
		failures int
		absent   time.Duration
		want     time.Duration
	}{
		{1, 0, time.Second}, {2, time.Second, 2 * time.Second}, {4, 7 * time.Second, 8 * time.Second},
		{6, 30 * time.Second, shortWait}, {12, time.Hour, 15 * time.Minute},
		{40, 100 * 24 * time.Hour, longWait}, {1 << 30, 0, shortWait},
	} {
		if got := waitAfter(tt.failures, tt.absent); got != tt.want {
			t.Errorf("%d failures in %v: %v, want %v", tt.failures, tt.absent, got, tt.want)
		}
	}
	spread := make(map[time.Duration]bool)
	for i := range 100 {
		d := jittered(time.Second, "a", matrix.ServerName(fmt.Sprint(i)), 1)
		if d < 800*time.Millisecond || d > 1200*time.Millisecond {
			t.Fatalf("%v", d)
		}
		spread[d/(50*time.Millisecond)] = true
	}
	if len(spread) < 6 {
		t.Errorf("100 servers come back at %d times", len(spread))
	}
}

// A server that does not answer is left alone, longer each time, over a restart;
// whoever insists or has news is let through, and its first word ends it.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, dir := newInternet(t), t.TempDir()
		i.addrs["far.example"] = []string{"10.0.0.1"}
		n := openNetwork(t, i, dir, nil)
		ask := func(insist bool) error {
			return n.Do(t.Context(), far, Request{Method: "GET", Path: "/x", Insist: insist}, nil)
		}
		tries := 0
		for range 24 * 60 * 4 {
			if err := ask(false); !errors.Is(err, ErrBackingOff) {
				tries++
			}
			time.Sleep(15 * time.Second)
		}
		if tries < 15 || tries > 40 {
			t.Errorf("%d tries in a day", tries)
		}
		was := n.Backoff(far)
		n.stop()
		n = openNetwork(t, i, dir, nil)
		if got := n.Backoff(far); !got.Until.Equal(was.Until.Truncate(time.Millisecond)) || got.Failures != was.Failures {
			t.Errorf("after a restart %+v, before %+v", got, was)
		}
		if err := ask(false); !errors.Is(err, ErrBackingOff) || !errors.Is(err, ErrUnreachable) || n.RetryAt(far).IsZero() {
			t.Errorf("after a restart: %v", err)
		}
		if err := ask(true); err == nil || errors.Is(err, ErrBackingOff) {
			t.Errorf("insisting: %v", err)
		}
		err := n.Do(t.Context(), far, Request{Method: "PUT", Path: "/x", news: true}, nil)
		if err == nil || errors.Is(err, ErrBackingOff) {
			t.Errorf("with news: %v", err)
		}
		var heard []matrix.ServerName
		n.OnHeard(func(s matrix.ServerName, _ bool) { heard = append(heard, s) })
		n.Heard(far)
		if err := ask(false); err == nil || errors.Is(err, ErrBackingOff) {
			t.Errorf("after it has spoken: %v", err)
		}
		i.serve("10.0.0.1:1", "far.example", text("{}"))
		if err := ask(true); err != nil {
			t.Fatal(err)
		}
		if err := ask(false); err != nil || !slices.Equal(heard, []matrix.ServerName{far, far}) {
			t.Errorf("after it has answered: %v, heard %v", err, heard)
		}
		n.stop()
		n = openNetwork(t, i, dir, nil)
		if got := n.Backoff(far); got.Failures != 0 {
			t.Errorf("after a good answer and a restart: %+v", got)
		}
		n.stop()
	})
}

// What counts against a server, and what does not.
func TestWhatIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		status, header := 0, http.Header{}
		n := oneHost(t, func(w http.ResponseWriter, _ *http.Request) {
			for k, v := range header {
				w.Header()[k] = v
			}
			w.WriteHeader(status)
			fmt.Fprint(w, `{"errcode":"M_LIMIT_EXCEEDED","error":"x","retry_after_ms":30000}`)
		})
		for _, tt := range []struct {
			status int
			insist bool
			waits  bool
		}{
			{400, false, false}, {401, false, false}, {404, false, false},
			{429, false, true}, {429, true, true},
			{502, true, true}, {503, false, true},
		} {
			status = tt.status
			n.Heard(far)
			err := n.Do(t.Context(), far, Request{Method: "GET", Path: "/x", Insist: tt.insist}, nil)
			var e *Error
			if !errors.As(err, &e) || e.Status != tt.status {
				t.Fatalf("%d: %v", tt.status, err)
			}
			wait := time.Until(n.RetryAt(far))
			if got := wait > 0; got != tt.waits || got && tt.status == 429 && wait != 30*time.Second {
				t.Errorf("%d, insisting %v: left alone for %v", tt.status, tt.insist, wait)
			}
			time.Sleep(time.Minute)
		}
		n.stop()
	})
}

// Of requests that fail together, one counts.
func TestFailuresTogetherCountOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInternet(t)
		i.addrs["far.example"] = []string{"10.0.0.1"}
		i.holes["10.0.0.1:1"] = true
		n := openNetwork(t, i, t.TempDir(), nil)
		done := make(chan error)
		for range 10 {
			go func() { done <- n.Do(t.Context(), far, Request{Method: "GET", Path: "/x"}, nil) }()
		}
		for range 10 {
			<-done
		}
		if b := n.Backoff(far); b.Failures != 1 {
			t.Errorf("%d failures", b.Failures)
		}
		n.stop()
	})
}
