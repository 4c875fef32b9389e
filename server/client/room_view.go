package client

import (
	"io"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// roomView is what one user may read of one room: all of it up to now while he
// is in it or where it is world readable, else up to when he left. It is good
// within one View.
//
// Spec: CS Room History Visibility; rooms.yaml, "as they were when the user left".
type roomView struct {
	num    store.RoomNum
	head   store.Head
	state  store.SnapshotID // the newest state that the user may see
	upto   store.Position   // the newest position that the user may see
	format *formatter
}

// errNotMember is the answer to who asks for a room that is not his, whether
// there is such a room or not.
var errNotMember = api.ErrForbidden.Because("You are not in this room, and it is not open to be read")

// roomView returns a user's view of a room, or M_FORBIDDEN.
func (s *Server) roomView(tx *store.Tx, id matrix.RoomID, who session) (*roomView, error) {
	num, head, err := state.Head(tx, id)
	if err != nil {
		return nil, errNotMember
	}
	format, err := s.formatter(tx, num, who)
	if err != nil {
		return nil, err
	}
	return format.view(head)
}

// view returns the view of the formatter's room, or M_FORBIDDEN.
func (f *formatter) view(head store.Head) (*roomView, error) {
	v := &roomView{num: f.room, head: head, state: head.Current, upto: f.tx.Position(), format: f}
	last, may, err := f.viewer.Reach(head)
	if err != nil {
		return nil, err
	}
	if !may {
		return nil, errNotMember
	}
	if last != 0 {
		v.upto = last
		if v.state, err = f.tx.CurrentAt(f.room, last); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// viewOf returns the view that the same session has of another room. The error
// wraps store.ErrNotFound where the server has never been in it.
func (f *formatter) viewOf(room store.RoomNum) (*roomView, error) {
	head, err := f.tx.Head(room)
	if err != nil {
		return nil, err
	}
	there := *f
	there.room, there.id = room, f.tx.RoomID(room)
	if there.viewer, err = state.NewViewer(f.tx, room, f.who.user); err != nil {
		return nil, err
	}
	return there.view(head)
}

// stateList is the numbers of state events that are written one chunk after the
// other, each as item says; nil leaves it out.
type stateList struct {
	room   store.RoomNum
	who    session
	events []store.EventNum
	item   func(*formatter, *store.StoredEvent) (jsontext.Value, error)
}

// stateList collects the state that a user may see of a room, or what pick
// chooses of it.
func (s *Server) stateList(id matrix.RoomID, who session, pick func(*roomView, *store.Tx) ([]store.EventNum, error)) (stateList, error) {
	list := stateList{who: who, item: (*formatter).event}
	err := s.store.View(func(tx *store.Tx) error {
		view, err := s.roomView(tx, id, who)
		if err != nil {
			return err
		}
		list.room = view.num
		if pick != nil {
			list.events, err = pick(view, tx)
			return err
		}
		list.events, err = view.stateNums(view.state, store.StateAll)
		return err
	})
	return list, err
}

// stateNums returns the numbers of the events in a part of a state.
func (v *roomView) stateNums(at store.SnapshotID, part store.StatePart) (nums []store.EventNum, err error) {
	err = v.format.tx.WalkState(v.num, at, part, func(_ store.Slot, num store.EventNum) (bool, error) {
		nums = append(nums, num)
		return true, nil
	})
	return nums, err
}

// writeState writes a list of state events between two pieces of JSON, a View
// for each chunk.
func (s *Server) writeState(w http.ResponseWriter, list stateList, begin, end string) error {
	w.Header().Set("Content-Type", "application/json")
	if _, err := io.WriteString(w, begin); err != nil {
		return err
	}
	for first := true; len(list.events) > 0; {
		chunk := list.events[:min(len(list.events), stateChunk)]
		list.events = list.events[len(chunk):]
		events, err := s.formatList(list, chunk)
		if err != nil {
			s.log.Error("answer cut off", "room", list.room, "err", err)
			panic(http.ErrAbortHandler)
		}
		if len(events) == 0 {
			continue
		}
		if _, err := w.Write(appendValues(nil, events, first)); err != nil {
			return err
		}
		first = false
	}
	_, err := io.WriteString(w, end)
	return err
}

// formatList formats a part of a list in a View of its own.
func (s *Server) formatList(list stateList, chunk []store.EventNum) (events []jsontext.Value, err error) {
	events = make([]jsontext.Value, 0, len(chunk))
	err = s.store.View(func(tx *store.Tx) error {
		format, err := s.formatter(tx, list.room, list.who)
		if err != nil {
			return err
		}
		for _, num := range chunk {
			ev, err := tx.Event(list.room, num)
			if err != nil {
				return err
			}
			event, err := list.item(format, ev)
			if err != nil {
				return err
			}
			if event != nil {
				events = append(events, event)
			}
		}
		return nil
	})
	return events, err
}

// unmarshalLenient reads JSON that comes from a room, where old versions allow
// what the json package refuses by default.
func unmarshalLenient(b jsontext.Value, v any) error {
	return json.Unmarshal(b, v, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}
