package state

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// fetchAside fetches events by their IDs, and what they cite as far as it is not
// here, and keeps them as outliers, each behind what it cites. It returns when
// nothing is left to ask for: what nobody has is not here afterwards, nor is what
// cites it, which the caller must look for. An error ends it earlier; what came
// before is kept.
func (g *gathering) fetchAside(ctx context.Context, room matrix.RoomID, ids []matrix.EventID) error {
	p := pile{gathering: g, room: room, held: make(map[matrix.EventID]*heldEvent), waiting: make(map[matrix.EventID][]*heldEvent)}
	// The last is asked for first: so what others cite comes before more of those.
	p.want = append(p.want, ids...)
	for len(p.want) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		batch := p.batch()
		if len(batch) == 0 {
			continue
		}
		if g.left, g.rounds = g.left-len(batch), g.rounds-1; g.left < 0 || g.rounds < 0 {
			return fmt.Errorf("%d events in %d rounds did not suffice: %w", maxFetched, maxRounds, ErrTooMuchMissing)
		}
		came, fetchErr := p.ask(ctx, batch)
		if err := p.sort(came); err != nil {
			return err
		}
		if err := p.keep(ctx); err != nil {
			return err
		}
		if fetchErr != nil {
			return fmt.Errorf("%w: %d events: %w", ErrFetch, len(batch), fetchErr)
		}
	}
	p.spreadKeyless()
	return nil
}

// A pile is the events that were fetched and wait for what they cite.
type pile struct {
	*gathering
	room    matrix.RoomID
	want    []matrix.EventID // to be asked for, the last first
	held    map[matrix.EventID]*heldEvent
	bytes   int                             // of the held events
	waiting map[matrix.EventID][]*heldEvent // by what they wait for
	ready   []*matrix.Event                 // that wait for nothing
}

// heldEvent is an event and how many of those it cites are not here.
type heldEvent struct {
	*matrix.Event
	lacks int
}

// batch takes the next IDs off those that are wanted, without those that were
// asked for before.
func (p *pile) batch() (ids []matrix.EventID) {
	for len(p.want) > 0 && len(ids) < maxTogether {
		id := p.want[len(p.want)-1]
		p.want = p.want[:len(p.want)-1]
		if !p.asked[id] {
			p.asked[id] = true
			ids = append(ids, id)
		}
	}
	return ids
}

// errEnough ends an answer that goes on and on.
var errEnough = errors.New("that is enough")

// ask fetches events. What comes unasked, or is of another room, is dropped.
func (p *pile) ask(ctx context.Context, ids []matrix.EventID) (came []*matrix.Event, err error) {
	asked := make(map[matrix.EventID]bool, len(ids))
	for _, id := range ids {
		asked[id] = true
	}
	count := 0
	err = p.from.Events(ctx, p.room, ids, func(ev *matrix.Event) error {
		if asked[ev.ID] && ev.Room == p.room {
			delete(asked, ev.ID)
			came = append(came, ev)
		}
		if count++; count > len(ids) {
			return errEnough
		}
		return nil
	})
	keyless, _ := errors.AsType[*KeylessError](err)
	if keyless != nil {
		p.addKeyless(keyless.Events, asked)
	}
	if errors.Is(err, errEnough) || keyless != nil {
		err = nil
	}
	return came, err
}

// sort puts events that came to those that can be kept, or to those that wait.
func (p *pile) sort(came []*matrix.Event) error {
	return p.rooms.store.View(func(tx *store.Tx) error {
		for _, ev := range came {
			if _, _, here := tx.EventByID(ev.ID); here {
				p.release(ev.ID)
				continue
			}
			h := &heldEvent{Event: ev}
			lacks := make(map[matrix.EventID]bool)
			for _, id := range ev.AuthEvents {
				if _, _, here := tx.EventByID(id); here || lacks[id] {
					continue
				}
				lacks[id] = true
				p.waiting[id] = append(p.waiting[id], h)
				p.want = append(p.want, id)
			}
			if h.lacks = len(lacks); h.lacks == 0 {
				p.ready = append(p.ready, ev)
				continue
			}
			p.held[ev.ID] = h
			if p.bytes += len(ev.JSON()); p.bytes > maxHeldBytes {
				return fmt.Errorf("more than %d bytes of events that cite what is not here: %w", maxHeldBytes, ErrTooMuchMissing)
			}
		}
		return nil
	})
}

// release lets go on what waits for an event, which is here now.
func (p *pile) release(id matrix.EventID) {
	for _, h := range p.waiting[id] {
		if h.lacks--; h.lacks == 0 {
			delete(p.held, h.ID)
			p.bytes -= len(h.JSON())
			p.ready = append(p.ready, h.Event)
		}
	}
	delete(p.waiting, id)
}

// keep stores the events that can be, and those that only waited for them.
func (p *pile) keep(ctx context.Context) error {
	for len(p.ready) > 0 {
		kept, err := p.rooms.keepAside(ctx, p.room, p.ready)
		if err != nil {
			return err
		}
		for _, ev := range p.ready[:kept] {
			p.release(ev.ID)
		}
		p.ready = p.ready[kept:]
	}
	return nil
}

// refuse says whether an event that stands on what is not here breaks the rules by
// what it cites, all of which is: then it is kept as an outlier, and what it stands
// on is not worth a request.
func (g *gathering) refuse(ctx context.Context, ev *matrix.Event) (bool, error) {
	var verdict Verdict
	err := g.rooms.store.View(func(tx *store.Tx) (err error) {
		a := acceptance{rooms: g.rooms, ctx: ctx, ev: ev, cache: new(eventCache)}
		if a.num, a.head, err = Head(tx, ev.Room); err != nil {
			return err
		}
		cited, lacking, err := a.cited(tx)
		if len(lacking) > 0 || err != nil {
			return err
		}
		verdict, err = cited.judge(ev)
		return err
	})
	if verdict != Rejected || err != nil {
		return false, err
	}
	_, err = g.rooms.keepAside(ctx, ev.Room, []*matrix.Event{ev})
	return err == nil, err
}

// keepAside stores the first of some events as outliers, in one write, and says how
// many. All that they cite is here.
func (r *Rooms) keepAside(ctx context.Context, room matrix.RoomID, events []*matrix.Event) (kept int, err error) {
	defer r.locks.own(room)()
	err = r.store.Update(ctx, func(tx *store.Tx) error {
		began, cache := time.Now(), new(eventCache)
		for kept = 0; kept < min(len(events), maxTogether); kept++ {
			if kept > 0 && (tx.Full() || time.Since(began) > maxHold) {
				return nil
			}
			a := acceptance{rooms: r, ctx: ctx, ev: events[kept], tx: tx, cache: cache}
			if err := a.keep(); err != nil {
				return fmt.Errorf("keep %s: %w", a.ev.ID, err)
			}
		}
		return nil
	})
	return kept, err
}

// keep stores the event as an outlier, held to what it cites alone: "Passes
// authorisation rules based on the event's auth events, otherwise it is rejected."
// A second m.room.create is always rejected. A redaction that came first is
// applied. Spec: SS Checks performed on receipt of a PDU, step 4.
func (a *acceptance) keep() error {
	if _, _, here := a.tx.EventByID(a.ev.ID); here { // it came by another way
		return a.tx.SetChecked(a.ev)
	}
	var err error
	if a.num, a.head, err = Head(a.tx, a.ev.Room); err != nil {
		return err
	}
	cited, lacking, err := a.cited(a.tx)
	if err != nil {
		return err
	}
	if len(lacking) > 0 {
		return &MissingError{Event: a.ev.ID, Events: lacking}
	}
	verdict, err := cited.judge(a.ev)
	if err != nil {
		return err
	}
	if a.ev.Is("m.room.create", "") {
		verdict = Rejected
	}
	num, err := a.put(a.tx, store.NewEvent{Outlier: true, Rejected: verdict == Rejected})
	if err != nil {
		return err
	}
	rm := &room{rooms: a.rooms, tx: a.tx, num: a.num, id: a.ev.Room, head: a.head}
	return rm.redactLate(a.ev, num)
}
