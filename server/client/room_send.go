package client

import (
	"errors"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// eventID is the answer of the endpoints that make an event.
type eventID struct {
	Event matrix.EventID `json:"event_id"`
}

// writeSent answers who has sent an event, with nothing left in a buffer: once it has
// returned, the client has the answer before any sync that shows the event.
func writeSent(w http.ResponseWriter, id matrix.EventID) error {
	text, err := json.Marshal(eventID{id})
	if err != nil {
		return err
	}
	return errors.Join(api.WriteEncoded(w, text), http.NewResponseController(w).Flush())
}

// pathRoom reads the room ID of a request's path.
func pathRoom(r *http.Request) (matrix.RoomID, error) {
	room, err := matrix.ParseRoomID(r.PathValue("roomID"))
	if err != nil {
		return "", api.InvalidParam("roomId", err)
	}
	return room, nil
}

// pathEvent reads the event ID of a request's path.
func pathEvent(r *http.Request) (matrix.EventID, error) {
	event, err := matrix.ParseEventID(r.PathValue("eventID"))
	if err != nil {
		return "", api.InvalidParam("eventId", err)
	}
	return event, nil
}

// pathTxn names the transaction of a request: it belongs to the device and to
// the path before it.
//
// Spec: CS Transaction identifiers.
func pathTxn(r *http.Request, who session, endpoint ...string) (store.TxnID, error) {
	id := r.PathValue("txnID")
	if id == "" || len(id) > 255 {
		return store.TxnID{}, api.ErrInvalidParam.Because("The transaction ID must have 1 to 255 bytes")
	}
	return store.TxnID{User: who.num, Device: who.device, Endpoint: strings.Join(endpoint, "/"), ID: id}, nil
}

// sendMessage answers PUT /rooms/{roomID}/send/{eventType}/{txnID}. A device
// that repeats a txnID gets the event it already made; see [state.Rooms.Send].
func (s *Server) sendMessage(w http.ResponseWriter, r *http.Request, who session) error {
	defer s.sending.begin(deviceName{who.num, who.device})()
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	content, err := api.ReadObject(r, matrix.MaxEventBytes)
	if err != nil {
		return err
	}
	typ := r.PathValue("eventType")
	txn, err := pathTxn(r, who, "send", string(room), typ)
	if err != nil {
		return err
	}
	if typ == "m.room.redaction" {
		return s.sendRedaction(w, r, who, room, content, txn)
	}
	if err := who.refuseSuspended(); err != nil {
		return err
	}
	if err := s.limits.Take(api.LimitSend, string(who.user)); err != nil {
		return err
	}
	draft := matrix.Draft{Room: room, Sender: who.user, Type: typ, Content: content}
	id, err := s.rooms.Send(r.Context(), txn, draft)
	if err != nil {
		return err
	}
	s.noteSent(room, who)
	return writeSent(w, id)
}

// redactEvent answers PUT /rooms/{roomID}/redact/{eventID}/{txnID}.
func (s *Server) redactEvent(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	target, err := pathEvent(r)
	if err != nil {
		return err
	}
	var body struct {
		Reason *string `json:"reason,omitzero"`
	}
	if err := api.ReadOptionalJSON(r, matrix.MaxEventBytes, &body); err != nil {
		return err
	}
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	txn, err := pathTxn(r, who, "redact", string(room), string(target))
	if err != nil {
		return err
	}
	return s.redact(w, r, who, room, target, content, txn)
}

// sendRedaction is sendMessage for redactions, whose target stands in redacts
// of the body in every room version.
//
// Spec: CS Redactions, "Client behaviour" since version 1.18.
func (s *Server) sendRedaction(w http.ResponseWriter, r *http.Request, who session, room matrix.RoomID, content jsontext.Value, txn store.TxnID) error {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(content, &members); err != nil {
		return api.ErrBadJSON
	}
	target, err := matrix.ParseEventID(contentString(content, "redacts"))
	if err != nil {
		return api.ErrBadJSON.Because("redacts: %v", err)
	}
	delete(members, "redacts") // the draft puts it where the version wants it
	rest, err := json.Marshal(members, json.Deterministic(true))
	if err != nil {
		return err
	}
	return s.redact(w, r, who, room, target, rest, txn)
}

// redact makes a redaction. A suspended account may redact its own events alone.
//
// Spec: CS Account suspension.
func (s *Server) redact(w http.ResponseWriter, r *http.Request, who session, room matrix.RoomID, target matrix.EventID, content []byte, txn store.TxnID) error {
	if who.suspended && !s.sent(who, target) {
		return who.refuseSuspended()
	}
	if err := s.limits.Take(api.LimitSend, string(who.user)); err != nil {
		return err
	}
	id, err := s.rooms.Redact(r.Context(), room, who.user, target, content, txn)
	if err != nil {
		return err
	}
	return writeSent(w, id)
}

// sent says whether an event is known and one of the user's own.
func (s *Server) sent(who session, id matrix.EventID) (own bool) {
	err := s.store.View(func(tx *store.Tx) error {
		room, num, _ := tx.EventByID(id)
		ev, err := tx.Event(room, num)
		own = err == nil && ev.Sender == who.user
		return err
	})
	return own && err == nil
}

// hasMember says whether an object has a member.
func hasMember(object jsontext.Value, name string) bool {
	var members map[string]jsontext.Value
	return unmarshalLenient(object, &members) == nil && members[name] != nil
}

// contentString returns a member of an object that is text, else "".
func contentString(object jsontext.Value, name string) string {
	var members map[string]jsontext.Value
	if unmarshalLenient(object, &members) != nil {
		return ""
	}
	var text string
	if unmarshalLenient(members[name], &text) != nil {
		return ""
	}
	return text
}
