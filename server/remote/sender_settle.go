package remote

import (
	"context"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

const (
	settleLimit = 5 * time.Second
	settlePause = 50 * time.Millisecond
)

// Settle waits until a server has got what was for it when Settle was called, but not
// for long. Whoever asks the server for something that follows from what was sent to it,
// as a user does who comes back to a room that he has just left, calls it before.
func (s *Sender) Settle(ctx context.Context, server matrix.ServerName) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	upto := s.store.Position()
	s.Wake(server)
	for !s.settled(server, upto) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(settlePause):
		}
	}
}

// settled says whether nothing up to a position is left for a server.
func (s *Sender) settled(server matrix.ServerName, upto store.Position) bool {
	var num store.ServerNum
	err := s.store.View(func(tx *store.Tx) error {
		num = tx.ServerNum(server)
		return nil
	})
	if err != nil || num == 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.destinations[num]
	return s.position >= upto && (d == nil || !d.behind())
}
