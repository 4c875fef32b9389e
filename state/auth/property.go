package auth

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// property is the value of one property of a JSON object and whether it is there,
// null included. What is no object has none.
func property(object jsontext.Value, name string) (jsontext.Value, bool) {
	if object.Kind() != '{' {
		return nil, false
	}
	d := jsontext.NewDecoder(bytes.NewBuffer(object), jsontext.AllowDuplicateNames(true))
	if _, err := d.ReadToken(); err != nil {
		return nil, false
	}
	for d.PeekKind() == '"' {
		key, err := d.ReadValue()
		if err != nil {
			return nil, false
		}
		found := isString(key, name)
		value, err := d.ReadValue()
		if err != nil {
			return nil, false
		}
		if found {
			return value, true
		}
	}
	return nil, false
}

// isString reports whether v is the JSON string s.
func isString(v jsontext.Value, s string) bool {
	if bytes.IndexByte(v, '\\') < 0 {
		return len(v) == len(s)+2 && v[0] == '"' && string(v[1:len(v)-1]) == s
	}
	text, ok := stringOf(v)
	return ok && text == s
}

// stringOf is the text of a JSON string and whether v is one.
func stringOf(v jsontext.Value) (string, bool) {
	if v.Kind() != '"' {
		return "", false
	}
	text, err := jsontext.AppendUnquote(nil, v)
	return string(text), err == nil
}

// isKnownVersion reports whether v is the ID of a room version that we know.
func isKnownVersion(v jsontext.Value) bool {
	id, ok := stringOf(v)
	if !ok {
		return false
	}
	_, known := matrix.VersionByID(id)
	return known
}

// areUserIDs reports whether v is an array of user IDs.
func areUserIDs(v jsontext.Value) bool {
	var list []jsontext.Value
	if v.Kind() != '[' || json.Unmarshal(v, &list) != nil {
		return false
	}
	for _, item := range list {
		id, ok := stringOf(item)
		if !ok {
			return false
		}
		if _, err := matrix.ParseUserID(id); err != nil {
			return false
		}
	}
	return true
}

// holdsNumbers reports whether v is an object with nothing but numbers in it.
func holdsNumbers(v jsontext.Value) bool {
	var object map[string]jsontext.Value
	if v.Kind() != '{' || json.Unmarshal(v, &object) != nil {
		return false
	}
	for _, value := range object {
		if value.Kind() != '0' {
			return false
		}
	}
	return true
}

// federates reports whether users of other servers may take part: unless
// m.federate is false.
func federates(create *matrix.Event) bool {
	v, has := property(create.Content, "m.federate")
	return !has || v.Kind() != 'f'
}

// maxQuoted is how much of a text from an event a message repeats.
const maxQuoted = 64

// quote is text from an event, in quotes, shortened and without control characters.
func quote(s string) string { return fmt.Sprintf("%q", clip(s)) }

// clip shortens text from an event.
func clip(s string) string {
	if len(s) <= maxQuoted {
		return s
	}
	return strings.ToValidUTF8(s[:maxQuoted], "") + "…"
}
