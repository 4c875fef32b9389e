package federation

import (
	"context"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// keep stores events of a room that is being joined. They are tried when it is here.
func (in *inbox) keep(ctx context.Context, room store.RoomNum, origin matrix.ServerName, events []*matrix.Event) error {
	if len(events) == 0 {
		return nil
	}
	_, err := in.put(ctx, room, origin, events)
	return err
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
