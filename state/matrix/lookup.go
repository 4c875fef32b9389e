package matrix

import (
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// text is the content of the string at node i, unescaped. It holds until the
// document is freed.
func (d *document) text(i int32) []byte {
	n := &d.nodes[i]
	if n.escaped {
		return d.unescaped[n.first]
	}
	return d.src[n.start+1 : n.end-1]
}

// raw is the text of node i as it came. It aliases src.
func (d *document) raw(i int32) jsontext.Value {
	n := &d.nodes[i]
	return jsontext.Value(d.src[n.start:n.end:n.end])
}

// firstMember is the name of the first member of the object at node i; 0 when there
// is none or i is no object.
func (d *document) firstMember(i int32) int32 {
	if d.nodes[i].kind != '{' {
		return 0
	}
	return d.nodes[i].first
}

// member finds the value of the named member of the object at node i; 0 when there
// is none or i is no object. It stops early, as members are in order.
func (d *document) member(i int32, name string) int32 {
	for m := d.firstMember(i); m != 0; m = d.nodes[m].next {
		switch text := d.text(m); {
		case string(text) == name:
			return m + 1
		case string(text) > name:
			return 0
		}
	}
	return 0
}

// stringAt is the string at node i.
func (d *document) stringAt(i int32) (string, error) {
	if i == 0 || d.nodes[i].kind != '"' {
		return "", fmt.Errorf("%w: not a string", ErrBadJSON)
	}
	return string(d.text(i)), nil
}

// optionalString is the string at node i, or nothing if there is no string.
func (d *document) optionalString(i int32) *string {
	s, err := d.stringAt(i)
	if err != nil {
		return nil
	}
	return &s
}

// integerAt is the number at node i, which must be written as an integer.
func (d *document) integerAt(i int32) (int64, error) {
	if d.nodes[i].kind != '0' {
		return 0, fmt.Errorf("%w: not a number", ErrBadJSON)
	}
	n, err := strconv.ParseInt(string(d.raw(i)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: not an integer of 64 bits", ErrBadJSON)
	}
	return n, nil
}

// firstElement is the first element of the array at node i; 0 when there is none
// or i is no array.
func (d *document) firstElement(i int32) int32 {
	if d.nodes[i].kind != '[' {
		return 0
	}
	return d.nodes[i].first
}

func (d *document) isTrue(i int32) bool  { return d.nodes[i].kind == 't' }
func (d *document) isFalse(i int32) bool { return d.nodes[i].kind == 'f' }
