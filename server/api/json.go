package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// outputOptions let through what a room of an old version may hold: an event with
// a duplicate name or a broken character must not fail the whole answer.
var outputOptions = json.JoinOptions(
	jsontext.AllowDuplicateNames(true),
	jsontext.AllowInvalidUTF8(true),
)

// bodyStart is the most that is allocated for a body on the word of its
// Content-Length alone, in bytes.
const bodyStart = 64 << 10

// ReadObject returns the request's body, which must be one JSON object of at most
// limit bytes, as it came. The error is M_TOO_LARGE, M_NOT_JSON or, for another
// kind of value or a name that comes twice, M_BAD_JSON.
func ReadObject(r *http.Request, limit int64) (jsontext.Value, error) {
	body, err := readBody(r, limit)
	if err != nil {
		return nil, err
	}
	if err := checkSyntax(body); err != nil {
		return nil, err
	}
	body = bytes.TrimSpace(body)
	if jsontext.Value(body).Kind() != '{' {
		return nil, ErrBadJSON.Because("The body must be a JSON object")
	}
	return body, nil
}

// ReadJSON reads the request's body, one JSON value of at most limit bytes, into
// what v points to. Unknown names are ignored. The error is M_TOO_LARGE,
// M_NOT_JSON or, where a value has another type than v, M_BAD_JSON.
func ReadJSON(r *http.Request, limit int64, v any) error {
	body, err := readBody(r, limit)
	if err != nil {
		return err
	}
	return unmarshal(body, v)
}

// ReadOptionalJSON is ReadJSON for endpoints whose body may be left out: an empty
// body reads as {}.
func ReadOptionalJSON(r *http.Request, limit int64, v any) error {
	body, err := readBody(r, limit)
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(body)) == 0 {
		body = []byte("{}")
	}
	return unmarshal(body, v)
}

// WriteJSON answers 200 with v as JSON. The value is written as it is encoded, so
// that a large one needs no buffer of its size.
func WriteJSON(w http.ResponseWriter, v any) error {
	return WriteJSONStatus(w, http.StatusOK, v)
}

// WriteJSONStatus is WriteJSON with another status, such as the 401 of
// user-interactive authentication.
func WriteJSONStatus(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	out := &delayed{w: w, status: status}
	if err := json.MarshalWrite(out, v, outputOptions); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// WriteEncoded answers 200 with JSON that is encoded already, in one piece.
func WriteEncoded(w http.ResponseWriter, body []byte) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, err := w.Write(body)
	return err
}

// WriteEmpty answers 200 with {}.
func WriteEmpty(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/json")
	_, err := io.WriteString(w, "{}")
	return err
}

// delayed sends the status with the first bytes of the body: a value that cannot
// be encoded at all still becomes a proper error response.
type delayed struct {
	w      http.ResponseWriter
	status int // 0 once it is sent
}

func (d *delayed) Write(p []byte) (int, error) {
	if d.status != 0 {
		d.w.WriteHeader(d.status)
		d.status = 0
	}
	return d.w.Write(p)
}

// readBody returns the whole body, at most limit bytes. It grows with what really
// arrives.
func readBody(r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		buf.Grow(int(min(r.ContentLength, bodyStart)) + bytes.MinRead)
	}
	if _, err := buf.ReadFrom(http.MaxBytesReader(nil, r.Body, limit)); err != nil {
		return nil, BodyError(err)
	}
	return buf.Bytes(), nil
}

// BodyError says what an error of reading a request's body is, for handlers that
// read it as a stream: M_TOO_LARGE above the limit of http.MaxBytesReader, else
// 408 or 400, as the client did not send what it announced.
func BodyError(err error) error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return tooLarge(large.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrUnknown.WithStatus(http.StatusRequestTimeout).Because("The body came too slowly")
	default:
		return ErrUnknown.WithStatus(http.StatusBadRequest).Because("The body did not arrive whole")
	}
}

func tooLarge(limit int64) *Error {
	return ErrTooLarge.Because("The request is larger than the %d bytes that are allowed here", limit)
}

// unmarshal reads body into v and sorts the errors.
func unmarshal(body []byte, v any) error {
	err := json.Unmarshal(body, v)
	if err == nil {
		return nil
	}
	if err := checkSyntax(body); err != nil {
		return err
	}
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		return ErrBadJSON.Because("%s", describe(semantic))
	}
	return ErrBadJSON
}

// describe says where a value has the wrong type, without the names of our types.
func describe(e *json.SemanticError) string {
	where := string(e.JSONPointer)
	if where == "" {
		where = "the body"
	}
	var own *Error
	switch {
	case errors.As(e.Err, &own):
		return where + ": " + own.Text
	case e.Err != nil:
		return fmt.Sprintf("%s: %v", where, e.Err)
	default:
		return where + " has the wrong type"
	}
}

// checkSyntax returns M_NOT_JSON where body is not one JSON value in UTF-8, and
// M_BAD_JSON where a name comes twice in an object.
func checkSyntax(body []byte) error {
	dec := jsontext.NewDecoder(bytes.NewReader(body))
	err := dec.SkipValue()
	if err == nil {
		if _, err = dec.ReadToken(); err == io.EOF {
			return nil
		}
		return ErrNotJSON.Because("There is something after the JSON value")
	}
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return ErrBadJSON.Because("A name comes twice in an object of the body")
	}
	return ErrNotJSON
}
