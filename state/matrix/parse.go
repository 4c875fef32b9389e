package matrix

import (
	"fmt"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// parse reads a PDU; an empty id is computed.
func parse(v *Version, pdu []byte, id EventID) (*Event, error) {
	if len(pdu) > maxPDUBytes {
		return nil, fmt.Errorf("event: %w: %d bytes", ErrTooLarge, len(pdu))
	}
	d, err := readObject(pdu, numbersOf(v))
	if err != nil {
		return nil, fmt.Errorf("event: %w", err)
	}
	defer d.free()
	e := &Event{ID: id, Version: v}
	if err := e.setMembers(d); err != nil {
		return nil, fmt.Errorf("event: %w", err)
	}
	if err := e.setIDs(d); err != nil {
		return nil, fmt.Errorf("event: %w", err)
	}
	if err := e.setBytes(d); err != nil {
		return nil, fmt.Errorf("event: %w", err)
	}
	return e, nil
}

// Members of a PDU, as bits to tell which of them were there.
const (
	hasType = 1 << iota
	hasSender
	hasContent
	hasDepth
	hasTimestamp
	hasPrevEvents
	hasAuthEvents
	hasHashes
	hasSignatures

	hasRequired = 1<<iota - 1
)

func (e *Event) setMembers(d *document) error {
	has := 0
	for m := d.firstMember(root); m != 0; m = d.nodes[m].next {
		bit, err := e.setMember(d, m)
		if err != nil {
			return fmt.Errorf("%s: %w", clip(string(d.text(m))), err)
		}
		has |= bit
	}
	if has != hasRequired {
		return fmt.Errorf("%w: a required member is missing", ErrBadJSON)
	}
	if e.Type == "m.room.redaction" {
		e.setRedacts(d)
	}
	return nil
}

// setMember takes over the member whose name is node m and returns its bit, 0 if
// it is not a required one.
func (e *Event) setMember(d *document, m int32) (has int, err error) {
	value := m + 1
	switch string(d.text(m)) {
	case "type":
		e.Type, err = d.eventType(e.Version, value)
		return hasType, err
	case "sender":
		e.Sender, err = parsedAt(d, value, ParseUserID)
		return hasSender, err
	case "room_id":
		e.Room, err = parsedAt(d, value, ParseRoomID)
		return 0, err
	case "state_key":
		e.StateKey, err = d.stateKey(e.Version, value)
		return 0, err
	case "content":
		return hasContent, d.wantObject(value)
	case "hashes":
		return hasHashes, d.wantObject(value)
	case "signatures":
		return hasSignatures, d.wantObject(value)
	case "depth":
		e.Depth, err = d.integerAt(value)
		if err == nil && (e.Depth < 0 || e.Depth > e.Version.MaxDepth) {
			err = fmt.Errorf("%w: %d", ErrBadJSON, e.Depth)
		}
		return hasDepth, err
	case "origin_server_ts":
		e.OriginServerTS, err = d.integerAt(value)
		return hasTimestamp, err
	case "prev_events":
		e.PrevEvents, err = d.eventIDs(value, e.Version.EventIDs, MaxPrevEvents)
		return hasPrevEvents, err
	case "auth_events":
		e.AuthEvents, err = d.eventIDs(value, e.Version.EventIDs, MaxAuthEvents)
		return hasAuthEvents, err
	default:
		return 0, nil
	}
}

func (e *Event) setRedacts(d *document) {
	holder := root
	if e.Version.RedactsInContent {
		holder = d.member(root, "content")
	}
	e.Redacts, _ = parsedAt(d, d.member(holder, "redacts"), ParseEventID)
}

// setIDs fills in what is derived of ID and Room, and checks what must be there.
func (e *Event) setIDs(d *document) error {
	switch {
	case e.Version.EventIDs == EventIDGiven:
		given, err := parsedAt(d, d.member(root, "event_id"), ParseEventID)
		if err != nil {
			return fmt.Errorf("event_id: %w", err)
		}
		if server, ok := given.Server(); !ok || !isServerName(string(server)) {
			return fmt.Errorf("%w: event_id without a domain", ErrBadJSON)
		}
		e.ID = given
	case e.ID == "":
		hash, err := d.referenceHash(e.Version)
		if err != nil {
			return err
		}
		e.ID = hash.eventID(e.Version.EventIDs)
	}
	if !e.Version.RoomIDIsHash || e.Type != "m.room.create" {
		if e.Room == "" {
			return fmt.Errorf("%w: room_id is missing", ErrBadJSON)
		}
		return nil
	}
	if e.Room != "" {
		// Rule 1.2 of version 12's authorization rules, needed here already since the
		// room would have two names.
		return fmt.Errorf("%w: create event with a room_id", ErrBadJSON)
	}
	e.Room = RoomID("!" + e.ID[1:])
	return nil
}

// setBytes takes over the PDU's bytes without unsigned and checks their number.
func (e *Event) setBytes(d *document) error {
	content := d.nodes[d.member(root, "content")]
	e.pdu = d.src
	if unsigned := d.member(root, "unsigned"); unsigned != 0 {
		start, end := d.memberExtent(unsigned - 1)
		e.pdu = append(append(make([]byte, 0, len(d.src)-(end-start)), d.src[:start]...), d.src[end:]...)
		if int(content.start) >= end {
			content.start -= int32(end - start)
			content.end -= int32(end - start)
		}
	}
	e.Content = jsontext.Value(e.pdu[content.start:content.end:content.end])
	if len(e.pdu) <= MaxEventBytes && e.Version.StrictJSON {
		return nil // the canonical form is never longer
	}
	d.out = d.appendWithout(d.out[:0], root, "unsigned")
	if len(d.out) > MaxEventBytes {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, len(d.out))
	}
	if len(e.pdu) <= MaxEventBytes {
		return nil
	}
	return e.setCanonicalBytes(d)
}

// setCanonicalBytes makes the canonical form, which is in d.out, the PDU's bytes.
func (e *Event) setCanonicalBytes(d *document) error {
	e.pdu = append([]byte(nil), d.out...)
	short, err := readObject(e.pdu, d.numbers)
	if err != nil {
		return err
	}
	defer short.free()
	e.Content = short.raw(short.member(root, "content"))
	return nil
}

// memberExtent is the part of src that goes when the member whose name is node m
// goes: the member and one of the commas beside it.
func (d *document) memberExtent(m int32) (start, end int) {
	start, end = int(d.nodes[m].start), int(d.nodes[m+1].end)
	after := end
	for isSpace(d.src[after]) {
		after++
	}
	if d.src[after] == ',' {
		return start, after + 1
	}
	for isSpace(d.src[start-1]) {
		start--
	}
	if d.src[start-1] == ',' {
		start--
	}
	return start, end
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// parsedAt is the identifier at node i.
func parsedAt[ID ~string](d *document, i int32, parse func(string) (ID, error)) (ID, error) {
	s, err := d.stringAt(i)
	if err != nil {
		return "", err
	}
	id, err := parse(s)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrBadJSON, err)
	}
	return id, nil
}

func (d *document) wantObject(i int32) error {
	if d.nodes[i].kind != '{' {
		return fmt.Errorf("%w: not an object", ErrBadJSON)
	}
	return nil
}

// shortString is the string at node i, of at most 255 bytes, or characters where the
// version's events may be longer.
func (d *document) shortString(v *Version, i int32) (string, error) {
	if d.nodes[i].kind != '"' {
		return d.stringAt(i)
	}
	text, unit := d.text(i), "bytes"
	length := len(text)
	if v.LongKeys {
		length, unit = utf8.RuneCount(text), "characters"
	}
	if length > MaxIDBytes {
		return "", fmt.Errorf("%w: more than %d %s", ErrTooLarge, MaxIDBytes, unit)
	}
	return d.stringAt(i)
}

func (d *document) stateKey(v *Version, i int32) (*string, error) {
	s, err := d.shortString(v, i)
	if err != nil {
		return nil, err
	}
	return &s, nil
}

// usualTypes are the types that most events have.
var usualTypes = map[string]string{
	"m.room.encrypted": "m.room.encrypted",
	"m.room.message":   "m.room.message",
	"m.room.member":    "m.room.member",
	"m.reaction":       "m.reaction",
	"m.room.redaction": "m.room.redaction",
}

// eventType is shortString, sparing memory for the types that most events have.
func (d *document) eventType(v *Version, i int32) (string, error) {
	if d.nodes[i].kind == '"' {
		if known, ok := usualTypes[string(d.text(i))]; ok {
			return known, nil
		}
	}
	return d.shortString(v, i)
}

// eventIDs reads prev_events or auth_events: IDs, or in the format of versions 1
// and 2 pairs of an ID and hashes.
func (d *document) eventIDs(i int32, format EventIDFormat, most int) ([]EventID, error) {
	if d.nodes[i].kind != '[' {
		return nil, fmt.Errorf("%w: not an array", ErrBadJSON)
	}
	count := 0
	for e := d.nodes[i].first; e != 0; e = d.nodes[e].next {
		count++
	}
	if count > most {
		return nil, fmt.Errorf("%w: %d events, %d at most", ErrBadJSON, count, most)
	}
	ids := make([]EventID, 0, count)
	for e := d.nodes[i].first; e != 0; e = d.nodes[e].next {
		at := e
		if format == EventIDGiven {
			if at = d.firstOfPair(e); at == 0 {
				return nil, fmt.Errorf("%w: not a pair of an ID and hashes", ErrBadJSON)
			}
		}
		id, err := parsedAt(d, at, ParseEventID)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// firstOfPair is the first element of the array at node i if it has two, the
// second being an object; else 0.
func (d *document) firstOfPair(i int32) int32 {
	if d.nodes[i].kind != '[' || d.nodes[i].first == 0 {
		return 0
	}
	first := d.nodes[i].first
	second := d.nodes[first].next
	if d.nodes[second].kind != '{' || d.nodes[second].next != 0 {
		return 0
	}
	return first
}
