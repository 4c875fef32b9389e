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

// syncReceipts returns the m.receipt contents of a room behind a position, none
// where there is nothing new, and whether the user's unread counts may be others than
// they were: he has read on, or has new rules about what notifies him. Private receipts
// are their owner's alone.
//
// Spec: CS Receipts.
func (s *Server) syncReceipts(tx *store.Tx, who session, ignored ignoredUsers, room store.RoomNum, since store.Position) (contents []jsontext.Value, recount bool, err error) {
	var found []receiptContent
	recount = rulesPosition(tx, who) > since
	err = tx.ReceiptsSince(room, since, func(r store.Receipt) (bool, error) {
		user := tx.UserID(r.User)
		recount = recount || r.User == who.num
		if r.Type == store.ReceiptPrivate && r.User != who.num || ignored.has(user) {
			return true, nil
		}
		for _, content := range found {
			if content.add(user, r) {
				return true, nil
			}
		}
		content := receiptContent{}
		content.add(user, r)
		found = append(found, content)
		return true, nil
	})
	for _, content := range found {
		text, err := encodeJSON(content)
		if err != nil {
			return nil, false, err
		}
		contents = append(contents, text)
	}
	return contents, recount, err
}

// add puts a receipt into the content. It reports false where the user has one of
// that type at that event already, for another thread: the form has no place for
// both.
func (c receiptContent) add(user matrix.UserID, r store.Receipt) bool {
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
	if _, both := users[user]; both {
		return false
	}
	users[user] = receiptEntry{TS: r.TS, Thread: r.Thread}
	return true
}
