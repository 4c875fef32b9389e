package state

import (
	"bytes"
	"context"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// Send adds an event that a local user drafted and returns its ID after it is
// on disk. A txn that has been used before returns the event it made; a state
// event that changes nothing returns the one that stands. What the auth rules
// refuse is an [auth.Error].
func (r *Rooms) Send(ctx context.Context, txn store.TxnID, draft matrix.Draft) (matrix.EventID, error) {
	elsewhere, err := r.askAliases(ctx, draft)
	if err != nil {
		return "", err
	}
	return r.produceAsMember(ctx, draft.Room, func(rm *room) (matrix.EventID, error) {
		rm.elsewhere = elsewhere
		return rm.send(txn, draft)
	})
}

func (rm *room) send(txn store.TxnID, draft matrix.Draft) (matrix.EventID, error) {
	if known, ok, err := rm.repeated(txn); ok || err != nil {
		return known, err
	}
	if draft.Type == "m.room.member" && draft.StateKey != nil {
		content, err := rm.authorise(draft)
		if err != nil {
			return "", err
		}
		draft.Content = content
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
		return refuse(ErrBadEvent, "A room has one m.room.create event, which it began with")
	case "m.room.redaction":
		return refuse(ErrForbidden, "m.room.redaction is no state event") // and as a message it goes by Redact
	}
	if draft.Type == "m.room.member" && draft.StateKey != nil {
		return rm.checkMember(draft)
	}
	if err := rm.requireMember(draft.Sender); err != nil {
		return err
	}
	if err := rm.checkCanonicalAlias(draft); err != nil {
		return err
	}
	return rm.checkRelation(draft)
}

// authorise returns the content of a member event with who lets a user into a
// restricted room, as by [Rooms.Join]. That is the server's to say: what a client
// wrote there is dropped.
func (rm *room) authorise(draft matrix.Draft) (jsontext.Value, error) {
	const authoriser = "join_authorised_via_users_server"
	var content map[string]jsontext.Value
	if err := json.Unmarshal(draft.Content, &content); err != nil {
		return nil, refuse(ErrBadEvent, "The content of m.room.member cannot be read: %v", err)
	}
	delete(content, authoriser)
	var to matrix.Membership
	if json.Unmarshal(content["membership"], &to) != nil || to != matrix.Join || *draft.StateKey != string(draft.Sender) {
		return encode(content), nil
	}
	was, err := rm.membership(draft.Sender)
	if err != nil || was == matrix.Join || was == matrix.Invite {
		return encode(content), err
	}
	via, err := rm.vouch(draft.Sender)
	if via != "" {
		content[authoriser] = quote(string(via))
	}
	return encode(content), err
}

// checkMember holds an invite to what holds for invites by their own endpoint. All
// else is the auth rules'.
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
	if content.Membership != matrix.Invite {
		return nil
	}
	return rm.checkInvitee(user)
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
	return rm.tx.Relations(rm.num, relation.Event, store.Place{}, func(rel store.Relation) (bool, error) {
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
		return refuse(ErrBadThread, "A thread cannot begin at an event that relates to another")
	}
	return nil
}
