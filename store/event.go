package store

import (
	"encoding/binary"
	"fmt"

	"hearth/state/matrix"
)

// An EventNum names an event inside its room: the place in the stream that it
// took, twice, plus one for events that are no part of our timeline. 0 is no
// event. Timeline events of a room rise in the order in which we accepted them.
type EventNum uint64

// timelineNum and asideNum make an EventNum of a place in the stream.
func timelineNum(pos Position) EventNum { return EventNum(pos) << 1 }
func asideNum(pos Position) EventNum    { return EventNum(pos)<<1 | 1 }

// Aside says whether the event stands beside our timeline: state at a join,
// auth events, rejected and soft-failed events, back-filled history. An outlier
// that comes to the timeline has a number of either kind from then on.
func (n EventNum) Aside() bool { return n&1 != 0 }

// Position returns the place in the stream that the event took. Only timeline
// events have an entry there.
func (n EventNum) Position() Position { return Position(n >> 1) }

// A StoredEvent is an event and what the store knows of it.
type StoredEvent struct {
	*matrix.Event
	Num       EventNum
	RoomNum   RoomNum
	SenderNum UserNum
	Before    SnapshotID // the room's state before the event, by its prev events
	After     SnapshotID // the room's current state once a timeline event was accepted
	Slot      Slot       // of a state event, where HasSlot
	HasSlot   bool
	// RedactedBy is the redaction that took effect on the event, 0 for none.
	// JSON then already returns the redacted form.
	RedactedBy EventNum
	Rejected   bool // the event breaks the rules: it has no part in the room's state
	Disowned   bool // it is rejected since it is not signed by whom it says; see SetDisowned
	SoftFailed bool // it was fine in its place but not by the current state: never shown to clients
	// Outlier: it is here only since others cite it or a state has it. What it
	// stands on is not here, nor is the state before it: Before is 0. It becomes
	// something else when PutEvent gets it again.
	Outlier bool
	// AsideNum is the number that an event of a timeline had as an outlier, by
	// which states and citations know it for ever; 0 for others. See StateNum.
	AsideNum EventNum
	// Relay: this server sends the event to the room's other servers, though its
	// sender is a user of another one, who has nobody in the room yet or no more.
	Relay bool
	// Txn names the local device and transaction that sent the event. It is
	// zero for others, and Endpoint is always empty: the event tells it.
	Txn TxnID

	unchecked bool // of a record whose body is not read
}

// StateNum is the number by which states and the citation index know the event.
func (ev *StoredEvent) StateNum() EventNum {
	if ev.AsideNum != 0 {
		return ev.AsideNum
	}
	return ev.Num
}

// A NewEvent is what PutEvent stores; see StoredEvent for the fields.
type NewEvent struct {
	Event                *matrix.Event
	Before, After        SnapshotID
	Slot                 Slot
	HasSlot              bool
	Txn                  TxnID
	Rejected, SoftFailed bool
	Outlier, Relay       bool
}

// NextEventNum takes the next place in the stream for an event. It exists so
// that the snapshot that holds the event can be made before the event is
// stored; a place that is never used is no harm.
func (tx *Tx) NextEventNum(aside bool) (EventNum, error) {
	pos, err := tx.nextPosition()
	if err != nil {
		return 0, err
	}
	if aside {
		return asideNum(pos), nil
	}
	return timelineNum(pos), nil
}

// PutEvent stores an event under a number that NextEventNum gave in the same
// transaction. A timeline event becomes an entry of the stream and wakes the
// local members of its room. The error wraps ErrExists when the store has an
// event of that ID, in whatever room.
//
// An outlier of the room is the exception: it becomes what ev says, under the
// number that it has or a new one of the timeline, and stays redacted if it was.
// Since states may hold it, it can only be rejected if it was before.
func (tx *Tx) PutEvent(room RoomNum, num EventNum, ev NewEvent) error {
	id := ev.Event.ID
	sender, err := tx.PutUserNum(ev.Event.Sender)
	if err != nil {
		return err
	}
	stored := StoredEvent{
		Event: ev.Event, Num: num, RoomNum: room, SenderNum: sender,
		Before: ev.Before, After: ev.After, Slot: ev.Slot, HasSlot: ev.HasSlot,
		Rejected: ev.Rejected, SoftFailed: ev.SoftFailed, Outlier: ev.Outlier, Relay: ev.Relay, Txn: ev.Txn,
	}
	if err := tx.replaceOutlier(&stored); err != nil {
		return err
	}
	if err := tx.writeEvent(&stored); err != nil {
		return err
	}
	place := packEventPlace(room, num)
	if stored.AsideNum != 0 {
		place = binary.AppendUvarint(place, uint64(stored.AsideNum))
	}
	if err := tx.put(bucketID, eventIDKey(id), place); err != nil {
		return err
	}
	if err := tx.putCitations(&stored); err != nil {
		return err
	}
	if num.Aside() {
		return nil
	}
	return tx.announce(room, num, ev.Txn)
}

// replaceOutlier takes over what must stay of the outlier that an event was here
// so far. The error wraps ErrExists where it was anything else.
func (tx *Tx) replaceOutlier(ev *StoredEvent) error {
	room, num, known := tx.EventByID(ev.ID)
	if !known {
		return nil
	}
	exists := fmt.Errorf("put %s: %w", ev.ID, ErrExists)
	if room != ev.RoomNum || ev.Outlier {
		return exists
	}
	was, err := tx.Event(room, num)
	switch {
	case err != nil:
		return fmt.Errorf("put %s: %w", ev.ID, err)
	case !was.Outlier, ev.Num.Aside() && ev.Num != num, ev.Rejected && !was.Rejected:
		return exists
	}
	if was.RedactedBy != 0 {
		ev.Event, ev.RedactedBy = was.Event, was.RedactedBy
	}
	if !ev.Num.Aside() {
		ev.AsideNum = num
	}
	return nil
}

// announce gives a timeline event its place in the order of its room and wakes
// those local users who may see it.
func (tx *Tx) announce(room RoomNum, num EventNum, txn TxnID) error {
	if err := tx.put(bucketEvent, eventKey(room, num), txn.hash()); err != nil {
		return err
	}
	return tx.LocalMembers(room, func(user UserNum, m matrix.Membership) (bool, error) {
		if m == matrix.Join {
			tx.Touch(user)
		}
		return true, nil
	})
}

// Event returns a room's event, by any number that it has or had. A View may return
// the same one again: nobody may change it. The error wraps ErrNotFound if there is
// none.
func (tx *Tx) Event(room RoomNum, num EventNum) (*StoredEvent, error) {
	memo := tx.memo()
	if ev := memo.event(room, num); ev != nil {
		return ev, nil
	}
	at, v, err := tx.eventRecord(room, num)
	if err != nil {
		return nil, err
	}
	ev, err := tx.readEvent(room, at, v)
	if err == nil {
		memo.keep(ev)
	}
	return ev, err
}

// EventID returns the ID of a room's event, which costs less than the event.
// The error wraps ErrNotFound if there is none.
func (tx *Tx) EventID(room RoomNum, num EventNum) (matrix.EventID, error) {
	_, id, err := tx.eventHead(room, num)
	return id, err
}

// eventHead reads all of an event's record but the body.
func (tx *Tx) eventHead(room RoomNum, num EventNum) (*StoredEvent, matrix.EventID, error) {
	num, v, err := tx.eventRecord(room, num)
	if err != nil {
		return nil, "", err
	}
	facts, err := tx.facts(room)
	if err != nil {
		return nil, "", err
	}
	ev := &StoredEvent{Num: num, RoomNum: room}
	r := reader{b: v}
	id := ev.readHead(&r, facts.version)
	if r.err != nil {
		return nil, "", fmt.Errorf("event %d of room %d: %w", num, room, r.err)
	}
	return ev, id, nil
}

// EventByID finds an event by its ID; ok is false when it is not here.
func (tx *Tx) EventByID(id matrix.EventID) (room RoomNum, num EventNum, ok bool) {
	room, num, err := readEventPlace(tx.get(bucketID, eventIDKey(id)))
	return room, num, err == nil
}

// StateEventByID is EventByID for the number by which states and the citation
// index know the event; see [StoredEvent.StateNum].
func (tx *Tx) StateEventByID(id matrix.EventID) (room RoomNum, num EventNum, ok bool) {
	r := reader{b: tx.get(bucketID, eventIDKey(id))}
	room, num = RoomNum(r.uvarint()), EventNum(r.uvarint())
	if len(r.b) > 0 {
		num = EventNum(r.uvarint())
	}
	return room, num, r.err == nil
}

// An EventPlace is what there is to know of an event without reading it; see
// [StoredEvent] for the fields.
type EventPlace struct {
	Room              RoomNum
	StateNum          EventNum
	Slot              Slot
	HasSlot           bool
	Rejected, Outlier bool
	Redacted          bool
	Unchecked         bool // see [matrix.Event]
}

// EventPlace returns the place of an event; ok is false when it is not here.
func (tx *Tx) EventPlace(id matrix.EventID) (place EventPlace, ok bool, err error) {
	room, num, ok := tx.EventByID(id)
	if !ok {
		return EventPlace{}, false, nil
	}
	ev, _, err := tx.eventHead(room, num)
	if err != nil {
		return EventPlace{}, false, err
	}
	return EventPlace{
		Room: room, StateNum: ev.StateNum(), Slot: ev.Slot, HasSlot: ev.HasSlot,
		Rejected: ev.Rejected, Outlier: ev.Outlier, Redacted: ev.RedactedBy != 0, Unchecked: ev.unchecked,
	}, true, nil
}

// Timeline calls fn for each event of a room's timeline from one on, oldest
// to newest, until fn returns false or an error. fn must not store events.
func (tx *Tx) Timeline(room RoomNum, from EventNum, fn func(*StoredEvent) (more bool, err error)) error {
	prefix := regionKey(room, regionTimeline)
	start := appendU64(regionKey(room, regionTimeline), uint64(from.Position()))
	return tx.scan(bucketEvent, prefix, start, tx.eachEvent(room, fn))
}

// TimelineBack is Timeline from newest to oldest, beginning with the newest
// event that is older than before (0: with the newest of all).
func (tx *Tx) TimelineBack(room RoomNum, before EventNum, fn func(*StoredEvent) (more bool, err error)) error {
	prefix := regionKey(room, regionTimeline)
	var end []byte
	if before != 0 {
		end = appendU64(regionKey(room, regionTimeline), uint64(before.Position()))
	}
	return tx.scanBack(bucketEvent, prefix, end, tx.eachEvent(room, fn))
}

// eachEvent reads the timeline events that a scan comes by.
func (tx *Tx) eachEvent(room RoomNum, fn func(*StoredEvent) (bool, error)) func(key, v []byte) (bool, error) {
	return func(key, _ []byte) (bool, error) {
		if len(key) != 8 {
			return false, fmt.Errorf("timeline key of room %d: %w", room, ErrDamaged)
		}
		ev, err := tx.Event(room, timelineNum(Position(u64(key))))
		if err != nil {
			return false, err
		}
		return fn(ev)
	}
}

// TimelineBefore returns the newest event of a room's timeline that stands at
// pos or before it; ok is false when there is none.
func (tx *Tx) TimelineBefore(room RoomNum, pos Position) (num EventNum, ok bool) {
	prefix := regionKey(room, regionTimeline)
	end := appendU64(regionKey(room, regionTimeline), uint64(pos)+1)
	err := tx.scanBack(bucketEvent, prefix, end, func(key, _ []byte) (bool, error) {
		if ok = len(key) == 8; ok {
			num = timelineNum(Position(u64(key)))
		}
		return false, nil
	})
	return num, ok && err == nil
}

// CurrentAt returns a room's current state as it was at a position: what the
// newest timeline event at or before it left behind, 0 before the first.
func (tx *Tx) CurrentAt(room RoomNum, pos Position) (SnapshotID, error) {
	num, ok := tx.TimelineBefore(room, pos)
	if !ok {
		return 0, nil
	}
	ev, _, err := tx.eventHead(room, num)
	if err != nil {
		return 0, err
	}
	return ev.After, nil
}

// Redact replaces the stored body of target by its redacted form and notes by,
// the redaction, in its record. An event that is redacted already stays as it
// is. The error wraps ErrNotFound when target is not here.
func (tx *Tx) Redact(room RoomNum, target, by EventNum) error {
	ev, err := tx.Event(room, target)
	if err != nil {
		return fmt.Errorf("redact: %w", err)
	}
	if ev.RedactedBy != 0 {
		return nil
	}
	pruned, err := ev.RedactedCopy()
	if err != nil {
		return fmt.Errorf("redact %s: %w", ev.ID, err)
	}
	ev.Event, ev.RedactedBy = pruned, by
	if err := tx.writeEvent(ev); err != nil {
		return err
	}
	return tx.dropWords(room, ev.Num)
}

// SetChecked notes of an event that was stored unchecked that it is signed as it must be,
// and keeps it with those signatures. If it was disowned, it is no more. Of any other
// event it changes nothing. The error wraps ErrNotFound when the event is not here.
func (tx *Tx) SetChecked(ev *matrix.Event) error {
	stored, err := tx.eventOfID(ev.ID)
	if err != nil || !stored.Unchecked || ev.Unchecked {
		return err
	}
	if stored.RedactedBy != 0 {
		if ev, err = ev.RedactedCopy(); err != nil {
			return fmt.Errorf("redact %s: %w", stored.ID, err)
		}
	}
	stored.Event = ev
	if stored.Disowned {
		stored.Rejected, stored.Disowned = false, false
		if err := tx.putCitations(stored); err != nil {
			return err
		}
	}
	return tx.writeEvent(stored)
}

// SetDisowned rejects an event that was stored unchecked and is not signed by whom it
// says. States that have it must be corrected by the caller. Of any other event it
// changes nothing. The error wraps ErrNotFound when the event is not here.
func (tx *Tx) SetDisowned(id matrix.EventID) error {
	stored, err := tx.eventOfID(id)
	if err != nil || !stored.Unchecked || stored.Rejected {
		return err
	}
	if err := tx.dropCitations(stored); err != nil {
		return err
	}
	stored.Rejected, stored.Disowned = true, true
	return tx.writeEvent(stored)
}

func (tx *Tx) eventOfID(id matrix.EventID) (*StoredEvent, error) {
	room, num, known := tx.EventByID(id)
	if !known {
		return nil, fmt.Errorf("event %s: %w", id, ErrNotFound)
	}
	return tx.Event(room, num)
}

// CorrectBefore replaces the state before an event, where it was found to lack something.
// The error wraps ErrNotFound when the event is not here.
func (tx *Tx) CorrectBefore(room RoomNum, num EventNum, before SnapshotID) error {
	ev, err := tx.Event(room, num)
	if err != nil {
		return fmt.Errorf("correct the state before an event: %w", err)
	}
	ev.Before = before
	return tx.writeEvent(ev)
}

// regionKey begins the keys of one region of a room in bucket event.
func regionKey(room RoomNum, region byte) []byte {
	return append(appendU32(make([]byte, 0, 13), uint32(room)), region)
}

// eventKey is where an event stands in bucket event: the record of an event
// aside, and the place in its room of one in the timeline.
func eventKey(room RoomNum, num EventNum) []byte {
	region := byte(regionTimeline)
	if num.Aside() {
		region = regionAside
	}
	return appendU64(regionKey(room, region), uint64(num.Position()))
}
