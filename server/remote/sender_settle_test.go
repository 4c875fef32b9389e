package remote

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"hearth/state/matrix"
)

// Settle waits for what is on its way, and not for servers that do not answer.
func TestSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, o := newHomestead(t, "here.test"), newPostOffice(t)
		lost := 0
		o.lose = func(to matrix.ServerName, _ posted) bool { lost++; return to == "dead.test" || lost <= 2 }
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
