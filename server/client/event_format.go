package client

import (
	"bytes"
	"errors"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// formatter writes events of one room as one session gets them. It is good
// within one View.
//
// Spec: CS Room event format, Types of room events.
type formatter struct {
	tx      *store.Tx
	room    store.RoomNum
	id      matrix.RoomID // "": room_id is left out, as in /sync
	who     session
	viewer  *state.Viewer
	ignored ignoredUsers
	erased  map[matrix.UserID]store.Position // see erasures
	now     time.Time
	filter  *Filter // its event_format and event_fields
}

// formatter returns a formatter for a room whose events name it.
func (s *Server) formatter(tx *store.Tx, room store.RoomNum, who session) (*formatter, error) {
	viewer, err := state.NewViewer(tx, room, who.user)
	if err != nil {
		return nil, err
	}
	ignored, err := readIgnored(tx, who.num)
	if err != nil {
		return nil, err
	}
	erased, err := s.erasures.read(tx)
	if err != nil {
		return nil, err
	}
	return &formatter{
		tx: tx, room: room, id: tx.RoomID(room), who: who, viewer: viewer, ignored: ignored, erased: erased,
		now: s.now(), filter: new(Filter),
	}, nil
}

// shows says whether the session may see an event and wants to.
func (f *formatter) shows(ev *store.StoredEvent) (bool, error) {
	if f.ignored.hides(ev.Event) {
		return false, nil
	}
	return f.viewer.Sees(ev)
}

// event returns an event in the form for clients.
func (f *formatter) event(ev *store.StoredEvent) (jsontext.Value, error) {
	if f.filter.Federation() {
		ev, err := f.shown(ev)
		if err != nil {
			return nil, err
		}
		return f.filter.Trim(jsontext.Value(ev.JSON()))
	}
	b, err := f.appendChild(make([]byte, 0, len(ev.Content)+512), ev, 0)
	if err != nil {
		return nil, err
	}
	return f.filter.Trim(b)
}

// appendBody appends the event without unsigned and without its closing brace.
// redacts stands at the top level, as old clients want, and in the content, as
// new ones do, in all room versions.
//
// Spec: CS m.room.redaction; RV version 11, Moving the redacts property.
func (f *formatter) appendBody(b []byte, ev *matrix.Event) []byte {
	b = append(b, `{"content":`...)
	if ev.Redacts != "" && !ev.Version.RedactsInContent && !hasMember(ev.Content, "redacts") {
		b = appendQuoted(append(b, `{"redacts":`...), string(ev.Redacts))
		if rest := bytes.TrimSpace(ev.Content[1:]); rest[0] == '}' {
			b = append(b, '}')
		} else {
			b = append(append(b, ','), rest...)
		}
	} else {
		b = append(b, ev.Content...)
	}
	b = appendMember(b, "event_id", string(ev.ID))
	b = append(b, `,"origin_server_ts":`...)
	b = strconv.AppendInt(b, ev.OriginServerTS, 10)
	if ev.Redacts != "" {
		b = appendMember(b, "redacts", string(ev.Redacts))
	}
	if f.id != "" {
		b = appendMember(b, "room_id", string(f.id))
	}
	b = appendMember(b, "sender", string(ev.Sender))
	if ev.StateKey != nil {
		b = appendMember(b, "state_key", *ev.StateKey)
	}
	return appendMember(b, "type", ev.Type)
}

// appendUnsigned appends what the server adds to an event; depth counts the
// bundles that the event lies in.
func (f *formatter) appendUnsigned(b []byte, ev *store.StoredEvent, depth int) ([]byte, error) {
	b = append(b, `{"age":`...)
	b = strconv.AppendInt(b, max(0, f.now.UnixMilli()-ev.OriginServerTS), 10)
	membership, err := f.viewer.MembershipAt(ev)
	if err != nil {
		return nil, err
	}
	b = appendMember(b, "membership", string(membership))
	if ev.Txn.ID != "" && ev.Txn.User == f.who.num && ev.Txn.Device == f.who.device {
		b = appendMember(b, "transaction_id", ev.Txn.ID)
	}
	if b, err = f.appendReplaced(b, ev); err != nil {
		return nil, err
	}
	if b, err = f.appendRelations(b, ev, depth); err != nil {
		return nil, err
	}
	if ev.RedactedBy != 0 {
		because, err := f.tx.Event(f.room, ev.RedactedBy)
		if err != nil {
			return nil, err
		}
		b = append(b, `,"redacted_because":`...)
		b = append(f.appendBody(b, because.Event), '}')
	}
	return append(b, '}'), nil
}

// appendReplaced appends what a state event took the place of: its ID in any case,
// more of it only if the user may see it.
func (f *formatter) appendReplaced(b []byte, ev *store.StoredEvent) ([]byte, error) {
	if !ev.HasSlot {
		return b, nil
	}
	num, err := f.tx.StateAt(f.room, ev.Before, ev.Slot)
	if num == 0 || err != nil {
		return b, err
	}
	if sees, err := f.seesReplaced(ev, num); err != nil || !sees {
		id, idErr := f.tx.EventID(f.room, num)
		return appendMember(b, "replaces_state", string(id)), errors.Join(err, idErr)
	}
	was, err := f.tx.Event(f.room, num)
	if err != nil {
		return nil, err
	}
	if was, err = f.shown(was); err != nil {
		return nil, err
	}
	b = append(append(b, `,"prev_content":`...), was.Content...)
	b = appendMember(b, "prev_sender", string(was.Sender))
	return appendMember(b, "replaces_state", string(was.ID)), nil
}

// seesReplaced says whether the user may see what a state event took the place of:
// it was part of the room's state while he was there, or he may see it as an event.
func (f *formatter) seesReplaced(ev *store.StoredEvent, num store.EventNum) (bool, error) {
	if membership, err := f.viewer.MembershipAt(ev); err != nil || membership == matrix.Join {
		return err == nil, err
	}
	was, err := f.tx.Event(f.room, num)
	if err != nil {
		return false, err
	}
	return f.viewer.Sees(was)
}

// appendMember appends one more member with a string value to an object.
func appendMember(b []byte, name, value string) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	return appendQuoted(append(b, '"', ':'), value)
}

// appendQuoted appends text as JSON. Broken UTF-8, which events of old rooms may
// hold, comes out replaced; that is the only error there is.
func appendQuoted(b []byte, text string) []byte {
	b, _ = jsontext.AppendQuote(b, text)
	return b
}
