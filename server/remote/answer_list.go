package remote

import (
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// errAnswerForm: an answer is no object with the list that it should have.
var errAnswerForm = errors.New("the answer is not of the form that was asked for")

// maxElementBytes bounds one element of an answer's list, and any other text in it.
const maxElementBytes = maxPDUBytes

// An elementReader ends an answer of which one element is too large to be held.
type elementReader struct {
	r    io.Reader
	left int // bytes that may still come before begin is called again
}

// begin is called where the last element has ended.
func (r *elementReader) begin() { r.left = maxElementBytes }

func (r *elementReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, fmt.Errorf("more than %d bytes in one piece: %w", maxElementBytes, errAnswerForm)
	}
	n, err := r.r.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// eachElement reads an object and calls fn for each element of the list of that
// name; an answer may lack it. The value is good until fn returns. It holds one
// element at a time, whatever the answer's length.
//
// What other servers send need be no canonical JSON: a name that comes twice in one
// event must not make an answer useless. Events are held to their version's rules
// one by one.
func eachElement(r io.Reader, list string, fn func(jsontext.Value) error) error {
	in := &elementReader{r: r}
	in.begin()
	dec := jsontext.NewDecoder(in, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if t, err := dec.ReadToken(); err != nil {
		return err
	} else if t.Kind() != '{' {
		return fmt.Errorf("no object: %w", errAnswerForm)
	}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return err
		}
		if name.String() == list {
			err = eachOfArray(dec, in, fn)
		} else {
			err = skipValue(dec, in)
		}
		if err != nil {
			return err
		}
		in.begin()
	}
	_, err := dec.ReadToken()
	return err
}

func eachOfArray(dec *jsontext.Decoder, in *elementReader, fn func(jsontext.Value) error) error {
	if t, err := dec.ReadToken(); err != nil {
		return err
	} else if t.Kind() != '[' {
		return fmt.Errorf("no list: %w", errAnswerForm)
	}
	for dec.PeekKind() != ']' {
		v, err := dec.ReadValue()
		if err != nil {
			return err
		}
		if err := fn(v); err != nil {
			return err
		}
		in.begin()
	}
	_, err := dec.ReadToken()
	return err
}

// skipValue passes over a value token by token, so that it may be of any length.
func skipValue(dec *jsontext.Decoder, in *elementReader) error {
	for depth := dec.StackDepth(); ; {
		if _, err := dec.ReadToken(); err != nil {
			return err
		}
		in.begin()
		if dec.StackDepth() <= depth {
			return nil
		}
	}
}

// eventIDOf reads an event ID.
func eventIDOf(v jsontext.Value) (matrix.EventID, error) {
	var text string
	if err := json.Unmarshal(v, &text); err != nil {
		return "", fmt.Errorf("event ID: %w", errAnswerForm)
	}
	return matrix.ParseEventID(text)
}
