package api

import (
	"errors"
	"net/netip"
	"strconv"
	"testing"
	"time"
)

// clock is a time that stands still until it is moved.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newTestLimiter() (*Limiter, *clock) {
	l := NewLimiter()
	c := &clock{l.begin}
	l.now = c.now
	return l, c
}

func TestLimiterRate(t *testing.T) {
	l, c := newTestLimiter()
	r := rates[LimitLogin]
	for i := range r.burst {
		if err := l.Take(LimitLogin, "a"); err != nil {
			t.Fatalf("number %d of the burst: %v", i, err)
		}
	}
	err := l.Take(LimitLogin, "a")
	if !errors.Is(err, ErrLimitExceeded) {
		t.Fatalf("after the burst: %v", err)
	}
	if wait := AsError(err).retryAfter; wait != r.every {
		t.Errorf("told to wait %v, want %v", wait, r.every)
	}
	if err := l.Take(LimitLogin, "b"); err != nil {
		t.Errorf("another key: %v", err)
	}
	if err := l.Take(LimitSend, "a"); err != nil {
		t.Errorf("another kind: %v", err)
	}
	c.t = c.t.Add(r.every)
	if err := l.Take(LimitLogin, "a"); err != nil {
		t.Errorf("after the wait: %v", err)
	}
	if err := l.Take(LimitLogin, "a"); err == nil {
		t.Error("one more than the rate")
	}
	c.t = c.t.Add(24 * time.Hour)
	if err := l.TakeN(LimitLogin, "a", 10*r.burst); err != nil {
		t.Errorf("more than the burst at once, from a full bucket: %v", err)
	}
	if err := l.Take(LimitLogin, "a"); err == nil {
		t.Error("the bucket is empty now")
	}
}

func TestEveryKindHasARate(t *testing.T) {
	for kind, r := range rates {
		if r.burst <= 0 || r.every <= 0 {
			t.Errorf("kind %d has no rate", kind)
		}
	}
}

// A flood of keys does not grow the table.
func TestLimiterIsBounded(t *testing.T) {
	l, c := newTestLimiter()
	l.max = 100
	for i := range 10_000 {
		l.Take(LimitLogin, strconv.Itoa(i))
		if len(l.full) > l.max {
			t.Fatalf("%d entries", len(l.full))
		}
	}
	c.t = c.t.Add(time.Hour)
	for i := range 101 {
		l.Take(LimitLogin, "again"+strconv.Itoa(i))
	}
	if len(l.full) > l.max {
		t.Errorf("%d entries", len(l.full))
	}
}

func TestZeroLimiterLimitsNothing(t *testing.T) {
	var l Limiter
	for range 1000 {
		if err := l.TakeIP(LimitRegister, netip.MustParseAddr("::1")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOneHouseOneKey(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"2001:db8::1", "2001:db8::ffff:2", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"fe80::1%eth0", "fe80::1%eth1", true},
	} {
		a, b := HouseKey(netip.MustParseAddr(tt.a)), HouseKey(netip.MustParseAddr(tt.b))
		if (a == b) != tt.same {
			t.Errorf("%s is %s, %s is %s", tt.a, a, tt.b, b)
		}
	}
	HouseKey(netip.Addr{}) // an unknown address is a key like any other
}
