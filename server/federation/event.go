package federation

import (
	"errors"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// errNoEvent is the answer for an event that is not here or not to be given.
var errNoEvent = api.ErrNotFound.Because("There is no such event, or none that your server may see")

// getEvent answers GET /event/{eventID} to a server that is or was in the event's room.
// A message that it may not see is not found. Of such a state event one that is there
// gets the redacted form: that is what the state, which it gets anyway, stands on.
//
// Spec: SS Retrieving events.
func (s *Server) getEvent(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	id, err := matrix.ParseEventID(r.PathValue("eventID"))
	if err != nil {
		return api.InvalidParam("eventId", err)
	}
	var pdu jsontext.Value
	err = s.store.View(func(tx *store.Tx) error {
		room, num, here := tx.EventByID(id)
		if !here {
			return errNoEvent
		}
		view, err := state.NewHistoryViewer(tx, tx.RoomID(room), from)
		if errors.Is(err, state.ErrForbidden) && !tx.ServerInRoom(room, tx.ServerNum(from)) {
			return errNoEvent // nobody else learns that it is here, and in which room
		}
		if err != nil {
			return err
		}
		ev, err := tx.Event(room, num)
		if err != nil {
			return err
		}
		shown, whole, err := view.Shown(ev)
		switch {
		case err != nil:
			return err
		case shown == nil || !whole && !ev.IsState():
			return errNoEvent
		}
		pdu = shown.JSON()
		return nil
	})
	if err != nil {
		return err
	}
	return writeLenient(w, s.pduAnswer([]jsontext.Value{pdu}))
}
