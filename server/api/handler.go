package api

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// HandlerFunc answers a request. What it returns becomes the error response, if
// nothing has been written yet; after the first byte of a response an error ends
// the connection instead, so that nobody takes half an answer for a whole one.
type HandlerFunc = func(w http.ResponseWriter, r *http.Request) error

// handle runs h, turns its error or panic into a response and writes the log
// line of the request.
func (p pace) handle(log *slog.Logger, h HandlerFunc, w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	rec := &recorder{ResponseWriter: w, pace: p}
	err := protect(h, rec, r)
	if err != nil {
		rec.fail(log, r, err)
	}
	if log.Enabled(r.Context(), slog.LevelDebug) {
		rec.logAccess(log, r, err, time.Since(start))
	}
	if rec.broken {
		panic(http.ErrAbortHandler)
	}
	rec.extend() // the last of the answer is sent after the handler
}

// protect runs h and returns its panic as an error, so that no input ends the
// process.
func protect(h HandlerFunc, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			panic(p)
		default:
			err = &panicError{value: p, stack: debug.Stack()}
		}
	}()
	return h(w, r)
}

// panicError is a panic of a handler.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// recorder remembers what of a response has been sent.
type recorder struct {
	http.ResponseWriter
	pace   pace
	status int
	bytes  int64
	broken bool      // an error came after the response had begun
	moved  time.Time // when the deadline was moved last; see extend
}

// Unwrap lets http.ResponseController reach the server's own writer.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.extend()
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.extend()
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// fail answers with err, or marks the response as broken if it has begun. What a
// client that left or a server that stops makes fail is nothing to report.
func (r *recorder) fail(log *slog.Logger, req *http.Request, err error) {
	e := AsError(err)
	var p *panicError
	switch {
	case errors.As(err, &p):
		log.Error("a handler panicked", "method", req.Method, "path", req.URL.Path, "err", err, "stack", string(p.stack))
	case e.Status >= 500 && !e.expected() && req.Context().Err() == nil:
		log.Error("request failed", "method", req.Method, "path", req.URL.Path, "err", err)
	}
	if r.status != 0 {
		r.broken = true
		return
	}
	WriteError(r, e)
}

// logAccess writes the line of a request. The query stays out of it: it may hold
// an access token.
func (r *recorder) logAccess(log *slog.Logger, req *http.Request, err error, took time.Duration) {
	args := []any{
		"method", req.Method, "path", req.URL.Path, "status", r.status, "bytes", r.bytes, "took", took,
	}
	if err != nil {
		args = append(args, "err", err)
	}
	log.Debug("request", args...)
}

// WriteError writes e as a standard error response. Handlers return errors
// instead; it is for what answers outside of them.
func WriteError(w http.ResponseWriter, e *Error) {
	body, err := e.marshal()
	if err != nil { // a field that is no JSON: the code matters more
		body, _ = (&Error{Code: e.Code, Text: e.Text}).marshal()
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if e.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(e.retryAfter.Seconds())), 10))
	}
	w.WriteHeader(e.Status)
	w.Write(body) // nobody is left to tell
}

// marshal returns the JSON object of e.
func (e *Error) marshal() ([]byte, error) {
	var buf bytes.Buffer
	enc := jsontext.NewEncoder(&buf, outputOptions)
	err := errors.Join(
		enc.WriteToken(jsontext.BeginObject),
		enc.WriteToken(jsontext.String("errcode")), enc.WriteToken(jsontext.String(e.Code)),
		enc.WriteToken(jsontext.String("error")), enc.WriteToken(jsontext.String(e.Text)),
	)
	for _, f := range e.fields {
		err = errors.Join(err, enc.WriteToken(jsontext.String(f.name)), json.MarshalEncode(enc, f.value))
	}
	err = errors.Join(err, enc.WriteToken(jsontext.EndObject))
	return bytes.TrimSpace(buf.Bytes()), err
}
