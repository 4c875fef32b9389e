package client

import (
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// receiptContent is the content of m.receipt: by event, receipt type and user.
type receiptContent map[matrix.EventID]map[string]map[matrix.UserID]receiptEntry

// receiptEntry is one receipt. One without a thread is for the whole room.
type receiptEntry struct {
	TS     int64  `json:"ts"`
	Thread string `json:"thread_id,omitzero"`
}

// syncReceipts returns the m.receipt content of a room behind a position, nil
// where there is nothing new. Private receipts are their owner's alone.
//
// Spec: CS Receipts.
func (s *Server) syncReceipts(tx *store.Tx, who session, room store.RoomNum, since store.Position) (jsontext.Value, error) {
	content := receiptContent{}
	err := tx.ReceiptsSince(room, since, func(r store.Receipt) (bool, error) {
		if r.Type == store.ReceiptPrivate && r.User != who.num {
			return true, nil
		}
		content.add(tx.UserID(r.User), r)
		return true, nil
	})
	if err != nil || len(content) == 0 {
		return nil, err
	}
	return encodeJSON(content)
}

func (c receiptContent) add(user matrix.UserID, r store.Receipt) {
	types := c[r.Event]
	if types == nil {
		types = make(map[string]map[matrix.UserID]receiptEntry)
		c[r.Event] = types
	}
	users := types[r.Type]
	if users == nil {
		users = make(map[matrix.UserID]receiptEntry)
		types[r.Type] = users
	}
	// An unthreaded receipt and one in a thread may stand at the same event:
	// the one for the whole room says more.
	if old, both := users[user]; both && old.Thread == "" {
		return
	}
	users[user] = receiptEntry{TS: r.TS, Thread: r.Thread}
}
