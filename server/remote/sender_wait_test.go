package remote

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"hearth/state/matrix"
)

// Who speaks to a server that was away finds it again at once, however long it would
// be left alone; but it is not tried each time, and not at all before its time where
// it asked for that or where many are spoken to.
func TestNewsForServersThatAreAway(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    error
		others int
		soon   bool
	}{
		{"away", ErrUnreachable, 0, true},
		{"at a loss", &Error{Status: 500}, 0, true},
		{"left alone", &Error{Status: 429, wait: time.Hour}, 0, false},
		{"among many", ErrUnreachable, smallCircle, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, o := newHomestead(t, "here.test"), newPostOffice(t)
				down := true
				o.refuse = func(dest matrix.ServerName, _ posted) error {
					if down && dest == "far.test" {
						return fmt.Errorf("%s: %w", dest, tt.err)
					}
					return nil
				}
				room := h.create("12", 0)
				users := []matrix.UserID{"@a:far.test"}
				for i := range tt.others {
					users = append(users, "@u:"+matrix.UserID(serverName(i)))
				}
				h.visitors(room, users...)
				s, stop := o.sending(h, 4)
				defer stop()
				settle(time.Second)
				h.post(room, "lost")
				settle(time.Hour)
				tries := o.tries("far.test")
				for i := range 20 {
					h.post(room, fmt.Sprint(i))
					settle(time.Second)
				}
				if n := o.tries("far.test") - tries; n > 2 || tt.soon && n == 0 {
					t.Errorf("tried %d times for 20 messages", n)
				}
				settle(2 * time.Minute)
				down = false
				last := h.post(room, "are you back?")
				settle(2 * time.Second)
				if got := o.events("far.test"); tt.soon != (len(got) > 0 && got[len(got)-1] == last) {
					t.Errorf("got %v", got)
				}
				if list, err := s.Destinations(); err != nil || tt.soon != (len(list) == 0) {
					t.Errorf("behind are %v, %v", list, err)
				}
			})
		})
	}
}
