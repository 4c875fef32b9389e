package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of what one m.receipt may say.
const (
	maxReceiptBytes = 256 << 10
	maxReceipts     = 500 // the others are passed over
)

// remoteReceipt is a receipt as another server tells it.
type remoteReceipt struct {
	// Events are "the extremity event IDs that the user has read up to".
	Events []matrix.EventID `json:"event_ids"`
	Data   struct {
		TS     jsontext.Value `json:"ts"`
		Thread string         `json:"thread_id"`
	} `json:"data"`
}

// roomReceipts are the receipts of one room.
type roomReceipts struct {
	room     matrix.RoomID
	receipts []userReceipt
}

type userReceipt struct {
	user matrix.UserID
	store.Receipt
}

// ReceiveReceipts takes from another server how far users of it have read: m.receipt.
// The users must be in the rooms, and the rooms' server ACLs must let the server speak
// there; what is not so is passed over. Receipts of other types than m.read are nobody
// else's business, and not taken. All are stored in one write, and nothing is where none
// is good.
//
// Spec: SS Receipts; Server Access Control Lists.
func (s *Server) ReceiveReceipts(ctx context.Context, origin matrix.ServerName, content jsontext.Value) error {
	if len(content) > maxReceiptBytes {
		return fmt.Errorf("m.receipt of %d bytes: %w", len(content), remote.ErrBadEDU)
	}
	var rooms map[matrix.RoomID]map[string]jsontext.Value
	if err := json.Unmarshal(content, &rooms); err != nil {
		return fmt.Errorf("m.receipt: %w: %w", remote.ErrBadEDU, err)
	}
	var good []roomReceipts
	var refused error
	err := s.store.View(func(tx *store.Tx) (err error) {
		good, refused, err = s.readReceipts(tx, origin, rooms)
		return err
	})
	if err == nil && len(good) > 0 {
		err = s.store.Update(ctx, func(tx *store.Tx) error { return putReceipts(tx, good) })
	}
	if err != nil {
		return fmt.Errorf("m.receipt: %w", err)
	}
	return refused
}

// readReceipts returns the receipts that count, room by room, and why others do not.
func (s *Server) readReceipts(tx *store.Tx, origin matrix.ServerName, rooms map[matrix.RoomID]map[string]jsontext.Value) (good []roomReceipts, refused, err error) {
	left := maxReceipts
	for id, types := range rooms {
		if types[store.ReceiptRead] == nil {
			continue
		}
		if left--; left <= 0 { // a room that is none counts, too
			break
		}
		of := roomReceipts{room: id}
		of.receipts, err = s.readRoomReceipts(tx, origin, id, types[store.ReceiptRead], &left)
		switch {
		case errors.Is(err, remote.ErrBadEDU): // which does not concern the other rooms
			refused = fmt.Errorf("m.receipt in %s: %w", id, err)
		case err != nil:
			return nil, nil, fmt.Errorf("in %s: %w", id, err)
		case len(of.receipts) > 0:
			good = append(good, of)
		}
	}
	return good, refused, nil
}

// readRoomReceipts returns the receipts of a server's users in one room.
func (s *Server) readRoomReceipts(tx *store.Tx, origin matrix.ServerName, id matrix.RoomID, content jsontext.Value, left *int) (good []userReceipt, err error) {
	var users map[matrix.UserID]jsontext.Value
	if err := json.Unmarshal(content, &users); err != nil {
		return nil, fmt.Errorf("%w: %w", remote.ErrBadEDU, err)
	}
	room, err := speaksIn(tx, origin, id)
	if err != nil {
		return nil, err
	}
	for user, v := range users {
		if *left == 0 {
			break
		}
		*left--
		var said remoteReceipt
		if json.Unmarshal(v, &said) != nil {
			continue
		}
		switch err := s.speaksFor(tx, origin, room, user); {
		case errors.Is(err, remote.ErrBadEDU):
			continue
		case err != nil:
			return nil, err
		}
		if receipt, ok := said.read(tx, room, s.now().UnixMilli()); ok {
			good = append(good, userReceipt{user, receipt})
		}
	}
	return good, nil
}

// putReceipts stores what readReceipts has found.
func putReceipts(tx *store.Tx, rooms []roomReceipts) (err error) {
	for _, of := range rooms {
		room, _, err := state.Head(tx, of.room)
		if errors.Is(err, state.ErrUnknownRoom) {
			continue // it is gone since
		}
		if err != nil {
			return err
		}
		for _, r := range of.receipts {
			if r.Receipt.User, err = tx.PutUserNum(r.user); err != nil {
				return err
			}
			if _, err := tx.PutReceipt(room, r.Receipt); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxReadEvents bounds the events that one receipt may name.
const maxReadEvents = 20

// read makes a receipt of what another server says. Its event may be one that has not
// come yet; its thread must be one that is known, so that nobody fills the disk with
// threads that are none.
func (said remoteReceipt) read(tx *store.Tx, room store.RoomNum, now int64) (store.Receipt, bool) {
	event, num, ok := said.event(tx, room)
	if !ok {
		return store.Receipt{}, false
	}
	if thread := said.Data.Thread; thread != "" && thread != mainThread {
		if at, _, known := tx.EventByID(matrix.EventID(thread)); !known || at != room {
			return store.Receipt{}, false
		}
	}
	var ts int64
	if json.Unmarshal(said.Data.TS, &ts) != nil || ts < 0 || ts > now {
		ts = now
	}
	return store.Receipt{Type: store.ReceiptRead, Thread: said.Data.Thread, Event: event, Num: num, TS: ts}, true
}

// event returns which of the events counts: the newest that is in our timeline, else the
// last. num is 0 for one that is not in the timeline.
func (said remoteReceipt) event(tx *store.Tx, room store.RoomNum) (event matrix.EventID, num store.EventNum, ok bool) {
	for _, name := range said.Events[:min(len(said.Events), maxReadEvents)] {
		id, err := matrix.ParseEventID(string(name))
		if err != nil {
			continue
		}
		in, at, known := tx.EventByID(id)
		if known && in != room {
			continue
		}
		if at.Aside() {
			at = 0
		}
		if at >= num {
			event, num, ok = id, at, true
		}
	}
	return event, num, ok
}
