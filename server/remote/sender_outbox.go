package remote

import (
	"context"
	"fmt"
	"slices"
	"time"

	"hearth/store"
)

// What waits in an outbox is not given up: messages to devices carry keys that nobody
// sends again, and a server may come back after years. But servers go for good, and some
// answer for ever that they know nothing of Matrix; what is kept for all of them together
// must not fill the disk.
const (
	// maxOutboxes bounds the bytes that wait for all servers. Of more the oldest are
	// dropped where most wait, until keptOutboxes are left: what waits for one server
	// never costs another one its share.
	maxOutboxes  = 256 << 20
	keptOutboxes = 224 << 20
	// sweepOutboxes is how often that is looked after, which reads all that waits; and
	// sweepAfter, after how many new EDUs of up to some 64 KiB it is in any case.
	sweepOutboxes = 6 * time.Hour
	sweepAfter    = 512
)

// runOutbox drops, until ctx ends, what waits for servers where it is too much.
func (s *Sender) runOutbox(ctx context.Context) error {
	tick := time.NewTicker(sweepOutboxes)
	defer tick.Stop()
	for {
		if err := s.sweepOutbox(ctx, maxOutboxes, keptOutboxes); err != nil && ctx.Err() == nil {
			s.log.Error("drop what waits for other servers in vain", "err", err)
		}
		select {
		case <-tick.C:
		case <-s.crowded:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// notePut notes a new EDU in an outbox, and has the outboxes swept after many. s.mu is
// held.
func (s *Sender) notePut() {
	if s.puts++; s.puts < sweepAfter {
		return
	}
	s.puts = 0
	select {
	case s.crowded <- struct{}{}:
	default:
	}
}

// outboxLoad is how many bytes wait for a server.
type outboxLoad struct {
	server store.ServerNum
	bytes  int
}

// sweepOutbox drops of what waits for all servers, if that is more than most bytes, so
// much that no more than kept are left.
func (s *Sender) sweepOutbox(ctx context.Context, most, kept int) error {
	loads, sum, err := s.outboxes()
	if err != nil || sum <= most {
		return err
	}
	share, dropped := fairShare(loads, kept), 0
	for _, load := range loads {
		if load.bytes > share {
			n, err := s.dropOutbox(ctx, load.server, share)
			if err != nil {
				return err
			}
			dropped += n
		}
	}
	s.log.Warn("too much waited for other servers, the oldest is dropped", "bytes", sum, "edus", dropped, "share", share)
	return nil
}

// fairShare returns how many bytes each server may have so that all have sum at most,
// where some have less. It sorts the loads.
func fairShare(loads []outboxLoad, sum int) (share int) {
	slices.SortFunc(loads, func(a, b outboxLoad) int { return a.bytes - b.bytes })
	for i, load := range loads {
		if share = sum / (len(loads) - i); load.bytes > share {
			return share
		}
		sum -= load.bytes
	}
	return share
}

// outboxes returns what waits for each server, and the sum of it.
func (s *Sender) outboxes() (loads []outboxLoad, sum int, err error) {
	for load := (outboxLoad{}); ; {
		err := s.store.View(func(tx *store.Tx) (err error) {
			load.server, load.bytes, err = tx.NextOutbox(load.server)
			return err
		})
		if load.server == 0 || err != nil {
			return loads, sum, err
		}
		loads = append(loads, load)
		sum += load.bytes
	}
}

// dropOutbox deletes the oldest of what waits for a server until no more than left bytes
// do, some in each write. It returns how many EDUs those were.
func (s *Sender) dropOutbox(ctx context.Context, server store.ServerNum, left int) (dropped int, err error) {
	var upto store.Position
	err = s.store.View(func(tx *store.Tx) (err error) {
		upto, err = tx.OutboxTail(server, left)
		return err
	})
	for n := maxDeleted; err == nil && upto > 0 && n == maxDeleted; dropped += n {
		err = s.store.Reclaim(ctx, 0, func(tx *store.Tx) (err error) {
			n, err = tx.DeleteOutbox(server, upto, maxDeleted)
			return err
		})
	}
	if err != nil {
		return dropped, fmt.Errorf("outbox of server %d: %w", server, err)
	}
	return dropped, nil
}
