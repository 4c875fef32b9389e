package federation

import (
	"context"
	"errors"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// Why an event of a transaction is not taken, as its sender is told.
var (
	errNotInRoom  = errors.New("this server is not in the room")
	errACL        = errors.New("the room's server ACL does not allow you to send there")
	errAgainRules = errors.New("the room's rules do not allow the event")
)

// receivePDUs takes the PDUs of a transaction, room by room in their order. An error
// is that not all of it could be kept: then none of it counts as received.
func (s *Server) receivePDUs(ctx context.Context, from matrix.ServerName, pdus []jsontext.Value) (pduResults, error) {
	results := make(pduResults)
	rooms, byRoom := groupByRoom(pdus)
	var waits []<-chan struct{}
	for _, room := range rooms {
		handled, err := s.receiveRoom(ctx, from, room, byRoom[room], results)
		if err != nil {
			return nil, err
		}
		if handled != nil {
			waits = append(waits, handled)
		}
	}
	s.inbox.await(ctx, waits)
	return results, nil
}

// groupByRoom returns the rooms of PDUs and what is of each, both in their order. A
// PDU that names no room is left out: without the room's version it has no ID by
// which its sender could be told.
func groupByRoom(pdus []jsontext.Value) (rooms []matrix.RoomID, byRoom map[matrix.RoomID][]jsontext.Value) {
	byRoom = make(map[matrix.RoomID][]jsontext.Value)
	for _, pdu := range pdus {
		var named struct {
			Room string `json:"room_id"`
		}
		if json.Unmarshal(pdu, &named, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) != nil {
			continue
		}
		room, err := matrix.ParseRoomID(named.Room)
		if err != nil {
			continue
		}
		if byRoom[room] == nil {
			rooms = append(rooms, room)
		}
		byRoom[room] = append(byRoom[room], pdu)
	}
	return rooms, byRoom
}

// receiveRoom takes the PDUs of one room. Where some of them wait for what they lack,
// handled is closed once that was looked for.
func (s *Server) receiveRoom(ctx context.Context, from matrix.ServerName, room matrix.RoomID, pdus []jsontext.Value, results pduResults) (handled <-chan struct{}, err error) {
	num, v, refused, err := s.mayReceive(from, room)
	if err != nil {
		return nil, err
	}
	if errors.Is(refused, errNotInRoom) {
		if err := s.revokeInvites(ctx, room, pdus); err != nil {
			return nil, err
		}
	}
	if refused != nil {
		s.refuse(v, pdus, refused, results)
		return nil, nil
	}
	checked, errs := s.check(ctx, v, pdus)
	events := make([]*matrix.Event, 0, len(checked))
	for i, ev := range checked {
		switch {
		case errs[i] != nil:
			s.log.Debug("event is dropped", "origin", from, "room", room, "err", errs[i])
			if bad, _ := errors.AsType[*remote.PDUError](errs[i]); bad != nil && bad.Event != "" {
				results.fail(bad.Event, bad.Err)
			}
		case ev.Room == room:
			results[ev.ID] = pduResult{}
			events = append(events, ev)
		}
	}
	lacking, err := s.accept(ctx, events, results)
	if err != nil || len(lacking) == 0 {
		return nil, err
	}
	return s.inbox.put(ctx, num, from, lacking)
}

// mayReceive says whether events of a room are taken from a server, and else why not.
// The version is nil where it is not known.
func (s *Server) mayReceive(from matrix.ServerName, room matrix.RoomID) (num store.RoomNum, v *matrix.Version, refused, err error) {
	err = s.store.View(func(tx *store.Tx) error {
		var head store.Head
		num, head, err = state.Head(tx, room)
		if errors.Is(err, state.ErrUnknownRoom) {
			refused = errNotInRoom
			return nil
		}
		if err != nil {
			return err
		}
		v = head.Version
		in, err := inRoom(tx, num)
		if err != nil || !in {
			refused = errNotInRoom
			return err
		}
		allowed, err := state.ServerAllowed(tx, num, from)
		if !allowed {
			refused = errACL
		}
		return err
	})
	return num, v, refused, err
}

// inRoom says whether this server is in a room: a user of it has joined.
func inRoom(tx *store.Tx, room store.RoomNum) (in bool, err error) {
	err = tx.LocalMembers(room, func(_ store.UserNum, m matrix.Membership) (bool, error) {
		in = m == matrix.Join
		return !in, nil
	})
	return in, err
}

// refuse tells the sender of events why none of them is taken, as far as their IDs
// can be told.
func (s *Server) refuse(v *matrix.Version, pdus []jsontext.Value, why error, results pduResults) {
	for _, pdu := range pdus {
		if v != nil {
			if ev, err := matrix.Parse(v, pdu); err == nil {
				results.fail(ev.ID, why)
			}
			continue
		}
		var given struct {
			ID string `json:"event_id"`
		}
		if json.Unmarshal(pdu, &given) == nil {
			if id, err := matrix.ParseEventID(given.ID); err == nil {
				results.fail(id, why)
			}
		}
	}
}

// accept takes events that passed the first checks, and returns those that lack
// something, or whose forks are too tangled for us alone.
func (s *Server) accept(ctx context.Context, events []*matrix.Event, results pduResults) (lacking []*matrix.Event, err error) {
	waits := make(map[matrix.EventID]bool) // of those that are left out
	hopeless := func(ev *matrix.Event) bool {
		in := func(id matrix.EventID) bool { return waits[id] }
		return slices.ContainsFunc(ev.PrevEvents, in) || slices.ContainsFunc(ev.AuthEvents, in)
	}
	for len(events) > 0 {
		next := slices.IndexFunc(events, hopeless)
		if next < 0 {
			next = len(events)
		}
		verdicts, err := s.rooms.AcceptAll(ctx, events[:next])
		for i, verdict := range verdicts {
			if verdict == state.Rejected {
				results.fail(events[i].ID, errAgainRules)
			}
		}
		events = events[len(verdicts):]
		switch {
		case err != nil && !fetchable(err):
			return nil, err
		case err != nil, len(events) > 0:
			waits[events[0].ID] = true
			lacking = append(lacking, events[0])
			events = events[1:]
		}
	}
	return lacking, nil
}

// fetchable says whether an event failed for what another server may have.
func fetchable(err error) bool {
	_, missing := errors.AsType[*state.MissingError](err)
	return missing || errors.Is(err, state.ErrTangled)
}
