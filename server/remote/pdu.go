package remote

import (
	"cmp"
	"context"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// maxPDUBytes bounds a PDU as it is sent: what MaxEventBytes bounds is its
// canonical form without unsigned.
const maxPDUBytes = 4 * matrix.MaxEventBytes

// A PDUError says why a PDU of another server is dropped.
type PDUError struct {
	Event matrix.EventID // "" where it is too malformed to have an ID
	Err   error
}

// Error says what is wrong with which event.
func (e *PDUError) Error() string {
	if e.Event == "" {
		return fmt.Sprintf("malformed event: %v", e.Err)
	}
	return fmt.Sprintf("event %s: %v", e.Event, e.Err)
}

// Unwrap returns what is wrong.
func (e *PDUError) Unwrap() error { return e.Err }

// Check holds PDUs of a room version to the first three checks on receipt: form,
// signatures, content hash. Both results have the length of pdus: an event where it
// passes, in its redacted form where its content hash does not fit, or a *PDUError.
// The events keep the bytes of pdus, which must not change.
//
// Spec: SS Checks performed on receipt of a PDU, steps 1 to 3; Validating hashes and
// signatures on received events.
func (n *Network) Check(ctx context.Context, v *matrix.Version, pdus []jsontext.Value) ([]*matrix.Event, []error) {
	return checkPDUs(ctx, v, pdus, n.VerifyEvents)
}

// verifier checks the signatures of events, as [Network.VerifyEvents] does.
type verifier = func(context.Context, []*matrix.Event) []error

func checkPDUs(ctx context.Context, v *matrix.Version, pdus []jsontext.Value, verify verifier) ([]*matrix.Event, []error) {
	events, errs := make([]*matrix.Event, len(pdus)), make([]error, len(pdus))
	formed, places := make([]*matrix.Event, 0, len(pdus)), make([]int, 0, len(pdus))
	for i, pdu := range pdus {
		// "1. Is a valid event, otherwise it is dropped."
		ev, err := parsePDU(v, pdu)
		if err != nil {
			errs[i] = &PDUError{Err: err}
			continue
		}
		formed, places = append(formed, ev), append(places, i)
	}
	if len(formed) == 0 {
		return events, errs
	}
	for at, err := range checkEvents(ctx, formed, verify) {
		i, ev := places[at], formed[at]
		if err != nil {
			errs[i] = &PDUError{Event: ev.ID, Err: err}
			continue
		}
		events[i] = ev
	}
	return events, errs
}

// checkEvents holds events to the second and third check on receipt, and puts those
// that must be redacted into the places of what came. The errors are at their places.
//
// The hash comes first here: what redaction takes away may be what lets an event do
// without a signature. An invite by address needs none of its sender, and an invite
// is all that its redaction leaves of it before version 11.
func checkEvents(ctx context.Context, events []*matrix.Event, verify verifier) []error {
	faults := make([]error, len(events))
	for i, ev := range events {
		// "3. Passes hash checks, otherwise it is redacted before being processed
		// further."
		if ev.VerifyContentHash() {
			continue
		}
		if redacted, err := ev.RedactedCopy(); err != nil {
			faults[i] = err
		} else {
			events[i] = redacted
		}
	}
	// "2. Passes signature checks, otherwise it is dropped."
	for i, err := range verify(ctx, events) {
		faults[i] = cmp.Or(faults[i], err)
	}
	return faults
}

func parsePDU(v *matrix.Version, pdu jsontext.Value) (*matrix.Event, error) {
	if len(pdu) > maxPDUBytes {
		return nil, fmt.Errorf("%d bytes: %w", len(pdu), matrix.ErrTooLarge)
	}
	return matrix.Parse(v, pdu)
}
