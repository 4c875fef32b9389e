package matrix

import (
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// readTrusted reads a PDU of the usual form that parse accepted before, in one walk
// over its bytes: it sorts nothing, hashes nothing and makes no tree of values. ok is
// false for what it leaves to parse: version 1 and 2, create events and redactions,
// members with escapes in their names or values, numbers that are no integers, and
// whatever is wrong with the bytes.
func readTrusted(v *Version, pdu []byte, id EventID) (e *Event, ok bool) {
	if v.EventIDs == EventIDGiven || id == "" || len(pdu) > MaxEventBytes || !utf8.Valid(pdu) {
		return nil, false
	}
	e = &Event{ID: id, Version: v, pdu: pdu}
	w := walker{b: pdu}
	has, ok := e.walkMembers(&w)
	if !ok || !w.ended() || has != hasRequired || e.Room == "" || e.Type == "m.room.redaction" || e.Type == "m.room.create" {
		return nil, false
	}
	return e, true
}

// walkMembers takes over the members of the PDU and says which of those there were
// that an event must have.
func (e *Event) walkMembers(w *walker) (has int, ok bool) {
	if !w.take('{') {
		return 0, false
	}
	for first := true; !w.take('}'); first = false {
		if !first && !w.take(',') {
			return 0, false
		}
		name, plain := w.text()
		if !plain || !w.take(':') {
			return 0, false
		}
		w.space()
		bit, ok := e.walkMember(w, string(name))
		if !ok || has&bit != 0 {
			return 0, false
		}
		has |= bit
	}
	return has, true
}

// walkMember takes over one member, of which the name was read, and returns its
// bit, 0 if it is not a required one.
func (e *Event) walkMember(w *walker, name string) (has int, ok bool) {
	switch name {
	case "type":
		e.Type, ok = w.eventType()
		return hasType, ok
	case "sender":
		e.Sender, ok = walkID(w, ParseUserID)
		return hasSender, ok
	case "room_id":
		e.Room, ok = walkID(w, ParseRoomID)
		return 0, ok
	case "state_key":
		text, plain := w.text()
		key := string(text)
		e.StateKey = &key
		return 0, plain && len(key) <= MaxIDBytes
	case "content":
		start := w.at
		ok = w.object()
		e.Content = jsontext.Value(w.b[start:w.at:w.at])
		return hasContent, ok
	case "hashes":
		return hasHashes, w.object()
	case "signatures":
		return hasSignatures, w.object()
	case "depth":
		e.Depth, ok = w.integer()
		return hasDepth, ok && e.Depth >= 0 && e.Depth <= e.Version.MaxDepth
	case "origin_server_ts":
		e.OriginServerTS, ok = w.integer()
		return hasTimestamp, ok
	case "prev_events":
		e.PrevEvents, ok = w.eventIDs(MaxPrevEvents)
		return hasPrevEvents, ok
	case "auth_events":
		e.AuthEvents, ok = w.eventIDs(MaxAuthEvents)
		return hasAuthEvents, ok
	case "unsigned":
		return 0, false
	default:
		return 0, w.value(0)
	}
}

// walkID reads an identifier.
func walkID[ID ~string](w *walker, parse func(string) (ID, error)) (ID, bool) {
	text, plain := w.text()
	if !plain {
		return "", false
	}
	id, err := parse(string(text))
	return id, err == nil
}

// A walker goes through JSON in UTF-8 and checks its form. Where a method says
// false, its place does not count any more.
type walker struct {
	b  []byte
	at int
}

func (w *walker) space() {
	for w.at < len(w.b) && isSpace(w.b[w.at]) {
		w.at++
	}
}

// peek is the next byte, 0 behind the last.
func (w *walker) peek() byte {
	if w.at == len(w.b) {
		return 0
	}
	return w.b[w.at]
}

// take passes white space and then c, if it is there.
func (w *walker) take(c byte) bool {
	w.space()
	if w.peek() != c {
		return false
	}
	w.at++
	return true
}

// ended says whether nothing follows.
func (w *walker) ended() bool {
	w.space()
	return w.at == len(w.b)
}

// text reads a string without escapes and returns what stands in it.
func (w *walker) text() (content []byte, plain bool) {
	if !w.take('"') {
		return nil, false
	}
	for i := w.at; i < len(w.b); i++ {
		switch c := w.b[i]; {
		case c == '"':
			content, w.at = w.b[w.at:i], i+1
			return content, true
		case c == '\\' || c < ' ':
			return nil, false
		}
	}
	return nil, false
}

// skipText passes a string. One that is spelled with surrogates is not for us.
func (w *walker) skipText() bool {
	for w.at++; w.at < len(w.b); w.at++ {
		switch c := w.b[w.at]; {
		case c == '"':
			w.at++
			return true
		case c < ' ':
			return false
		case c == '\\':
			w.at++
			switch w.peek() {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			default:
				return false
			}
		}
	}
	return false
}

// value passes a value that lies in so many others.
func (w *walker) value(depth int) bool {
	w.space()
	switch c := w.peek(); {
	case c == '"':
		return w.skipText()
	case c == '{' || c == '[':
		return depth < maxNesting/2 && w.nested(c, depth+1)
	case c == '-' || '0' <= c && c <= '9':
		_, ok := w.integer()
		return ok
	case c == 't':
		return w.word("true")
	case c == 'f':
		return w.word("false")
	case c == 'n':
		return w.word("null")
	}
	return false
}

// object passes an object.
func (w *walker) object() bool { return w.peek() == '{' && w.nested('{', 1) }

// nested passes an object or an array.
func (w *walker) nested(open byte, depth int) bool {
	w.at++
	end := byte('}')
	if open == '[' {
		end = ']'
	}
	for first := true; !w.take(end); first = false {
		if !first && !w.take(',') {
			return false
		}
		if open == '{' {
			if w.space(); w.peek() != '"' || !w.skipText() || !w.take(':') {
				return false
			}
		}
		if !w.value(depth) {
			return false
		}
	}
	return true
}

func (w *walker) word(word string) bool {
	if len(w.b)-w.at < len(word) || string(w.b[w.at:w.at+len(word)]) != word {
		return false
	}
	w.at += len(word)
	return true
}

// integer reads an integer that all room versions allow.
func (w *walker) integer() (int64, bool) {
	start := w.at
	if w.peek() == '-' {
		w.at++
	}
	digits := w.at
	for c := w.peek(); '0' <= c && c <= '9'; c = w.peek() {
		w.at++
	}
	switch w.peek() {
	case '.', 'e', 'E':
		return 0, false
	}
	if w.at == digits || w.at-digits > 1 && w.b[digits] == '0' || !isSafeInteger(w.b[start:w.at]) {
		return 0, false
	}
	n, err := strconv.ParseInt(string(w.b[start:w.at]), 10, 64)
	return n, err == nil
}

// eventType reads the type of an event, sparing memory for those that most have.
func (w *walker) eventType() (string, bool) {
	text, plain := w.text()
	if known, ok := usualTypes[string(text)]; ok {
		return known, plain
	}
	return string(text), plain && len(text) <= MaxIDBytes
}

// eventIDs reads an array of event IDs. They share one string.
func (w *walker) eventIDs(most int) ([]EventID, bool) {
	start := w.at
	if !w.take('[') {
		return nil, false
	}
	var places [MaxPrevEvents]struct{ start, end int }
	n := 0
	for ; !w.take(']'); n++ {
		if n >= most || n > 0 && !w.take(',') {
			return nil, false
		}
		text, plain := w.text()
		if !plain {
			return nil, false
		}
		places[n].end = w.at - 1 - start
		places[n].start = places[n].end - len(text)
	}
	ids := make([]EventID, 0, n)
	all := string(w.b[start:w.at])
	for _, place := range places[:n] {
		id, err := ParseEventID(all[place.start:place.end])
		if err != nil {
			return nil, false
		}
		ids = append(ids, id)
	}
	return ids, true
}
