package federation

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/server/remote"
	"hearth/state"
	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

const (
	here  = matrix.ServerName("here.test")
	peer  = matrix.ServerName("peer.test")
	bob   = matrix.UserID("@bob:here.test")
	alice = matrix.UserID("@alice:peer.test")
)

// A house is one server's rooms.
type house struct {
	*testing.T
	store *store.Store
	rooms *state.Rooms
	key   matrix.SigningKey
}

func openHouse(t *testing.T, name matrix.ServerName, dir string) *house {
	t.Helper()
	s, err := store.Open(dir, name, store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	key := matrix.SigningKey{ID: "ed25519:test", Private: ed25519.NewKeyFromSeed(make([]byte, 32))}
	return &house{t, s, state.New(state.Config{Store: s, Server: name, Key: key}), key}
}

// close ends a house that nothing uses any more, and looks whether all is in order.
func (h *house) close() {
	h.Helper()
	if err := h.store.Check(context.Background(), func(fault string) { h.Errorf("check: %s", fault) }); err != nil {
		h.Error(err)
	}
	if err := h.store.Close(); err != nil {
		h.Error(err)
	}
}

func (h *house) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// find returns an event, nil where it is not here.
func (h *house) find(id matrix.EventID) (found *store.StoredEvent) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) error {
		room, num, ok := tx.EventByID(id)
		if !ok {
			return nil
		}
		ev, err := tx.Event(room, num)
		found = ev
		return err
	}))
	return found
}

// shown says whether an event is part of the timeline.
func (h *house) shown(id matrix.EventID) bool {
	ev := h.find(id)
	return ev != nil && !ev.Num.Aside()
}

func (h *house) timeline(room matrix.RoomID) (events []*matrix.Event) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) error {
		return tx.Timeline(tx.RoomNum(room), 0, func(ev *store.StoredEvent) (bool, error) {
			events = append(events, ev.Event)
			return true, nil
		})
	}))
	return events
}

func (h *house) send(room matrix.RoomID, body string) *matrix.Event {
	h.Helper()
	id, err := h.rooms.Send(context.Background(), store.TxnID{}, matrix.Draft{
		Room: room, Sender: alice, Type: "m.room.message", Content: jsontext.Value(`{"body":"` + body + `"}`),
	})
	h.must(err)
	return h.find(id).Event
}

func (h *house) set(room matrix.RoomID, typ, key, content string) *matrix.Event {
	h.Helper()
	id, err := h.rooms.Send(context.Background(), store.TxnID{}, matrix.Draft{
		Room: room, Sender: alice, Type: typ, StateKey: &key, Content: jsontext.Value(content),
	})
	h.must(err)
	return h.find(id).Event
}

// build makes an event behind some others, or behind the room's newest, that cites
// what it should.
func (h *house) build(draft matrix.Draft, prev ...matrix.EventID) *matrix.Event {
	h.Helper()
	var ev *matrix.Event
	h.must(h.store.View(func(tx *store.Tx) error {
		num, head, err := state.Head(tx, draft.Room)
		if err != nil {
			return err
		}
		placing := matrix.Placing{Prev: prev, Depth: head.Depth + 1}
		if len(prev) == 0 {
			for _, end := range head.Extremities {
				id, err := tx.EventID(num, end)
				if err != nil {
					return err
				}
				placing.Prev = append(placing.Prev, id)
			}
		}
		for _, key := range auth.Needed(head.Version, draft.Type, draft.Sender, draft.StateKey, draft.Content) {
			cited, err := state.EventAt(tx, num, head.Current, key.Type, key.StateKey)
			if err != nil {
				return err
			}
			if cited != nil {
				placing.Auth = append(placing.Auth, cited.ID)
			}
		}
		draft.OriginServerTS = time.Now().UnixMilli()
		ev, err = draft.Build(head.Version, placing, draft.Sender.Server(), h.key)
		return err
	}))
	return ev
}

// A pair is a server and a peer of it, which has a room that both are in.
type pair struct {
	*testing.T
	here, peer *house
	dir        string
	server     *Server
	room       matrix.RoomID
	txn        int
	stop       func()
	ahead      atomic.Int64 // by how much the clock of the inbox is wrong

	mu    sync.Mutex                      // guards what is below
	down  bool                            // the peer cannot be asked
	mute  bool                            // it has nothing
	asked []string                        // what was asked for
	slow  map[matrix.RoomID]time.Duration // how long it thinks about missing events of these rooms

	keyless map[matrix.EventID]bool // events whose keys cannot be had for now
	forged  map[matrix.EventID]bool // events that are not signed by whom they say
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{T: t, dir: t.TempDir(), peer: openHouse(t, peer, t.TempDir())}
	t.Cleanup(p.peer.close)
	var err error
	p.room, err = p.peer.rooms.Create(t.Context(), state.Creation{Creator: alice, Version: "10", Preset: "public_chat"})
	p.peer.must(err)
	key := string(bob)
	join := p.peer.build(matrix.Draft{Room: p.room, Sender: bob, Type: "m.room.member", StateKey: &key, Content: jsontext.Value(`{"membership":"join"}`)})
	_, err = p.peer.rooms.Accept(t.Context(), join)
	p.peer.must(err)
	p.start()
	t.Cleanup(func() { p.stop() })
	_, err = p.here.rooms.AcceptAll(t.Context(), p.peer.timeline(p.room))
	p.here.must(err)
	return p
}

// start opens the store and runs the server over it.
func (p *pair) start() {
	p.Helper()
	p.here = openHouse(p.T, here, p.dir)
	network := remote.NewNetwork(remote.NetworkConfig{
		Store: p.here.store,
		Key:   func() matrix.SigningKey { return p.here.key },
	})
	p.server = New(Config{Store: p.here.store, Rooms: p.here.rooms, Network: network})
	p.server.check, p.server.inbox.check = p.check, p.check
	p.server.inbox.source = p.source
	p.server.inbox.now = func() time.Time { return time.Now().Add(time.Duration(p.ahead.Load())) }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- p.server.Run(ctx) }()
	p.stop = func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			p.Error(err)
		}
		p.here.close()
		p.stop = func() {}
	}
}

// check is checkForm but for the events whose keys cannot be had.
func (p *pair) check(ctx context.Context, v *matrix.Version, pdus []jsontext.Value) ([]*matrix.Event, []error) {
	events, errs := checkForm(ctx, v, pdus)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, ev := range events {
		if ev != nil && p.keyless[ev.ID] {
			events[i], errs[i] = nil, &remote.PDUError{Event: ev.ID, Err: remote.ErrKeyLater}
		} else if ev != nil && (p.forged[ev.ID] || bytes.Contains(pdus[i], []byte("ed25519:forged"))) {
			events[i], errs[i] = nil, &remote.PDUError{Event: ev.ID, Err: matrix.ErrBadSignature}
		}
	}
	return events, errs
}

// setKeyless says whether the key of an event can be had.
func (p *pair) setKeyless(ev *matrix.Event, keyless bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keyless == nil {
		p.keyless = make(map[matrix.EventID]bool)
	}
	p.keyless[ev.ID] = keyless
}

// checkForm is Check without any signatures.
func checkForm(_ context.Context, v *matrix.Version, pdus []jsontext.Value) ([]*matrix.Event, []error) {
	events, errs := make([]*matrix.Event, len(pdus)), make([]error, len(pdus))
	for i, pdu := range pdus {
		ev, err := matrix.Parse(v, pdu)
		if err != nil {
			errs[i] = &remote.PDUError{Err: err}
			continue
		}
		if events[i] = ev; !ev.VerifyContentHash() {
			events[i], errs[i] = nil, &remote.PDUError{Event: ev.ID, Err: matrix.ErrBadSignature}
		}
	}
	return events, errs
}

var errDown = errors.New("the peer is down")

func (p *pair) ask(what string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, what)
	if p.down {
		return errDown
	}
	return nil
}

// think takes as long as the peer does before it answers.
func (p *pair) think(ctx context.Context, room matrix.RoomID) error {
	p.mu.Lock()
	long := p.slow[room]
	p.mu.Unlock()
	select {
	case <-time.After(long):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pair) become(down, mute bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down, p.mute, p.asked = down, mute, nil
}

// source asks the peer, whichever servers are named.
func (p *pair) source(*matrix.Version, func(*matrix.Event), ...matrix.ServerName) state.Source {
	have := func(id matrix.EventID) *matrix.Event {
		p.mu.Lock()
		defer p.mu.Unlock()
		if ev := p.peer.find(id); ev != nil && !p.mute {
			return ev.Event
		}
		return nil
	}
	return state.Source{
		Missing: func(ctx context.Context, ask state.MissingEvents, take func(*matrix.Event) error) error {
			if err := p.ask("missing"); err != nil {
				return err
			}
			if err := p.think(ctx, ask.Room); err != nil {
				return err
			}
			queue := slices.Clone(ask.Latest)
			for n := 0; n < len(queue) && n < ask.Limit; n++ {
				ev := have(queue[n])
				if ev == nil || slices.Contains(ask.Earliest, ev.ID) {
					continue
				}
				queue = append(queue, ev.PrevEvents...)
				if err := take(ev); err != nil {
					return err
				}
			}
			return nil
		},
		Events: func(_ context.Context, _ matrix.RoomID, ids []matrix.EventID, take func(*matrix.Event) error) error {
			if err := p.ask("events"); err != nil {
				return err
			}
			for _, id := range ids {
				if ev := have(id); ev != nil {
					if err := take(ev); err != nil {
						return err
					}
				}
			}
			return nil
		},
		StateIDs: func(_ context.Context, _ matrix.RoomID, before matrix.EventID, take func(matrix.EventID) error) error {
			if err := p.ask("state"); err != nil || have(before) == nil {
				return err
			}
			return p.peer.stateBefore(before, take)
		},
	}
}

// stateBefore hands over the IDs of the state before an event.
func (h *house) stateBefore(id matrix.EventID, take func(matrix.EventID) error) error {
	return h.store.View(func(tx *store.Tx) error {
		room, num, _ := tx.EventByID(id)
		ev, err := tx.Event(room, num)
		if err != nil {
			return err
		}
		return tx.WalkState(room, ev.Before, store.StateAll, func(_ store.Slot, num store.EventNum) (bool, error) {
			id, err := tx.EventID(room, num)
			if err == nil {
				err = take(id)
			}
			return true, err
		})
	})
}

// transact sends a transaction as the peer does, and returns the status and the text
// of the answer.
func (p *pair) transact(from matrix.ServerName, txn, body string) (int, string) {
	p.Helper()
	r := httptest.NewRequest("PUT", "/", strings.NewReader(body))
	r.SetPathValue("txnID", txn)
	w := httptest.NewRecorder()
	if err := p.server.sendTransaction(w, r, from); err != nil {
		return api.AsError(err).Status, err.Error()
	}
	return w.Code, w.Body.String()
}

// deliver sends events in a transaction that must be answered 200, and returns what
// is wrong with each of them.
func (p *pair) deliver(events ...*matrix.Event) map[matrix.EventID]string {
	p.Helper()
	p.txn++
	code, answer := p.transact(peer, fmt.Sprint(p.txn), body(events...))
	if code != 200 {
		p.Fatalf("%d %s", code, answer)
	}
	var results struct {
		PDUs map[matrix.EventID]struct {
			Error string `json:"error"`
		} `json:"pdus"`
	}
	if err := json.Unmarshal([]byte(answer), &results); err != nil {
		p.Fatal(err)
	}
	wrong := make(map[matrix.EventID]string)
	for id, result := range results.PDUs {
		wrong[id] = result.Error
	}
	return wrong
}

func body(events ...*matrix.Event) string {
	var pdus []string
	for _, ev := range events {
		pdus = append(pdus, string(ev.JSON()))
	}
	return `{"origin":"peer.test","origin_server_ts":1,"pdus":[` + strings.Join(pdus, ",") + `]}`
}

// waiting returns how many events are in the inbox, in the store and by the count.
func (p *pair) waiting() (stored, counted int) {
	p.Helper()
	p.here.must(p.here.store.View(func(tx *store.Tx) error {
		return tx.InboxRooms(func(room store.RoomNum) (bool, error) {
			return true, tx.Inbox(room, 0, func(store.InboxEvent) (bool, error) {
				stored++
				return true, nil
			})
		})
	}))
	p.server.inbox.queue.mu.Lock()
	defer p.server.inbox.queue.mu.Unlock()
	return stored, p.server.inbox.queue.all.count
}

// eventually waits until something is so.
func (p *pair) eventually(what string, is func() bool) {
	p.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			p.Fatalf("%s: that does not come about", what)
		}
	}
}
