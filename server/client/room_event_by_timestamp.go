package client

import (
	"fmt"
	"net/http"
	"strconv"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of a look-up by time: how many events are looked at on both sides of where
// the time would be if clocks agreed, and how many more for one that may be seen.
const (
	maxTimeAround  = 1000
	maxTimeFurther = 10_000
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
	q := r.URL.Query()
	dir := q.Get("dir")
	ts, err := strconv.ParseInt(q.Get("ts"), 10, 64)
	switch {
	case q.Get("ts") == "":
		return api.MissingParam("ts")
	case err != nil:
		return api.ErrInvalidParam.Because("ts must be a number of milliseconds")
	case dir == "":
		return api.MissingParam("dir")
	case dir != "f" && dir != "b":
		return api.ErrInvalidParam.Because("dir must be f or b")
	}
	var found *store.StoredEvent
	err = s.store.View(func(tx *store.Tx) error {
		view, err := s.roomView(tx, room, who)
		if err != nil {
			return err
		}
		found, err = view.nearest(ts, dir == "b")
		return err
	})
	if err != nil {
		return fmt.Errorf("event of %s by time: %w", room, err)
	}
	if found == nil {
		return api.ErrNotFound.Because("There is no event from %d on in that direction", ts)
	}
	return api.WriteJSON(w, timestampResponse{found.ID, found.OriginServerTS})
}

// nearest returns the visible event that is nearest to a time in one direction,
// nil for none. Of events of the same time it is the first that one comes by who
// walks the timeline in that direction.
//
// Nothing orders a timeline by what its events say of their time. But nearly all
// of them come in the order in which they were sent, so the place is found by
// halving, and the events around it are compared; an event whose clock was wrong by
// more than that many events may be missed in a long room.
func (v *roomView) nearest(ts int64, back bool) (*store.StoredEvent, error) {
	place, err := v.placeOf(ts)
	if err != nil {
		return nil, err
	}
	n := nearestEvent{view: v, ts: ts, back: back}
	tx := v.format.tx
	ahead, behind := maxTimeAround, maxTimeAround
	if back {
		behind = maxTimeFurther
	} else {
		ahead = maxTimeFurther
	}
	if err := tx.TimelineBack(v.num, place, n.look(behind)); err != nil {
		return nil, err
	}
	return n.best, tx.Timeline(v.num, place, n.look(ahead))
}

// nearestEvent is the nearest event so far.
type nearestEvent struct {
	view *roomView
	ts   int64
	back bool
	best *store.StoredEvent
}

// look returns what looks at events on one side: at most so many, and beyond
// maxTimeAround only until one is found.
func (n *nearestEvent) look(limit int) func(*store.StoredEvent) (bool, error) {
	looked := 0
	return func(ev *store.StoredEvent) (bool, error) {
		if ev.Num.Position() > n.view.upto || looked >= limit || looked >= maxTimeAround && n.best != nil {
			return false, nil
		}
		looked++
		if !n.nearer(ev) {
			return true, nil
		}
		shows, err := n.view.format.shows(ev)
		if shows {
			n.best = ev
		}
		return true, err
	}
}

// nearer says whether an event is nearer than the best so far.
func (n *nearestEvent) nearer(ev *store.StoredEvent) bool {
	is := ev.OriginServerTS
	switch {
	case n.back && is > n.ts, !n.back && is < n.ts:
		return false
	case n.best == nil:
		return true
	case n.back:
		was := n.best.OriginServerTS
		return is > was || is == was && ev.Num > n.best.Num
	}
	was := n.best.OriginServerTS
	return is < was || is == was && ev.Num < n.best.Num
}

// placeOf returns the number of the first timeline event that is not older than a
// time, if times only rise.
func (v *roomView) placeOf(ts int64) (store.EventNum, error) {
	low, high := store.Position(0), v.upto // what is up to low is older, what is behind high is not
	for low < high {
		middle := low + (high-low)/2 + 1
		num, ok := v.format.tx.TimelineBefore(v.num, middle)
		if !ok || num.Position() <= low {
			low = middle // no event is in between
			continue
		}
		ev, err := v.format.tx.Event(v.num, num)
		if err != nil {
			return 0, err
		}
		if ev.OriginServerTS < ts {
			low = middle
		} else {
			high = num.Position() - 1
		}
	}
	return store.EventNum(low+1) << 1, nil
}
