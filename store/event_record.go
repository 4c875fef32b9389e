package store

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"hearth/state/matrix"
)

// The flags that begin an event record, which stands in bucket event for an
// event aside, and in the stream for one of a timeline. The record goes on with the sender's
// number and the snapshots before and after, then what the flags announce, in
// the order of the flags, then the event's ID and its packed body (body.go).
const (
	eventHasSlot    = 1 << iota // slot
	eventRedacted               // number of the redaction
	eventHasTxn                 // device ID, transaction ID
	eventRejected               // nothing
	eventSoftFailed             // nothing
	eventTextID                 // the ID is a string; else it is the 32 bytes of its hash
	eventOutlier                // nothing
	eventWasAside               // the number that an event of a timeline had as an outlier
	eventMoved                  // the number in the timeline: all that is left at the place of such an outlier
	eventRelay                  // nothing
	eventUnchecked              // nothing
	eventDisowned               // nothing
)

// asideFill is how full a write that stores events aside leaves the pages it
// splits: they come in long runs, as the state of a room that we join.
const asideFill = 0.95

// writeEvent stores the record of an event under its number, and at the place
// that it had as an outlier before, the way to it.
func (tx *Tx) writeEvent(ev *StoredEvent) error {
	var v []byte
	if !ev.Num.Aside() {
		v = binary.AppendUvarint([]byte{streamEvent}, uint64(ev.RoomNum))
	}
	v, err := tx.store.bodies.pack(appendEventHead(v, ev), ev.JSON(), tx.RoomID(ev.RoomNum))
	if err != nil {
		return fmt.Errorf("put %s: %w", ev.ID, err)
	}
	if ev.Num.Aside() {
		tx.in(bucketEvent).FillPercent = asideFill
		return tx.put(bucketEvent, eventKey(ev.RoomNum, ev.Num), v)
	}
	if ev.AsideNum != 0 {
		way := binary.AppendUvarint(binary.AppendUvarint(nil, eventMoved), uint64(ev.Num))
		if err := tx.put(bucketEvent, eventKey(ev.RoomNum, ev.AsideNum), way); err != nil {
			return err
		}
	}
	return tx.put(bucketStream, appendU64(nil, uint64(ev.Num.Position())), v)
}

// eventRecord returns the record of an event, which aliases the file, and the
// number under which it stands: that in the timeline, where an outlier came to be
// there. The error wraps ErrNotFound if there is none.
func (tx *Tx) eventRecord(room RoomNum, num EventNum) (EventNum, []byte, error) {
	at := num
	if num.Aside() {
		v := tx.get(bucketEvent, eventKey(room, num))
		r := reader{b: v}
		if flags := r.uvarint(); r.err != nil || flags&eventMoved == 0 {
			if v == nil {
				return 0, nil, fmt.Errorf("event %d of room %d: %w", num, room, ErrNotFound)
			}
			return num, v, nil
		}
		if at = EventNum(r.uvarint()); r.err != nil || at.Aside() {
			return 0, nil, fmt.Errorf("event %d of room %d: %w", num, room, ErrDamaged)
		}
	}
	r := reader{b: tx.get(bucketStream, appendU64(nil, uint64(at.Position())))}
	if kind := r.byte(); kind == streamEvent && RoomNum(r.uvarint()) == room && r.err == nil {
		return at, r.b, nil
	}
	return 0, nil, fmt.Errorf("event %d of room %d: %w", num, room, ErrNotFound)
}

// hasEvent says whether there is a record of that number in the room.
func (tx *Tx) hasEvent(room RoomNum, num EventNum) bool {
	_, _, err := tx.eventRecord(room, num)
	return err == nil
}

// appendEventHead writes all of a record but the body.
func appendEventHead(v []byte, ev *StoredEvent) []byte {
	hash, hashed := hashOfID(ev.Version, ev.ID)
	v = binary.AppendUvarint(v, bitIf(ev.HasSlot, eventHasSlot)|
		bitIf(ev.RedactedBy != 0, eventRedacted)|
		bitIf(ev.Txn.ID != "", eventHasTxn)|
		bitIf(ev.Rejected && !ev.Disowned, eventRejected)|
		bitIf(ev.SoftFailed, eventSoftFailed)|
		bitIf(!hashed, eventTextID)|
		bitIf(ev.Outlier, eventOutlier)|
		bitIf(ev.AsideNum != 0, eventWasAside)|
		bitIf(ev.Relay, eventRelay)|
		bitIf(ev.Unchecked, eventUnchecked)|
		bitIf(ev.Disowned, eventDisowned))
	v = binary.AppendUvarint(v, uint64(ev.SenderNum))
	v = binary.AppendUvarint(v, uint64(ev.Before))
	v = binary.AppendUvarint(v, uint64(ev.After))
	if ev.HasSlot {
		v = binary.AppendUvarint(v, uint64(ev.Slot))
	}
	if ev.RedactedBy != 0 {
		v = binary.AppendUvarint(v, uint64(ev.RedactedBy))
	}
	if ev.Txn.ID != "" {
		v = appendString(appendString(v, string(ev.Txn.Device)), ev.Txn.ID)
	}
	if ev.AsideNum != 0 {
		v = binary.AppendUvarint(v, uint64(ev.AsideNum))
	}
	if !hashed {
		return appendString(v, string(ev.ID))
	}
	return append(v, hash...)
}

// bitIf returns bit where it is to be set.
func bitIf(set bool, bit uint64) uint64 {
	if set {
		return bit
	}
	return 0
}

// readEvent takes an event record apart. What it returns aliases nothing.
func (tx *Tx) readEvent(room RoomNum, num EventNum, v []byte) (*StoredEvent, error) {
	facts, err := tx.facts(room)
	if err != nil {
		return nil, err
	}
	ev := &StoredEvent{Num: num, RoomNum: room}
	r := reader{b: v}
	id := ev.readHead(&r, facts.version)
	if r.err != nil {
		return nil, fmt.Errorf("event %d of room %d: %w", num, room, r.err)
	}
	body, err := tx.store.bodies.unpack(r.b, facts.id)
	if err != nil {
		return nil, fmt.Errorf("body of %s: %w", id, err)
	}
	if ev.Event, err = matrix.ParseTrusted(facts.version, body, id); err != nil {
		return nil, fmt.Errorf("body of %s: %w: %w", id, ErrDamaged, err)
	}
	ev.Unchecked = ev.unchecked
	return ev, nil
}

// readHead reads what appendEventHead wrote and returns the event's ID.
func (ev *StoredEvent) readHead(r *reader, version *matrix.Version) matrix.EventID {
	flags := r.uvarint()
	ev.SenderNum = UserNum(r.uvarint())
	ev.Before = SnapshotID(r.uvarint())
	ev.After = SnapshotID(r.uvarint())
	if ev.HasSlot = flags&eventHasSlot != 0; ev.HasSlot {
		ev.Slot = Slot(r.uvarint())
	}
	if flags&eventRedacted != 0 {
		ev.RedactedBy = EventNum(r.uvarint())
	}
	if flags&eventHasTxn != 0 {
		ev.Txn = TxnID{User: ev.SenderNum, Device: matrix.DeviceID(r.string()), ID: r.string()}
	}
	ev.Disowned = flags&eventDisowned != 0
	ev.Rejected = flags&eventRejected != 0 || ev.Disowned
	ev.unchecked = flags&eventUnchecked != 0
	ev.SoftFailed = flags&eventSoftFailed != 0
	ev.Outlier = flags&eventOutlier != 0
	ev.Relay = flags&eventRelay != 0
	if flags&eventWasAside != 0 {
		ev.AsideNum = EventNum(r.uvarint())
	}
	if flags&eventTextID != 0 {
		return matrix.EventID(r.string())
	}
	return idOfHash(version, r.bytes(sha256.Size))
}

// hashOfID returns the hash that an event ID spells in its room version; ok is
// false when the ID cannot be made from it again.
func hashOfID(v *matrix.Version, id matrix.EventID) (hash []byte, ok bool) {
	if v.EventIDs == matrix.EventIDGiven || len(id) == 0 {
		return nil, false
	}
	hash, err := idEncoding(v).DecodeString(string(id[1:]))
	if err != nil || len(hash) != sha256.Size || idOfHash(v, hash) != id {
		return nil, false
	}
	return hash, true
}

func idOfHash(v *matrix.Version, hash []byte) matrix.EventID {
	return matrix.EventID("$" + idEncoding(v).EncodeToString(hash))
}

func idEncoding(v *matrix.Version) *base64.Encoding {
	if v.EventIDs == matrix.EventIDHash {
		return base64.RawStdEncoding
	}
	return base64.RawURLEncoding
}

// eventIDKey is where an event ID stands in bucket id.
func eventIDKey(id matrix.EventID) []byte { return shortHash(string(idEvent), string(id)) }

// shortHash returns 16 bytes of SHA-256 over parts: enough that nobody finds
// two of the same, short enough for a key.
func shortHash(parts ...string) []byte {
	h := sha256.New()
	for _, p := range parts {
		_, _ = h.Write([]byte(p)) // a hash never fails
	}
	return h.Sum(nil)[:16]
}

// packEventPlace writes where an event stands. The number that one of a timeline
// had as an outlier may follow.
func packEventPlace(room RoomNum, num EventNum) []byte {
	v := binary.AppendUvarint(make([]byte, 0, 12), uint64(room))
	return binary.AppendUvarint(v, uint64(num))
}

// readEventPlace reads what packEventPlace wrote.
func readEventPlace(v []byte) (RoomNum, EventNum, error) {
	r := reader{b: v}
	room, num := RoomNum(r.uvarint()), EventNum(r.uvarint())
	return room, num, r.err
}
