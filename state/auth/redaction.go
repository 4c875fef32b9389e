package auth

import (
	"hearth/state/matrix"
)

// redaction applies the last rule of versions 1 and 2.
func (c *check) redaction() error {
	l, err := c.levels(c.ev.Sender)
	if err != nil {
		return err
	}
	// v1-2 11.1: "If the `sender`'s power level is greater than or equal to the
	// *redact level*, allow."
	mine := l.user(c.ev.Sender)
	if mine >= l.Redact {
		return nil
	}
	// v1-2 11.2: "If the domain of the `event_id` of the event being redacted is the
	// same as the domain of the `event_id` of the `m.room.redaction`, allow."
	own, _ := c.ev.ID.Server()
	if target, has := c.ev.Redacts.Server(); has && target == own {
		return nil
	}
	// RedactionLevel. v1-2 11.3: "Otherwise, reject."
	return c.refuse(RedactionLevel, "You need power level %d to redact events from other servers, yours is %d",
		l.Redact, mine)
}

// MayRedact reports whether an accepted redaction is to be applied to target, in a
// room whose state before the redaction is state. From version 3 on this is no
// authorization rule: a redaction that may not redact its target is accepted and
// has no effect. Specification: rooms, v3.md, "Handling redactions".
func MayRedact(redaction, target *matrix.Event, state State) (bool, error) {
	if target.Room != redaction.Room || target.ID != redaction.Redacts {
		return false, nil
	}
	// "The domain of the redaction event's `sender` matches that of the original
	// event's `sender`." Versions 1 and 2 have asked their rule 11 already.
	if redaction.Version.RedactionsAuthorized || redaction.Sender.Server() == target.Sender.Server() {
		return true, nil
	}
	c := check{ev: redaction, v: redaction.Version, state: state}
	if err := c.room(); err != nil {
		return false, err
	}
	l, err := c.levels(redaction.Sender)
	if err != nil {
		return false, err
	}
	// "The power level of the redaction event's `sender` is greater than or equal to
	// the *redact level*."
	return l.user(redaction.Sender) >= l.Redact, nil
}
