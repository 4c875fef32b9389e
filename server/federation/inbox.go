package federation

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/errgroup"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of the inbox.
const (
	inboxWorkers  = 6                // rooms that are worked on at a time
	inboxBatch    = 50               // events of a room that are read together
	inboxBytes    = 1 << 20          // of those
	inboxAge      = 24 * time.Hour   // after which an event is given up whose server cannot be asked
	inboxPatience = 10 * time.Minute // for one try at one batch
	inboxMemory   = 3 << 20          // that one try may use; see state.Rooms.AcceptFrom
	inboxAgain    = 16               // tries in a row that bring an event nearer
	inboxAwait    = 2 * time.Second  // for which a transaction waits for its first try
	inboxBackoff  = time.Second      // after the first try in vain; doubles
	inboxMaxWait  = time.Hour
	inboxRest     = 5 * time.Second // no longer than that, where a server speaks to us
	inboxMaxRest  = time.Minute     // nor than that, where another one does that was away
	moreServers   = 3               // servers of the room that are asked beside the event's origin
)

// An inbox has the events that other servers sent and that lack something, until that
// is fetched: what they stand on or cite, or the key that they are signed with. They are
// in the store; here is which rooms have some. A few workers take room after room, so that
// one room is worked on once at a time, in the order in which its events came, and each
// server's events have their turn however many others send, and however slow those answer.
//
// An event leaves the inbox with a verdict, or when all servers that were asked say
// that they do not have what it lacks. As long as its origin cannot be asked it is
// tried again, less and less often, for a day.
type inbox struct {
	store  *store.Store
	rooms  *state.Rooms
	check  func(ctx context.Context, v *matrix.Version, pdus []jsontext.Value) ([]*matrix.Event, []error)
	source func(v *matrix.Version, unchecked func(*matrix.Event), servers ...matrix.ServerName) state.Source
	take   func(ctx context.Context, bytes int64) (release func(), err error)
	now    func() time.Time
	log    *slog.Logger
	queue  inboxQueue
	slow   slowTries
}

func newInbox(config Config) *inbox {
	in := &inbox{
		store: config.Store, rooms: config.Rooms, check: config.Network.Check, source: config.Network.TrustingSource, take: config.Take,
		now: config.Now, log: config.Log,
	}
	in.queue.init()
	return in
}

// put stores events of a room behind those that wait there. handled is closed after
// the next try to get what they lack. The error is errBusy where too many wait.
func (in *inbox) put(ctx context.Context, room store.RoomNum, origin matrix.ServerName, part store.InboxPart, pdus []jsontext.Value) (handled <-chan struct{}, err error) {
	if err := in.queue.loaded(ctx); err != nil {
		return nil, err
	}
	load := inboxLoad{count: len(pdus)}
	for _, pdu := range pdus {
		load.bytes += len(pdu)
	}
	if part != store.InboxNews && !in.queue.spare(origin, load.count) || !in.queue.reserve(room, origin, load) {
		return nil, errBusy
	}
	received := in.now().UnixMilli()
	err = in.store.Update(ctx, func(tx *store.Tx) error {
		for _, pdu := range pdus {
			_, err := tx.AppendInbox(store.InboxEvent{Room: room, Origin: origin, Received: received, Part: part, PDU: pdu})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		in.queue.cancel(room, origin, load)
		return nil, fmt.Errorf("events of %s: %w", origin, err)
	}
	return in.queue.awake(room), nil
}

// await waits for the first try at what was put, but not for long: a server that can
// be asked has its events taken before it sends the next ones, and one that cannot
// does not hold up its own.
func (in *inbox) await(ctx context.Context, handled []<-chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, inboxAwait)
	defer cancel()
	for _, done := range handled {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}

// run works on the inbox until ctx ends, beginning with what an earlier run left.
func (in *inbox) run(ctx context.Context) error {
	if err := in.queue.load(in.store); err != nil {
		return fmt.Errorf("inbox: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	for range inboxWorkers {
		group.Go(func() error {
			for ctx.Err() == nil {
				in.work(ctx)
			}
			return nil
		})
	}
	return group.Wait()
}

// work takes a room that is due, or waits for one.
func (in *inbox) work(ctx context.Context) {
	room, wait := in.queue.next(in.now())
	if room != 0 {
		in.queue.rest(room, in.attend(ctx, room), in.now())
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-in.queue.news:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// attend tries to get what a room's events lack, and says what came of it.
func (in *inbox) attend(ctx context.Context, room store.RoomNum) inboxOutcome {
	release, err := in.take(ctx, inboxMemory)
	if err != nil {
		return inboxOutcome{left: true}
	}
	defer release()
	within, yield := context.WithCancel(ctx)
	defer yield()
	passed, least := in.queue.begin(room)
	defer in.slow.watch(yield, least)()
	t := inboxTry{
		inbox: in, life: ctx, ctx: within, room: room, silent: passed, unsure: make(map[uint64]bool),
	}
	for err == nil && within.Err() == nil {
		var done bool
		if done, err = t.step(); done {
			return inboxOutcome{left: t.left, moved: t.moved}
		}
	}
	if within.Err() == nil {
		in.log.Warn("events wait for what they lack", "room", t.id, "err", err)
		return inboxOutcome{left: true, moved: t.moved}
	}
	return inboxOutcome{left: true, moved: t.moved, slow: t.origin}
}

// An inboxOutcome is what came of a try.
type inboxOutcome struct {
	left  bool              // some events are to be tried again
	moved bool              // some have left the inbox
	slow  matrix.ServerName // whose events took so long that it made way for others; or ""
}

// backoff returns how long a room rests after tries in vain: another time for each
// room and each try, so that they do not come back together.
func backoff(room store.RoomNum, failures int) time.Duration {
	wait := min(inboxBackoff<<min(failures, 20), inboxMaxWait)
	return wait/2 + time.Duration(rand.New(rand.NewPCG(uint64(room), uint64(failures))).Int64N(int64(wait/2+1)))
}

// remove takes events out of the inbox.
func (in *inbox) remove(ctx context.Context, entries []store.InboxEvent) error {
	if len(entries) == 0 {
		return nil
	}
	err := in.store.Update(ctx, func(tx *store.Tx) error {
		for _, e := range entries {
			if err := tx.DeleteInbox(e.Room, e.Order); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range entries {
		in.queue.release(e.Room, e.Origin, inboxLoad{1, len(e.PDU)})
	}
	return nil
}

// batch reads the next events of a room, of one server, passing over those of servers
// that are silent.
func (in *inbox) batch(room store.RoomNum, passes func(store.InboxEvent) bool) (entries []store.InboxEvent, passed bool, err error) {
	bytesRead := 0
	err = in.store.View(func(tx *store.Tx) error {
		return tx.Inbox(room, 0, func(e store.InboxEvent) (bool, error) {
			if passes(e) {
				passed = true
				return true, nil
			}
			if len(entries) > 0 && (e.Origin != entries[0].Origin || e.Part != entries[0].Part || len(entries) == inboxBatch || bytesRead > inboxBytes) {
				return false, nil
			}
			e.PDU = bytes.Clone(e.PDU)
			bytesRead += len(e.PDU)
			entries = append(entries, e)
			return true, nil
		})
	})
	return entries, passed, err
}
