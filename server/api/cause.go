package api

import (
	"context"
	"errors"
	"net/http"
	"syscall"

	"hearth/state"
	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// AsError returns the Error that err is, wraps or stands for. This is the one
// place where an error of a lower package becomes an M_ code; what it does not
// know is a fault of ours, 500 M_UNKNOWN, and its text stays in the log.
func AsError(err error) *Error {
	var own *Error
	var refused *auth.Error
	var large *http.MaxBytesError
	for _, kind := range refusals {
		if errors.Is(err, kind.err) {
			return kind.because(err)
		}
	}
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &large):
		return tooLarge(large.Limit)
	case errors.As(err, &refused) && refused.Reason.Malformed():
		return ErrBadJSON.Because("%s", refused.Text)
	case errors.As(err, &refused):
		return ErrForbidden.Because("%s", refused.Text)
	case errors.Is(err, matrix.ErrBadID):
		return ErrInvalidParam.Because("%v", matrix.ErrBadID)
	case errors.Is(err, matrix.ErrNotJSON):
		return ErrNotJSON
	case errors.Is(err, matrix.ErrBadJSON):
		return ErrBadJSON
	case errors.Is(err, matrix.ErrTooLarge):
		return ErrTooLarge
	case errors.Is(err, store.ErrNotFound):
		return ErrNotFound
	case errors.Is(err, store.ErrExists):
		return ErrUnknown.WithStatus(http.StatusConflict).Because("There is such a thing already")
	case errors.Is(err, store.ErrFull), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return ErrResourceLimit.Because("The server's disk is full").With("admin_contact", "the owner of this server")
	case errors.Is(err, store.ErrClosed), errors.Is(err, context.Canceled):
		return ErrUnknown.WithStatus(http.StatusServiceUnavailable).Because("The server is stopping")
	case errors.Is(err, context.DeadlineExceeded):
		return ErrUnknown.WithStatus(http.StatusGatewayTimeout).Because("That took too long")
	default:
		return ErrUnknown
	}
}

// refusals are the kinds of state.Refusal; its text is made for the user.
var refusals = []refusal{
	{state.ErrForbidden, ErrForbidden},
	{state.ErrUnknownRoom, ErrNotFound},
	{state.ErrUnknownEvent, ErrNotFound},
	{state.ErrBadEvent, ErrBadJSON},
	{state.ErrBadState, ErrBadState},
	{state.ErrUnsupportedVersion, ErrUnsupportedRoomVersion},
	{state.ErrInvalidRoomState, ErrInvalidRoomState},
	{state.ErrDuplicateAnnotation, ErrDuplicateAnnotation},
	{state.ErrBadThread, ErrUnknown.WithStatus(http.StatusBadRequest)}, // CS Threading: no code of its own
	{state.ErrAliasInUse, ErrRoomInUse},
	{state.ErrUnknownAlias, ErrNotFound},
	{state.ErrBadAlias, ErrBadAlias},
	{state.ErrStale, ErrInvalidParam},
	{state.ErrInviteBlocked, ErrInviteBlocked},
	{state.ErrUnableToGrantJoin, ErrUnableToGrantJoin},
	{state.ErrUnableToAuthoriseJoin, ErrUnableToAuthoriseJoin},
	{state.ErrUnknownUser, ErrNotFound},
	{state.ErrPolicy, ErrForbidden},
	{state.ErrBadStripped, ErrInvalidParam},
	{state.ErrNotInvite, ErrInvalidParam},
}

type refusal struct {
	err error
	as  *Error
}

// because returns the kind's Error with the text that err has for the user.
func (k refusal) because(err error) *Error {
	var r *state.Refusal
	if errors.As(err, &r) {
		return k.as.Because("%s", r.Text)
	}
	return k.as
}

// expected reports whether an error of the 500s is no fault of the server: what
// waits for somebody else has its status in the specification.
func (e *Error) expected() bool {
	switch e.Code {
	case ErrNotYetUploaded.Code, ErrBadStatus.Code, ErrConnectionFailed.Code, ErrConnectionTimeout.Code:
		return true
	}
	switch e.Status {
	case http.StatusServiceUnavailable, http.StatusBadGateway: // of another server, and told as that
		return true
	}
	return false
}
