package remote

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of a transaction. Spec: SS Transactions.
const (
	maxPDUs     = 50
	maxEDUs     = 100
	outboxEDUs  = maxEDUs / 2 // of the outbox, so that others are not shut out
	maxTxnBytes = 256 << 10   // but for a single event or EDU that is larger
)

// A transaction is what a server gets at once.
type transaction struct {
	id   string
	body []byte
	kept bool // it is counted among those to be repeated

	places     int            // how many of the destination's pending it covers
	upto       store.Position // the last of those
	outbox     store.Position // it covers the outbox up to here
	fromOutbox bool           // and holds something of it
	lossy      bool           // it holds nothing that must arrive
	parts      int            // how many PDUs and EDUs it holds
	singly     bool           // it holds no more than it must
}

// durable says whether it must arrive.
func (t *transaction) durable() bool { return !t.lossy }

// compose makes the next transaction for a destination, nil if there is nothing to
// send. Only the worker that has the destination calls it.
func (s *Sender) compose(d *destination) (*transaction, error) {
	plan := s.plan(d)
	c := composer{sender: s, plan: plan}
	err := s.store.View(func(tx *store.Tx) error {
		if plan.name == "" {
			plan.name = tx.ServerName(plan.server)
		}
		if err := s.find(tx, plan); err != nil {
			return err
		}
		return c.read(tx)
	})
	if err != nil { // and what may be lost is lost
		return nil, fmt.Errorf("transaction for %s: %w", plan.name, err)
	}
	t := c.finish()
	s.mu.Lock()
	defer s.mu.Unlock()
	d.name = plan.name
	if plan.found {
		d.pending, d.known = plan.pending, plan.known
	}
	newer := d.edus
	d.edus = plan.edus[c.lossy:]
	for _, edu := range newer { // which came meanwhile, in place of some of the others perhaps
		d.addEDU(edu)
	}
	if t == nil { // what there was has become nothing
		d.advance(&c.txn)
	}
	return t, nil
}

// A plan is what a destination had to get when its turn began, and, where found is
// set, what a look at the stream made of it.
type plan struct {
	server     store.ServerNum
	name       matrix.ServerName
	cursor     store.Position
	pending    []store.Position
	known      store.Position
	newest     store.Position
	upto       store.Position // the Sender has looked at the stream up to here
	outbox     store.Position
	outboxSent store.Position
	departures []store.Position
	edus       []EDU
	absent     bool
	singly     bool // one part for itself
	found      bool
}

// plan returns what a destination has to get now, and takes from it what may be lost.
func (s *Sender) plan(d *destination) *plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	edus := d.edus
	d.edus = nil
	return &plan{
		server: d.server, name: d.name, cursor: d.cursor, pending: slices.Clone(d.pending), known: d.known, newest: d.newest,
		upto: max(s.position, d.known), outbox: d.outbox, outboxSent: d.outboxSent,
		departures: slices.Clone(d.departures), edus: edus, absent: d.absent, singly: d.singly > 0,
	}
}

// A composer puts a transaction together.
type composer struct {
	sender   *Sender
	plan     *plan
	txn      transaction
	pdus     [][]byte
	edus     []jsontext.Value
	receipts receiptContent
	size     int
	lossy    int // how many of the plan's EDUs that may be lost are in it
}

// read fills the transaction: what waits in the outbox, then what is pending, then
// what may be lost.
func (c *composer) read(tx *store.Tx) error {
	if err := c.readOutbox(tx); err != nil {
		return err
	}
	for _, pos := range c.plan.pending {
		if more, err := c.readPlace(tx, pos); err != nil || !more {
			return err
		}
	}
	for _, edu := range c.plan.edus {
		if c.full(len(edu.Content)) || c.countEDUs() == maxEDUs {
			break
		}
		c.addEDU(edu.encode())
		c.lossy++
	}
	return nil
}

func (c *composer) readOutbox(tx *store.Tx) error {
	c.txn.outbox = c.plan.outboxSent
	if c.plan.outbox <= c.plan.outboxSent {
		return nil
	}
	c.txn.outbox = tx.Position()
	last := c.plan.outboxSent
	return tx.Outbox(c.plan.server, c.plan.outboxSent, func(pos store.Position, edu jsontext.Value) (bool, error) {
		if c.countEDUs() == outboxEDUs || c.full(len(edu)) {
			c.txn.outbox = last
			return false, nil
		}
		c.addEDU(bytes.Clone(edu))
		c.txn.fromOutbox = true
		last = pos
		return true, nil
	})
}

// readPlace adds what the entry of the stream at a place is about; more is false
// where it does not fit.
func (c *composer) readPlace(tx *store.Tx, pos store.Position) (more bool, err error) {
	change, ok, err := tx.ChangeAt(pos)
	if err != nil {
		return false, err
	}
	fits := true
	switch {
	case !ok: // it went with its room
	case change.Event != 0:
		fits, err = c.readEvent(tx, change)
	case change.IsReceipt():
		fits, err = c.readReceipt(tx, change)
	case change.IsDevices():
		fits, err = c.readDevices(tx, change)
	}
	if !fits || err != nil {
		return false, err
	}
	c.txn.places++
	c.txn.upto = pos
	return true, nil
}

func (c *composer) readEvent(tx *store.Tx, change store.Change) (fits bool, err error) {
	ev, err := tx.Event(change.Room, change.Event)
	if errors.Is(err, store.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	intro, told, err := newcomer(tx, ev)
	if err != nil {
		return false, err
	}
	if !told && len(c.pdus) == maxPDUs || c.full(len(ev.JSON())+len(intro)) || intro != nil && c.countEDUs() == maxEDUs {
		return false, nil
	}
	if intro != nil {
		c.addEDU(intro)
	}
	if !told {
		c.pdus = append(c.pdus, ev.JSON())
		c.size += len(ev.JSON())
	}
	return true, nil
}

func (c *composer) readReceipt(tx *store.Tx, change store.Change) (fits bool, err error) {
	receipt, ok, err := publicReceipt(tx, change)
	if !ok || err != nil {
		return err == nil, err
	}
	if c.countEDUs() == maxEDUs || c.full(receiptBytes) {
		return false, nil
	}
	if !c.receipts.add(tx.RoomID(change.Room), tx.UserID(receipt.User), receipt) {
		c.addReceipts()
		c.receipts.add(tx.RoomID(change.Room), tx.UserID(receipt.User), receipt)
	}
	c.size += receiptBytes
	return true, nil
}

// readDevices adds what has changed of a user's devices, which is little.
func (c *composer) readDevices(tx *store.Tx, change store.Change) (fits bool, err error) {
	edus, err := DeviceUpdates(tx, change.User, change.Position-1, change.Position)
	if err != nil {
		return false, err
	}
	size := 0
	for _, edu := range edus {
		size += len(edu)
	}
	if c.countEDUs()+len(edus) > maxEDUs || c.full(size) {
		return false, nil
	}
	for _, edu := range edus {
		c.addEDU(edu)
	}
	return true, nil
}

// full says whether so many bytes more are too many.
func (c *composer) full(more int) bool {
	return c.size > 0 && (c.plan.singly || c.size+more > maxTxnBytes)
}

// countEDUs returns how many EDUs there will be.
func (c *composer) countEDUs() int { return len(c.edus) + c.receipts.edus() }

func (c *composer) addEDU(edu jsontext.Value) {
	c.edus = append(c.edus, edu)
	c.size += len(edu)
}

// addReceipts makes an EDU of the receipts so far.
func (c *composer) addReceipts() {
	if c.receipts.edus() > 0 {
		c.edus = append(c.edus, EDU{Type: "m.receipt", Content: c.receipts.encode()}.encode())
		c.receipts = nil
	}
}

// finish returns the transaction, nil where it would be empty.
func (c *composer) finish() *transaction {
	c.addReceipts()
	if len(c.pdus)+len(c.edus) == 0 {
		return nil
	}
	c.txn.id = c.sender.transactionID()
	c.txn.body = transactionBody(c.sender.server, c.sender.now(), c.pdus, c.edus)
	c.txn.lossy = c.lossy == len(c.edus) && len(c.pdus) == 0
	c.txn.parts, c.txn.singly = len(c.pdus)+len(c.edus), c.plan.singly
	return &c.txn
}

// transactionBody encodes a transaction.
func transactionBody(origin matrix.ServerName, now time.Time, pdus [][]byte, edus []jsontext.Value) []byte {
	b := append([]byte(`{"origin":"`), origin...) // a server name needs no escapes
	b = append(b, `","origin_server_ts":`...)
	b = strconv.AppendInt(b, now.UnixMilli(), 10)
	b = append(b, `,"pdus":[`...)
	b = append(b, bytes.Join(pdus, []byte{','})...)
	b = append(b, ']')
	if len(edus) > 0 {
		b = append(b, `,"edus":[`...)
		for i, edu := range edus {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, edu...)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

// encode returns the EDU as it stands in a transaction.
func (e EDU) encode() jsontext.Value {
	b := append([]byte(`{"edu_type":"`), e.Type...) // ours: no escapes
	b = append(b, `","content":`...)
	b = append(b, e.Content...)
	return append(b, '}')
}

// receiptBytes is about how much one receipt takes.
const receiptBytes = 256

// receiptContent is the content of an m.receipt EDU: rooms, then users.
//
// Spec: SS Receipts.
type receiptContent map[matrix.RoomID]map[string]map[matrix.UserID]userReceipt

type userReceipt struct {
	Data     receiptData      `json:"data"`
	EventIDs []matrix.EventID `json:"event_ids"`
}

type receiptData struct {
	TS     int64  `json:"ts"`
	Thread string `json:"thread_id,omitzero"`
}

// add adds a receipt. It reports false where the user has one in that room already,
// which is of another thread: that needs another EDU.
func (r *receiptContent) add(room matrix.RoomID, user matrix.UserID, receipt store.Receipt) bool {
	if *r == nil {
		*r = make(receiptContent)
	}
	if (*r)[room] == nil {
		(*r)[room] = map[string]map[matrix.UserID]userReceipt{store.ReceiptRead: {}}
	}
	users := (*r)[room][store.ReceiptRead]
	if _, has := users[user]; has {
		return false
	}
	users[user] = userReceipt{receiptData{receipt.TS, receipt.Thread}, []matrix.EventID{receipt.Event}}
	return true
}

// edus returns how many EDUs it makes.
func (r receiptContent) edus() int { return min(len(r), 1) }

func (r receiptContent) encode() jsontext.Value {
	b, err := json.Marshal(r, json.Deterministic(true))
	if err != nil {
		panic(fmt.Sprintf("encode receipts: %v", err)) // strings and numbers alone
	}
	return b
}
