package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of what is fetched of a room's history while a user waits.
const (
	maxFillTime   = 15 * time.Second
	maxFills      = 5   // gaps that one request fills, or tries to
	maxFillAsked  = 4   // servers that are asked for one gap
	fillLimit     = 100 // events that one of them is asked for
	maxFillBytes  = 8 << 20
	fillForget    = 10 * time.Minute // after which a gap that nobody could fill is tried again
	fillAgain     = 10 * time.Second // the same, where one of them did not answer
	maxFillFailed = 1 << 10
)

// fills is the gaps in the past of rooms that are being filled, or could not be.
type fills struct {
	past   *pastSource // nil: nobody is asked
	flight singleflight.Group

	mu     sync.Mutex                   // guards failed
	failed map[matrix.EventID]time.Time // when to try again
}

// mayTry says whether it is worth a request to fill the gap before an event.
func (f *fills) mayTry(at matrix.EventID, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !now.Before(f.failed[at])
}

// fail notes that the gap before an event could not be filled, and when to try again.
func (f *fills) fail(at matrix.EventID, again time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == nil || len(f.failed) >= maxFillFailed {
		f.failed = make(map[matrix.EventID]time.Time)
	}
	f.failed[at] = again
}

// A pastSource is how other servers are asked for the past of rooms; see the methods of
// [remote.Network].
type pastSource struct {
	backfill func(ctx context.Context, v *matrix.Version, dest matrix.ServerName, room matrix.RoomID, at matrix.EventID, limit int, take func(*matrix.Event) error) error
	byTime   func(ctx context.Context, dest matrix.ServerName, room matrix.RoomID, ts int64, back bool) (matrix.EventID, int64, error)
	source   func(v *matrix.Version, servers ...matrix.ServerName) state.Source
}

// pastOf returns how a network is asked, nil where there is none.
func pastOf(n *remote.Network) *pastSource {
	if n == nil {
		return nil
	}
	return &pastSource{n.Backfill, n.EventByTimestamp, n.Source}
}

// gap returns the gap before an event that is worth filling, nil for none.
func (s *Server) gap(tx *store.Tx, ev *store.StoredEvent) (*store.StoredEvent, error) {
	if s.fills.past == nil {
		return nil, nil
	}
	gap, err := state.HasGap(tx, ev)
	if err != nil || !gap || !s.fills.mayTry(ev.ID, s.now()) {
		return nil, err
	}
	return ev, nil
}

// fillGaps calls read, which reads of a room's past, until it comes by no gap that may
// still be filled, or too many or for too long. Gaps that nobody can fill are
// read over. Several who come to the same gap wait for one request.
func (s *Server) fillGaps(ctx context.Context, read func() (gap *store.StoredEvent, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, maxFillTime)
	defer cancel()
	for try := 0; ; try++ {
		gap, err := read()
		if gap == nil || err != nil || try == maxFills || ctx.Err() != nil {
			return err
		}
		done := s.fills.flight.DoChan(string(gap.ID), func() (any, error) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxFillTime)
			defer cancel()
			s.fill(ctx, gap)
			return nil, nil
		})
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
}

// fill asks servers of the room for what came before an event, one after the other,
// until one of them has given some of it.
//
// Spec: SS Backfilling and retrieving missing events.
func (s *Server) fill(ctx context.Context, gap *store.StoredEvent) {
	again := fillForget
	servers, err := s.residents(gap)
	for i, dest := range servers {
		if err != nil || ctx.Err() != nil {
			break
		}
		var taken int
		// This one first: it is the one that has the events.
		order := slices.Insert(slices.Delete(slices.Clone(servers), i, i+1), 0, dest)
		if taken, err = s.backfillFrom(ctx, dest, gap, order); taken > 0 {
			return
		}
		if err != nil {
			s.log.Debug("no history of a room", "room", gap.Room, "event", gap.ID, "origin", dest, "err", err)
			if errors.Is(err, remote.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) {
				again = fillAgain
			}
			err = nil // another server may do better
		}
	}
	if err != nil {
		s.log.Warn("no history of a room", "room", gap.Room, "event", gap.ID, "err", err)
	}
	s.fills.fail(gap.ID, s.now().Add(again))
}

// backfillFrom asks one server for what came before an event, and says how many events
// that brought.
func (s *Server) backfillFrom(ctx context.Context, dest matrix.ServerName, gap *store.StoredEvent, servers []matrix.ServerName) (taken int, err error) {
	var events []*matrix.Event
	bytes := 0
	err = s.fills.past.backfill(ctx, gap.Version, dest, gap.Room, gap.ID, fillLimit, func(ev *matrix.Event) error {
		events = append(events, ev)
		if bytes += len(ev.JSON()); len(events) > fillLimit || bytes > maxFillBytes {
			return fmt.Errorf("more than was asked for: %w", remote.ErrUnreachable)
		}
		return nil
	})
	if len(events) == 0 {
		return 0, err
	}
	return s.rooms.Backfill(ctx, gap.ID, events, s.fills.past.source(gap.Version, servers...))
}

// residents returns servers of an event's room that may know what came before it:
// that of its sender, that of who made the room, and those with the most users.
func (s *Server) residents(ev *store.StoredEvent) (servers []matrix.ServerName, err error) {
	err = s.store.View(func(tx *store.Tx) error {
		servers, err = s.rooms.Residents(tx, ev.Room, maxFillAsked, ev.Sender.Server())
		return err
	})
	return servers, err
}
