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

// An outbox does not grow for ever: of what a server never takes the oldest goes, and
// all that waits for one that has not answered for months.
func TestOutboxIsBounded(t *testing.T) {
	h, o := newHomestead(t, "here.test"), newPostOffice(t)
	put := func(server matrix.ServerName, n, size int) {
		for i := range n {
			h.must(h.store.Update(context.Background(), func(tx *store.Tx) error {
				num, err := tx.PutServerNum(server)
				if err != nil {
					return err
				}
				return tx.PutOutbox(num, fmt.Appendf(nil, `{"n":%d,"x":%q}`, i, strings.Repeat("x", size)))
			}))
		}
	}
	put("gone.test", 3, 10)
	put("large.test", 90, 100<<10)
	put("silent.test", 3, 10)
	put("well.test", 3, 10)
	s := newSender(h.store, o.do, func(matrix.ServerName) time.Time { return time.Time{} }, SenderConfig{})
	s.silence = func(server matrix.ServerName) time.Time {
		switch server {
		case "gone.test":
			return time.Now().Add(-maxSilence - time.Hour)
		case "silent.test":
			return time.Now().Add(-maxSilence + time.Hour)
		}
		return time.Time{}
	}
	h.must(s.sweepOutbox(context.Background()))
	for server, want := range map[matrix.ServerName]int{"gone.test": 0, "silent.test": 3, "well.test": 3} {
		if n, _, _ := h.waits(server); n != want {
			t.Errorf("%d wait for %s, want %d", n, server, want)
		}
	}
	n, size, first := h.waits("large.test")
	if n == 0 || size > keptOutbox || size < keptOutbox-200<<10 || first != fmt.Sprintf(`{"n":%d,"x":"xxxxxxxxx`, 90-n)[:20] {
		t.Errorf("%d of %d bytes wait, the first is %s", n, size, first)
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
