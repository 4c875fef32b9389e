package client

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
)

// remoteError returns what a user is told when another server was asked and the
// asking failed. A refusal that concerns the user keeps its code; any other fault of
// the other server is 502 M_UNKNOWN, and one that gave no answer in time 504. Errors
// that no other server had a part in are returned as they are.
func remoteError(err error) error {
	var answer *remote.Error
	switch {
	case errors.As(err, &answer) && errors.Is(err, state.ErrPolicyAnswer) && speaksOfEvent(answer):
		return verbatim(answer)
	case errors.As(err, &answer):
		return refusedRemotely(answer)
	case errors.Is(err, remote.ErrNoServer):
		return api.ErrNotFound.Because("This server does not know the room, nor a server that is in it")
	case errors.Is(err, remote.ErrTooManyJoins):
		return api.TryAfter(joinPause)
	case errors.Is(err, state.ErrBadProposal), errors.Is(err, state.ErrGivenState), errors.Is(err, matrix.ErrBadSignature):
		return api.ErrUnknown.WithStatus(http.StatusBadGateway).Because("The other server gives an answer that is none")
	case errors.Is(err, remote.ErrBackingOff):
		return api.ErrUnknown.WithStatus(http.StatusBadGateway).Because("The other server could not be reached lately: %v", err)
	case errors.Is(err, remote.ErrUnreachable) && errors.Is(err, context.DeadlineExceeded):
		return api.ErrUnknown.WithStatus(http.StatusGatewayTimeout).Because("The other server does not answer in time: %v", err)
	case errors.Is(err, remote.ErrUnreachable):
		return api.ErrUnknown.WithStatus(http.StatusBadGateway).Because("The other server cannot be reached: %v", err)
	}
	return err
}

// joinPause is when a user may try again who was one too many.
const joinPause = 30 * time.Second

// passedOn are the codes of another server's refusal that are meant for the user.
var passedOn = []*api.Error{
	api.ErrForbidden, api.ErrNotFound, api.ErrBadAlias, api.ErrInviteBlocked,
	api.ErrIncompatibleRoomVersion, api.ErrUnsupportedRoomVersion,
	api.ErrUnableToAuthoriseJoin, api.ErrUnableToGrantJoin,
}

// maxRemoteText bounds what of another server's sentence a user is shown, in bytes.
const maxRemoteText = 500

// Bounds of an answer that is passed on as it is.
const (
	maxVerbatimFields = 8
	maxVerbatimBytes  = 4 << 10
)

// speaksOfEvent says whether a policy server's answer can be meant for who has sent the
// event: it is no fault of that server, and nothing about the sender's session with us,
// which a client would end by it.
func speaksOfEvent(answer *remote.Error) bool {
	switch answer.Status {
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusMethodNotAllowed:
		return false
	}
	return answer.Status/100 == 4 && len(answer.Answer) <= maxVerbatimBytes &&
		strings.HasPrefix(answer.Code, "M_") && answer.Code != api.ErrUnrecognized.Code &&
		!strings.Contains(answer.Code, "TOKEN") && !strings.HasPrefix(answer.Code, "M_USER_")
}

// verbatim is a policy server's answer as the client gets it.
func verbatim(answer *remote.Error) error {
	e := &api.Error{Status: answer.Status, Code: answer.Code, Text: answer.Text}
	var fields map[string]jsontext.Value
	if err := json.Unmarshal(answer.Answer, &fields); err != nil {
		return e
	}
	names := slices.Sorted(maps.Keys(fields))
	for _, name := range names[:min(len(names), maxVerbatimFields)] {
		if name != "errcode" && name != "error" {
			e = e.With(name, fields[name])
		}
	}
	return e
}

// refusedRemotely is the answer for a user whose request another server refused.
func refusedRemotely(answer *remote.Error) error {
	text := answer.Text
	if len(text) > maxRemoteText {
		text = text[:maxRemoteText]
	}
	for _, kind := range passedOn {
		if kind.Code == answer.Code {
			return kind.Because("%s says: %s", answer.Server, text)
		}
	}
	return api.ErrUnknown.WithStatus(http.StatusBadGateway).Because(
		"%s answered with status %d: %s", answer.Server, answer.Status, text)
}
