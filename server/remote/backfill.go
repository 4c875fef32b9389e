package remote

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

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
