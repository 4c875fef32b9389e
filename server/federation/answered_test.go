package federation

import (
	"context"
	"fmt"
	"testing"

	"hearth/store"
)

// What a transaction was answered with costs no write of its own, is known at once,
// and is written before the end; of too many answers some are forgotten.
func TestAnswered(t *testing.T) {
	p := newPair(t)
	stored := func() (known bool) {
		err := p.here.store.View(func(tx *store.Tx) (err error) {
			_, known, err = tx.ServerTxn(peer, "a")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return known
	}
	event := p.peer.send(p.room, "1")
	before := p.here.store.Position()
	_, answer := p.transact(peer, "a", body(event))
	if got, known, err := p.server.answered.find(peer, "a"); !known || string(got) != answer || err != nil {
		t.Errorf("known %v: %s, %v", known, got, err)
	}
	if stored() || p.here.store.Position() == before {
		t.Error("the answer was written, and not with the event")
	}
	a := p.server.answered
	if err := a.write(context.Background(), 0); err != nil || !stored() || a.bytes != 0 || len(a.unwritten) != 0 {
		t.Errorf("written: %v, %d bytes are left: %v", stored(), a.bytes, err)
	}
	for i := range 100 {
		a.put(peer, fmt.Sprint(i), make([]byte, maxAnswered/3))
		for s := range 3 {
			a.put(peer+"x", fmt.Sprint(i, s), make([]byte, maxAnswered/3))
		}
		a.mu.Lock()
		if a.bytes > maxAnswered || len(a.unwritten[peer]) > maxAnsweredOf {
			t.Errorf("%d bytes, %d of one server", a.bytes, len(a.unwritten[peer]))
		}
		a.mu.Unlock()
	}
	for i := range 10 {
		a.put("many.test", fmt.Sprint(i), []byte("{}"))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.unwritten["many.test"]); n > maxAnsweredOf {
		t.Errorf("%d answers of one server", n)
	}
}
