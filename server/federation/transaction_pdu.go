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

// errArriving is why events are not taken yet: the room is on its way here. They wait in
// the inbox until the join ends.
var errArriving = errors.New("the room is being joined")

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
	var num store.RoomNum
	var v *matrix.Version
	var refused error
	err = s.store.View(func(tx *store.Tx) (err error) {
		num = tx.RoomNum(room)
		v, refused, err = mayReceive(tx, num, from)
		return err
	})
	if err != nil {
		return nil, err
	}
	if errors.Is(refused, errNotInRoom) {
		if err := s.revokeInvites(ctx, room, pdus); err != nil {
			return nil, err
		}
	}
	arriving := errors.Is(refused, errArriving)
	if refused != nil && !arriving {
		s.refuse(v, pdus, refused, results)
		return nil, nil
	}
	events, unsure := s.checkPDUs(ctx, v, from, room, pdus, results)
	if arriving {
		return nil, s.inbox.keep(ctx, num, from, store.InboxNews, append(pdusOf(events), unsure...))
	}
	end, err := s.turns.work(ctx)
	if err != nil {
		return nil, err
	}
	lacking, err := s.accept(ctx, events, results)
	end()
	waiting := append(pdusOf(lacking), unsure...)
	if err != nil || len(waiting) == 0 {
		return nil, err
	}
	return s.inbox.put(ctx, num, from, store.InboxNews, waiting)
}

// pdusOf returns events as they are on the wire.
func pdusOf(events []*matrix.Event) []jsontext.Value {
	pdus := make([]jsontext.Value, len(events))
	for i, ev := range events {
		pdus[i] = ev.JSON()
	}
	return pdus
}

// checkPDUs returns the PDUs of a room that pass the first checks, and those that may
// pass once the keys that they are signed with can be had.
func (s *Server) checkPDUs(ctx context.Context, v *matrix.Version, from matrix.ServerName, room matrix.RoomID, pdus []jsontext.Value, results pduResults) (events []*matrix.Event, unsure []jsontext.Value) {
	checked, errs := s.check(ctx, v, pdus)
	for i, ev := range checked {
		bad, _ := errors.AsType[*remote.PDUError](errs[i])
		switch {
		case errors.Is(errs[i], remote.ErrUnreachable) && bad != nil && s.inbox.queue.spare(from, len(unsure)+1):
			results[bad.Event] = pduResult{}
			unsure = append(unsure, pdus[i])
		case errs[i] != nil:
			s.log.Debug("event is dropped", "origin", from, "room", room, "err", errs[i])
			if bad != nil && bad.Event != "" {
				results.fail(bad.Event, bad.Err)
			}
		case ev.Room == room:
			results[ev.ID] = pduResult{}
			events = append(events, ev)
		}
	}
	return events, unsure
}

// mayReceive says whether events of a room are taken from a server, and else why not.
// The version is nil where it is not known.
func mayReceive(tx *store.Tx, room store.RoomNum, from matrix.ServerName) (v *matrix.Version, refused, err error) {
	if v, err = inRoom(tx, room); err != nil {
		return nil, nil, err
	}
	if v == nil {
		return arriving(tx, room)
	}
	allowed, err := state.ServerAllowed(tx, room, from)
	if err == nil && !allowed {
		refused = errACL
	}
	return v, refused, err
}

// inRoom returns the version of a room that this server is in. It is nil where there
// is no such room.
func inRoom(tx *store.Tx, room store.RoomNum) (*matrix.Version, error) {
	resident, err := state.Resident(tx, room)
	if err != nil || !resident {
		return nil, err
	}
	head, err := tx.Head(room)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return head.Version, err
}

// arriving returns the version of a room that this server is not in, if it is known,
// and why events of it are not taken: a user is about to join it, or none is.
func arriving(tx *store.Tx, room store.RoomNum) (v *matrix.Version, refused, err error) {
	join, err := tx.Join(room)
	if err == nil {
		return join.Version, errArriving, nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return nil, nil, err
	}
	head, err := tx.Head(room)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, nil, err
	}
	return head.Version, errNotInRoom, nil
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
// something, be it a policy server's signature, whose forks are too tangled for us
// alone, or that are doubted.
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
		verdicts, err := s.rooms.AcceptUndoubted(ctx, events[:next])
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
	return missing || errors.Is(err, state.ErrTangled) || errors.Is(err, state.ErrDoubted) || errors.Is(err, state.ErrUnsigned)
}
