package remote

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxFew bounds the elements of a list or object of an answer that is decoded as a
// whole: an empty one has two bytes there and some hundred in memory.
const maxFew = 4096

// few is a list of an answer, of which the first elements are read and no more.
type few[T any] []T

// UnmarshalJSONFrom reads the list.
func (f *few[T]) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == 'n' {
		return dec.SkipValue()
	}
	if t, err := dec.ReadToken(); err != nil {
		return err
	} else if t.Kind() != '[' {
		return fmt.Errorf("no list: %w", errAnswerForm)
	}
	for dec.PeekKind() != ']' {
		if len(*f) == maxFew {
			if err := dec.SkipValue(); err != nil {
				return err
			}
			continue
		}
		var v T
		if err := json.UnmarshalDecode(dec, &v); err != nil {
			return err
		}
		*f = append(*f, v)
	}
	_, err := dec.ReadToken()
	return err
}

// fewNamed is an object of an answer, of which the first members are read and no more.
type fewNamed[K ~string, V any] map[K]V

// UnmarshalJSONFrom reads the object.
func (f *fewNamed[K, V]) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == 'n' {
		return dec.SkipValue()
	}
	if t, err := dec.ReadToken(); err != nil {
		return err
	} else if t.Kind() != '{' {
		return fmt.Errorf("no object: %w", errAnswerForm)
	}
	if *f == nil {
		*f = make(fewNamed[K, V])
	}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return err
		}
		if len(*f) == maxFew {
			if err := dec.SkipValue(); err != nil {
				return err
			}
			continue
		}
		key := K(name.String())
		var v V
		if err := json.UnmarshalDecode(dec, &v); err != nil {
			return err
		}
		(*f)[key] = v
	}
	_, err := dec.ReadToken()
	return err
}

// fewMembers reads the members of an object that stands in an answer; there are none
// where it is not there. An answer in which such objects are decoded as they are needed
// never takes many times its bytes.
func fewMembers[K ~string](object jsontext.Value) (members fewNamed[K, jsontext.Value], err error) {
	if len(object) > 0 {
		err = json.Unmarshal(object, &members, answerOptions)
	}
	return members, err
}
