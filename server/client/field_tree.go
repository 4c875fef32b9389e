package client

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// fieldTree is a list of property paths, by their first name: whole for what is
// wanted with all that is in it.
//
// Spec: appendices, Dot-separated property paths.
type fieldTree struct {
	whole bool
	below map[string]*fieldTree
}

// maxFieldDepth bounds the names in a property path.
const maxFieldDepth = 32

func newFieldTree(paths []string) *fieldTree {
	root := new(fieldTree)
	for _, path := range paths {
		at := root
		for _, name := range splitFieldPath(path) {
			next := at.below[name]
			if next == nil {
				next = new(fieldTree)
				if at.below == nil {
					at.below = make(map[string]*fieldTree)
				}
				at.below[name] = next
			}
			at = next
		}
		at.whole = true
	}
	return root
}

// splitFieldPath returns the names in a property path; a backslash takes the
// meaning from a dot or a backslash. What is too deep is wanted from maxFieldDepth
// on as a whole.
func splitFieldPath(path string) []string {
	var names []string
	var name []byte
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '\\' && i+1 < len(path) && (path[i+1] == '.' || path[i+1] == '\\'):
			i++
			name = append(name, path[i])
		case c == '.':
			names = append(names, string(name))
			name = name[:0]
			if len(names) == maxFieldDepth {
				return names
			}
		default:
			name = append(name, c)
		}
	}
	return append(names, string(name))
}

// laxEvents lets through what an event of an old room version may hold.
var laxEvents = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// trim returns the parts of a JSON object that are wanted.
func (t *fieldTree) trim(object jsontext.Value) (jsontext.Value, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(object), laxEvents)
	var out bytes.Buffer
	if err := t.copy(dec, jsontext.NewEncoder(&out, laxEvents)); err != nil {
		return nil, fmt.Errorf("trim an event: %w", err)
	}
	return bytes.TrimSpace(out.Bytes()), nil
}

// copy copies the wanted parts of the object that dec stands before.
func (t *fieldTree) copy(dec *jsontext.Decoder, enc *jsontext.Encoder) error {
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	if err := enc.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for dec.PeekKind() == '"' {
		token, err := dec.ReadToken()
		if err != nil {
			return err
		}
		if err := t.copyMember(token.String(), dec, enc); err != nil {
			return err
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	return enc.WriteToken(jsontext.EndObject)
}

// copyMember copies what is wanted of the value that dec stands before.
func (t *fieldTree) copyMember(name string, dec *jsontext.Decoder, enc *jsontext.Encoder) error {
	next := t.below[name]
	if next == nil || !next.whole && dec.PeekKind() != '{' {
		return dec.SkipValue()
	}
	if err := enc.WriteToken(jsontext.String(name)); err != nil {
		return err
	}
	if !next.whole {
		return next.copy(dec, enc)
	}
	value, err := dec.ReadValue()
	if err != nil {
		return err
	}
	return enc.WriteValue(value)
}
