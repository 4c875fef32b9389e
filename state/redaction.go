package state

import (
	"context"
	"fmt"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// redact applies a redaction that has just been added, or keeps it for when
// its target comes.
func (rm *room) redact(redaction *matrix.Event, num store.EventNum) error {
	room, target, ok := rm.tx.EventByID(redaction.Redacts)
	if !ok {
		return rm.tx.PutPendingRedaction(rm.num, redaction.Redacts, num)
	}
	if room != rm.num {
		return nil // an event of another room is nobody's to redact from here
	}
	ev, err := rm.tx.Event(rm.num, target)
	if err != nil {
		return err
	}
	return rm.applyRedaction(ev.Event, target, redaction, num)
}

// redactLate applies the redaction that came before its target, if one did.
func (rm *room) redactLate(target *matrix.Event, num store.EventNum) error {
	by, ok, err := rm.tx.PendingRedaction(rm.num, target.ID)
	if !ok || err != nil {
		return err
	}
	if err := rm.tx.DeletePendingRedaction(rm.num, target.ID); err != nil {
		return err
	}
	redaction, err := rm.tx.Event(rm.num, by)
	if err != nil {
		return err
	}
	return rm.applyRedaction(target, num, redaction.Event, by)
}

// applyRedaction redacts target if the redaction is valid, see
// [auth.MayRedact]; a relation that target stated is then none any more.
func (rm *room) applyRedaction(target *matrix.Event, num store.EventNum, redaction *matrix.Event, by store.EventNum) error {
	allowed, err := auth.MayRedact(redaction, target, rm.auth)
	if err != nil || !allowed {
		return err
	}
	if err := rm.tx.Redact(rm.num, num, by); err != nil {
		return fmt.Errorf("redact %s: %w", target.ID, err)
	}
	relation, ok := target.Relation()
	if !ok {
		return nil
	}
	return rm.tx.DeleteRelation(rm.num, relation.Event, num)
}

// mayRedact says whether a user has the power to redact what others sent.
func (rm *room) mayRedact(user matrix.UserID) (bool, error) {
	create, levels, err := rm.powers()
	if err != nil {
		return false, err
	}
	return levels.holds(create, user, levels.Redact), nil
}

// Redact sends a redaction of an event by user. A user may redact what he
// sent himself, and with the room's redact level what others sent; otherwise
// it is ErrForbidden. content may hold a reason; txn names the request.
func (r *Rooms) Redact(ctx context.Context, id matrix.RoomID, user matrix.UserID, target matrix.EventID, content []byte, txn store.TxnID) (matrix.EventID, error) {
	return r.produceAsMember(ctx, id, func(rm *room) (matrix.EventID, error) {
		if known, ok, err := rm.repeated(txn); ok || err != nil {
			return known, err
		}
		if err := rm.checkRedaction(user, target); err != nil {
			return "", err
		}
		ev, err := rm.add(matrix.Draft{Sender: user, Type: "m.room.redaction", Content: content, Redacts: target}, txn)
		if err != nil {
			return "", err
		}
		return ev.ID, nil
	})
}

// checkRedaction refuses what the server's own users may not redact, beyond
// the auth rules, which let any redaction pass from version 3 on.
func (rm *room) checkRedaction(user matrix.UserID, target matrix.EventID) error {
	may, err := rm.mayRedact(user)
	if may || err != nil {
		return err
	}
	room, num, ok := rm.tx.EventByID(target)
	if !ok || room != rm.num {
		return refuse(ErrUnknownEvent, "There is no event %s in this room", target)
	}
	ev, err := rm.tx.Event(rm.num, num)
	if err != nil {
		return err
	}
	if ev.Sender != user {
		return refuse(ErrForbidden, "You need the power to redact in order to remove what others sent")
	}
	return nil
}
