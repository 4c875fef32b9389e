package remote

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// account makes the account of the creator of a homestead's rooms.
func (h *homestead) account() (user store.UserNum) {
	h.Helper()
	h.must(h.store.Update(h.Context(), func(tx *store.Tx) (err error) {
		user, err = tx.CreateAccount("@alice:"+matrix.UserID(h.name), store.Account{})
		return err
	}))
	return user
}

// Public receipts go out, with their thread, the newest of each; private ones and
// those of others never.
func TestSendReceipts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, o := newHomestead(t, "here.test"), newPostOffice(t)
		room := h.create("12", 1)
		h.visitors(room, "@a:far.test")
		at := h.posts(room, 3)
		s, stop := o.sending(h, 2)
		defer stop()
		settle(time.Second)
		put := func(user matrix.UserID, typ, thread string, i int) {
			h.must(h.store.Update(t.Context(), func(tx *store.Tx) error {
				_, num, _ := tx.EventByID(at[i])
				_, err := tx.PutReceipt(tx.RoomNum(room), store.Receipt{
					User: tx.UserNum(user), Type: typ, Thread: thread, Event: at[i], Num: num, TS: 1000 + int64(i),
				})
				return err
			}))
		}
		put("@alice:here.test", store.ReceiptPrivate, "", 0)
		put("@a:far.test", store.ReceiptRead, "", 1)
		settle(time.Second)
		if n := o.tries("far.test"); n != 0 {
			t.Errorf("%d transactions for what is nobody's business", n)
		}
		o.latency = 10 * time.Second // the first is on its way while the others come
		put("@m0:here.test", store.ReceiptRead, "", 0)
		synctest.Wait()
		put("@alice:here.test", store.ReceiptRead, "", 0)
		put("@alice:here.test", store.ReceiptRead, "", 1)
		put("@alice:here.test", store.ReceiptRead, "main", 2)
		put("@m0:here.test", store.ReceiptPrivate, "", 2)
		settle(time.Minute)
		receipt := func(user matrix.UserID, thread string, i int) string {
			return fmt.Sprintf(`{"edu_type":"m.receipt","content":{%q:{"m.read":{%q:{"data":{"ts":%d%s},"event_ids":[%q]}}}}}`,
				room, user, 1000+i, thread, at[i])
		}
		want := []string{
			receipt("@m0:here.test", "", 0),
			receipt("@alice:here.test", "", 1),
			receipt("@alice:here.test", `,"thread_id":"main"`, 2),
		}
		if got := o.edus("far.test"); !slices.Equal(got, want) {
			t.Errorf("receipts %q\nwant %q", got, want)
		}
		if list, err := s.Destinations(); len(list) > 0 || err != nil {
			t.Errorf("behind are %v, %v", list, err)
		}
	})
}

// What may be lost goes to servers that are there, the newest of each key, and is no
// reason to try one that is not.
func TestSendLossy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, o := newHomestead(t, "here.test"), newPostOffice(t)
		down := false
		o.refuse = func(dest matrix.ServerName, _ posted) error {
			if down && dest == "down.test" {
				return fmt.Errorf("%s: %w", dest, ErrUnreachable)
			}
			return nil
		}
		room, other := h.create("12", 0), h.create("12", 0)
		h.account()
		h.visitors(room, "@a:up.test", "@b:down.test")
		h.visitors(other, "@c:third.test")
		s, stop := o.sending(h, 2)
		defer stop()
		settle(time.Second)
		down = true
		h.post(room, "to find that it is down")
		synctest.Wait()
		h.must(s.SendToServers([]matrix.ServerName{"down.test"}, EDU{Type: "m.x", Content: jsontext.Value(`{"while":"it fails"}`)}))
		settle(time.Minute)
		tried := o.tries("down.test")
		o.latency = time.Second
		for i := range 200 {
			typing := EDU{Type: "m.typing", Content: jsontext.Value(fmt.Sprintf(`{"n":%d}`, i)), Key: "typing"}
			h.must(s.SendToRoom(room, typing))
			synctest.Wait()
		}
		settle(2500 * time.Millisecond)
		want := []string{`{"edu_type":"m.typing","content":{"n":0}}`, `{"edu_type":"m.typing","content":{"n":199}}`}
		if got := o.edus("up.test"); !slices.Equal(got, want) {
			t.Errorf("typing %q, want %q", got, want)
		}
		if n := o.tries("down.test"); n > tried+1 {
			t.Errorf("typing makes a server be tried %d times", n-tried)
		}
		h.must(s.SendForUser("@alice:here.test", EDU{Type: "m.presence", Content: jsontext.Value(`{"push":[]}`)}))
		h.must(s.SendToServers([]matrix.ServerName{"up.test", "here.test", "unknown.test"}, EDU{Type: "m.x", Content: jsontext.Value(`{}`)}))
		settle(5 * time.Second)
		if got := o.edus("third.test"); len(got) != 1 {
			t.Errorf("presence %q", got)
		}
		if got := o.edus("up.test"); len(got) != 2 {
			t.Errorf("presence and another %q", got)
		}
		down = false
		s.Wake("down.test")
		settle(5 * time.Second)
		if got := o.edus("down.test"); len(got) != 0 || len(o.events("down.test")) != 1 {
			t.Errorf("%q came late, with %d events", got, len(o.events("down.test")))
		}
	})
}

// What waits in the outbox arrives in order, however much it is and whatever else
// happens, and is then deleted; a crash loses nothing of it.
func TestSendOutbox(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprint(crash), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, o := newHomestead(t, "here.test"), newPostOffice(t)
				down := true
				o.refuse = func(dest matrix.ServerName, _ posted) error {
					if down {
						return fmt.Errorf("%s: %w", dest, ErrUnreachable)
					}
					return nil
				}
				_, stop := o.sending(h, 2)
				settle(time.Second)
				var want []string
				put := func(n int) {
					for range n {
						edu := fmt.Sprintf(`{"edu_type":"m.direct_to_device","content":{"message_id":"%d"}}`, len(want))
						want = append(want, edu)
						h.must(h.store.Update(t.Context(), func(tx *store.Tx) error {
							to, err := tx.PutServerNum("far.test")
							if err != nil {
								return err
							}
							return tx.PutOutbox(to, jsontext.Value(edu))
						}))
					}
				}
				put(130)
				settle(2 * time.Hour)
				if crash {
					h.must(h.store.Close())
				}
				stop()
				if crash {
					h.open()
				}
				put(1)
				s, stop := o.sending(h, 2)
				settle(time.Second)
				down = false
				s.Wake("far.test")
				settle(70 * time.Millisecond) // in the middle of it
				put(120)
				settle(time.Minute)
				if got := o.edus("far.test"); !slices.Equal(got, want) {
					t.Errorf("%d EDUs, want %d: %q", len(got), len(want), got)
				}
				stop()
				h.must(h.store.View(func(tx *store.Tx) error {
					return tx.Outbox(tx.ServerNum("far.test"), 0, func(pos store.Position, edu jsontext.Value) (bool, error) {
						t.Errorf("%s still waits at %d", edu, pos)
						return true, nil
					})
				}))
				if list := h.behind(); len(list) > 0 {
					t.Errorf("records of %v", list)
				}
			})
		})
	}
}

// What waits in an outbox holds the cursor back: a process that dies when half of it
// has arrived, and stored how far that is, sends the other half later.
func TestSendHalfAnOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, o := newHomestead(t, "here.test"), newPostOffice(t)
		h.must(h.store.Update(t.Context(), func(tx *store.Tx) error {
			to, err := tx.PutServerNum("far.test")
			for i := 0; err == nil && i < 130; i++ {
				err = tx.PutOutbox(to, jsontext.Value(fmt.Sprintf(`{"n":%d}`, i)))
			}
			return errors.Join(err, tx.PutSentPosition(0))
		}))
		o.latency = 5 * time.Second
		_, stop := o.sending(h, 2)
		settle(8 * time.Second)
		h.must(h.store.Check(t.Context(), func(fault string) { t.Error(fault) }))
		h.must(h.store.Close())
		stop()
		half := len(o.edus("far.test"))
		h.open()
		_, stop = o.sending(h, 2)
		settle(time.Minute)
		if got := o.edus("far.test"); half != outboxEDUs || len(got) != 130-half || got[0] != fmt.Sprintf(`{"n":%d}`, half) {
			t.Errorf("%d EDUs, then %d: %q", half, len(got), got)
		}
		stop()
	})
}

// A server that was not asked for what happened before it came gets nothing of that
// later either, when the stream is read for it again.
func TestNothingFromBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, o := newHomestead(t, "here.test"), newPostOffice(t)
		down := true
		o.refuse = func(dest matrix.ServerName, _ posted) error {
			if down {
				return fmt.Errorf("%s: %w", dest, ErrUnreachable)
			}
			return nil
		}
		room, other := h.create("12", 0), h.create("12", 0)
		h.visitors(room, "@a:far.test")
		_, stop := o.sending(h, 2)
		settle(time.Second)
		one := h.post(room, "one")
		h.post(other, "before far.test came there")
		settle(time.Minute)
		h.visitors(other, "@a:far.test")
		two := h.post(other, "two")
		settle(time.Minute)
		stop()
		down = false
		_, stop = o.sending(h, 2)
		settle(time.Minute)
		sameEvents(t, "far.test", o.events("far.test"), []matrix.EventID{one, two})
		stop()
	})
}

// Changes of devices go to the servers that share a room with the user, in order;
// whoever comes into a room introduces their devices.
func TestSendDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, o := newHomestead(t, "here.test"), newPostOffice(t)
		room, other := h.create("12", 0), h.create("12", 0)
		user := h.account()
		h.visitors(room, "@a:far.test")
		h.visitors(other, "@a:else.test")
		_, stop := o.sending(h, 2)
		defer stop()
		settle(time.Second)
		for _, id := range []matrix.DeviceID{"ONE", "TWO"} {
			h.must(h.store.Update(t.Context(), func(tx *store.Tx) error {
				if err := tx.PutDevice(user, store.Device{ID: id}); err != nil {
					return err
				}
				keys := fmt.Sprintf(`{"user_id":"@alice:here.test","device_id":%q,"keys":{},"algorithms":[],"signatures":{}}`, id)
				return tx.PutDeviceKeys(user, id, jsontext.Value(keys))
			}))
		}
		settle(time.Second)
		for _, dest := range []matrix.ServerName{"far.test", "else.test"} {
			got := o.edus(dest)
			if len(got) == 0 || !strings.Contains(got[0], "ONE") || !strings.Contains(got[len(got)-1], "TWO") {
				t.Errorf("%s got %q", dest, got)
			}
		}
		h.must(h.rooms.Leave(t.Context(), room, "@alice:here.test", ""))
		settle(time.Second)
		h.must(h.store.Update(t.Context(), func(tx *store.Tx) error { return tx.DeleteDevice(user, "ONE") }))
		settle(time.Second)
		if got := o.edus("far.test"); len(got) > 0 {
			t.Errorf("who shares no room any more got %q", got)
		}
		if got := o.edus("else.test"); len(got) != 1 || !strings.Contains(got[0], `"deleted":true`) {
			t.Errorf("a device is deleted: %q", got)
		}
	})
}

// An event goes to the servers in the room when it happens, and to that of the user
// whose membership it changes; not to a server that comes later, nor by this way to
// an invited one.
func TestAudience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, o := newHomestead(t, "here.test"), newPostOffice(t)
		o.refuse = func(dest matrix.ServerName, _ posted) error {
			if dest == "slow.test" && o.tries(dest) < 3 {
				return fmt.Errorf("%s: %w", dest, ErrUnreachable)
			}
			return nil
		}
		room, other := h.create("12", 0), h.create("12", 0)
		_, stop := o.sending(h, 2)
		defer stop()
		settle(time.Second)
		h.post(room, "before anybody came")
		h.visitors(room, "@a:far.test", "@s:slow.test")
		one := h.post(room, "one")
		h.post(other, "before slow.test came there")
		h.visitors(other, "@s:slow.test")
		settle(time.Minute)
		sameEvents(t, "far.test", o.events("far.test"), []matrix.EventID{one})
		sameEvents(t, "slow.test", o.events("slow.test"), []matrix.EventID{one})

		change := func(target matrix.UserID, to matrix.Membership) matrix.EventID {
			_, err := h.rooms.ChangeMembership(t.Context(), state.MembershipChange{
				Room: room, Sender: "@alice:here.test", Target: target, Membership: to,
			})
			h.must(err)
			settle(time.Second)
			return h.current(room)[auth.Key{Type: "m.room.member", StateKey: string(target)}]
		}
		kick := change("@a:far.test", matrix.Ban)
		later := h.post(room, "later")
		unknown := change("@x:never.test", matrix.Ban)
		settle(time.Second)
		sameEvents(t, "far.test", o.events("far.test"), []matrix.EventID{one, kick})
		sameEvents(t, "slow.test", o.events("slow.test"), []matrix.EventID{one, kick, later, unknown})
		sameEvents(t, "never.test", o.events("never.test"), []matrix.EventID{unknown})
	})
}

// What a server refuses for good does not keep what stands beside it or comes later.
func TestRefusedTransaction(t *testing.T) {
	for name, refusal := range map[string]*Error{
		"too large":  {Server: "far.test", Status: 413},
		"never good": {Server: "far.test", Status: 400, Code: "M_BAD_JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, o := newHomestead(t, "here.test"), newPostOffice(t)
				room := h.create("12", 0)
				h.visitors(room, "@a:far.test")
				o.refuse = func(_ matrix.ServerName, p posted) error {
					if strings.Contains(p.body, `"bad"`) {
						return refusal
					}
					return nil
				}
				_, stop := o.sending(h, 2)
				defer stop()
				settle(time.Second)
				bad := h.post(room, "bad")
				settle(time.Second)
				beside := h.posts(room, 3)
				settle(24 * time.Hour)
				next := h.post(room, "good")
				settle(time.Minute)
				sameEvents(t, "far.test", o.events("far.test"), append(beside, next))
				if tries := o.tries("far.test"); tries > 80 {
					t.Errorf("%s was sent %d transactions", bad, tries)
				}
			})
		})
	}
}

// What belongs together goes together, and is left out together: a join comes with the
// devices of who joins.
func TestRefusedJoin(t *testing.T) {
	for _, status := range []int{400, 413} {
		synctest.Test(t, func(t *testing.T) {
			h, o := newHomestead(t, "here.test"), newPostOffice(t)
			room := h.create("12", 0)
			h.visitors(room, "@a:far.test")
			o.refuse = func(_ matrix.ServerName, p posted) error {
				if strings.Contains(p.body, "m.device_list_update") {
					return &Error{Server: "far.test", Status: status, Code: "M_TOO_MUCH"}
				}
				return nil
			}
			h.must(h.store.Update(t.Context(), func(tx *store.Tx) error {
				user, err := tx.CreateAccount("@new:here.test", store.Account{})
				if err == nil {
					err = tx.PutDevice(user, store.Device{ID: "D"})
				}
				if err == nil {
					err = tx.PutDeviceKeys(user, "D", []byte(`{"user_id":"@new:here.test","device_id":"D","algorithms":[],"keys":{},"signatures":{}}`))
				}
				return err
			}))
			_, stop := o.sending(h, 2)
			defer stop()
			settle(time.Second)
			_, err := h.rooms.ChangeMembership(t.Context(), state.MembershipChange{Room: room, Sender: "@new:here.test", Target: "@new:here.test", Membership: matrix.Join})
			h.must(err)
			settle(24 * time.Hour)
			next := h.post(room, "good")
			settle(time.Minute)
			if got := o.events("far.test"); len(got) == 0 || got[len(got)-1] != next {
				t.Errorf("%d: the events are %q, want %s at the end", status, got, next)
			}
		})
	}
}

// Nothing is lost where a server has a bad hour.
func TestRefusedForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, o := newHomestead(t, "here.test"), newPostOffice(t)
		room := h.create("12", 0)
		h.visitors(room, "@a:far.test")
		well := time.Now().Add(refusalHope)
		o.refuse = func(matrix.ServerName, posted) error {
			if time.Now().Before(well) {
				return &Error{Server: "far.test", Status: 400, Code: "M_UNKNOWN"}
			}
			return nil
		}
		_, stop := o.sending(h, 2)
		defer stop()
		settle(time.Second)
		var events []matrix.EventID
		for range 30 {
			events = append(events, h.post(room, "x"))
			settle(2 * time.Minute)
		}
		settle(time.Hour)
		sameEvents(t, "far.test", o.events("far.test"), events)
	})
}
