package push

import "errors"

// What a change of rules can meet.
var (
	// ErrUnknownRule: there is no rule of that kind and ID that may be changed so.
	ErrUnknownRule = errors.New("there is no such push rule")
	// ErrUnknownNeighbour: the user has no rule that the new one could stand beside.
	ErrUnknownNeighbour = errors.New("there is no such rule of yours to stand before or after")
	// ErrTooMany: the user has as many rules as he may have, or they are too large.
	ErrTooMany = errors.New("there are too many push rules")
	// ErrBadRule is wrapped where a rule is not of the form that its kind has.
	ErrBadRule = errors.New("that is no push rule")
)
