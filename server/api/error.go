package api

import (
	"fmt"
	"net/http"
	"time"
)

// Error is a standard error response: it becomes an HTTP status and a JSON
// object with "errcode" and "error". The values below are the codes of the
// specification; a handler returns one of them as it is or, better, one that
// says more: ErrForbidden.Because("only the owner may do that").
//
// Two errors of one code are equal for errors.Is, whatever their text. An Error
// is immutable: Because, WithStatus and With return changed copies.
//
// Spec: CS Standard error response.
type Error struct {
	Status int    // HTTP status
	Code   string // "M_FORBIDDEN"
	Text   string // a sentence for people

	fields     []field       // further keys of the response object
	retryAfter time.Duration // more than 0: sent as Retry-After, too
}

// field is one further key of an error response, such as soft_logout.
type field struct {
	name  string
	value any
}

// Error returns the code and the text.
func (e *Error) Error() string { return e.Code + ": " + e.Text }

// Is reports whether target is an Error with the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Because returns a copy of e with a text of its own, formatted as Sprintf does.
// The text reaches strangers: it must hold no secret and no path.
func (e *Error) Because(format string, args ...any) *Error {
	c := *e
	c.Text = format
	if len(args) > 0 {
		c.Text = fmt.Sprintf(format, args...)
	}
	return &c
}

// WithStatus returns a copy of e with another HTTP status, for the endpoints
// that give a code another status than is usual.
func (e *Error) WithStatus(status int) *Error {
	c := *e
	c.Status = status
	return &c
}

// With returns a copy of e with one more key in its response object, such as
// "room_version" of M_INCOMPATIBLE_ROOM_VERSION. The value is anything that the
// json package writes.
func (e *Error) With(name string, value any) *Error {
	c := *e
	c.fields = append(c.fields[:len(c.fields):len(c.fields)], field{name, value})
	return &c
}

// SoftLogout returns a copy of e with soft_logout: true, which tells a client to
// keep its keys and log in again with the same device.
//
// Spec: CS Soft logout.
func (e *Error) SoftLogout() *Error { return e.With("soft_logout", true) }

// TryAfter returns M_LIMIT_EXCEEDED with the time after which a client may try
// again, as the header Retry-After and, for old clients, as retry_after_ms.
//
// Spec: CS Rate limiting.
func TryAfter(wait time.Duration) *Error {
	wait = max(wait, time.Millisecond)
	e := ErrLimitExceeded.With("retry_after_ms", wait.Milliseconds())
	e.retryAfter = wait
	return e
}

// InvalidParam returns M_INVALID_PARAM for the named parameter; err says what is
// wrong with it.
func InvalidParam(name string, err error) *Error {
	return ErrInvalidParam.Because("%s: %v", name, err)
}

// MissingParam returns M_MISSING_PARAM for the named parameter.
func MissingParam(name string) *Error {
	return ErrMissingParam.Because("%s is missing", name)
}

// Every code of the specification, with the status it usually has and a text for
// the case that nobody has a better one. Codes that any endpoint may return.
//
// Spec: CS Standard error response, Common error codes.
var (
	ErrBadJSON       = &Error{Status: http.StatusBadRequest, Code: "M_BAD_JSON", Text: "The JSON does not have the form that is expected here"}
	ErrForbidden     = &Error{Status: http.StatusForbidden, Code: "M_FORBIDDEN", Text: "You may not do that"}
	ErrLimitExceeded = &Error{Status: http.StatusTooManyRequests, Code: "M_LIMIT_EXCEEDED", Text: "Too many requests: wait a while and try again"}
	ErrMissingToken  = &Error{Status: http.StatusUnauthorized, Code: "M_MISSING_TOKEN", Text: "This needs an access token"}
	ErrNotFound      = &Error{Status: http.StatusNotFound, Code: "M_NOT_FOUND", Text: "There is no such thing"}
	ErrNotJSON       = &Error{Status: http.StatusBadRequest, Code: "M_NOT_JSON", Text: "The body is not valid JSON"}
	ErrResourceLimit = &Error{Status: http.StatusForbidden, Code: "M_RESOURCE_LIMIT_EXCEEDED", Text: "The server has reached a limit of its resources"}
	ErrUnknown       = &Error{Status: http.StatusInternalServerError, Code: "M_UNKNOWN", Text: "Something went wrong in the server"}
	ErrUnknownDevice = &Error{Status: http.StatusBadRequest, Code: "M_UNKNOWN_DEVICE", Text: "That device is not the user's"}
	ErrUnknownToken  = &Error{Status: http.StatusUnauthorized, Code: "M_UNKNOWN_TOKEN", Text: "This access token is not known"}
	ErrUnrecognized  = &Error{Status: http.StatusNotFound, Code: "M_UNRECOGNIZED", Text: "There is no such endpoint"}
	ErrUserLimit     = &Error{Status: http.StatusForbidden, Code: "M_USER_LIMIT_EXCEEDED", Text: "You have reached a limit of your account"}
	ErrUserLocked    = &Error{Status: http.StatusUnauthorized, Code: "M_USER_LOCKED", Text: "This account is locked"}
	ErrUserSuspended = &Error{Status: http.StatusForbidden, Code: "M_USER_SUSPENDED", Text: "This account is suspended"}
)

// Codes that some endpoints of the Client-Server API return.
//
// Spec: CS Standard error response, Other error codes, and the endpoints.
var (
	ErrBadAlias                    = &Error{Status: http.StatusBadRequest, Code: "M_BAD_ALIAS", Text: "The alias does not point to this room"}
	ErrBadState                    = &Error{Status: http.StatusForbidden, Code: "M_BAD_STATE", Text: "The room's state does not allow this change"}
	ErrCannotLeaveServerNoticeRoom = &Error{Status: http.StatusForbidden, Code: "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", Text: "This room of server notices cannot be left"}
	ErrCannotOverwriteMedia        = &Error{Status: http.StatusConflict, Code: "M_CANNOT_OVERWRITE_MEDIA", Text: "There is a file under this media ID already"}
	ErrCaptchaInvalid              = &Error{Status: http.StatusUnauthorized, Code: "M_CAPTCHA_INVALID", Text: "The captcha was not solved"}
	ErrCaptchaNeeded               = &Error{Status: http.StatusUnauthorized, Code: "M_CAPTCHA_NEEDED", Text: "This needs a captcha"}
	ErrDuplicateAnnotation         = &Error{Status: http.StatusBadRequest, Code: "M_DUPLICATE_ANNOTATION", Text: "You have given this reaction already"}
	ErrExclusive                   = &Error{Status: http.StatusBadRequest, Code: "M_EXCLUSIVE", Text: "That name is reserved for an application service"}
	ErrGuestAccessForbidden        = &Error{Status: http.StatusForbidden, Code: "M_GUEST_ACCESS_FORBIDDEN", Text: "Guests may not do that"}
	ErrIncompatibleRoomVersion     = &Error{Status: http.StatusBadRequest, Code: "M_INCOMPATIBLE_ROOM_VERSION", Text: "The room's version is not supported"}
	ErrInvalidParam                = &Error{Status: http.StatusBadRequest, Code: "M_INVALID_PARAM", Text: "A parameter has a wrong value"}
	ErrInvalidRoomState            = &Error{Status: http.StatusBadRequest, Code: "M_INVALID_ROOM_STATE", Text: "The room cannot begin with this state"}
	ErrInvalidUsername             = &Error{Status: http.StatusBadRequest, Code: "M_INVALID_USERNAME", Text: "That is no valid user name"}
	ErrInviteBlocked               = &Error{Status: http.StatusForbidden, Code: "M_INVITE_BLOCKED", Text: "The user does not accept invites"}
	ErrKeyTooLarge                 = &Error{Status: http.StatusBadRequest, Code: "M_KEY_TOO_LARGE", Text: "The name of the field is too long"}
	ErrMissingParam                = &Error{Status: http.StatusBadRequest, Code: "M_MISSING_PARAM", Text: "A parameter is missing"}
	ErrNotYetUploaded              = &Error{Status: http.StatusGatewayTimeout, Code: "M_NOT_YET_UPLOADED", Text: "The file has not been uploaded yet"}
	ErrProfileTooLarge             = &Error{Status: http.StatusBadRequest, Code: "M_PROFILE_TOO_LARGE", Text: "The profile would be too large"}
	ErrRoomInUse                   = &Error{Status: http.StatusBadRequest, Code: "M_ROOM_IN_USE", Text: "That room alias is taken"}
	ErrServerNotTrusted            = &Error{Status: http.StatusBadRequest, Code: "M_SERVER_NOT_TRUSTED", Text: "That server is not trusted here"}
	ErrTooLarge                    = &Error{Status: http.StatusRequestEntityTooLarge, Code: "M_TOO_LARGE", Text: "That is too large"}
	ErrUnauthorized                = &Error{Status: http.StatusUnauthorized, Code: "M_UNAUTHORIZED", Text: "The request is not authorised"}
	ErrUnsupportedRoomVersion      = &Error{Status: http.StatusBadRequest, Code: "M_UNSUPPORTED_ROOM_VERSION", Text: "This server does not support that room version"}
	ErrUserDeactivated             = &Error{Status: http.StatusForbidden, Code: "M_USER_DEACTIVATED", Text: "This account has been deactivated"}
	ErrUserInUse                   = &Error{Status: http.StatusBadRequest, Code: "M_USER_IN_USE", Text: "That user name is taken"}
	ErrWeakPassword                = &Error{Status: http.StatusBadRequest, Code: "M_WEAK_PASSWORD", Text: "The password is too weak"}
	ErrWrongRoomKeysVersion        = &Error{Status: http.StatusForbidden, Code: "M_WRONG_ROOM_KEYS_VERSION", Text: "That is not the newest key backup"}
)

// Codes about e-mail addresses, telephone numbers and identity servers.
//
// Spec: CS Adding Account Administrative Contact Information.
var (
	ErrSessionExpired             = &Error{Status: http.StatusBadRequest, Code: "M_SESSION_EXPIRED", Text: "The session has expired"}
	ErrSessionNotValidated        = &Error{Status: http.StatusBadRequest, Code: "M_SESSION_NOT_VALIDATED", Text: "The session has not been validated"}
	ErrTermsNotSigned             = &Error{Status: http.StatusForbidden, Code: "M_TERMS_NOT_SIGNED", Text: "The terms have not been accepted"}
	ErrThreePIDAuthFailed         = &Error{Status: http.StatusUnauthorized, Code: "M_THREEPID_AUTH_FAILED", Text: "The address could not be authenticated"}
	ErrThreePIDDenied             = &Error{Status: http.StatusForbidden, Code: "M_THREEPID_DENIED", Text: "This address is not allowed here"}
	ErrThreePIDInUse              = &Error{Status: http.StatusBadRequest, Code: "M_THREEPID_IN_USE", Text: "This address is in use already"}
	ErrThreePIDMediumNotSupported = &Error{Status: http.StatusBadRequest, Code: "M_THREEPID_MEDIUM_NOT_SUPPORTED", Text: "This server keeps no addresses of that kind"}
	ErrThreePIDNotFound           = &Error{Status: http.StatusBadRequest, Code: "M_THREEPID_NOT_FOUND", Text: "This address is not known"}
)

// Codes of the Server-Server and Application Service APIs.
//
// Spec: SS Joining Rooms, SS Inviting to a room, AS Pinging, CS Appservice Login.
var (
	ErrAppserviceLoginUnsupported = &Error{Status: http.StatusBadRequest, Code: "M_APPSERVICE_LOGIN_UNSUPPORTED", Text: "Application services cannot log in this way here"}
	ErrBadStatus                  = &Error{Status: http.StatusBadGateway, Code: "M_BAD_STATUS", Text: "The application service gave an error"}
	ErrConnectionFailed           = &Error{Status: http.StatusBadGateway, Code: "M_CONNECTION_FAILED", Text: "The application service cannot be reached"}
	ErrConnectionTimeout          = &Error{Status: http.StatusGatewayTimeout, Code: "M_CONNECTION_TIMEOUT", Text: "The application service did not answer in time"}
	ErrInvalidSignature           = &Error{Status: http.StatusBadRequest, Code: "M_INVALID_SIGNATURE", Text: "A signature is not valid"}
	ErrUnableToAuthoriseJoin      = &Error{Status: http.StatusBadRequest, Code: "M_UNABLE_TO_AUTHORISE_JOIN", Text: "This server cannot check the room's conditions"}
	ErrUnableToGrantJoin          = &Error{Status: http.StatusBadRequest, Code: "M_UNABLE_TO_GRANT_JOIN", Text: "No user of this server may grant the join"}
	ErrURLNotSet                  = &Error{Status: http.StatusBadRequest, Code: "M_URL_NOT_SET", Text: "The application service has no URL"}
)
