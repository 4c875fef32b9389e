package remote

import (
	"slices"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// A destination is a server that has something to get, or had a moment ago. The
// Sender's lock guards it; one worker at a time serves it.
//
// What is for it stands behind its cursor. The first places of that are in pending;
// where there are more than fit, newest lies behind known, and the stream is read
// again from known on.
type destination struct {
	server     store.ServerNum
	name       matrix.ServerName // set when it is served first
	cursor     store.Position    // it has got everything up to here
	pending    []store.Position  // what is for it
	known      store.Position    // up to here, pending lacks nothing
	newest     store.Position    // the newest place that may be for it
	departures []store.Position  // see [store.Behind]
	outbox     store.Position    // up to here something may wait in its outbox
	outboxSent store.Position    // up to here all of that has arrived
	outboxGone bool              // and something of it is not deleted yet
	edus       []EDU             // that may be lost
	txn        *transaction      // that is to be sent, or sent again; nil: the next is to be made

	queued  bool // it is in a queue
	running bool // a worker has it
	doubted bool // and that worker is one of those for the doubtful
	absent  bool // it was not there for long: it need not get everything

	retry    *time.Timer // after a failure, until it fires
	failures int         // in a row
	failing  time.Time   // when that began
	refusals int         // answers since the last success that say that it will never take it
	refusing time.Time   // the first of them
	singly   int         // so many parts of what it refused are still to be sent, each for itself
	tried    time.Time   // the last of them
	until    time.Time   // when retry fires
	news     bool        // something came for it meanwhile: it is tried although it is backing off
	err      error       // the last failure

	recorded        bool // it has a record in the store, which says
	savedCursor     store.Position
	savedDepartures int // how many
}

const (
	// maxPending bounds the places in memory for one destination, but for those of a
	// server that catches up.
	maxPending = 100
	// maxLossy bounds the EDUs that may be lost for one destination.
	maxLossy = 50
	// longAbsence is after which time a server need not get everything.
	longAbsence = 10 * time.Minute
)

// behind says whether something is for it that must arrive.
func (d *destination) behind() bool {
	return len(d.pending) > 0 || d.newest > d.known || d.outbox > d.outboxSent || d.txn != nil && d.txn.durable()
}

// busy says whether there is anything to send.
func (d *destination) busy() bool { return d.behind() || len(d.edus) > 0 || d.txn != nil }

// note notes that the entry of the stream at a place is for it.
func (d *destination) note(pos store.Position) {
	if pos <= d.known {
		return
	}
	if d.newest <= d.known && len(d.pending) < maxPending {
		d.pending = append(d.pending, pos)
		d.known = pos
	}
	d.newest = max(d.newest, pos)
}

// depart notes that a user of it left a room there.
func (d *destination) depart(pos store.Position) {
	if len(d.departures) < store.MaxDepartures {
		d.departures = append(d.departures, pos)
	}
}

// addEDU adds an EDU that may be lost, in place of an older one of its key.
func (d *destination) addEDU(edu EDU) {
	if edu.Key != "" {
		d.edus = slices.DeleteFunc(d.edus, func(o EDU) bool { return o.Type == edu.Type && o.Key == edu.Key })
	}
	if len(d.edus) == maxLossy {
		d.edus = slices.Delete(d.edus, 0, 1)
	}
	d.edus = append(d.edus, edu)
}

// pass is advance for a transaction that was sent and is done with.
func (d *destination) pass(t *transaction) {
	d.singly = max(0, d.singly-t.parts)
	d.advance(t)
}

// advance notes that it has got a transaction, and with it the first of pending.
func (d *destination) advance(t *transaction) {
	d.pending = slices.Delete(d.pending, 0, t.places)
	cursor := t.upto
	if len(d.pending) == 0 {
		d.pending, cursor = nil, d.known
	}
	d.takeOutbox(t.outbox)
	d.outboxGone = d.outboxGone || t.fromOutbox
	if d.outbox > d.outboxSent {
		cursor = min(cursor, d.outboxSent)
	}
	d.cursor = max(d.cursor, cursor)
	d.departures = slices.DeleteFunc(d.departures, func(pos store.Position) bool { return pos <= d.cursor })
}

// takeOutbox notes that nothing waits in the outbox up to a place.
func (d *destination) takeOutbox(upto store.Position) { d.outboxSent = max(d.outboxSent, upto) }
