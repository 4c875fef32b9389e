package state

import (
	"errors"
	"fmt"
)

// Kinds of refusal: why a request about a room was not carried out.
var (
	// ErrForbidden: the user may not do that here, beyond what the auth rules say.
	ErrForbidden = errors.New("forbidden")
	// ErrUnknownRoom: this server is not in the room, and nobody told where it is.
	ErrUnknownRoom = errors.New("unknown room")
	// ErrUnknownEvent: there is no such event, or none that the user may see.
	ErrUnknownEvent = errors.New("unknown event")
	// ErrBadEvent: what the client sent cannot become an event.
	ErrBadEvent = errors.New("bad event")
	// ErrBadState: the room's or the user's state does not allow the change.
	ErrBadState = errors.New("bad state")
	// ErrUnsupportedVersion: there is no such room version here.
	ErrUnsupportedVersion = errors.New("unsupported room version")
	// ErrInvalidRoomState: a room cannot begin with what was asked for.
	ErrInvalidRoomState = errors.New("invalid room state")
	// ErrDuplicateAnnotation: the user has given that reaction already.
	ErrDuplicateAnnotation = errors.New("duplicate annotation")
	// ErrBadThread: a thread cannot begin there.
	ErrBadThread = errors.New("bad thread")
	// ErrAliasInUse: the alias leads to a room already.
	ErrAliasInUse = errors.New("alias in use")
	// ErrUnknownAlias: the alias leads nowhere.
	ErrUnknownAlias = errors.New("unknown alias")
	// ErrBadAlias: the alias does not lead to the room that names it.
	ErrBadAlias = errors.New("bad alias")
	// ErrStale: a token of pages leads to where nothing is any more.
	ErrStale = errors.New("stale token")
	// ErrUnknownUser: there is no such user here.
	ErrUnknownUser = errors.New("unknown user")
	// ErrInviteBlocked: the user wants no invites.
	ErrInviteBlocked = errors.New("invite blocked")
	// ErrUnableToGrantJoin: the room is restricted and no user here may let people in.
	ErrUnableToGrantJoin = errors.New("unable to grant join")
	// ErrUnableToAuthoriseJoin: the room is restricted and nothing is known here of
	// the rooms whose members may join.
	ErrUnableToAuthoriseJoin = errors.New("unable to authorise join")
)

// A Refusal is an error of one of the kinds above (for errors.Is) with a
// sentence that may be shown to the user.
type Refusal struct {
	Kind error
	Text string
}

// Error returns the sentence.
func (r *Refusal) Error() string { return r.Text }

// Unwrap returns the kind.
func (r *Refusal) Unwrap() error { return r.Kind }

func refuse(kind error, format string, args ...any) error {
	return &Refusal{Kind: kind, Text: fmt.Sprintf(format, args...)}
}
