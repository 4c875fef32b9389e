package state

import (
	"context"
	"errors"
	"fmt"

	"hearth/state/matrix"
)

// ErrDoubted is wrapped where an event passes the rules by what it cites, and the state
// that we have before it forbids it all the same. Servers that follow the rules send
// none such: the sender breaks them, or our state is wrong. It is where a join left
// out events whose senders' servers could not be asked for their keys just then.
var ErrDoubted = errors.New("the state before the event forbids what it cites")

// AcceptUndoubted is [Rooms.AcceptAll] for who goes on with [Rooms.AcceptFrom] where
// events are doubted: the first such ends it with an error that wraps ErrDoubted, and is
// not rejected yet. So does one that a policy server must be asked about, with
// ErrUnsigned: no other server is asked for anything.
func (r *Rooms) AcceptUndoubted(ctx context.Context, events []*matrix.Event) ([]Verdict, error) {
	return r.acceptAll(ctx, events, reception{doubts: true, unasked: true})
}

// doubt returns why a refusal by the state before the event is no verdict; nil: it is
// one. With a state that another server gave there is nothing left to ask for.
func (a *acceptance) doubt(refusal error) error {
	if !a.how.doubts || a.given != nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrDoubted, refusal)
}

// forgo takes an event for which no other server's state can be had, as failure says:
// one that was only doubted, by the state that we have.
func (g *gathering) forgo(ctx context.Context, ev *matrix.Event, why, failure error) (Verdict, error) {
	if !errors.Is(why, ErrDoubted) || errors.Is(failure, ErrFetch) || ctx.Err() != nil {
		return 0, failure
	}
	how := g.how
	how.doubts = false
	return g.rooms.acceptOne(ctx, ev, how)
}
