package state

import (
	"bytes"
	"context"

	"hearth/state/matrix"
	"hearth/store"
)

// Send adds an event that a local user drafted and returns its ID after it is
// on disk. A txn that has been used before returns the event it made; a state
// event that changes nothing returns the one that stands. What the auth rules
// refuse is an [auth.Error].
func (r *Rooms) Send(ctx context.Context, txn store.TxnID, draft matrix.Draft) (matrix.EventID, error) {
	var id matrix.EventID
	err := r.changeAsMember(ctx, draft.Room, func(rm *room) error {
		var err error
		id, err = rm.send(txn, draft)
		return err
	})
	return id, err
}

func (rm *room) send(txn store.TxnID, draft matrix.Draft) (matrix.EventID, error) {
	if known, ok, err := rm.repeated(txn); ok || err != nil {
		return known, err
	}
	if err := rm.checkDraft(draft); err != nil {
		return "", err
	}
	if draft.StateKey != nil {
		if known, ok, err := rm.unchanged(draft); ok || err != nil {
			return known, err
		}
	}
	ev, err := rm.add(draft, txn)
	if err != nil {
		return "", err
	}
	return ev.ID, nil
}

// repeated finds the event that a transaction has made already.
// Spec: CS Transaction identifiers.
func (rm *room) repeated(txn store.TxnID) (matrix.EventID, bool, error) {
	if txn.ID == "" {
		return "", false, nil
	}
	num, ok, err := rm.tx.TxnEvent(rm.num, txn)
	if !ok || err != nil {
		return "", false, err
	}
	id, err := rm.tx.EventID(rm.num, num)
	return id, err == nil, err
}

// unchanged finds the state event that a draft would only repeat.
func (rm *room) unchanged(draft matrix.Draft) (matrix.EventID, bool, error) {
	ev, err := rm.current(draft.Type, *draft.StateKey)
	if ev == nil || err != nil {
		return "", false, err
	}
	content, err := matrix.CanonicalFor(rm.head.Version, draft.Content)
	if err != nil {
		return "", false, err
	}
	was, err := matrix.CanonicalFor(rm.head.Version, ev.Content)
	if err != nil {
		return "", false, err
	}
	same := ev.Sender == draft.Sender && bytes.Equal(content, was)
	return ev.ID, same, nil
}

// checkDraft refuses what the auth rules would let pass but the Client-Server
// API does not.
func (rm *room) checkDraft(draft matrix.Draft) error {
	switch draft.Type {
	case "m.room.create":
		return refuse(ErrForbidden, "A room has one m.room.create event, which it began with")
	case "m.room.redaction":
		return refuse(ErrForbidden, "m.room.redaction is no state event") // and as a message it goes by Redact
	}
	if draft.Type == "m.room.member" && draft.StateKey != nil {
		return rm.checkMember(draft)
	}
	if err := rm.requireMember(draft.Sender); err != nil {
		return err
	}
	return rm.checkRelation(draft)
}

// checkMember holds an invite to what holds for invites by their own endpoint, and
// a join to the conditions of a restricted room, which the auth rules leave to the
// server that lets the user in. All else is theirs.
func (rm *room) checkMember(draft matrix.Draft) error {
	user, err := matrix.ParseUserID(*draft.StateKey)
	if err != nil {
		return refuse(ErrBadEvent, "The state key of m.room.member must be a user ID")
	}
	if user != draft.Sender {
		if err := rm.requireMember(draft.Sender); err != nil {
			return err
		}
	}
	ev := matrix.Event{Version: rm.head.Version, Type: draft.Type, Content: draft.Content}
	content, err := ev.Member()
	if err != nil {
		return refuse(ErrBadEvent, "The content of m.room.member cannot be read: %v", err)
	}
	switch content.Membership {
	case matrix.Invite:
		if err := rm.rooms.checkInvitee(user); err != nil {
			return err
		}
		return rm.checkBlocking(user)
	case matrix.Join:
		was, err := rm.membership(user)
		if err != nil || was == matrix.Join || was == matrix.Invite {
			return err
		}
		_, err = rm.vouch(user)
		return err
	}
	return nil
}

// checkRelation refuses a second equal reaction, and a thread on an event that
// is itself a relation. Spec: CS Event annotations, Threading.
func (rm *room) checkRelation(draft matrix.Draft) error {
	relation, ok := matrix.RelationOf(draft.Content)
	if !ok || draft.StateKey != nil {
		return nil
	}
	switch relation.Type {
	case "m.annotation":
		return rm.checkAnnotation(draft, relation)
	case "m.thread":
		return rm.checkThread(relation)
	}
	return nil
}

// maxAnnotations is how many reactions a user may give to one event. Each of them
// is read, within the write, when he gives the next.
const maxAnnotations = 100

func (rm *room) checkAnnotation(draft matrix.Draft, relation matrix.Relation) error {
	sender, given := rm.tx.UserNum(draft.Sender), 0
	return rm.tx.Relations(rm.num, relation.Event, 0, func(rel store.Relation) (bool, error) {
		if rel.Type != "m.annotation" || rel.Sender != sender {
			return true, nil
		}
		ev, err := rm.tx.Event(rm.num, rel.Child)
		if err != nil {
			return false, err
		}
		if ev.Type != draft.Type || ev.RedactedBy != 0 {
			return true, nil
		}
		if was, ok := ev.Relation(); ok && was.Key == relation.Key {
			return false, refuse(ErrDuplicateAnnotation, "You have given this reaction already")
		}
		if given++; given == maxAnnotations {
			return false, refuse(ErrForbidden, "You have given %d reactions to this event", given)
		}
		return true, nil
	})
}

func (rm *room) checkThread(relation matrix.Relation) error {
	room, num, ok := rm.tx.EventByID(relation.Event)
	if !ok || room != rm.num {
		return nil // the root may be on its way
	}
	root, err := rm.tx.Event(rm.num, num)
	if err != nil {
		return err
	}
	if _, related := root.Relation(); related {
		return refuse(ErrBadEvent, "A thread cannot begin at an event that relates to another")
	}
	return nil
}
