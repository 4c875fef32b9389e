package matrix

import (
	"github.com/go-json-experiment/json/jsontext"
)

// Canonical rewrites a JSON text as canonical JSON: members in the order of their
// names' code points, no white space, no escapes but the necessary ones. Numbers
// are integers within ±(2^53-1); "-0" and "1e10" are rewritten as such. It
// refuses what is not JSON in valid UTF-8 ([ErrNotJSON]); other numbers, two
// members of one name and nesting beyond 1,000 levels ([ErrBadJSON]); and more than
// 16 MiB or 524,288 values and names ([ErrTooLarge]). Specification: appendices, "Canonical JSON".
func Canonical(src []byte) ([]byte, error) {
	return canonical(src, integersRewritten)
}

// CanonicalFor is Canonical as events of version v know it. From version 6 on
// numbers must be written canonically; before, any number is accepted, as the
// specification demands (room versions, "Canonical JSON").
func CanonicalFor(v *Version, src []byte) ([]byte, error) {
	return canonical(src, numbersOf(v))
}

func canonical(src []byte, n numbers) ([]byte, error) {
	d, err := readDocument(src, n)
	if err != nil {
		return nil, err
	}
	defer d.free()
	return d.appendValue(make([]byte, 0, len(src)), root), nil
}

// appendValue writes the value at node i canonically.
func (d *document) appendValue(dst []byte, i int32) []byte {
	n := &d.nodes[i]
	switch n.kind {
	case '{':
		dst = append(dst, '{')
		for m := n.first; m != 0; m = d.nodes[m].next {
			dst = d.appendMember(dst, m)
		}
		return append(dst, '}')
	case '[':
		dst = append(dst, '[')
		for e := n.first; e != 0; e = d.nodes[e].next {
			if e != n.first {
				dst = append(dst, ',')
			}
			dst = d.appendValue(dst, e)
		}
		return append(dst, ']')
	case '"':
		return d.appendString(dst, i)
	case '0':
		return d.numbers.append(dst, d.raw(i))
	default:
		return append(dst, d.raw(i)...)
	}
}

// appendMember writes a member, given its name's node, into an object that was
// opened and not closed.
func (d *document) appendMember(dst []byte, name int32) []byte {
	return d.appendValue(d.appendName(dst, name), name+1)
}

func (d *document) appendName(dst []byte, name int32) []byte {
	return append(d.appendString(appendComma(dst), name), ':')
}

// appendComma writes the comma before a member unless it is the first: nothing
// but an object just opened ends in a brace like that.
func appendComma(dst []byte) []byte {
	if dst[len(dst)-1] == '{' {
		return dst
	}
	return append(dst, ',')
}

func (d *document) appendString(dst []byte, i int32) []byte {
	n := &d.nodes[i]
	if !n.escaped {
		return append(dst, d.src[n.start:n.end]...)
	}
	return appendQuoted(dst, d.text(i))
}

// appendQuoted writes text as a canonical JSON string; text is valid UTF-8.
func appendQuoted[text []byte | string](dst []byte, s text) []byte {
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}

// appendWithout writes the object at node i canonically, leaving some members out.
func (d *document) appendWithout(dst []byte, i int32, names ...string) []byte {
	dst = append(dst, '{')
	for m := d.nodes[i].first; m != 0; m = d.nodes[m].next {
		if !contains(names, d.text(m)) {
			dst = d.appendMember(dst, m)
		}
	}
	return append(dst, '}')
}

// appendWith writes the object at node i canonically, with the named member set to
// what write appends; write gets the node of the old value, 0 for none. What is
// no object counts as an empty one.
func (d *document) appendWith(dst []byte, i int32, name string, write func(dst []byte, old int32) []byte) []byte {
	dst = append(dst, '{')
	m := d.firstMember(i)
	for ; m != 0 && string(d.text(m)) < name; m = d.nodes[m].next {
		dst = d.appendMember(dst, m)
	}
	old := int32(0)
	if m != 0 && string(d.text(m)) == name {
		old, m = m+1, d.nodes[m].next
	}
	dst = write(append(appendQuoted(appendComma(dst), name), ':'), old)
	for ; m != 0; m = d.nodes[m].next {
		dst = d.appendMember(dst, m)
	}
	return append(dst, '}')
}

func contains(names []string, name []byte) bool {
	for _, n := range names {
		if n == string(name) {
			return true
		}
	}
	return false
}
