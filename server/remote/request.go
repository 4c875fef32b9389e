package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"hearth/state/matrix"
)

// Request is a request to another server.
type Request struct {
	Method string
	// Path is escaped, with the query: "/_matrix/federation/v1/version".
	Path string
	// Body is sent as JSON. If nil, none is sent.
	Body any
	// MaxBytes bounds the answer. If zero, 1 MiB.
	MaxBytes int64
	// Timeout is how long all of it may take; for a stream, until the answer
	// begins. If zero, 30 seconds.
	Timeout time.Duration
	// Insist tries a server although it is backing off: a user waits.
	Insist bool
}

// Error is an answer of another server that says that something is wrong.
type Error struct {
	Server matrix.ServerName
	Status int    // HTTP status
	Code   string // "M_FORBIDDEN"; "" where the answer has none
	Text   string // what the other server says, for people
}

// Error names the server and what it answered.
func (e *Error) Error() string {
	return fmt.Sprintf("%s answers %d %s: %s", e.Server, e.Status, e.Code, e.Text)
}

// Why a request has no answer at all.
var (
	// ErrUnreachable is wrapped where a server did not answer, or with what is no
	// answer of a Matrix server.
	ErrUnreachable = errors.New("the server cannot be reached")
	// ErrBackingOff is wrapped where a server was not tried, as it did not answer
	// a while ago. Such an error wraps ErrUnreachable, too.
	ErrBackingOff = fmt.Errorf("not tried, as it did not answer before: %w", ErrUnreachable)
)

// Do makes a signed request and decodes the JSON of the answer into what answer
// points to; nil: it is not looked at. The error is an *Error where the other
// server answered with one, else it wraps ErrUnreachable.
//
// Spec: SS Request Authentication.
func (n *Network) Do(ctx context.Context, dest matrix.ServerName, q Request, answer any) error {
	return fmt.Errorf("%s %s at %s: %w", q.Method, q.Path, dest, ErrUnreachable)
}

// Stream makes a signed request and returns an answer of a status of the 200s. The
// caller reads the body, of which no more than MaxBytes come, and closes it; a body
// that makes no progress ends with an error. Errors are those of [Network.Do].
func (n *Network) Stream(ctx context.Context, dest matrix.ServerName, q Request) (*http.Response, error) {
	return nil, fmt.Errorf("%s %s at %s: %w", q.Method, q.Path, dest, ErrUnreachable)
}
