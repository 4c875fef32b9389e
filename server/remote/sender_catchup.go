package remote

import (
	"errors"
	"slices"

	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of looking for what a destination has to get.
const (
	maxFind      = 4000  // entries of the stream looked at in one turn
	maxRoomFind  = 1000  // events of a room looked at for the newest one
	maxCatchUp   = 20000 // such events in all rooms
	maxLateNotes = 1000  // receipts and device lists
)

// find reads on in the stream for what a destination has to get and memory does not
// know. A server that was there gets everything, however long that takes. To one that
// was away for long, and has more to get than is kept for it, goes the newest event
// of each room; it asks for what was before as it needs it.
func (s *Sender) find(tx *store.Tx, p *plan) error {
	if p.newest <= p.known || !p.absent && len(p.pending) >= maxPending/2 {
		return nil
	}
	p.found = true
	if p.absent {
		p.pending, p.known = nil, p.cursor
	}
	looked := 0
	err := tx.Changes(p.known, func(c store.Change) (bool, error) {
		if looked++; c.Position > p.upto || looked > maxFind || len(p.pending) == maxPending {
			return false, nil
		}
		p.known = c.Position
		return true, s.findChange(tx, p, c)
	})
	if err != nil {
		return err
	}
	switch {
	case looked <= maxFind && len(p.pending) < maxPending:
		p.known = p.upto
	case p.absent:
		return s.catchUp(tx, p)
	}
	return nil
}

func (s *Sender) findChange(tx *store.Tx, p *plan, c store.Change) error {
	a, err := s.audience(tx, c)
	if err != nil || a.nobody() {
		return err
	}
	is, err := a.has(tx, p.server)
	if is {
		p.pending = append(p.pending, c.Position)
	}
	return err
}

// catchUp makes what a destination has to get the newest event of each room, also of those
// that it was in meanwhile and has left, the departures of its users, and the newest
// receipts and device lists of ours.
//
// Spec: SS Transactions: a server that was away is sent what lets it find the rest.
func (s *Sender) catchUp(tx *store.Tx, p *plan) error {
	p.pending, p.known = nil, p.upto
	var rooms []store.RoomNum
	add := func(room store.RoomNum) (bool, error) {
		rooms = append(rooms, room)
		return true, nil
	}
	if err := errors.Join(tx.ServerRooms(p.server, add), tx.RoomsLeft(p.server, p.cursor, add)); err != nil {
		return err
	}
	slices.Sort(rooms)
	rooms = slices.Compact(rooms)
	events, notes := maxCatchUp, maxLateNotes
	for _, room := range rooms {
		if err := s.newestEvent(tx, p, room, &events); err != nil {
			return err
		}
		if err := s.lateReceipts(tx, p, room, &notes); err != nil {
			return err
		}
	}
	err := tx.DeviceListChanges(p.cursor, func(user store.UserNum) (bool, error) {
		list, err := tx.DeviceList(user)
		if err != nil {
			return false, err
		}
		notes--
		return notes > 0, errors.Join(s.addPlace(tx, p, list.Device), s.addPlace(tx, p, list.CrossSigning))
	})
	for _, pos := range p.departures {
		if pos > p.cursor {
			p.pending = append(p.pending, pos)
		}
	}
	slices.Sort(p.pending)
	p.pending = slices.Compact(p.pending)
	return err
}

// newestEvent adds the newest event of a room that the destination has to get. One of
// another server that we hand on may stand on less than our own newest: then both.
func (s *Sender) newestEvent(tx *store.Tx, p *plan, room store.RoomNum, left *int) error {
	head, err := tx.Head(room)
	if errors.Is(err, store.ErrNotFound) {
		return nil // being purged
	}
	if err != nil {
		return err
	}
	newest := head.Latest
	if !tx.ServerInRoom(room, p.server) {
		left, err := tx.LeftAt(room, p.server)
		if err != nil {
			return err
		}
		newest, _ = tx.TimelineBefore(room, left)
	}
	looked := 0
	scanErr := tx.TimelineNumsBack(room, newest+2, func(num store.EventNum) bool {
		looked++
		*left--
		if num.Position() <= p.cursor || looked > maxRoomFind || *left < 0 {
			return false
		}
		before := len(p.pending)
		c, ok, readErr := tx.ChangeAt(num.Position())
		if err = readErr; err == nil && ok && c.Position <= p.upto {
			err = s.findChange(tx, p, c)
		}
		return err == nil && (len(p.pending) == before || c.Relay)
	})
	return errors.Join(err, scanErr)
}

// lateReceipts adds the receipts of the local users in a room.
func (s *Sender) lateReceipts(tx *store.Tx, p *plan, room store.RoomNum, left *int) error {
	return tx.LocalMembers(room, func(user store.UserNum, m matrix.Membership) (bool, error) {
		if m != matrix.Join {
			return true, nil
		}
		err := tx.UserReceipts(room, user, func(r store.Receipt) (bool, error) {
			if r.Type != store.ReceiptRead || r.Position <= p.cursor {
				return true, nil
			}
			*left--
			return *left > 0, s.addPlace(tx, p, r.Position)
		})
		return *left > 0, err
	})
}

// addPlace adds a place of the stream if it is for the destination.
func (s *Sender) addPlace(tx *store.Tx, p *plan, pos store.Position) error {
	if pos <= p.cursor || pos > p.upto {
		return nil
	}
	c, ok, err := tx.ChangeAt(pos)
	if !ok || err != nil {
		return err
	}
	return s.findChange(tx, p, c)
}
