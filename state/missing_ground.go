package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"hearth/state/matrix"
	"hearth/store"
)

// stand takes an event by what it stands on. Where all of that is here, what it cites is
// fetched, as outliers: of an event in the air there is more to ask first.
func (g *gathering) stand(ctx context.Context, ev *matrix.Event) (Verdict, error) {
	verdict, why := g.rooms.acceptOne(ctx, ev, g.how)
	cited, baseless := lacking(why)
	if len(cited) == 0 || len(baseless) > 0 || !resolvable(why) {
		return verdict, why
	}
	if err := g.fetchAside(ctx, ev.Room, cited); err != nil {
		return 0, failed(ev, why, err)
	}
	return g.rooms.acceptOne(ctx, ev, g.how)
}

// absent returns what an event that failed by why stands on and that is not here in any
// form. The rest is here as an outlier, as what was rejected is.
func (g *gathering) absent(why error) (ids []matrix.EventID, err error) {
	_, baseless := lacking(why)
	err = g.rooms.store.View(func(tx *store.Tx) error {
		for _, id := range baseless {
			if _, _, here := tx.EventByID(id); !here {
				ids = append(ids, id)
			}
		}
		return nil
	})
	return ids, err
}

// takeBelow takes events that another stands on, the oldest first. Those that cannot be
// taken are left out, as is what stands on them; lost is why the first of them.
func (g *gathering) takeBelow(ctx context.Context, below []*matrix.Event) (lost, err error) {
	states := maxGapStates
	for _, old := range below {
		_, why := g.stand(ctx, old)
		if why != nil && resolvable(why) {
			why = g.takeBaseless(ctx, old, why, &states)
		}
		switch {
		case why == nil:
		case !resolvable(why):
			return nil, why
		case errors.Is(why, ErrTooMuchMissing):
			return why, nil // nor will any other be taken
		case lost == nil:
			lost = why
		}
	}
	return lost, nil
}

// takeBaseless takes an event that failed by why: it stands on what is not here. That
// is fetched, with the state before it, so that the event has ground to stand on. Of
// what does not come, or was rejected, the state behind it is in the state before the
// event.
func (g *gathering) takeBaseless(ctx context.Context, ev *matrix.Event, why error, states *int) error {
	absent, err := g.absent(why)
	if err != nil {
		return err
	}
	if len(absent) > 0 && len(absent) <= *states {
		unfit, err := g.takeGround(ctx, ev.Room, absent, states)
		if err != nil {
			return failed(ev, why, err)
		}
		if _, why = g.stand(ctx, ev); why == nil || !resolvable(why) {
			return why
		}
		if unfit != nil {
			return failed(ev, why, unfit)
		}
	}
	_, err = g.takeGiven(ctx, ev, why, states)
	return err
}

// takeGround fetches events that others stand on and takes them, each with the state
// before it. unfit is why one that came cannot be taken, on which nothing is to stand.
func (g *gathering) takeGround(ctx context.Context, room matrix.RoomID, ids []matrix.EventID, states *int) (unfit, err error) {
	came, err := g.fetchGround(ctx, room, ids)
	if err != nil {
		return nil, err
	}
	for _, ev := range came {
		_, why := g.stand(ctx, ev)
		if why != nil && resolvable(why) {
			_, why = g.takeGiven(ctx, ev, why, states)
		}
		switch {
		case why == nil:
		case !resolvable(why), errors.Is(why, ErrTooMuchMissing):
			return nil, why
		default:
			unfit = why
		}
	}
	return unfit, nil
}

// fetchGround fetches events by their IDs, in one request. They come in the order of
// their depths: one may be in the state before the next.
func (g *gathering) fetchGround(ctx context.Context, room matrix.RoomID, ids []matrix.EventID) ([]*matrix.Event, error) {
	p := pile{gathering: g, room: room, want: slices.Clone(ids)}
	batch := p.batch()
	if len(batch) == 0 {
		return nil, nil
	}
	if g.left, g.rounds = g.left-len(batch), g.rounds-1; g.left < 0 || g.rounds < 0 {
		return nil, fmt.Errorf("what events stand on: %w", ErrTooMuchMissing)
	}
	came, err := p.ask(ctx, batch)
	if err != nil {
		return nil, fmt.Errorf("%w: %d events: %w", ErrFetch, len(batch), err)
	}
	slices.SortFunc(came, func(a, b *matrix.Event) int { return cmp.Compare(a.Depth, b.Depth) })
	return came, nil
}

// takeGiven takes an event that failed by why with the state before it, as long as
// states are left. What it cites is fetched behind that, since most of it is there.
func (g *gathering) takeGiven(ctx context.Context, ev *matrix.Event, why error, states *int) (Verdict, error) {
	if cited, baseless := lacking(why); *states == 0 || len(cited) > 0 && len(baseless) == 0 {
		return g.forgo(ctx, ev, why, why) // no state makes up for what it cites
	}
	if refused, err := g.refuse(ctx, ev); refused || err != nil {
		return Rejected, err
	}
	*states--
	given, err := g.stateBefore(ctx, ev)
	if err != nil {
		return g.forgo(ctx, ev, why, failed(ev, why, err))
	}
	verdict, why := g.rooms.acceptGiven(ctx, ev, g.how, given)
	if cited, _ := lacking(why); len(cited) > 0 {
		if err := g.fetchAside(ctx, ev.Room, cited); err != nil {
			return 0, failed(ev, why, err)
		}
		return g.rooms.acceptGiven(ctx, ev, g.how, given)
	}
	return verdict, why
}
