package client

import (
	"context"
	"errors"
	"net/http"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// fullyRead is the read marker, which is account data and no receipt.
const fullyRead = "m.fully_read"

// A marker is how far a user says to have read.
type marker struct {
	typ    string // m.read, m.read.private or m.fully_read
	event  matrix.EventID
	thread string // see store.Receipt
}

// postReceipt answers POST /rooms/{roomID}/receipt/{receiptType}/{eventID}.
//
// Spec: CS Receipts; Fully read markers.
func (s *Server) postReceipt(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	event, err := pathEvent(r)
	if err != nil {
		return err
	}
	var body struct {
		Thread *string `json:"thread_id"`
	}
	if err := api.ReadOptionalJSON(r, maxSmallBody, &body); err != nil {
		return err
	}
	m := marker{typ: r.PathValue("receiptType"), event: event}
	switch m.typ {
	case store.ReceiptRead, store.ReceiptPrivate, fullyRead:
	default:
		return api.ErrInvalidParam.Because("There is no receipt type %q", m.typ)
	}
	if body.Thread != nil {
		if *body.Thread == "" || m.typ == fullyRead {
			return api.ErrInvalidParam.Because("thread_id does not fit this receipt")
		}
		m.thread = *body.Thread
	}
	if err := s.mark(r.Context(), who, room, m); err != nil {
		return err
	}
	s.noteActive(who)
	return api.WriteEmpty(w)
}

// setReadMarker answers POST /rooms/{roomID}/read_markers: up to three markers
// in one request.
func (s *Server) setReadMarker(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	var body struct {
		FullyRead matrix.EventID `json:"m.fully_read"`
		Read      matrix.EventID `json:"m.read"`
		Private   matrix.EventID `json:"m.read.private"`
	}
	if err := api.ReadJSON(r, maxSmallBody, &body); err != nil {
		return err
	}
	var markers []marker
	for _, m := range []marker{
		{typ: fullyRead, event: body.FullyRead},
		{typ: store.ReceiptRead, event: body.Read},
		{typ: store.ReceiptPrivate, event: body.Private},
	} {
		if m.event == "" {
			continue
		}
		if _, err := matrix.ParseEventID(string(m.event)); err != nil {
			return api.InvalidParam(m.typ, err)
		}
		markers = append(markers, m)
	}
	if err := s.mark(r.Context(), who, room, markers...); err != nil {
		return err
	}
	return api.WriteEmpty(w)
}

// mark stores markers of a user who is in the room.
func (s *Server) mark(ctx context.Context, who session, id matrix.RoomID, markers ...marker) error {
	if err := s.limits.TakeN(api.LimitReceipt, string(who.user), len(markers)); err != nil {
		return err
	}
	now := s.now().UnixMilli()
	return s.store.Update(ctx, func(tx *store.Tx) error {
		room, _, err := state.Head(tx, id)
		if err != nil {
			return errNotMember
		}
		member, _, err := tx.LocalMembership(who.num, room)
		if err != nil {
			return err
		}
		if member.Membership != matrix.Join {
			return errNotMember
		}
		for _, m := range markers {
			if err := m.put(tx, who, room, now); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m marker) put(tx *store.Tx, who session, room store.RoomNum, now int64) error {
	in, num, ok := tx.EventByID(m.event)
	if !ok || in != room {
		return errNoEvent
	}
	if err := m.checkThread(tx, room, num); err != nil {
		return err
	}
	if num.Aside() {
		num = 0 // it is older than all of our timeline
	}
	if m.typ == fullyRead {
		return m.putFullyRead(tx, who, room, num)
	}
	_, err := tx.PutReceipt(room, store.Receipt{
		User: who.num, Type: m.typ, Thread: m.thread, Event: m.event, Num: num, TS: now,
	})
	return err
}

// putFullyRead moves the read marker; it never goes back.
func (m marker) putFullyRead(tx *store.Tx, who session, room store.RoomNum, num store.EventNum) error {
	was, err := tx.AccountData(who.num, room, fullyRead)
	if err == nil {
		_, old, known := tx.EventByID(matrix.EventID(contentString(was.Content, "event_id")))
		if known && !old.Aside() && old >= num {
			return nil
		}
	} else if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	content, err := encodeJSON(map[string]matrix.EventID{"event_id": m.event})
	if err != nil {
		return err
	}
	return tx.PutAccountData(who.num, store.AccountData{Room: room, Type: fullyRead, Content: content})
}

// checkThread refuses a thread that the event has nothing to do with. The root of a
// thread and all that relates to it otherwise belong to the main timeline, but may
// mark how far the thread is read: the specification wants a 400 where "the
// event_id is not related to the thread_id".
//
// Spec: CS Threaded read receipts; receipts.yaml, thread_id.
func (m marker) checkThread(tx *store.Tx, room store.RoomNum, num store.EventNum) error {
	if m.thread == "" {
		return nil
	}
	in, err := threadOf(tx, room, num)
	if err != nil {
		return err
	}
	if in == m.thread || m.thread == string(m.event) {
		return nil
	}
	if related, err := leadsTo(tx, room, num, matrix.EventID(m.thread)); related || err != nil {
		return err
	}
	ev, err := tx.Event(room, num)
	if err != nil {
		return err
	}
	// What a redacted event related to is no longer known: any root may be right
	// that there is.
	if at, _, known := tx.EventByID(matrix.EventID(m.thread)); ev.RedactedBy == 0 || !known || at != room {
		return api.ErrInvalidParam.Because("The event is not in the thread %s", m.thread)
	}
	return nil
}

// mainThread is the thread ID of what is in no thread.
const mainThread = "main"

// maxThreadHops bounds how far an event's relations are followed to its thread.
const maxThreadHops = 3

// leadsTo says whether an event's relations, followed as far as those to a thread,
// lead to another event.
func leadsTo(tx *store.Tx, room store.RoomNum, num store.EventNum, to matrix.EventID) (bool, error) {
	for range maxThreadHops {
		ev, err := tx.Event(room, num)
		if err != nil {
			return false, err
		}
		relation, ok := ev.Relation()
		if !ok || ev.IsState() {
			return false, nil
		}
		if relation.Event == to {
			return true, nil
		}
		in, parent, known := tx.EventByID(relation.Event)
		if !known || in != room {
			return false, nil
		}
		num = parent
	}
	return false, nil
}

// threadOf returns the root of the thread that an event is in, or mainThread.
//
// Spec: CS Threaded read receipts, "An event is considered to be in a thread if".
func threadOf(tx *store.Tx, room store.RoomNum, num store.EventNum) (string, error) {
	for range maxThreadHops + 1 {
		ev, err := tx.Event(room, num)
		if err != nil {
			return "", err
		}
		relation, ok := ev.Relation()
		if !ok || ev.IsState() {
			return mainThread, nil
		}
		if relation.Type == "m.thread" {
			return string(relation.Event), nil
		}
		in, parent, known := tx.EventByID(relation.Event)
		if !known || in != room {
			return mainThread, nil
		}
		num = parent
	}
	return mainThread, nil
}
