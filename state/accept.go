package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// A Verdict is what became of an event that came from elsewhere.
type Verdict uint8

// The verdicts. Spec: SS Checks performed on receipt of a PDU; Rejection; Soft
// failure.
const (
	Accepted   Verdict = iota + 1 // it is part of the timeline
	Known                         // it was here before, whatever became of it then
	SoftFailed                    // kept for later events that stand on it, and shown to nobody
	Rejected                      // it breaks the rules: kept only to answer those who cite it
)

// MissingError says which events must be here before another one can be accepted.
type MissingError struct {
	Event  matrix.EventID
	Events []matrix.EventID
	Cause  error // why they could not be fetched, where that was tried; or nil

	cited int // how many of Events, at their beginning, are cited; on the others Event stands
}

// maxNamed is how many of the missing events the text of an error names.
const maxNamed = 5

// Error names the event and the first that it lacks.
func (e *MissingError) Error() string {
	text := fmt.Sprintf("%s needs %d events that are not here: %s", e.Event, len(e.Events), e.Events[:min(len(e.Events), maxNamed)])
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap returns why the events could not be fetched.
func (e *MissingError) Unwrap() error { return e.Cause }

// Bounds of one write that takes in events from elsewhere: other writes wait.
const (
	maxTogether = 64                    // events
	maxHold     = 25 * time.Millisecond // after which no further one begins
)

// Accept takes an event from elsewhere into its room, as far as the rules allow:
// by its own auth events, by the state before it, and by the room's current
// state. Its form, hashes and signatures are checked by the caller. An
// m.room.create of a room that is not known here begins the room. The error is a
// MissingError where events must come first, or a failure that decides nothing;
// [Rooms.AcceptFrom] fetches what is missing.
//
// Where the state before the event cannot be resolved within bounds, nothing is
// decided: the error wraps ErrTangled. Where only the room's current state cannot,
// which the event would be one of several to make, it is kept as one that failed
// softly: later events may stand on it, and the room goes on with the state and the
// extremities that it has. So no room ends at an event that is too much for us, and
// the event is not fetched again and again; the first that stands on all of our
// extremities needs no such resolution and brings the room together.
//
// Spec: SS Checks performed on receipt of a PDU, steps 4 to 6.
func (r *Rooms) Accept(ctx context.Context, ev *matrix.Event) (Verdict, error) {
	return r.acceptOne(ctx, ev, reception{})
}

// A reception is what holds for an event that is taken in beyond what it says itself.
type reception struct {
	relay    matrix.EventID // this one is ours to send on, whoever its sender is
	declined matrix.EventID // the policy server of its room does not sign this one
	doubts   bool           // the state before it alone forbids nothing yet; see ErrDoubted
	unasked  bool           // no policy server is asked; see ErrUnsigned
	txn      store.TxnID    // the request of a local user that the event came by; with no other one
}

func (r *Rooms) acceptOne(ctx context.Context, ev *matrix.Event, how reception) (Verdict, error) {
	verdicts, err := r.acceptAll(ctx, []*matrix.Event{ev}, how)
	if err != nil {
		return 0, err
	}
	return verdicts[0], nil
}

// AcceptAll is Accept for events in an order in which each comes behind what it
// stands on and cites. Neighbours of one room share writes, up to 64 of them; in
// between others may write. It ends at the first error and returns
// the verdicts on the events before, as many as are taken. Where the room uses a
// policy server and an event lacks its signature, that is asked for meanwhile.
func (r *Rooms) AcceptAll(ctx context.Context, events []*matrix.Event) ([]Verdict, error) {
	return r.acceptAll(ctx, events, reception{})
}

func (r *Rooms) acceptAll(ctx context.Context, events []*matrix.Event, how reception) ([]Verdict, error) {
	verdicts := make([]Verdict, 0, len(events))
	for len(verdicts) < len(events) {
		some, err := r.acceptSome(ctx, events[len(verdicts):], how)
		verdicts = append(verdicts, some...)
		if how.unasked && errors.Is(err, ErrUnsigned) {
			return verdicts, err
		}
		if ev, declined, ok := r.review(ctx, err); ok {
			events = slices.Clone(events)
			events[len(verdicts)], how.declined = ev, declined
			continue
		}
		if err != nil {
			return verdicts, err
		}
	}
	return verdicts, nil
}

// acceptSome takes the first events of a list, which are of one room, in one
// write, and no further ones. An event whose forks are too tangled for that is
// resolved outside of any write.
func (r *Rooms) acceptSome(ctx context.Context, events []*matrix.Event, how reception) (verdicts []Verdict, err error) {
	defer r.locks.own(events[0].Room)()
	var failed error // why the events end with those that have a verdict; or nil
	err = r.store.Update(ctx, func(tx *store.Tx) error {
		verdicts, failed = nil, nil
		began, cache := time.Now(), new(eventCache)
		for _, ev := range events[:min(len(events), maxTogether)] {
			if len(verdicts) > 0 && (tx.Full() || time.Since(began) > maxHold || ev.Room != events[0].Room) {
				return nil
			}
			a := acceptance{rooms: r, ctx: ctx, ev: ev, how: how, tx: tx, cache: cache}
			verdict, err := a.run()
			if err != nil {
				failed = fmt.Errorf("accept %s: %w", ev.ID, err)
				if a.writing || len(verdicts) == 0 {
					return failed
				}
				return nil
			}
			verdicts = append(verdicts, verdict)
		}
		return nil
	})
	tangled := errors.Is(failed, ErrTangled)
	switch {
	case tangled && len(verdicts) == 0:
		return r.acceptAlone(ctx, events[0], how, nil)
	case err != nil:
		return nil, err // nothing of the write is kept
	case tangled:
		return verdicts, nil // it will be the first
	}
	return verdicts, failed
}

// acceptAlone takes an event whose resolution the writer should not wait for, with
// the state before it where another server gave that. The caller holds the room's
// lock.
func (r *Rooms) acceptAlone(ctx context.Context, ev *matrix.Event, how reception, given *givenState) ([]Verdict, error) {
	a := acceptance{rooms: r, ctx: ctx, ev: ev, how: how, given: given, cache: new(eventCache)}
	verdict, err := a.run()
	if err != nil {
		return nil, fmt.Errorf("accept %s: %w", ev.ID, err)
	}
	return []Verdict{verdict}, nil
}
