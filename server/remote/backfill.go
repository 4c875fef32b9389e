package remote

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"hearth/server/api"
	"hearth/state/matrix"
)

// Bounds of a request for history.
const (
	backfillTimeout  = 8 * time.Second
	maxBackfillBytes = 16 << 20
)

// Backfill asks a server of a room of version v for an event and those before it, up to
// limit of them, and calls take for each that [Network.Check] would let pass. An error of
// take ends the answer and is returned. Other errors are those of [Network.Do].
//
// Spec: SS Backfilling and retrieving missing events.
func (n *Network) Backfill(ctx context.Context, v *matrix.Version, dest matrix.ServerName, room matrix.RoomID, at matrix.EventID, limit int, take func(*matrix.Event) error) error {
	f := &fetcher{version: v, stream: n.Stream, verify: n.VerifyEvents}
	ctx, cancel := context.WithTimeout(ctx, backfillTimeout)
	defer cancel()
	query := url.Values{"v": {string(at)}, "limit": {strconv.Itoa(limit)}}
	_, err := f.take(ctx, dest, Request{
		Method:   http.MethodGet,
		Path:     "/_matrix/federation/v1/backfill/" + url.PathEscape(string(room)) + "?" + query.Encode(),
		MaxBytes: maxBackfillBytes,
		Timeout:  backfillTimeout,
	}, "pdus", take)
	return err
}

// ReadTimestampQuery reads what clients and servers ask for an event by its time with:
// milliseconds, and whether it is sought at that time or before. The error is
// M_MISSING_PARAM or M_INVALID_PARAM.
//
// Spec: CS room_event_by_timestamp.yaml; SS timestamp_to_event.
func ReadTimestampQuery(q url.Values) (ts int64, back bool, err error) {
	ts, err = strconv.ParseInt(q.Get("ts"), 10, 64)
	dir := q.Get("dir")
	switch {
	case q.Get("ts") == "":
		return 0, false, api.MissingParam("ts")
	case err != nil:
		return 0, false, api.ErrInvalidParam.Because("ts must be a number of milliseconds")
	case dir == "":
		return 0, false, api.MissingParam("dir")
	case dir != "f" && dir != "b":
		return 0, false, api.ErrInvalidParam.Because("dir must be f or b")
	}
	return ts, dir == "b", nil
}

// EventByTimestamp asks a server of a room for the event that is nearest to a time, in
// milliseconds, at that time or later, or with back at that time or before. What it
// answers is its word alone. Errors are those of [Network.Do].
//
// Spec: SS Retrieving events, timestamp_to_event.
func (n *Network) EventByTimestamp(ctx context.Context, dest matrix.ServerName, room matrix.RoomID, ts int64, back bool) (matrix.EventID, int64, error) {
	dir := "f"
	if back {
		dir = "b"
	}
	query := url.Values{"ts": {strconv.FormatInt(ts, 10)}, "dir": {dir}}
	var answer struct {
		Event matrix.EventID `json:"event_id"`
		TS    int64          `json:"origin_server_ts"`
	}
	err := n.Do(ctx, dest, Request{
		Method:   http.MethodGet,
		Path:     "/_matrix/federation/v1/timestamp_to_event/" + url.PathEscape(string(room)) + "?" + query.Encode(),
		MaxBytes: 64 << 10,
		Timeout:  backfillTimeout,
	}, &answer)
	if err != nil {
		return "", 0, err
	}
	id, err := matrix.ParseEventID(string(answer.Event))
	return id, answer.TS, err
}
