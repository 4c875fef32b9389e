package client

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of the endpoints that /sync took the place of.
const (
	maxOldEvents   = 100              // events in one answer of /events
	maxOldLookedAt = 5000             // changes looked at for them
	maxOldMessages = 100              // messages of each room in /initialSync
	usualOldWait   = 30 * time.Second // of /events, where the client does not say
)

// oldEvents is an answer of /events: what came between two tokens.
type oldEvents struct {
	Start string           `json:"start"`
	End   string           `json:"end"`
	Chunk []jsontext.Value `json:"chunk"`
}

// getEvents answers GET /events: the events in the user's rooms behind a token, as
// soon as there is one or the timeout ends. With a room it is peekEvents.
//
// Spec: CS old_sync.yaml (deprecated).
func (s *Server) getEvents(w http.ResponseWriter, r *http.Request, who session) error {
	if r.URL.Query().Has("room_id") {
		return s.peekEvents(w, r, who)
	}
	return s.listen(w, r, func(tx *store.Tx, from store.Position) ([]jsontext.Value, store.Position, error) {
		return s.eventsSince(tx, who, from)
	})
}

// listen answers with what read finds behind the token of a request, once it finds
// something, or the time is up. read also says how far it looked.
func (s *Server) listen(w http.ResponseWriter, r *http.Request, read func(*store.Tx, store.Position) ([]jsontext.Value, store.Position, error)) error {
	from, timeout := streamToken{pos: s.store.Position()}, usualOldWait
	q := r.URL.Query()
	if text := q.Get("from"); text != "" {
		token, err := parseToken("from", text)
		if err != nil {
			return err
		}
		from.pos = min(from.pos, token.pos) // a token may be one of the future
	}
	if text := q.Get("timeout"); text != "" {
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil || ms < 0 {
			return api.ErrInvalidParam.Because("timeout must be a number of milliseconds")
		}
		timeout = time.Duration(min(ms, maxSyncWait.Milliseconds())) * time.Millisecond
	}
	ctx, cancel := api.LongPoll(r, timeout)
	defer cancel()
	answer := oldEvents{Start: from.String(), Chunk: []jsontext.Value{}}
	for at, over := from.pos, timeout == 0; ; {
		err := s.store.View(func(tx *store.Tx) error {
			chunk, upto, err := read(tx, at)
			at = upto
			answer.Chunk = append(answer.Chunk, chunk...)
			return err
		})
		if err != nil {
			return fmt.Errorf("events from %s: %w", from, err)
		}
		if over || len(answer.Chunk) > 0 {
			answer.End = streamToken{pos: at}.String()
			return api.WriteJSON(w, answer)
		}
		_, err = s.store.Wait(ctx, at)
		over = err != nil // time is up, or the server stops: the next look is the last
	}
}

// eventsSince returns the events behind a position that the user gets: those of the
// rooms that he is in, and what makes him a guest elsewhere or takes him out.
func (s *Server) eventsSince(tx *store.Tx, who session, from store.Position) (chunk []jsontext.Value, upto store.Position, err error) {
	upto = tx.Position()
	formats := make(map[store.RoomNum]*formatter) // nil: not a room of his
	looked, size := 0, 0
	err = tx.Changes(from, func(c store.Change) (bool, error) {
		if looked++; looked > maxOldLookedAt || len(chunk) >= maxOldEvents || size >= maxPageBytes {
			upto = c.Position - 1
			return false, nil
		}
		if c.Event == 0 {
			return true, nil
		}
		event, err := s.eventFor(tx, who, c, formats)
		if event != nil {
			chunk = append(chunk, event)
			size += len(event)
		}
		return true, err
	})
	return chunk, upto, err
}

// eventFor returns the event of a change as the user gets it, nil if he does not.
func (s *Server) eventFor(tx *store.Tx, who session, c store.Change, formats map[store.RoomNum]*formatter) (jsontext.Value, error) {
	format, known := formats[c.Room]
	if !known {
		member, ok, err := tx.LocalMembership(who.num, c.Room)
		if err != nil {
			return nil, err
		}
		hide, err := hidesRoom(tx, who, member)
		if err != nil {
			return nil, err
		}
		if ok && !hide && !member.Forgotten {
			if format, err = s.formatter(tx, c.Room, who); err != nil {
				return nil, err
			}
		}
		formats[c.Room] = format
	}
	if format == nil {
		return nil, nil
	}
	ev, err := tx.Event(c.Room, c.Event)
	if err != nil {
		return nil, err
	}
	own := ev.Is("m.room.member", string(who.user)) && !ev.Rejected && !ev.SoftFailed
	if shows, err := format.shows(ev); err != nil || !shows && !own {
		return nil, err
	}
	if !own {
		if membership, err := format.viewer.MembershipAt(ev); err != nil || membership != matrix.Join {
			return nil, err
		}
	}
	return format.event(ev)
}

// getOneEvent answers GET /events/{eventID}: an event of whatever room.
//
// Spec: CS old_sync.yaml (deprecated).
func (s *Server) getOneEvent(w http.ResponseWriter, r *http.Request, who session) error {
	id, err := pathEvent(r)
	if err != nil {
		return err
	}
	var event jsontext.Value
	err = s.store.View(func(tx *store.Tx) error {
		room, _, ok := tx.EventByID(id)
		if !ok {
			return errNoEvent
		}
		ev, format, err := s.visibleEvent(tx, tx.RoomID(room), id, who)
		if err != nil {
			return err
		}
		event, err = format.event(ev)
		return err
	})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, event)
}

// initialSyncHead is the answer of /initialSync, but for the rooms.
type initialSyncHead struct {
	End         string             `json:"end"`
	Presence    []presenceEvent    `json:"presence"`
	AccountData []accountDataEvent `json:"account_data"`
}

// initialSync answers GET /initialSync: all of the user's rooms with their state
// and newest messages. It is written room by room.
//
// Spec: CS old_sync.yaml (deprecated).
func (s *Server) initialSync(w http.ResponseWriter, r *http.Request, who session) error {
	q := r.URL.Query()
	limit, err := oldLimit(q.Get("limit"))
	if err != nil {
		return err
	}
	archived, err := queryBool(q.Get("archived"), "archived")
	if err != nil {
		return err
	}
	var head initialSyncHead
	var rooms []store.RoomNum
	err = s.store.View(func(tx *store.Tx) (err error) {
		rooms = nil
		head.End = streamToken{pos: tx.Position()}.String()
		if head.AccountData, err = accountDataOf(tx, who, 0); err != nil {
			return err
		}
		if head.Presence, err = s.syncPresence(tx, syncRequest{who: who, filter: &everything, initial: true}, nil); err != nil {
			return err
		}
		return tx.LocalMemberships(who.num, func(m store.LocalMembership) (bool, error) {
			if hide, err := hidesRoom(tx, who, m); hide || err != nil {
				return true, err
			}
			left := m.Membership == matrix.Leave || m.Membership == matrix.Ban
			if m.Membership != matrix.Knock && !m.Forgotten && (!left || archived && m.Joined != 0) {
				rooms = append(rooms, m.Room)
			}
			return true, nil
		})
	})
	if err != nil {
		return fmt.Errorf("initial sync of %s: %w", who.user, err)
	}
	if head.Presence == nil {
		head.Presence = []presenceEvent{}
	}
	text, err := json.Marshal(head)
	if err != nil {
		return err
	}
	begin := string(text[:len(text)-1]) + `,"rooms":[`
	for _, room := range rooms {
		if err := s.writeRoomInfo(w, who, room, limit, begin); err != nil {
			s.log.Error("answer cut off", "room", room, "err", err)
			panic(http.ErrAbortHandler)
		}
		begin = ","
	}
	if len(rooms) > 0 {
		begin = ""
	}
	return s.writeState(w, stateList{}, begin, `]}`)
}

// oldLimit reads how many messages of each room are wanted.
func oldLimit(text string) (int, error) {
	if text == "" {
		return 10, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 0 {
		return 0, api.ErrInvalidParam.Because("limit must be a number that is not negative")
	}
	return min(limit, maxOldMessages), nil
}

// accountDataOf returns all account data of a user for a room, or for none.
func accountDataOf(tx *store.Tx, who session, room store.RoomNum) ([]accountDataEvent, error) {
	all := []accountDataEvent{}
	err := tx.AllAccountData(who.num, room, func(d store.AccountData) (bool, error) {
		all = append(all, accountDataEvent{d.Type, d.Content})
		return true, nil
	})
	return all, err
}

// reversed returns events in the other order.
func reversed(events []jsontext.Value) []jsontext.Value {
	slices.Reverse(events)
	return events
}
