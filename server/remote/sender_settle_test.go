package remote

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hearth/state/matrix"
)

// Settle waits for what is on its way, and not for servers that do not answer.
func TestSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, o := newHomestead(t, "here.test"), newPostOffice(t)
		var lost atomic.Int64 // workers send side by side
		o.lose = func(to matrix.ServerName, _ posted) bool { return lost.Add(1) <= 2 || to == "dead.test" }
		room := h.create("12", 0)
		h.visitors(room, "@a:far.test", "@b:dead.test")
		s, stop := o.sending(h, 4)
		defer stop()
		settle(time.Second)
		one := h.post(room, "one")
		s.Settle(context.Background(), "far.test")
		sameEvents(t, "far.test", o.events("far.test")[len(o.events("far.test"))-1:], []matrix.EventID{one})
		for server, limit := range map[matrix.ServerName]time.Duration{"far.test": 0, "unknown.test": 0, "dead.test": settleLimit} {
			began := time.Now()
			s.Settle(context.Background(), server)
			if took := time.Since(began); took > limit {
				t.Errorf("%s: %v", server, took)
			}
		}
	})
}
