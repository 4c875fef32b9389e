package client

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// setRoomStateWithKey answers PUT /rooms/{roomID}/state/{eventType}/{stateKey}.
func (s *Server) setRoomStateWithKey(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	content, err := api.ReadObject(r, matrix.MaxEventBytes)
	if err != nil {
		return err
	}
	if err := s.limits.Take(api.LimitSend, string(who.user)); err != nil {
		return err
	}
	key := r.PathValue("stateKey")
	draft := matrix.Draft{Room: room, Sender: who.user, Type: r.PathValue("eventType"), StateKey: &key, Content: content}
	if err := s.checkOwnMember(draft, who); err != nil {
		return err
	}
	id, err := s.rooms.Send(r.Context(), store.TxnID{}, draft)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, eventID{id})
}

// checkOwnMember holds who writes their own member event to what holds for the
// endpoints that join and leave.
func (s *Server) checkOwnMember(draft matrix.Draft, who session) error {
	if draft.Type != "m.room.member" || *draft.StateKey != string(who.user) {
		return nil
	}
	switch matrix.Membership(contentString(draft.Content, "membership")) {
	case matrix.Leave:
		return s.refuseRejection(draft.Room, who)
	case matrix.Join:
		return s.refuseGuestIn(draft.Room, who)
	}
	return nil
}

// getRoomStateWithKey answers GET /rooms/{roomID}/state/{eventType}/{stateKey}:
// the content of the event, or with format=event the whole.
func (s *Server) getRoomStateWithKey(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	whole, err := queryFormat(r)
	if err != nil {
		return err
	}
	var answer jsontext.Value
	err = s.store.View(func(tx *store.Tx) error {
		view, err := s.roomView(tx, room, who)
		if err != nil {
			return err
		}
		ev, err := state.EventAt(tx, view.num, view.state, r.PathValue("eventType"), r.PathValue("stateKey"))
		switch {
		case err != nil:
			return err
		case ev == nil:
			return api.ErrNotFound.Because("The room has no such state")
		case whole:
			answer, err = view.format.event(ev)
			return err
		}
		answer = ev.Content
		return nil
	})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, answer)
}

// queryFormat reads the format parameter of a state request: whether the whole
// event is wanted.
func queryFormat(r *http.Request) (whole bool, err error) {
	switch r.URL.Query().Get("format") {
	case "", "content":
		return false, nil
	case "event":
		return true, nil
	}
	return false, api.ErrInvalidParam.Because("format must be content or event")
}

// getRoomState answers GET /rooms/{roomID}/state: all of the room's state, as a
// list that is written as it is read.
func (s *Server) getRoomState(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	list, err := s.stateList(room, who, nil)
	if err != nil {
		return err
	}
	return s.writeState(w, list, "[", "]")
}
