package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// A posted transaction is what a server has got.
type posted struct {
	id     string
	body   string
	events []matrix.EventID
	edus   []jsontext.Value
}

// postOffice stands for all other servers: it takes transactions.
type postOffice struct {
	testing.TB
	version *matrix.Version
	latency time.Duration
	refuse  func(dest matrix.ServerName, p posted) error // nil: takes it
	lose    func(dest matrix.ServerName, p posted) bool  // takes it, and the answer is lost

	mu    sync.Mutex
	got   map[matrix.ServerName][]posted
	tried map[matrix.ServerName]int
	open  map[matrix.ServerName]int
	all   int
	most  int
}

func newPostOffice(tb testing.TB) *postOffice {
	v, _ := matrix.VersionByID("12")
	return &postOffice{
		TB: tb, version: v, latency: 50 * time.Millisecond,
		got: make(map[matrix.ServerName][]posted), tried: make(map[matrix.ServerName]int), open: make(map[matrix.ServerName]int),
	}
}

func (o *postOffice) enter(dest matrix.ServerName) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tried[dest]++
	o.all++
	o.most = max(o.most, o.all)
	if o.open[dest]++; o.open[dest] > 1 {
		o.Errorf("%s gets %d transactions at a time", dest, o.open[dest])
	}
}

func (o *postOffice) leave(dest matrix.ServerName) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all--
	o.open[dest]--
}

// underWay returns how many transactions are being made, and how many there ever were.
func (o *postOffice) underWay() (now, most int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all, o.most
}

func (o *postOffice) do(ctx context.Context, dest matrix.ServerName, q Request, _ any) error {
	o.enter(dest)
	defer o.leave(dest)
	select {
	case <-time.After(o.latency):
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", dest, errors.Join(ErrUnreachable, ctx.Err()))
	}
	p := o.read(q)
	if o.refuse != nil {
		if err := o.refuse(dest, p); err != nil {
			return err
		}
	}
	o.mu.Lock()
	o.got[dest] = append(o.got[dest], p)
	o.mu.Unlock()
	if o.lose != nil && o.lose(dest, p) {
		return fmt.Errorf("%s: %w", dest, ErrUnreachable)
	}
	return nil
}

func (o *postOffice) read(q Request) posted {
	var body struct {
		Origin matrix.ServerName `json:"origin"`
		TS     int64             `json:"origin_server_ts"`
		PDUs   []jsontext.Value  `json:"pdus"`
		EDUs   []jsontext.Value  `json:"edus"`
	}
	text, err := json.Marshal(q.Body)
	if err == nil {
		err = json.Unmarshal(text, &body)
	}
	if err != nil || body.Origin != "here.test" || body.TS == 0 || body.PDUs == nil {
		o.Errorf("transaction %.200s: %v", text, err)
	}
	if len(body.PDUs) > maxPDUs || len(body.EDUs) > maxEDUs || len(text) > maxTxnBytes+4096 {
		o.Errorf("%d events and %d EDUs, %d bytes, in a transaction", len(body.PDUs), len(body.EDUs), len(text))
	}
	p := posted{id: path.Base(q.Path), body: string(text), edus: body.EDUs}
	for _, pdu := range body.PDUs {
		ev, err := matrix.Parse(o.version, pdu)
		if err != nil {
			o.Errorf("event %s: %v", pdu, err)
			continue
		}
		p.events = append(p.events, ev.ID)
	}
	return p
}

// tries returns how often a server was sent something.
func (o *postOffice) tries(dest matrix.ServerName) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tried[dest]
}

// events returns the events that a server has got, in order.
func (o *postOffice) events(dest matrix.ServerName) (events []matrix.EventID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range o.got[dest] {
		events = append(events, p.events...)
	}
	return events
}

// edus returns the EDUs that a server has got, in order, and clears them.
func (o *postOffice) edus(dest matrix.ServerName) (edus []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, p := range o.got[dest] {
		for _, edu := range p.edus {
			edus = append(edus, string(edu))
		}
		o.got[dest][i].edus = nil
	}
	return edus
}

// sending runs a Sender over a homestead's store until stop is called, which lets it
// store how far it came.
func (o *postOffice) sending(h *homestead, workers int) (s *Sender, stop func()) {
	retryAt := func(matrix.ServerName) time.Time { return time.Time{} }
	s = newSender(h.store, o.do, retryAt, SenderConfig{Workers: workers})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s, sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) && !errors.Is(err, store.ErrClosed) {
			o.Error(err)
		}
	})
}

// visitors has users of other servers join a room.
func (h *homestead) visitors(room matrix.RoomID, users ...matrix.UserID) (last *matrix.Event) {
	h.Helper()
	var events []*matrix.Event
	h.must(h.store.View(func(tx *store.Tx) error {
		num := tx.RoomNum(room)
		head, err := tx.Head(num)
		if err != nil {
			return err
		}
		prev, err := tx.Event(num, head.Latest)
		if err != nil {
			return err
		}
		last, depth := prev.Event, head.Depth
		for _, user := range users {
			key := string(user)
			draft := matrix.Draft{
				Room: room, Sender: user, Type: "m.room.member", StateKey: &key,
				Content: jsontext.Value(`{"membership":"join"}`), OriginServerTS: time.Now().UnixMilli(),
			}
			depth++
			placing := matrix.Placing{Depth: depth, Prev: []matrix.EventID{last.ID}}
			for _, need := range auth.Needed(head.Version, draft.Type, user, &key, draft.Content) {
				slot, ok := tx.Slot(num, need.Type, need.StateKey)
				if !ok {
					continue
				}
				at, err := tx.StateAt(num, head.Current, slot)
				if at == 0 || err != nil {
					continue
				}
				id, err := tx.EventID(num, at)
				if err != nil {
					return err
				}
				placing.Auth = append(placing.Auth, id)
			}
			if last, err = draft.Build(head.Version, placing, user.Server(), keyOfServer(user.Server())); err != nil {
				return err
			}
			events = append(events, last)
		}
		return nil
	}))
	verdicts, err := h.rooms.AcceptAll(context.Background(), events)
	h.must(err)
	for i, v := range verdicts {
		if v != state.Accepted {
			h.Fatalf("%s: verdict %d", events[i].Sender, v)
		}
	}
	return events[len(events)-1]
}

// post sends a message and returns its ID.
func (h *homestead) post(room matrix.RoomID, text string) matrix.EventID {
	h.Helper()
	id, err := h.rooms.Send(context.Background(), store.TxnID{}, matrix.Draft{
		Room: room, Sender: matrix.UserID("@alice:" + h.name), Type: "m.room.message", Content: jsontext.Value(fmt.Sprintf(`{"body":%q}`, text)),
	})
	h.must(err)
	return id
}

// posts sends many messages.
func (h *homestead) posts(room matrix.RoomID, n int) (ids []matrix.EventID) {
	h.Helper()
	for i := range n {
		ids = append(ids, h.post(room, fmt.Sprint(i)))
	}
	return ids
}

// behind returns the servers that have a record.
func (h *homestead) behind() (servers []matrix.ServerName) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) error {
		return tx.AllBehind(func(server store.ServerNum, _ store.Behind) (bool, error) {
			servers = append(servers, tx.ServerName(server))
			return true, nil
		})
	}))
	return servers
}

// settle lets a Sender do all that it can do within some time.
func settle(d time.Duration) {
	synctest.Wait()
	time.Sleep(d)
	synctest.Wait()
}

func sameEvents(t *testing.T, what string, got, want []matrix.EventID) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %d events, want %d: %v, want %v", what, len(got), len(want), got, want)
	}
}

// Whatever is sent arrives everywhere, once and in order, however many events there
// are while a server is slow; and then nobody is behind.
func TestSendInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, o := newHomestead(t, "here.test"), newPostOffice(t)
		room := h.create("12", 1)
		s, stop := o.sending(h, 4)
		defer stop()
		settle(time.Second)
		h.visitors(room, "@a:fast.test", "@b:slow.test", "@c:fast.test")
		want := h.posts(room, 250)
		settle(time.Minute)
		for _, dest := range []matrix.ServerName{"fast.test", "slow.test"} {
			sameEvents(t, string(dest), o.events(dest), want)
		}
		if n := len(o.got["here.test"]); n > 0 {
			t.Errorf("%d transactions for ourselves", n)
		}
		if list, err := s.Destinations(); len(list) > 0 || err != nil {
			t.Errorf("behind are %v, %v", list, err)
		}
		settle(time.Minute)
		if len(s.destinations) > 0 {
			t.Errorf("%d destinations in memory that have everything", len(s.destinations))
		}
		stop()
		if list := h.behind(); len(list) > 0 {
			t.Errorf("records of %v", list)
		}
	})
}

// The same transaction is sent again when it may have arrived: a server that has
// taken it knows it by its ID.
func TestTransactionIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, o := newHomestead(t, "here.test"), newPostOffice(t)
		lost := 0
		o.lose = func(matrix.ServerName, posted) bool { lost++; return lost <= 3 }
		room := h.create("12", 0)
		h.visitors(room, "@a:far.test")
		_, stop := o.sending(h, 4)
		defer stop()
		settle(time.Second)
		one := h.post(room, "one")
		synctest.Wait()
		two := h.post(room, "two")
		settle(time.Minute)
		got := o.got["far.test"]
		if len(got) != 5 {
			t.Fatalf("%d transactions", len(got))
		}
		for _, p := range got[:4] {
			if p.id != got[0].id || p.body != got[0].body {
				t.Errorf("transaction %s %s, at first %s %s", p.id, p.body, got[0].id, got[0].body)
			}
		}
		sameEvents(t, "first", got[0].events, []matrix.EventID{one})
		sameEvents(t, "last", got[4].events, []matrix.EventID{two})
		if got[4].id == got[0].id {
			t.Error("two transactions have one ID")
		}
	})
}

// A process that dies between a commit and the sending, or in the middle of it, loses
// nothing: the next one sends it. What was stored is never ahead of what was sent.
func TestSendAfterCrash(t *testing.T) {
	for seed := range 12 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, o := newHomestead(t, "here.test"), newPostOffice(t)
				down := true
				o.refuse = func(dest matrix.ServerName, _ posted) error {
					if dest == "down.test" && down {
						return fmt.Errorf("%s: %w", dest, ErrUnreachable)
					}
					return nil
				}
				room := h.create("12", 0)
				_, stop := o.sending(h, 2)
				settle(time.Second)
				h.visitors(room, "@a:up.test", "@b:down.test")
				var want []matrix.EventID
				for round := range 3 {
					want = append(want, h.posts(room, 10+seed*7)...)
					settle(time.Duration(seed*round) * 13 * time.Millisecond)
					if seed%3 == 2 {
						settle(time.Minute) // long enough for a record
					}
					h.must(h.store.Close()) // as a crash does: the Sender can store nothing more
					stop()
					h.open()
					if down = round < 2; down {
						want = append(want, h.post(room, "while nobody sends"))
					}
					_, stop = o.sending(h, 2)
				}
				settle(time.Minute)
				for _, dest := range []matrix.ServerName{"up.test", "down.test"} {
					got := o.events(dest)
					for _, id := range want {
						if !slices.Contains(got, id) && (dest == "up.test" || seed < 4) {
							t.Errorf("%s did not get %s", dest, id)
						}
					}
					if len(got) == 0 || got[len(got)-1] != want[len(want)-1] {
						t.Errorf("%s did not get the newest", dest)
					}
				}
				stop()
				if list := h.behind(); len(list) > 0 {
					t.Errorf("records of %v", list)
				}
			})
		})
	}
}

// Where the newest event of a room is a join that another server made before our own
// newest, a server that was away gets both: nothing else leads it to ours.
func TestCatchUpBesideRelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, third, o := newHomestead(t, "here.test"), newHomestead(t, "third.test"), newPostOffice(t)
		down := false
		o.refuse = func(dest matrix.ServerName, _ posted) error {
			if down {
				return fmt.Errorf("%s: %w", dest, ErrUnreachable)
			}
			return nil
		}
		room := h.create("12", 0)
		s, stop := o.sending(h, 2)
		defer stop()
		settle(time.Second)
		h.visitors(room, "@a:far.test")
		down = true
		h.post(room, "lost")
		settle(time.Hour)
		h.posts(room, 150)
		const user = "@z:third.test"
		template, err := h.template(room, user, matrix.Join)
		h.must(err)
		text, err := io.ReadAll(template)
		h.must(err)
		proposal, err := state.ReadProposal(text, room, user, matrix.Join)
		h.must(err)
		join, err := third.rooms.Draft(proposal, state.Join{Room: room, User: user})
		h.must(err)
		own := h.post(room, "between the two requests")
		_, err = h.rooms.Admit(t.Context(), join, state.Source{})
		h.must(err)
		settle(time.Minute)
		down = false
		s.Wake("far.test")
		settle(time.Second)
		sameEvents(t, "after", o.events("far.test"), []matrix.EventID{own, join.ID})
	})
}

// A server that was away for long gets the newest event of each room, and what takes
// its users out of a room; after a restart, too.
func TestCatchUp(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint(restart), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, o := newHomestead(t, "here.test"), newPostOffice(t)
				var down bool
				o.refuse = func(dest matrix.ServerName, _ posted) error {
					if down {
						return fmt.Errorf("%s: %w", dest, ErrUnreachable)
					}
					return nil
				}
				one, two, three := h.create("12", 0), h.create("12", 0), h.create("12", 0)
				s, stop := o.sending(h, 2)
				settle(time.Second)
				for _, room := range []matrix.RoomID{one, two, three} {
					h.visitors(room, "@a:far.test")
				}
				first := h.post(one, "first")
				settle(time.Second)
				sameEvents(t, "before", o.events("far.test"), []matrix.EventID{first})

				down = true
				h.post(one, "lost")
				settle(time.Hour)
				_, err := h.rooms.ChangeMembership(t.Context(), state.MembershipChange{
					Room: three, Sender: "@alice:here.test", Target: "@a:far.test", Membership: matrix.Ban,
				})
				h.must(err)
				kicked := h.current(three)[auth.Key{Type: "m.room.member", StateKey: "@a:far.test"}]
				h.posts(one, 150)
				newestTwo := h.post(two, "newest of two")
				newestOne := h.post(one, "newest of one")
				h.post(three, "not for far.test")
				settle(time.Minute)
				if restart {
					stop()
					s, stop = o.sending(h, 2)
					settle(time.Second)
				}
				defer stop()
				down = false
				s.Wake("far.test")
				settle(time.Second)
				sameEvents(t, "after", o.events("far.test"), []matrix.EventID{first, kicked, newestTwo, newestOne})
				next := h.posts(two, 3)
				settle(time.Second)
				sameEvents(t, "then", o.events("far.test")[4:], next)
				stop()
				if list := h.behind(); len(list) > 0 {
					t.Errorf("records of %v", list)
				}
			})
		})
	}
}
