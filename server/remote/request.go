package remote

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

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

	// news: there is something new for a server that is backing off. It is tried, but
	// not as if a user waited.
	news bool
	// quiet: that nobody answers says nothing about the server. So it is with keys,
	// which strangers can have us ask for.
	quiet bool
	// unsigned: whoever is asked need not know us.
	unsigned bool
}

// defaultAnswer bounds an answer where the request does not, in bytes.
const defaultAnswer = 1 << 20

// maxErrorBytes bounds the answer that says what is wrong.
const maxErrorBytes = 16 << 10

// maxErrorText bounds what of it is told on.
const maxErrorText = 256

// Error is an answer of another server that says that something is wrong.
type Error struct {
	Server matrix.ServerName
	Status int    // HTTP status
	Code   string // "M_FORBIDDEN"; "" where the answer has none
	Text   string // what the other server says, for people
	// Answer is the JSON object with whatever else stands in it; nil where the
	// answer is none.
	Answer jsontext.Value

	wait time.Duration // how long the server wants to be left alone
}

// Error names the server and what it answered.
func (e *Error) Error() string {
	return strings.TrimRight(fmt.Sprintf("%s answers %d %s %s", e.Server, e.Status, e.Code, e.Text), " ")
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

// errSlow is why a request ended whose time was over.
var errSlow = fmt.Errorf("it took too long: %w", context.DeadlineExceeded)

// answerOptions let through what an event of an old room version may hold: it is
// judged by itself, and does not fail the whole answer.
var answerOptions = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// Do makes a signed request and decodes the JSON of the answer into what answer
// points to; nil: it is not looked at. The error is an *Error where the other
// server answered with one, else it wraps ErrUnreachable, or is that of ctx.
//
// Spec: SS Request Authentication.
func (n *Network) Do(ctx context.Context, dest matrix.ServerName, q Request, answer any) error {
	q = q.withDefaults()
	within, cancel := context.WithTimeoutCause(ctx, q.Timeout, errSlow)
	defer cancel()
	res, err := n.send(within, dest, q)
	if err != nil {
		return q.fault(ctx, dest, err)
	}
	defer res.Body.Close()
	weighed := &weighedBody{Reader: res.Body, left: smallAnswer, take: func() (func(), error) { return n.config.Budget(within, answerWeight*q.MaxBytes) }}
	defer weighed.release()
	body := &io.LimitedReader{R: weighed, N: q.MaxBytes + 1}
	if answer == nil {
		_, err = io.Copy(io.Discard, body)
	} else {
		err = json.UnmarshalRead(body, answer, answerOptions)
	}
	switch {
	case body.N == 0:
		return q.fault(ctx, dest, fmt.Errorf("the answer has more than %d bytes", q.MaxBytes))
	case err != nil:
		if context.Cause(within) == errSlow {
			err = errSlow // and not that the connection was closed then
		}
		return q.fault(ctx, dest, err)
	}
	return nil
}

// An answer that is decoded as a whole takes up to answerWeight times its bytes. Those
// up to smallAnswer are bounded by how many requests may be under way; for one that
// turns out to be larger, the memory that it may need is taken from the budget.
const (
	smallAnswer  = 128 << 10
	answerWeight = 3
)

// weighedBody is the body of such an answer.
type weighedBody struct {
	io.Reader
	left  int64 // until memory is taken for it
	take  func() (release func(), err error)
	taken func() // gives it back; nil: nothing is taken
}

// Read reads on, as soon as there is memory for it.
func (b *weighedBody) Read(p []byte) (n int, err error) {
	if b.left <= 0 && b.taken == nil {
		if b.taken, err = b.take(); err != nil {
			b.taken = nil
			return 0, fmt.Errorf("a large answer: %w", err)
		}
	}
	n, err = b.Reader.Read(p)
	b.left -= int64(n)
	return n, err
}

func (b *weighedBody) release() {
	if b.taken != nil {
		b.taken()
	}
}

// Stream makes a signed request and returns an answer of a status of the 200s. The
// caller reads the body, of which no more than MaxBytes come, and closes it; a body
// that makes no progress ends with an error. Errors are those of [Network.Do].
func (n *Network) Stream(ctx context.Context, dest matrix.ServerName, q Request) (*http.Response, error) {
	q = q.withDefaults()
	within, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(q.Timeout, func() { cancel(errSlow) })
	res, err := n.send(within, dest, q)
	if err != nil {
		timer.Stop()
		cancel(nil)
		return nil, q.fault(ctx, dest, err)
	}
	timer.Reset(streamStall)
	res.Body = &streamed{
		body: res.Body, left: q.MaxBytes, timer: timer, began: n.now(), now: n.now,
		cancel: func() { cancel(nil) }, ended: func() error { return context.Cause(within) },
	}
	return res, nil
}

func (q Request) withDefaults() Request {
	if q.MaxBytes <= 0 {
		q.MaxBytes = defaultAnswer
	}
	if q.Timeout <= 0 {
		q.Timeout = defaultTimeout
	}
	return q
}

// fault returns why a request failed: what the server says, that the caller has
// given up, or that there was no answer.
func (q Request) fault(ctx context.Context, dest matrix.ServerName, err error) error {
	var answered *Error
	path, _, _ := strings.Cut(q.Path, "?")
	switch {
	case errors.As(err, &answered), errors.Is(err, errOurs):
		return fmt.Errorf("%s %s: %w", q.Method, path, err)
	case ctx.Err() != nil:
		return fmt.Errorf("%s %s at %s: %w", q.Method, path, dest, ctx.Err())
	case errors.Is(err, ErrUnreachable):
		return fmt.Errorf("%s %s at %s: %w", q.Method, path, dest, err)
	}
	return fmt.Errorf("%s %s at %s: %w: %w", q.Method, path, dest, ErrUnreachable, err)
}

// errOurs is wrapped where the request itself is at fault.
var errOurs = errors.New("the request cannot be made")

// errSelf is why requests to our own name fail.
var errSelf = fmt.Errorf("that is this server itself: %w", ErrUnreachable)

// send makes a request and returns an answer of the 200s. It notes how it stands
// with the server.
func (n *Network) send(ctx context.Context, dest matrix.ServerName, q Request) (*http.Response, error) {
	if dest == n.server {
		return nil, errSelf
	}
	if !q.Insist && !q.news && !n.RetryAt(dest).IsZero() {
		return nil, ErrBackingOff
	}
	body, err := encodeBody(q.Body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errOurs, err)
	}
	release, err := n.takeSlot(ctx, q.Insist)
	if err != nil {
		return nil, fmt.Errorf("too many requests are under way: %w", err)
	}
	began := n.now()
	res, err := n.exchange(ctx, dest, q, body)
	if err == nil {
		res.Body = &released{res.Body, release}
	} else {
		release()
	}
	n.judge(ctx, dest, q, began, err)
	return res, err
}

// takeSlot takes a place among the requests under way. Some are for users alone.
func (n *Network) takeSlot(ctx context.Context, insist bool) (release func(), err error) {
	if !insist {
		if err := n.patient.Acquire(ctx, 1); err != nil {
			return nil, err
		}
	}
	if err := n.free.Acquire(ctx, 1); err != nil {
		if !insist {
			n.patient.Release(1)
		}
		return nil, err
	}
	return func() {
		n.free.Release(1)
		if !insist {
			n.patient.Release(1)
		}
	}, nil
}

// released is a body that frees its place when it is closed.
type released struct {
	io.ReadCloser
	release func()
}

func (b *released) Close() error {
	if b.release != nil {
		b.release()
		b.release = nil
	}
	return b.ReadCloser.Close()
}

// exchange signs a request, sends it and reads an answer that is an error.
func (n *Network) exchange(ctx context.Context, dest matrix.ServerName, q Request, body jsontext.Value) (*http.Response, error) {
	req, err := n.newRequest(ctx, dest, q, body)
	if err != nil {
		return nil, err
	}
	res, err := n.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	return nil, n.readError(dest, res)
}

// newRequest makes the signed request. Its URL has the server's name in a form that
// the transport keeps its connections by; see dialServer.
func (n *Network) newRequest(ctx context.Context, dest matrix.ServerName, q Request, body jsontext.Value) (*http.Request, error) {
	where, err := n.find(ctx, dest)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, q.Method, "https://host/", nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errOurs, err)
	}
	if body != nil {
		req.ContentLength = int64(len(body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		req.Body, _ = req.GetBody()
		req.Header.Set("Content-Type", "application/json")
	}
	path, query, _ := strings.Cut(q.Path, "?")
	req.URL = &url.URL{Scheme: "https", Host: hex.EncodeToString([]byte(dest)), Opaque: path, RawQuery: query}
	req.Host = where.host
	req.Header.Set("User-Agent", "Hearth")
	if q.unsigned {
		return req, nil
	}
	header, err := n.authorization(SignedRequest{
		Method: q.Method, URI: req.URL.RequestURI(), Origin: n.server, Destination: dest, Content: body,
	})
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", header)
	return req, nil
}

// readError reads an answer that says that something is wrong.
func (n *Network) readError(dest matrix.ServerName, res *http.Response) *Error {
	e := &Error{Server: dest, Status: res.StatusCode}
	if s, err := strconv.ParseUint(res.Header.Get("Retry-After"), 10, 16); err == nil {
		e.wait = time.Duration(s) * time.Second
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxErrorBytes))
	var said struct {
		Code  string  `json:"errcode"`
		Text  string  `json:"error"`
		Retry float64 `json:"retry_after_ms"`
	}
	if err != nil || json.Unmarshal(body, &said) != nil {
		return e
	}
	e.Code, e.Text, e.Answer = clip(said.Code), clip(said.Text), body
	if e.wait == 0 && said.Retry > 0 && said.Retry < float64(time.Hour.Milliseconds()) {
		e.wait = time.Duration(said.Retry) * time.Millisecond
	}
	return e
}

// clip shortens what another server says.
func clip(s string) string {
	if len(s) > maxErrorText {
		s = strings.ToValidUTF8(s[:maxErrorText], "") + "…"
	}
	return s
}

// judge notes how it stands with a server after a request. Whoever answers with a
// status of the 400s is there: what is wrong is the request. A proxy's answer that
// its server does not answer is as good as none; that the server itself is at a
// loss matters to those who will try again by themselves, and so does 429.
func (n *Network) judge(ctx context.Context, dest matrix.ServerName, q Request, began time.Time, err error) {
	var e *Error
	answered := errors.As(err, &e)
	switch {
	case err == nil, answered && e.Status < 500 && e.Status != http.StatusTooManyRequests:
		n.mu.Lock()
		n.reached(dest)
		n.mu.Unlock()
		if n.recovered(dest) {
			n.tell(dest, true)
		}
	case errors.Is(err, errOurs):
	case ctx.Err() != nil && context.Cause(ctx) != errSlow: // the caller has given up: nothing is known
	case !answered && err != nil:
		n.missed(dest)
		if !q.quiet {
			n.failed(dest, began)
		}
	case q.quiet:
	case e.Status == http.StatusTooManyRequests, e.wait > 0:
		n.leaveAlone(dest, began, e.wait)
	case e.Status >= http.StatusBadGateway && e.Status <= http.StatusGatewayTimeout, !q.Insist:
		n.failed(dest, began)
	}
}
