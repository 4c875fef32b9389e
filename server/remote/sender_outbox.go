package remote

import (
	"context"
	"fmt"
	"time"

	"hearth/store"
)

// What waits in an outbox is not given up while its server may come back: messages to
// devices carry keys that nobody sends again. But servers go for good, and some answer
// for ever that they know nothing of Matrix; those would fill the disk.
const (
	// maxSilence is after which time without any answer a server counts as gone, and
	// all that waits for it is dropped. Matrix has no other sign of that. Devices that
	// come back later are told of our device lists, and ask for keys again.
	maxSilence = 60 * 24 * time.Hour
	// maxOutbox bounds the bytes that wait for one server, whatever it answers. Of more
	// the oldest are dropped until keptOutbox are left: they open what is oldest.
	maxOutbox  = 8 << 20
	keptOutbox = 6 << 20
	// sweepOutboxes is how often that is looked after.
	sweepOutboxes = time.Hour
)

// runOutbox drops, until ctx ends, what waits for servers in vain.
func (s *Sender) runOutbox(ctx context.Context) error {
	tick := time.NewTicker(sweepOutboxes)
	defer tick.Stop()
	for {
		if err := s.sweepOutbox(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("drop what waits for other servers in vain", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sweepOutbox looks at the outbox of each server once.
func (s *Sender) sweepOutbox(ctx context.Context) error {
	for server := store.ServerNum(0); ; {
		var size int
		var upto store.Position
		err := s.store.View(func(tx *store.Tx) (err error) {
			if server, size, err = tx.NextOutbox(server); server == 0 || err != nil {
				return err
			}
			name := tx.ServerName(server)
			if since := s.silence(name); !since.IsZero() && s.now().Sub(since) > maxSilence {
				upto = tx.Position()
				s.log.Warn("a server counts as gone, what waits for it is dropped", "dest", name, "bytes", size, "since", since)
			} else if size > maxOutbox {
				upto, err = tx.OutboxTail(server, keptOutbox)
				s.log.Warn("too much waits for a server, the oldest is dropped", "dest", name, "bytes", size)
			}
			return err
		})
		if server == 0 || err != nil {
			return err
		}
		if err := s.dropOutbox(ctx, server, upto); err != nil {
			return err
		}
	}
}

// dropOutbox deletes what waits for a server up to a position, some in each write.
func (s *Sender) dropOutbox(ctx context.Context, server store.ServerNum, upto store.Position) error {
	for n := maxDeleted; upto > 0 && n == maxDeleted; {
		err := s.store.Reclaim(ctx, 0, func(tx *store.Tx) (err error) {
			n, err = tx.DeleteOutbox(server, upto, maxDeleted)
			return err
		})
		if err != nil {
			return fmt.Errorf("outbox of server %d: %w", server, err)
		}
	}
	return nil
}
