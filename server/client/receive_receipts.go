package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/remote"
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
	Events []matrix.EventID `json:"event_ids"` // one
	Data   struct {
		TS     jsontext.Value `json:"ts"`
		Thread string         `json:"thread_id"`
	} `json:"data"`
}

// ReceiveReceipts takes from another server how far users of it have read: m.receipt.
// The users must be in the rooms, and the rooms' server ACLs must let the server speak
// there; what is not so is passed over. Receipts of other types than m.read are nobody
// else's business, and not taken.
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
	var refused error
	left := maxReceipts
	for id, types := range rooms {
		var users map[matrix.UserID]jsontext.Value
		if types[store.ReceiptRead] == nil || left == 0 {
			continue
		}
		err := json.Unmarshal(types[store.ReceiptRead], &users)
		if err != nil {
			err = fmt.Errorf("%w: %w", remote.ErrBadEDU, err)
		} else {
			err = s.store.Update(ctx, func(tx *store.Tx) error { return s.putRemoteReceipts(tx, origin, id, users, &left) })
		}
		switch {
		case errors.Is(err, remote.ErrBadEDU): // which does not concern the other rooms
			refused = fmt.Errorf("m.receipt in %s: %w", id, err)
		case err != nil:
			return fmt.Errorf("m.receipt in %s: %w", id, err)
		}
	}
	return refused
}

// putRemoteReceipts stores receipts of a server's users in one room.
func (s *Server) putRemoteReceipts(tx *store.Tx, origin matrix.ServerName, id matrix.RoomID, users map[matrix.UserID]jsontext.Value, left *int) error {
	room, err := speaksIn(tx, origin, id)
	if err != nil {
		return err
	}
	for user, v := range users {
		if *left == 0 {
			return nil
		}
		*left--
		var said remoteReceipt
		if json.Unmarshal(v, &said) != nil || len(said.Events) != 1 {
			continue
		}
		switch err := s.speaksFor(tx, origin, room, user); {
		case errors.Is(err, remote.ErrBadEDU):
			continue
		case err != nil:
			return err
		}
		receipt, ok := said.read(tx, room, s.now().UnixMilli())
		if !ok {
			continue
		}
		if receipt.User, err = tx.PutUserNum(user); err != nil {
			return err
		}
		if _, err := tx.PutReceipt(room, receipt); err != nil {
			return err
		}
	}
	return nil
}

// read makes a receipt of what another server says. Its event may be one that has not
// come yet; its thread must be one that is known, so that nobody fills the disk with
// threads that are none.
func (said remoteReceipt) read(tx *store.Tx, room store.RoomNum, now int64) (store.Receipt, bool) {
	event, err := matrix.ParseEventID(string(said.Events[0]))
	if err != nil {
		return store.Receipt{}, false
	}
	in, num, known := tx.EventByID(event)
	if known && in != room {
		return store.Receipt{}, false
	}
	if num.Aside() {
		num = 0
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
