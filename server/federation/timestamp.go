package federation

import (
	"fmt"
	"net/http"

	"hearth/server/api"
	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// getEventByTimestamp answers GET /timestamp_to_event/{roomID}: the event that is
// nearest to a time in one direction, of those that the other server may see. Nobody
// else is asked for a nearer one.
//
// Spec: SS Retrieving events.
func (s *Server) getEventByTimestamp(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	ts, back, err := remote.ReadTimestampQuery(r.URL.Query())
	if err != nil {
		return err
	}
	var found state.TimeAnswer
	err = s.store.View(func(tx *store.Tx) error {
		view, err := state.NewServerViewer(tx, room, from)
		if err != nil {
			return err
		}
		found, err = state.NearestEvent(tx, state.TimeQuery{
			Room: view.Room(), TS: ts, Back: back, Upto: tx.Position(),
			Shows: func(ev *store.StoredEvent) (bool, error) {
				if ev.SoftFailed {
					return false, nil
				}
				shown, whole, err := view.Shown(ev)
				return shown != nil && whole, err
			},
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("event of %s by time: %w", room, err)
	}
	if found.Event == nil {
		return api.ErrNotFound.Because("There is no event from %d on in that direction", ts)
	}
	return api.WriteJSON(w, struct {
		EventID        matrix.EventID `json:"event_id"`
		OriginServerTS int64          `json:"origin_server_ts"`
	}{found.Event.ID, found.Event.OriginServerTS})
}
