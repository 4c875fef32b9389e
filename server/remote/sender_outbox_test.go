package remote

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// waits returns how many EDUs wait for a server, their bytes, and the first of them.
func (h *homestead) waits(server matrix.ServerName) (n, size int, first string) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) error {
		return tx.Outbox(tx.ServerNum(server), 0, func(_ store.Position, edu jsontext.Value) (bool, error) {
			if n++; n == 1 {
				first = string(edu[:min(len(edu), 20)])
			}
			size += len(edu)
			return true, nil
		})
	}))
	return n, size, first
}

// What waits for other servers does not grow for ever: of too much the oldest goes where
// most waits. Less than that waits however long a server is away.
func TestOutboxIsBounded(t *testing.T) {
	h, o := newHomestead(t, "here.test"), newPostOffice(t)
	had := map[matrix.ServerName]int{"little.test": 20, "some.test": 50, "more.test": 60, "most.test": 200}
	for server, n := range had {
		h.must(h.store.Update(context.Background(), func(tx *store.Tx) error {
			num, err := tx.PutServerNum(server)
			for i := 0; i < n && err == nil; i++ {
				err = tx.PutOutbox(num, fmt.Appendf(nil, `{"n":%3d,"x":%q}`, i, strings.Repeat("x", 1000-16)))
			}
			return err
		}))
	}
	s := newSender(h.store, o.do, func(matrix.ServerName) time.Time { return time.Time{} }, SenderConfig{})
	for _, step := range []struct {
		most, kept                int
		little, some, more, whole int
	}{
		{330_000, 300_000, 20, 50, 60, 200},
		{329_999, 300_000, 20, 50, 60, 170},
		{299_999, 180_000, 20, 50, 55, 55},
		{179_999, 10_000, 2, 2, 2, 2},
	} {
		h.must(s.sweepOutbox(context.Background(), step.most, step.kept))
		want := map[matrix.ServerName]int{"little.test": step.little, "some.test": step.some, "more.test": step.more, "most.test": step.whole}
		for server, want := range want {
			n, size, first := h.waits(server)
			if n != want || size != 1000*want || first != fmt.Sprintf(`{"n":%3d,"x":"xxxxxxxxx`, had[server]-n)[:20] {
				t.Errorf("%+v: %d of %d bytes wait for %s, the first is %s", step, n, size, server, first)
			}
		}
	}
}

// Where much comes into the outboxes they are looked after at once.
func TestOutboxIsSweptInTime(t *testing.T) {
	s := newSender(newHomestead(t, "here.test").store, nil, nil, SenderConfig{})
	for i := range 3 * sweepAfter {
		s.notePut()
		if crowded := len(s.crowded) == 1; crowded != (i >= sweepAfter-1) {
			t.Fatalf("swept after %d EDUs: %v", i+1, crowded)
		}
	}
}

// The newest of what may be lost is sent, also where it comes while a transaction with
// an older one is being made.
func TestNewerWhileComposing(t *testing.T) {
	h, o := newHomestead(t, "here.test"), newPostOffice(t)
	h.visitors(h.create("12", 0), "@a:far.test")
	s := newSender(h.store, o.do, func(matrix.ServerName) time.Time { return time.Time{} }, SenderConfig{})
	typing := func(n int) EDU {
		return EDU{Type: "m.typing", Content: jsontext.Value(fmt.Sprintf(`{"n":%d}`, n)), Key: "typing"}
	}
	d := &destination{server: 1, name: "far.test"}
	d.addEDU(typing(0))
	added := false
	s.now = func() time.Time { // is asked while the transaction is made
		if !added {
			added = true
			d.addEDU(typing(1))
		}
		return time.Now()
	}
	txn, err := s.compose(d)
	h.must(err)
	if !added || txn == nil || !strings.Contains(string(txn.body), `{"n":0}`) {
		t.Fatalf("sent %v", txn)
	}
	if len(d.edus) != 1 || string(d.edus[0].Content) != `{"n":1}` {
		t.Errorf("left %v", d.edus)
	}
}

// Transactions under way have no more bytes together than they may.
func TestBodiesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, o := newHomestead(t, "here.test"), newPostOffice(t)
		o.latency = time.Minute
		room := h.create("12", 0)
		var users []matrix.UserID
		for i := range 20 {
			users = append(users, matrix.UserID(fmt.Sprintf("@a:s%d.test", i)))
		}
		h.visitors(room, users...)
		s := newSender(h.store, o.do, func(matrix.ServerName) time.Time { return time.Time{} }, SenderConfig{Workers: 20, MaxBytes: maxTxnBytes})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		defer func() { cancel(); <-done }()
		settle(time.Second)
		h.post(room, strings.Repeat("x", 50<<10))
		settle(time.Second)
		if n, _ := o.underWay(); n == 0 || n > 5 {
			t.Errorf("%d transactions of 50 KiB are under way", n)
		}
		settle(time.Hour)
		for _, user := range users {
			if len(o.events(user.Server())) != 1 {
				t.Errorf("%s has got %d", user, len(o.events(user.Server())))
			}
		}
	})
}
