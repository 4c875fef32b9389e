package federation

import (
	"bufio"
	"context"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// listWriter writes a list of a room's events, with commas between.
type listWriter = func(context.Context, *bufio.Writer, *state.EventReader, []store.EventNum) error

// writeIDs writes the IDs of events.
func writeIDs(ctx context.Context, out *bufio.Writer, reader *state.EventReader, events []store.EventNum) error {
	var buf []byte
	return reader.IDs(ctx, events, func(id matrix.EventID) (err error) {
		if len(buf) > 0 {
			buf = append(buf[:0], ',')
		}
		if buf, err = jsontext.AppendQuote(buf, id); err != nil {
			return err
		}
		_, err = out.Write(buf)
		return err
	})
}

// Memory of an answer that has all of a state.
const (
	// stateWeight is what one piece of state takes: its number, that of what it cites, and
	// what finds the latter.
	stateWeight = 64
	// smallState is how many pieces there are in a state that is not worth asking for:
	// such answers are bounded by the number of connections.
	smallState = 1 << 12
)

// weighState takes the memory that an answer with all of a room's state needs.
func (s *Server) weighState(ctx context.Context, room store.RoomNum) (release func(), err error) {
	size := 0
	err = s.store.View(func(tx *store.Tx) (err error) {
		size, err = tx.StateSize(room)
		return err
	})
	if err != nil || size <= smallState {
		return func() {}, err
	}
	return s.config.Take(ctx, int64(size)*stateWeight)
}

// stateBefore finds the event that a request for a state names, for a server that is in
// its room or was when it was sent, and how to read the room. Which state was before the
// event must be known here.
//
// Spec: SS events.yaml: 403 to a server that is not in the room or barred from it, 404
// where "the server doesn't know about the state at that event".
func (s *Server) stateBefore(r *http.Request, from matrix.ServerName, id string) (*state.EventReader, *store.StoredEvent, error) {
	room, err := pathRoom(r)
	if err != nil {
		return nil, nil, err
	}
	if id == "" {
		return nil, nil, api.MissingParam("event_id")
	}
	var ev *store.StoredEvent
	err = s.store.View(func(tx *store.Tx) error {
		at, num, here := tx.EventByID(matrix.EventID(id))
		if !here || at != tx.RoomNum(room) {
			// Who is in the room is told, others learn nothing.
			if _, err := state.NewServerViewer(tx, room, from); err != nil {
				return err
			}
			return errNoEvent
		}
		view, err := state.NewHistoryViewer(tx, room, from)
		if err != nil {
			return err
		}
		if ev, err = tx.Event(at, num); err != nil {
			return err
		}
		stood, err := view.Stood(ev)
		if err == nil && (ev.Rejected || !stood) {
			err = errNoEvent
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	reader, err := state.NewEventReader(s.store, room)
	return reader, ev, err
}

// getRoomState answers GET /state/{roomID}: the state before an event, and its auth
// chain.
//
// Spec: SS Retrieving events.
func (s *Server) getRoomState(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	return s.writeState(w, r, from, "auth_chain", "pdus", writeEvents)
}

// getRoomStateIds answers GET /state_ids/{roomID}: the same as IDs.
//
// Spec: SS Retrieving events.
func (s *Server) getRoomStateIds(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	return s.writeState(w, r, from, "auth_chain_ids", "pdu_ids", writeIDs)
}

// writeState writes the state before an event and its auth chain, as they are read.
func (s *Server) writeState(w http.ResponseWriter, r *http.Request, from matrix.ServerName, chainName, stateName string, write listWriter) error {
	reader, ev, err := s.stateBefore(r, from, r.URL.Query().Get("event_id"))
	if err != nil {
		return err
	}
	if ev.Outlier {
		return api.ErrNotFound.Because("This server does not know the state at %s", ev.ID)
	}
	release, err := s.weighState(r.Context(), ev.RoomNum)
	if err != nil {
		return err
	}
	defer release()
	events, err := reader.State(r.Context(), ev.Before)
	if err != nil {
		return err
	}
	chain, err := reader.AuthChain(r.Context(), events)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriterSize(w, answerBuffer)
	// Nobody hears of what cannot be written: bufio keeps it for the Flush.
	_, _ = out.WriteString(`{"` + chainName + `":[`)
	if err := write(r.Context(), out, reader, chain); err != nil {
		return err
	}
	_, _ = out.WriteString(`],"` + stateName + `":[`)
	if err := write(r.Context(), out, reader, events); err != nil {
		return err
	}
	_, _ = out.WriteString(`]}`)
	return out.Flush()
}

// getEventAuth answers GET /event_auth/{roomID}/{eventID}: the auth chain of an event.
//
// Spec: SS event_auth.yaml.
func (s *Server) getEventAuth(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	reader, ev, err := s.stateBefore(r, from, r.PathValue("eventID"))
	if err != nil {
		return err
	}
	release, err := s.weighState(r.Context(), ev.RoomNum)
	if err != nil {
		return err
	}
	defer release()
	chain, err := reader.AuthChain(r.Context(), []store.EventNum{ev.StateNum()})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriterSize(w, answerBuffer)
	_, _ = out.WriteString(`{"auth_chain":[`)
	if err := writeEvents(r.Context(), out, reader, chain); err != nil {
		return err
	}
	_, _ = out.WriteString(`]}`)
	return out.Flush()
}
