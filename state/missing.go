package state

import (
	"context"
	"errors"
	"fmt"

	"hearth/state/matrix"
	"hearth/store"
)

// A Source is how to ask another server for events of a room. Each function hands
// over what the server answers with, one by one: events of which form, hashes and
// signatures were checked, and that are otherwise whatever that server likes. Where
// take returns an error, the answer has ended and the function returns that error,
// wrapped or not. That the server has nothing, or will not say, is an empty answer
// and no error: an error is that it could not be asked, or was cut off.
type Source struct {
	// Missing asks for events that others stand on. Spec: SS get_missing_events.
	Missing func(ctx context.Context, ask MissingEvents, take func(*matrix.Event) error) error
	// Events asks for events by their IDs, at most 64 of them. Where nothing failed but
	// that the keys of members' events cannot be had, the error is a *KeylessError. Spec:
	// SS Retrieving events, getEvent.
	Events func(ctx context.Context, room matrix.RoomID, ids []matrix.EventID, take func(*matrix.Event) error) error
	// StateIDs asks for the IDs of the room's state before an event, which may be
	// 100,000. The IDs of its auth chain are not needed: what is missing of that is
	// found by what cites it. Spec: SS Retrieving events, getRoomStateIds.
	StateIDs func(ctx context.Context, room matrix.RoomID, before matrix.EventID, take func(matrix.EventID) error) error
}

// MissingEvents is a question for events that others stand on.
type MissingEvents struct {
	Room     matrix.RoomID
	Earliest []matrix.EventID // that we have: our forward extremities
	Latest   []matrix.EventID // what they stand on is asked for
	Limit    int              // how many events we take, at most
}

// ErrTooMuchMissing is wrapped where one call of AcceptFrom fetches no more. What
// came is kept, so that the next call goes on from there.
var ErrTooMuchMissing = errors.New("more is missing than is fetched at once")

// ErrFetch is wrapped where a function of a Source failed: to try again later, or
// with another server, may help.
var ErrFetch = errors.New("another server could not be asked")

// Bounds of what one call of AcceptFrom fetches.
const (
	maxGap       = 100     // events before one that stands on what is not here
	maxGapStates = 3       // states below such events; the event itself has one beside them
	maxFetched   = 1 << 14 // events by their IDs, over the whole call
	maxRounds    = 1 << 10 // requests for those; each asks for up to maxTogether
	maxHeldBytes = 3 << 20 // of events in memory that wait for what they cite or stand on
)

// AcceptFrom is AcceptAll for events that a server sent, from which comes what they
// lack, in this order:
//
//   - The events between our forward extremities and one that stands on what is not
//     here, by one request: those of the list itself, and those that Missing gives.
//     What they are needed for decides, not what comes: of the answer only the events
//     that the one stands on are taken, the oldest first.
//   - Cited events that are not here, each by its ID. They are kept as outliers: held
//     to what they cite, and no part of the timeline until they come again as an event
//     whose prev events are here.
//   - Where the oldest of the events below stand on what is not here even then: that,
//     by its ID, with the state before it, by the IDs of its events. If it does not
//     come, the state before the event that stands on it. A state is held to what any
//     state must be, and resolved with the states behind those prev events that are
//     here.
//
// An event of the list of whose prev events the server gives none is not taken: it does
// not tell what its own event stands on. The room does not end there, since the event
// is below the next one.
//
// Where the state before an event cannot be resolved within bounds, or it stands on
// what was rejected here, the state that the server gives is taken too, since it has
// resolved it: otherwise the room would end there for us, as all later events stand on
// that one.
//
// Nothing is asked for twice in one call, all of it is bounded, and nothing is held
// while a request is under way: others read and write in the room meanwhile. What
// came is stored at once, so that a call that failed or was ended by ctx needs less
// the next time. The error is a MissingError where events are still missing, which
// it names; the verdicts before it stand.
//
// Spec: SS Checks performed on receipt of a PDU; Backfilling and retrieving missing
// events; Retrieving events.
func (r *Rooms) AcceptFrom(ctx context.Context, events []*matrix.Event, from Source) ([]Verdict, error) {
	return r.acceptFrom(ctx, events, from, reception{doubts: true})
}

func (r *Rooms) acceptFrom(ctx context.Context, events []*matrix.Event, from Source, how reception) ([]Verdict, error) {
	g := &gathering{rooms: r, from: from, how: how, asked: make(map[matrix.EventID]bool), left: maxFetched, rounds: maxRounds}
	var verdicts []Verdict
	for len(verdicts) < len(events) {
		some, err := r.acceptAll(ctx, events[len(verdicts):], how)
		verdicts = append(verdicts, some...)
		if err == nil {
			break
		}
		rest := events[len(verdicts):]
		verdict, err := g.accept(ctx, rest[0], rest[1:], err)
		if err != nil {
			return verdicts, err
		}
		verdicts = append(verdicts, verdict)
	}
	return verdicts, nil
}

// gathering is one call of AcceptFrom.
type gathering struct {
	rooms *Rooms
	from  Source
	how   reception
	// keyless are members' events that cannot be checked, and what cites such.
	keyless map[matrix.EventID]bool
	asked   map[matrix.EventID]bool // by ID
	left    int                     // how many events may still be asked for so
	rounds  int                     // and by how many requests
}

// accept takes an event that failed by why; others came with it.
func (g *gathering) accept(ctx context.Context, ev *matrix.Event, others []*matrix.Event, why error) (Verdict, error) {
	if !resolvable(why) {
		return 0, why
	}
	var lost error
	if _, baseless := lacking(why); len(baseless) > 0 {
		if refused, err := g.refuse(ctx, ev); refused || err != nil {
			return Rejected, err
		}
		below, err := g.below(ctx, ev, others)
		if err != nil {
			return 0, failed(ev, why, err)
		}
		if lost, err = g.takeBelow(ctx, below); err != nil {
			return 0, err
		}
	}
	verdict, why := g.stand(ctx, ev)
	if why == nil || !resolvable(why) {
		return verdict, why
	}
	absent, err := g.absent(why)
	if err != nil {
		return 0, err
	}
	if len(absent) > 0 {
		return 0, failed(ev, why, lost)
	}
	states := 1
	return g.takeGiven(ctx, ev, why, &states)
}

// resolvable says whether an error is about one event, for which more may be
// fetched or which may be left out: neither a failure here nor of a request.
func resolvable(err error) bool {
	missing, _ := errors.AsType[*MissingError](err)
	return !errors.Is(err, ErrFetch) && (missing != nil || errors.Is(err, ErrTangled) || errors.Is(err, ErrDoubted))
}

// lacking returns what an event needs that is not here: what it cites, and what it
// stands on.
func lacking(err error) (cited, baseless []matrix.EventID) {
	missing, ok := errors.AsType[*MissingError](err)
	if !ok {
		return nil, nil
	}
	return missing.Events[:missing.cited], missing.Events[missing.cited:]
}

// failed says of what was missing why it could not be fetched.
func failed(ev *matrix.Event, why, cause error) error {
	missing, ok := errors.AsType[*MissingError](why)
	if !ok {
		return fmt.Errorf("accept %s: %w: %w", ev.ID, why, cause)
	}
	return &MissingError{Event: ev.ID, Events: missing.Events, Cause: cause, cited: missing.cited}
}

// below returns the events of the list and of Missing that ev stands on, directly
// or not, the oldest first.
func (g *gathering) below(ctx context.Context, ev *matrix.Event, others []*matrix.Event) ([]*matrix.Event, error) {
	pool := make(map[matrix.EventID]*matrix.Event)
	add := func(old *matrix.Event) {
		if old.Room == ev.Room && old.ID != ev.ID {
			pool[old.ID] = old
		}
	}
	for _, other := range others {
		add(other)
	}
	list, whole, err := g.order(ev, pool)
	if err != nil || whole {
		return list, err
	}
	ask := MissingEvents{Room: ev.Room, Latest: []matrix.EventID{ev.ID}, Limit: maxGap}
	if ask.Earliest, err = g.extremities(ev.Room); err != nil {
		return nil, err
	}
	count, bytes := 0, 0
	err = g.from.Missing(ctx, ask, func(old *matrix.Event) error {
		add(old)
		if count, bytes = count+1, bytes+len(old.JSON()); count >= maxGap || bytes > maxHeldBytes {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, fmt.Errorf("%w: events before %s: %w", ErrFetch, ev.ID, err)
	}
	list, _, err = g.order(ev, pool)
	return list, err
}

// order returns those events of a pool that are not here and that ev stands on,
// the oldest first. They are whole where the oldest of them stand on what is here.
func (g *gathering) order(ev *matrix.Event, pool map[matrix.EventID]*matrix.Event) (list []*matrix.Event, whole bool, err error) {
	err = g.rooms.store.View(func(tx *store.Tx) error {
		standing := func(id matrix.EventID) (bool, error) {
			place, here, err := tx.EventPlace(id)
			return here && !place.Outlier, err
		}
		for id := range pool {
			here, err := standing(id)
			if err != nil {
				return err
			}
			if here {
				delete(pool, id) // what it stands on is none of our business any more
			}
		}
		var ground []matrix.EventID
		list, ground = ancestors(ev, pool)
		whole = true
		for _, id := range ground {
			here, err := standing(id)
			if err != nil {
				return err
			}
			whole = whole && here
		}
		return nil
	})
	return list, whole, err
}

// extremities returns the newest forward extremities of a room.
func (g *gathering) extremities(room matrix.RoomID) (ids []matrix.EventID, err error) {
	err = g.rooms.store.View(func(tx *store.Tx) error {
		num, head, err := Head(tx, room)
		if err != nil {
			return err
		}
		for _, end := range head.Extremities[max(0, len(head.Extremities)-maxPrevEvents):] {
			id, err := tx.EventID(num, end)
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return nil
	})
	return ids, err
}

// ancestors returns those events of a pool that ev stands on, directly or not, each
// behind those that it stands on itself, and the IDs of what is not in the pool.
// Events that stand on each other in a circle, as IDs of versions 1 and 2 permit,
// come in some order.
func ancestors(ev *matrix.Event, pool map[matrix.EventID]*matrix.Event) (list []*matrix.Event, ground []matrix.EventID) {
	type step struct {
		ev   *matrix.Event
		next int // of its prev events
	}
	seen := map[matrix.EventID]bool{ev.ID: true}
	way := []step{{ev: ev}}
	for len(way) > 0 {
		top := &way[len(way)-1]
		if top.next == len(top.ev.PrevEvents) {
			list = append(list, top.ev)
			way = way[:len(way)-1]
			continue
		}
		id := top.ev.PrevEvents[top.next]
		top.next++
		if seen[id] {
			continue
		}
		seen[id] = true
		if old := pool[id]; old != nil {
			way = append(way, step{ev: old})
		} else {
			ground = append(ground, id)
		}
	}
	return list[:len(list)-1], ground // without ev itself
}

// acceptGiven takes an event with the state before it that another server gave.
func (r *Rooms) acceptGiven(ctx context.Context, ev *matrix.Event, how reception, given *givenState) (Verdict, error) {
	once := func() ([]Verdict, error) {
		defer r.locks.own(ev.Room)()
		return r.acceptAlone(ctx, ev, how, given)
	}
	for {
		verdicts, err := once()
		if signed, declined, ok := r.review(ctx, err); ok {
			ev, how.declined = signed, declined
			continue
		}
		if err != nil {
			return 0, err
		}
		return verdicts[0], nil
	}
}
