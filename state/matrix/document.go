package matrix

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// What is wrong with input that this package refuses; every refusal wraps one of
// these, except that of an identifier on its own, which wraps [ErrBadID].
var (
	ErrNotJSON  = errors.New("not JSON")
	ErrBadJSON  = errors.New("unacceptable JSON")
	ErrTooLarge = errors.New("too large")
)

const (
	// maxNesting is how deep arrays and objects may lie in each other. Readers of
	// other servers give up between 128 and 1,000 levels.
	maxNesting = 1000
	// maxDocumentBytes bounds what is read as one document. Events are far smaller;
	// signed answers of key servers may be big.
	maxDocumentBytes = 16 << 20
	// maxNodes bounds the values and names of one document, each of which takes more
	// memory than it may have bytes. An event has 32,768 at most.
	maxNodes = 1 << 19
)

// document is a JSON text that was read and checked once: a flat list of nodes
// linked in canonical order. Node 0 is nothing, so that 0 means "none" everywhere;
// node 1 is the whole text. The value of the member whose name is node i is node i+1.
type document struct {
	src     []byte
	nodes   []node
	numbers numbers

	input   bytes.Buffer
	decoder jsontext.Decoder
	names   []int32 // scratch for sorting the members of one object
	out     []byte  // scratch for canonical text that is hashed and forgotten

	// unescaped are the strings that have escapes, in their turn slices of arena.
	unescaped [][]byte
	arena     []byte
}

const root int32 = 1

// node is a value or the name of a member.
type node struct {
	kind       jsontext.Kind
	escaped    bool  // a string with backslashes
	start, end int32 // its text in src
	first      int32 // first element, or the first member's name; index in unescaped
	next       int32 // next element, or the next member's name
}

var documents = sync.Pool{New: func() any { return new(document) }}

// readDocument reads src, which must stay as it is until the document is freed.
func readDocument(src []byte, n numbers) (*document, error) {
	if len(src) > maxDocumentBytes {
		return nil, fmt.Errorf("%w: %d bytes of JSON", ErrTooLarge, len(src))
	}
	d := documents.Get().(*document)
	d.src, d.numbers = src, n
	d.input = *bytes.NewBuffer(src)
	d.decoder.Reset(&d.input, jsontext.AllowDuplicateNames(true))
	if err := d.read(); err != nil {
		d.free()
		return nil, err
	}
	return d, nil
}

// readObject is readDocument for a text that must be an object.
func readObject(src []byte, n numbers) (*document, error) {
	d, err := readDocument(src, n)
	if err != nil {
		return nil, err
	}
	if d.nodes[root].kind != '{' {
		d.free()
		return nil, fmt.Errorf("%w: not an object", ErrBadJSON)
	}
	return d, nil
}

// free gives the document's memory back; big ones are left to the collector.
func (d *document) free() {
	const keepNodes, keepBytes = 8 << 10, 128 << 10
	if cap(d.nodes) > keepNodes || cap(d.out) > keepBytes || cap(d.arena) > keepBytes {
		return
	}
	clear(d.unescaped)
	d.src, d.nodes, d.names, d.out = nil, d.nodes[:0], d.names[:0], d.out[:0]
	d.unescaped, d.arena = d.unescaped[:0], d.arena[:0]
	d.input = bytes.Buffer{}
	d.decoder.Reset(&d.input) // it would keep the text alive
	documents.Put(d)
}

func (d *document) read() error {
	d.nodes = append(d.nodes[:0], node{})
	if _, err := d.readValue(0); err != nil {
		return err
	}
	if _, err := d.decoder.ReadToken(); err != io.EOF {
		return fmt.Errorf("%w: text after the value", ErrNotJSON)
	}
	return nil
}

// readValue reads the next value with all that is in it and returns its node.
func (d *document) readValue(depth int) (int32, error) {
	if len(d.nodes) >= maxNodes {
		return 0, fmt.Errorf("%w: JSON of more than %d values", ErrTooLarge, maxNodes)
	}
	switch kind := d.decoder.PeekKind(); kind {
	case '{', '[':
		return d.readNested(kind, depth+1)
	default:
		return d.readScalar()
	}
}

// readScalar reads a string, number or literal, or the name of a member.
func (d *document) readScalar() (int32, error) {
	text, err := d.decoder.ReadValue()
	if err != nil {
		return 0, notJSON(err)
	}
	end := int32(d.decoder.InputOffset())
	n := node{kind: text.Kind(), start: end - int32(len(text)), end: end}
	switch n.kind {
	case '"':
		if n.escaped = bytes.IndexByte(text, '\\') >= 0; n.escaped {
			n.first = d.unescape(text)
		}
	case '0':
		if err := d.numbers.check(text); err != nil {
			return 0, err
		}
	}
	return d.add(n), nil
}

func (d *document) readNested(kind jsontext.Kind, depth int) (int32, error) {
	if depth > maxNesting {
		return 0, fmt.Errorf("%w: nested deeper than %d", ErrBadJSON, maxNesting)
	}
	if _, err := d.decoder.ReadToken(); err != nil {
		return 0, notJSON(err)
	}
	outer := d.add(node{kind: kind, start: int32(d.decoder.InputOffset()) - 1})
	var err error
	if kind == '{' {
		err = d.readMembers(outer, depth)
	} else {
		err = d.readElements(outer, depth)
	}
	if err != nil {
		return 0, err
	}
	if _, err := d.decoder.ReadToken(); err != nil {
		return 0, notJSON(err)
	}
	d.nodes[outer].end = int32(d.decoder.InputOffset())
	return outer, nil
}

func (d *document) readElements(outer int32, depth int) error {
	link := &linker{doc: d, outer: outer}
	for {
		switch d.decoder.PeekKind() {
		case ']':
			return nil
		default:
			element, err := d.readValue(depth)
			if err != nil {
				return err
			}
			link.to(element)
		}
	}
}

func (d *document) readMembers(outer int32, depth int) error {
	link := &linker{doc: d, outer: outer}
	sorted := true
	for d.decoder.PeekKind() != '}' {
		name, err := d.readScalar()
		if err != nil {
			return err
		}
		if _, err := d.readValue(depth); err != nil {
			return err
		}
		sorted = sorted && (link.last == 0 || bytes.Compare(d.text(link.last), d.text(name)) < 0)
		link.to(name)
	}
	if sorted {
		return nil
	}
	return d.sortMembers(outer)
}

// sortMembers relinks the members of an object by their names and refuses two
// of one name.
func (d *document) sortMembers(outer int32) error {
	names := d.names[:0]
	for name := d.nodes[outer].first; name != 0; name = d.nodes[name].next {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b int32) int { return bytes.Compare(d.text(a), d.text(b)) })
	link := &linker{doc: d, outer: outer}
	for _, name := range names {
		if link.last != 0 && bytes.Equal(d.text(link.last), d.text(name)) {
			return fmt.Errorf("%w: two members named %q", ErrBadJSON, clip(string(d.text(name))))
		}
		link.to(name)
	}
	d.nodes[link.last].next = 0
	d.names = names
	return nil
}

// unescape puts a string's content into unescaped and returns its index there. It
// is done once, as sorting would ask for a name again and again.
func (d *document) unescape(text []byte) int32 {
	start := len(d.arena)
	// The decoder accepted the string, so that unquoting cannot fail.
	d.arena, _ = jsontext.AppendUnquote(d.arena, text)
	d.unescaped = append(d.unescaped, d.arena[start:len(d.arena):len(d.arena)])
	return int32(len(d.unescaped) - 1)
}

func (d *document) add(n node) int32 {
	if len(d.nodes) == cap(d.nodes) {
		grown := make([]node, len(d.nodes), max(64, 2*len(d.nodes))) // append would make more copies of many
		copy(grown, d.nodes)
		d.nodes = grown
	}
	d.nodes = append(d.nodes, n)
	return int32(len(d.nodes) - 1)
}

// linker chains the children of one node.
type linker struct {
	doc         *document
	outer, last int32
}

func (l *linker) to(child int32) {
	if l.last == 0 {
		l.doc.nodes[l.outer].first = child
	} else {
		l.doc.nodes[l.last].next = child
	}
	l.last = child
}

// notJSON tells the place of a fault. The decoder's own error would also quote the
// names on the way there, of any length.
func notJSON(err error) error {
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return fmt.Errorf("%w: %v after byte %d", ErrNotJSON, syntax.Err, syntax.ByteOffset)
	}
	return fmt.Errorf("%w: %w", ErrNotJSON, io.ErrUnexpectedEOF)
}
