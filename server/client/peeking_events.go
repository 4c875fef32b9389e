package client

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// peekEvents answers GET /events with a room_id: the events of one room behind a
// token, for whoever may read it, as soon as there is one or the timeout ends.
//
// Spec: CS Room previews; peeking_events.yaml.
func (s *Server) peekEvents(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := matrix.ParseRoomID(r.URL.Query().Get("room_id"))
	if err != nil {
		return api.InvalidParam("room_id", err)
	}
	return s.listen(w, r, func(tx *store.Tx, from store.Position) ([]jsontext.Value, store.Position, error) {
		view, err := s.roomView(tx, room, who)
		if err != nil {
			return nil, from, err
		}
		return view.since(from)
	})
}

// since returns the events of the room behind a position that the user may see, and
// how far it looked.
func (v *roomView) since(from store.Position) (chunk []jsontext.Value, upto store.Position, err error) {
	upto = v.format.tx.Position()
	looked, size := 0, 0
	err = v.format.tx.Timeline(v.num, store.EventNum(from+1)<<1, func(ev *store.StoredEvent) (bool, error) {
		if ev.Num.Position() > v.upto {
			return false, nil
		}
		if looked++; looked > maxLookedAt || len(chunk) >= maxOldEvents || size >= maxPageBytes {
			upto = ev.Num.Position() - 1
			return false, nil
		}
		shows, err := v.format.shows(ev)
		if err != nil || !shows {
			return true, err
		}
		event, err := v.format.event(ev)
		chunk, size = append(chunk, event), size+len(event)
		return true, err
	})
	return chunk, upto, err
}
