package federation

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// keep stores events of a room that is being joined. They are tried when it is here.
func (in *inbox) keep(ctx context.Context, room store.RoomNum, origin matrix.ServerName, part store.InboxPart, pdus []jsontext.Value) error {
	if len(pdus) == 0 {
		return nil
	}
	_, err := in.put(ctx, room, origin, part, pdus)
	return err
}

// unkept returns those of some events that do not wait for their keys already.
func (in *inbox) unkept(room store.RoomNum, events []*matrix.Event) (pdus []jsontext.Value, err error) {
	fresh := make(map[string]bool, len(events))
	for _, ev := range events {
		fresh[string(ev.JSON())] = true
	}
	err = in.store.View(func(tx *store.Tx) error {
		return tx.Inbox(room, 0, func(e store.InboxEvent) (bool, error) {
			delete(fresh, string(e.PDU))
			return len(fresh) > 0, nil
		})
	})
	for _, ev := range events {
		if fresh[string(ev.JSON())] {
			pdus = append(pdus, ev.JSON())
		}
	}
	return pdus, err
}

// leftOutStep is how many events are kept at a time, in one write.
const leftOutStep = 64

// LeftOut keeps events that a server gave in answer to a join, and that could not be
// checked for now, be they used or not. state says whether they are part of the room's
// state, or only cited by what is. Where too many events wait, only the first so many are
// kept, and no more must be used: the join is worth more.
func (s *Server) LeftOut(ctx context.Context, room store.RoomNum, from matrix.ServerName, pdus []jsontext.Value, state bool) (kept int, err error) {
	part := store.InboxCited
	if state {
		part = store.InboxState
	}
	for some := range slices.Chunk(pdus, leftOutStep) {
		err := s.inbox.keep(ctx, room, from, part, some)
		if errors.Is(err, errBusy) {
			s.log.Warn("events of a join are left out, as too many wait", "origin", from, "events", len(pdus)-kept)
			return kept, nil
		}
		if err != nil {
			return kept, err
		}
		kept += len(some)
	}
	return kept, nil
}

// Joined has the events tried that came for a room while it was being joined. It does
// not block.
func (s *Server) Joined(room matrix.RoomID) {
	err := s.store.View(func(tx *store.Tx) error {
		s.inbox.queue.arrived(tx.RoomNum(room))
		return nil
	})
	if err != nil {
		s.log.Error("events of a joined room wait for their next turn", "room", room, "err", err)
	}
}

// arrived has a room tried at once, also where a try in vain has just begun.
func (q *inboxQueue) arrived(room store.RoomNum) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if r := q.rooms[room]; r != nil {
		r.due, r.failures, r.fresh = time.Time{}, 0, true
		q.tell()
	}
}
