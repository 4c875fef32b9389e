package push

import (
	"bytes"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// lenient reads events as they may come from rooms of old versions.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// An inspection is one event that rules are held against. What several rules
// ask about is found once.
type inspection struct {
	*matrix.Event
	*Context
	content object // the members of the content, once read is true
	read    bool
	body    *string // content.body, folded and cut to maxText; nil until it is asked for
}

// property returns what stands at a dotted path of the event, nil for nothing.
//
// Spec: APP Dot-separated property paths.
func (in *inspection) property(path string) jsontext.Value {
	name, rest, more := cutPath(path)
	if !more {
		if text, ok := in.outer(name); ok {
			return quote(text)
		}
		return nil
	}
	if name != "content" {
		return nil
	}
	name, rest, more = cutPath(rest)
	if !in.read {
		in.content, in.read = readObject(in.Content), true
	}
	value := in.content.member(name)
	for more && value != nil {
		name, rest, more = cutPath(rest)
		value = readObject(value).member(name)
	}
	return value
}

// text returns the text that stands at a dotted path of the event.
func (in *inspection) text(path string) (string, bool) {
	if value, ok := in.outer(path); ok {
		return value, true
	}
	return textOf(in.property(path))
}

// outer returns a text that stands beside the content: what most rules ask for.
func (in *inspection) outer(name string) (string, bool) {
	switch name {
	case "type":
		return in.Type, true
	case "sender":
		return string(in.Sender), true
	case "room_id":
		return string(in.Room), true
	case "event_id":
		return string(in.ID), true
	case "redacts":
		return string(in.Redacts), in.Redacts != ""
	case "state_key":
		if in.StateKey != nil {
			return *in.StateKey, true
		}
	}
	return "", false
}

// bodyPath is the property in which words are looked for.
const bodyPath = "content.body"

// words returns the text in which words are looked for, folded, "" for none.
func (in *inspection) words() (string, bool) {
	if in.body == nil {
		text, ok := textOf(in.property(bodyPath))
		if !ok {
			return "", false
		}
		if len(text) > maxText {
			text = strings.ToValidUTF8(text[:maxText], "")
		}
		text = fold(text)
		in.body = &text
	}
	return *in.body, true
}

// cutPath splits a path behind its first name, in which a backslash keeps a dot
// or a backslash from being special.
func cutPath(path string) (name, rest string, more bool) {
	end := 0
	for ; end < len(path) && path[end] != '.'; end++ {
		if path[end] == '\\' && end+1 < len(path) && (path[end+1] == '.' || path[end+1] == '\\') {
			end++
		}
	}
	name, more = path[:end], end < len(path)
	if more {
		rest = path[end+1:]
	}
	if strings.IndexByte(name, '\\') >= 0 {
		name = unescape.Replace(name)
	}
	return name, rest, more
}

var unescape = strings.NewReplacer(`\.`, `.`, `\\`, `\`)

// An object is the members of a JSON object.
type object struct {
	source  jsontext.Value
	members []member
}

// A member is one member of an object. Its value aliases the object's text.
type member struct {
	name  string
	value jsontext.Value
}

// readObject returns the members of a value that is an object; other values have
// none.
func readObject(v jsontext.Value) object {
	o := object{source: v}
	if v.Kind() != '{' || json.Unmarshal(v, &o, lenient) != nil {
		return object{}
	}
	return o
}

// UnmarshalJSONFrom takes the object apart without a copy of its values.
func (o *object) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	o.members = make([]member, 0, 8)
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return err
		}
		m := member{name: name.String()}
		start := dec.InputOffset()
		if err := dec.SkipValue(); err != nil {
			return err
		}
		value := bytes.TrimLeft(o.source[start:dec.InputOffset()], " \t\r\n")
		m.value = bytes.TrimLeft(bytes.TrimPrefix(value, []byte(":")), " \t\r\n")
		o.members = append(o.members, m)
	}
	_, err := dec.ReadToken()
	return err
}

// member returns a member of the object, nil where there is none.
func (o object) member(name string) jsontext.Value {
	for _, m := range o.members {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// textOf returns a value that is text.
func textOf(v jsontext.Value) (string, bool) {
	if v.Kind() != '"' {
		return "", false
	}
	text, err := jsontext.AppendUnquote(make([]byte, 0, len(v)), v)
	return string(text), err == nil
}
