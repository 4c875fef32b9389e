package auth

import (
	"bytes"
	"iter"

	"github.com/go-json-experiment/json/jsontext"
)

// members walks the members of a JSON object in their order: the name, in quotes,
// and the value, both as they stand. Other values have no members.
//
// The content of an Event was read as JSON once; here it is only cut into pieces.
// A decoder would check it again, at ten times the cost in a room with hundreds
// of power levels. Of text that is no JSON some pieces come out, or none.
func members(object jsontext.Value) iter.Seq2[jsontext.Value, jsontext.Value] {
	return func(yield func(name, value jsontext.Value) bool) {
		i := skipSpace(object, 0)
		for open := byte('{'); i < len(object) && object[i] == open; open = ',' {
			name := skipSpace(object, i+1)
			if name == len(object) || object[name] != '"' {
				return
			}
			nameEnd := skipString(object, name)
			colon := skipSpace(object, nameEnd)
			if colon == len(object) || object[colon] != ':' {
				return
			}
			value := skipSpace(object, colon+1)
			end := skipValue(object, value)
			if !yield(object[name:nameEnd], object[value:end]) {
				return
			}
			i = skipSpace(object, end)
		}
	}
}

// skipSpace is the place of the first byte from i on that is no white space.
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// skipString is the place after the string that begins at i.
func skipString(b []byte, i int) int {
	for end := i + 1; ; end++ {
		quote := bytes.IndexByte(b[end:], '"')
		if quote < 0 {
			return len(b)
		}
		end += quote
		backslashes := 0
		for b[end-1-backslashes] == '\\' { // stops at the opening quote
			backslashes++
		}
		if backslashes%2 == 0 {
			return end + 1
		}
	}
}

// skipValue is the place after the value that begins at i.
func skipValue(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = skipString(b, i)
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\t', '\r', '\n':
			i++
		default:
			i = skipScalar(b, i)
		}
		if depth <= 0 {
			return i
		}
	}
	return i
}

// skipScalar is the place after the number or literal that begins at i.
func skipScalar(b []byte, i int) int {
	for ; i < len(b); i++ {
		switch b[i] {
		case '"', '{', '[', '}', ']', ',', ':', ' ', '\t', '\r', '\n':
			return i
		}
	}
	return i
}

// property is the value of one property of a JSON object and whether it is there,
// null included.
func property(object jsontext.Value, name string) (jsontext.Value, bool) {
	for key, value := range members(object) {
		if isString(key, name) {
			return value, true
		}
	}
	return nil, false
}

// isString reports whether v is the JSON string s.
func isString(v jsontext.Value, s string) bool {
	if len(v) == len(s)+2 && v[0] == '"' && string(v[1:len(v)-1]) == s {
		return true
	}
	if bytes.IndexByte(v, '\\') < 0 {
		return false
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
