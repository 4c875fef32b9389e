package remote

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"hearth/store"
)

const (
	// saveEvery is how often it is looked whether cursors are worth a write.
	saveEvery = time.Second
	// saveLag and saveAge are how far and how long the stored position may lie behind:
	// each write costs the disk, and a crash has no more than that sent twice.
	saveLag = 500
	saveAge = 30 * time.Second
	// maxSaved bounds the records of one write.
	maxSaved = 1000
	// maxDeleted bounds what one write deletes of an outbox.
	maxDeleted = 1000
)

// runSave stores how far servers have come, until ctx ends.
func (s *Sender) runSave(ctx context.Context) error {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if !s.worthSaving() {
				continue
			}
			if err := s.save(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("store what other servers have got", "err", err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Sender) worthSaving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.arrived || s.position-s.saved > saveLag ||
		(s.caughtUp || s.position > s.saved) && s.now().Sub(s.savedAt) >= saveAge
}

// A cursorChange is what a write has to do for one destination.
type cursorChange struct {
	behind  store.Behind
	record  bool           // store behind
	remove  bool           // or delete the record
	arrived store.Position // delete what waited in the outbox up to here; 0: nothing did
}

// save stores the position up to which the stream was read, and who is behind it.
// The records of who is behind come first: a crash in between leaves more of them
// than there need be, never fewer. It forgets destinations that have got everything.
func (s *Sender) save(ctx context.Context) error {
	position, behind, others := s.changes()
	for len(behind)+len(others) > maxSaved && len(behind) > 0 {
		some := make(map[store.ServerNum]cursorChange)
		for server, c := range behind {
			if some[server] = c; len(some) == maxSaved {
				break
			}
		}
		if err := s.write(ctx, 0, some); err != nil {
			return err
		}
		for server := range some {
			delete(behind, server)
		}
	}
	maps.Copy(others, behind)
	return s.write(ctx, position, others)
}

// changes returns what there is to store: of those who are behind, and of others.
func (s *Sender) changes() (position store.Position, behind, others map[store.ServerNum]cursorChange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrived, s.caughtUp = false, false
	behind, others = make(map[store.ServerNum]cursorChange), make(map[store.ServerNum]cursorChange)
	for server, d := range s.destinations {
		var c cursorChange
		if d.outboxGone {
			c.arrived = d.outboxSent
		}
		if d.behind() {
			c.behind = store.Behind{Cursor: d.cursor, Departures: slices.Clone(d.departures)}
			c.record = !d.recorded || d.savedCursor != d.cursor || d.savedDepartures != len(d.departures)
		} else {
			c.remove = d.recorded
		}
		switch {
		case c.record:
			behind[server] = c
		case c.remove || c.arrived != 0:
			others[server] = c
		case !d.recorded && !d.busy() && !d.queued && !d.running && d.retry == nil:
			delete(s.destinations, server)
		}
	}
	return s.position, behind, others
}

// write stores changes, and a position unless it is 0.
func (s *Sender) write(ctx context.Context, position store.Position, changes map[store.ServerNum]cursorChange) error {
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		for server, c := range changes {
			if err := c.write(tx, server); err != nil {
				return err
			}
		}
		if position == 0 {
			return nil
		}
		return tx.PutSentPosition(position)
	})
	if err != nil {
		return fmt.Errorf("cursors of %d servers: %w", len(changes), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for server, c := range changes {
		s.noteSaved(server, c)
	}
	if position != 0 {
		s.saved, s.savedAt = position, s.now()
	}
	return nil
}

func (c cursorChange) write(tx *store.Tx, server store.ServerNum) error {
	if c.arrived != 0 {
		for n := maxDeleted; n == maxDeleted; {
			var err error
			if n, err = tx.DeleteOutbox(server, c.arrived, maxDeleted); err != nil {
				return err
			}
		}
	}
	switch {
	case c.record:
		return tx.PutBehind(server, c.behind)
	case c.remove:
		return tx.DeleteBehind(server)
	}
	return nil
}

// noteSaved notes what a destination's record says now. s.mu is held.
func (s *Sender) noteSaved(server store.ServerNum, c cursorChange) {
	d := s.destinations[server]
	if d == nil {
		return
	}
	if c.record {
		d.recorded, d.savedCursor, d.savedDepartures = true, c.behind.Cursor, len(c.behind.Departures)
	}
	if c.remove {
		d.recorded = false
	}
	if c.arrived != 0 && d.outboxSent == c.arrived {
		d.outboxGone = false
	}
}
