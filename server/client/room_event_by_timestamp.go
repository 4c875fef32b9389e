package client

import (
	"context"
	"fmt"
	"net/http"

	"hearth/server/api"
	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

type timestampResponse struct {
	EventID        matrix.EventID `json:"event_id"`
	OriginServerTS int64          `json:"origin_server_ts"`
}

// getEventByTimestamp answers GET /rooms/{roomID}/timestamp_to_event: the event
// that is nearest to a time in one direction.
//
// Spec: CS room_event_by_timestamp.yaml.
func (s *Server) getEventByTimestamp(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	if err := s.mayRead(r, who); err != nil {
		return err
	}
	ts, back, err := remote.ReadTimestampQuery(r.URL.Query())
	if err != nil {
		return err
	}
	found, err := s.nearestEvent(r.Context(), room, who, ts, back)
	if err != nil {
		return fmt.Errorf("event of %s by time: %w", room, err)
	}
	if found == nil {
		return api.ErrNotFound.Because("There is no event from %d on in that direction", ts)
	}
	return api.WriteJSON(w, timestampResponse{found.ID, found.OriginServerTS})
}

// maxTimeAsked is how many servers are asked for an event nearer to a time.
const maxTimeAsked = 3

// nearestEvent returns the event that is nearest to a time in one direction and that
// the user may see, nil for none. Where a nearer one may be in what is not here of the
// room's past, other servers are asked for it.
func (s *Server) nearestEvent(ctx context.Context, room matrix.RoomID, who session, ts int64, back bool) (*store.StoredEvent, error) {
	var found state.TimeAnswer
	err := s.store.View(func(tx *store.Tx) error {
		view, err := s.roomView(tx, room, who)
		if err != nil {
			return err
		}
		found, err = state.NearestEvent(tx, state.TimeQuery{Room: view.num, TS: ts, Back: back, Upto: view.upto, Shows: view.format.shows})
		return err
	})
	if err != nil || found.Gap == nil || s.fills.past == nil {
		return found.Event, err
	}
	ctx, cancel := context.WithTimeout(ctx, maxFillTime)
	defer cancel()
	servers, err := s.residents(found.Gap)
	for _, dest := range servers[:min(len(servers), maxTimeAsked)] {
		ev, err := s.nearerAt(ctx, dest, servers, found, who, ts, back)
		if ev != nil {
			return ev, nil
		}
		if err != nil {
			s.log.Debug("no event of a room by time", "room", room, "origin", dest, "err", err)
		}
	}
	return found.Event, err
}

// nearerAt asks another server for the event that is nearest to a time. If that is nearer
// than what was found, it is fetched; nil where it is not, or the user may not see it.
//
// Spec: SS Retrieving events, timestamp_to_event.
func (s *Server) nearerAt(ctx context.Context, dest matrix.ServerName, servers []matrix.ServerName, found state.TimeAnswer, who session, ts int64, back bool) (*store.StoredEvent, error) {
	id, at, err := s.fills.past.byTime(ctx, dest, found.Gap.Room, ts, back)
	nearer := func(at int64) bool {
		return (at <= ts == back || at == ts) && (found.Event == nil || at > found.Event.OriginServerTS == back && at != found.Event.OriginServerTS)
	}
	if err != nil || !nearer(at) {
		return nil, err
	}
	source := s.fills.past.source(found.Gap.Version, append([]matrix.ServerName{dest}, servers...)...)
	var ev *matrix.Event
	err = source.Events(ctx, found.Gap.Room, []matrix.EventID{id}, func(came *matrix.Event) error {
		if came.ID == id {
			ev = came
		}
		return nil
	})
	if ev == nil || err != nil || !nearer(ev.OriginServerTS) {
		return nil, err
	}
	if err := s.rooms.Recall(ctx, found.Gap.ID, ev, source); err != nil {
		return nil, err
	}
	var seen *store.StoredEvent
	err = s.store.View(func(tx *store.Tx) (err error) {
		seen, _, err = s.visibleEvent(tx, found.Gap.Room, id, who)
		return err
	})
	return seen, err
}
