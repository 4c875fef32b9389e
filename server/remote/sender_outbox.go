package remote

import (
	"cmp"
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
	// dropped until keptOutboxes are left, first those for who has been silent longest.
	maxOutboxes  = 256 << 20
	keptOutboxes = 224 << 20
	// sweepOutboxes is how often that is looked after; it reads all that waits.
	sweepOutboxes = 6 * time.Hour
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
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// outboxLoad is how many bytes wait for a server.
type outboxLoad struct {
	server store.ServerNum
	bytes  int
	since  time.Time // when it fell silent; zero: it answers
}

// silence is how long the server has not answered.
func (l outboxLoad) silence(now time.Time) time.Duration {
	if l.since.IsZero() {
		return 0
	}
	return now.Sub(l.since)
}

// sweepOutbox drops of what waits for all servers, if that is more than most bytes, so
// much that no more than kept are left.
func (s *Sender) sweepOutbox(ctx context.Context, most, kept int) error {
	loads, sum, err := s.outboxes()
	if err != nil || sum <= most {
		return err
	}
	now := s.now()
	slices.SortFunc(loads, func(a, b outboxLoad) int {
		return cmp.Or(cmp.Compare(b.silence(now), a.silence(now)), cmp.Compare(b.bytes, a.bytes))
	})
	for _, load := range loads {
		if sum <= kept {
			return nil
		}
		left := max(load.bytes-(sum-kept), 0)
		sum -= load.bytes - left
		if err := s.dropOutbox(ctx, load, left); err != nil {
			return err
		}
	}
	return nil
}

// outboxes returns what waits for each server, and the sum of it.
func (s *Sender) outboxes() (loads []outboxLoad, sum int, err error) {
	for server := store.ServerNum(0); ; {
		err := s.store.View(func(tx *store.Tx) (err error) {
			load := outboxLoad{}
			if server, load.bytes, err = tx.NextOutbox(server); server == 0 || err != nil {
				return err
			}
			load.server, load.since = server, s.silence(tx.ServerName(server))
			loads = append(loads, load)
			sum += load.bytes
			return nil
		})
		if server == 0 || err != nil {
			return loads, sum, err
		}
	}
}

// dropOutbox deletes the oldest of what waits for a server until no more than left bytes
// do, some in each write.
func (s *Sender) dropOutbox(ctx context.Context, load outboxLoad, left int) error {
	var upto store.Position
	err := s.store.View(func(tx *store.Tx) (err error) {
		upto, err = tx.OutboxTail(load.server, left)
		s.log.Warn("too much waits for other servers, the oldest is dropped", "dest", tx.ServerName(load.server),
			"bytes", load.bytes-left, "left", left, "silent_since", load.since)
		return err
	})
	for n := maxDeleted; err == nil && upto > 0 && n == maxDeleted; {
		err = s.store.Reclaim(ctx, 0, func(tx *store.Tx) (err error) {
			n, err = tx.DeleteOutbox(load.server, upto, maxDeleted)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("outbox of server %d: %w", load.server, err)
	}
	return nil
}
