package federation

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of what one answer gives of a room's history.
const (
	maxBackfill     = 100     // events
	maxBackfillFrom = 20      // events to begin at: as many as one may stand on
	maxMissing      = 20      // events
	maxHistoryBytes = 1 << 20 // of events, but for the last
)

// pduAnswer is an answer that is like a transaction. Spec: SS backfill.yaml,
// events.yaml.
type pduAnswer struct {
	Origin matrix.ServerName `json:"origin"`
	Time   int64             `json:"origin_server_ts"`
	PDUs   []jsontext.Value  `json:"pdus"`
}

func (s *Server) pduAnswer(pdus []jsontext.Value) pduAnswer {
	return pduAnswer{Origin: s.network.Server(), Time: s.now().UnixMilli(), PDUs: pdus}
}

// pathRoom returns the room that a request's path names.
func pathRoom(r *http.Request) (matrix.RoomID, error) {
	room, err := matrix.ParseRoomID(r.PathValue("roomID"))
	if err != nil {
		return "", api.InvalidParam("roomId", err)
	}
	return room, nil
}

// backfillRoom answers GET /backfill/{roomID}: some events and those before them. What
// the other server may not see is redacted.
//
// Spec: SS Backfilling and retrieving missing events.
func (s *Server) backfillRoom(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	limit, err := strconv.Atoi(q.Get("limit"))
	switch {
	case q.Get("limit") == "":
		return api.MissingParam("limit")
	case err != nil || limit < 0:
		return api.ErrInvalidParam.Because("limit must be a number that is not negative")
	case len(q["v"]) == 0:
		return api.MissingParam("v")
	}
	begin := eventIDs(q["v"], maxBackfillFrom)
	pdus, err := s.history(room, from, func(tx *store.Tx, num store.RoomNum) ([]*store.StoredEvent, error) {
		return state.Ancestors(tx, num, begin, min(limit, maxBackfill))
	})
	if err != nil {
		return err
	}
	return writeLenient(w, s.pduAnswer(pdus))
}

// missingRequest is the body of get_missing_events.
type missingRequest struct {
	Limit    *int     `json:"limit"`
	MinDepth int64    `json:"min_depth"`
	Earliest []string `json:"earliest_events"`
	Latest   []string `json:"latest_events"`
}

// getMissingPreviousEvents answers POST /get_missing_events/{roomID}: the events
// between those that the other server has and others, the oldest first. What it
// may not see is redacted.
//
// Spec: SS Backfilling and retrieving missing events.
func (s *Server) getMissingPreviousEvents(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	var body missingRequest
	if err := api.ReadJSON(r, maxBody, &body); err != nil {
		return err
	}
	ask := state.MissingEvents{
		Room: room, Limit: 10, // "Defaults to 10."
		Earliest: eventIDs(body.Earliest, len(body.Earliest)),
		Latest:   eventIDs(body.Latest, maxBackfillFrom),
	}
	if body.Limit != nil {
		ask.Limit = max(0, min(*body.Limit, maxMissing))
	}
	pdus, err := s.history(room, from, func(tx *store.Tx, num store.RoomNum) ([]*store.StoredEvent, error) {
		return state.Between(tx, num, ask, body.MinDepth)
	})
	if err != nil {
		return err
	}
	slices.Reverse(pdus)
	return writeLenient(w, struct {
		Events []jsontext.Value `json:"events"`
	}{pdus})
}

// eventIDs returns the IDs among some texts, no more than most of them.
func eventIDs(texts []string, most int) []matrix.EventID {
	ids := make([]matrix.EventID, 0, min(len(texts), most))
	for _, text := range texts[:min(len(texts), most)] {
		if id, err := matrix.ParseEventID(text); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// history returns the events of a room that find picks, as another server gets them,
// no more than an answer holds.
func (s *Server) history(room matrix.RoomID, from matrix.ServerName, find func(*store.Tx, store.RoomNum) ([]*store.StoredEvent, error)) (pdus []jsontext.Value, err error) {
	pdus = []jsontext.Value{}
	err = s.store.View(func(tx *store.Tx) error {
		view, err := state.NewHistoryViewer(tx, room, from)
		if err != nil {
			return err
		}
		events, err := find(tx, view.Room())
		if err != nil {
			return err
		}
		size := 0
		for _, ev := range events {
			shown, _, err := view.Shown(ev)
			if err != nil {
				return err
			}
			if shown == nil {
				continue
			}
			pdus = append(pdus, shown.JSON())
			if size += len(shown.JSON()); size > maxHistoryBytes {
				break
			}
		}
		return nil
	})
	return pdus, err
}
