package client

import (
	"bytes"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

func oneOf[T any](b *badInput, list ...T) T { return list[b.random.IntN(len(list))] }

// mutate changes something about a request, mostly its body.
func (b *badInput) mutate(r *badRequest) *badRequest {
	for first := true; first || b.random.IntN(4) == 0; first = false {
		switch kind := b.random.IntN(20); {
		case kind < 9 && len(r.body) > 0:
			r.body = b.mutateJSON(r.body)
		case kind < 11 && len(r.body) > 0:
			r.body = b.mutateBytes(r.body)
		case kind < 15 && len(r.named) > 0:
			r.parts[oneOf(b, r.named...)] = b.badName()
		case kind < 15:
			r.parts[b.random.IntN(len(r.parts))] = b.badName()
		case kind < 18:
			b.mutateQuery(r)
		case kind < 19:
			r.token = oneOf(b, "", "unknown", b.values["bob_token"], strings.Repeat("x", 5000), "a b", "\x01")
		default:
			b.mutateHeader(r)
		}
	}
	return r
}

// badName returns what somebody might put where an ID belongs.
func (b *badInput) badName() string {
	return oneOf(b,
		"", " ", ".", "..", "x", "!", "@", "#", "$", "!unknown:hearth.test", "@unknown:hearth.test", "#unknown:hearth.test", "$unknown",
		b.values["foreign"], b.values["other_event"], b.values["room"], b.values["event"], b.values["alice"], b.values["bob"],
		"@alice:elsewhere.example", "!room:elsewhere.example", "\x00", "a\x00b", "\xff\xfe", "\u202e", "ü", "%2F", "a/b", `a\b`, "*", "m.room.member", "m.room.create",
		"m.push_rules", "m.fully_read", "override", "true", "0", "-1", "99999999999999999999", "s0", "s18446744073709551615", "s9_9_9_9",
		strings.Repeat("x", 256), "!"+strings.Repeat("x", 5000), "@:", "@a:b:c:d", "$"+strings.Repeat("é", 200), "{}", "null",
	)
}

func (b *badInput) mutateQuery(r *badRequest) {
	names := slices.Sorted(maps.Keys(r.query))
	names = append(names, "since", "from", "to", "dir", "limit", "filter", "timeout", "format", "version", "access_token", "user_id", "at", "width", "height", "method")
	name := oneOf(b, names...)
	switch b.random.IntN(4) {
	case 0:
		r.query.Del(name)
	case 1:
		r.query.Add(name, b.badName())
	default:
		r.query.Set(name, oneOf(b, b.badName(), oneOf(b,
			`{"room":{"timeline":{"limit":-1}}}`, `{"room":{"timeline":{"limit":1e99}}}`, `{"event_fields":["content.body","..","\\","a\\.b"]}`, `{"room":{"state":7}}`, `{`, `[]`,
			`{"types":[],"limit":0}`, `{"room":{"rooms":["`+strings.Repeat("x", 20000)+`"]}}`, strings.Repeat("[", 10000), `{"related_by_senders":["@x:y"],"related_by_rel_types":["m.thread"]}`,
			"-1", "0", "1", "999999999", "1e3", "NaN", "1.5", "f", "b", "true", "event",
		)))
	}
}

func (b *badInput) mutateHeader(r *badRequest) {
	switch b.random.IntN(4) {
	case 0:
		r.header.Set("Content-Type", oneOf(b, "", "text/html", "application/x-www-form-urlencoded", "multipart/form-data", "image/png", strings.Repeat("x", 3000)))
	case 1:
		r.token = ""
		r.header.Set("Authorization", oneOf(b, "Bearer", "Bearer ", "Basic x", "bearer  "+b.values["alice_token"], "\x7f"))
	case 2:
		r.method = oneOf(b, http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete, http.MethodOptions, http.MethodHead, http.MethodPatch, "NONSENSE")
	default:
		r.header.Set(oneOf(b, "Range", "If-None-Match", "Accept", "Origin", "X-Forwarded-For"), b.badHeader())
	}
}

func (b *badInput) badHeader() string {
	return oneOf(b, "", "bytes=0-", "bytes=-1,5-", "*", "\"x\"", "null", strings.Repeat("y", 2000))
}

// badValue returns a JSON value that is hardly what is expected.
func (b *badInput) badValue() jsontext.Value {
	if b.random.IntN(4) == 0 {
		return quote(strings.ToValidUTF8(b.badName(), "\ufffd"))
	}
	return jsontext.Value(oneOf(b,
		`null`, `true`, `false`, `0`, `-1`, `1.5`, `1e999`, `-0`, `9007199254740993`, `123456789012345678901234567890`, `""`, `"x"`, `[]`, `{}`, `[[]]`, `[null]`, `[{}]`, `{"a":{}}`, `{"":null}`,
		`"\u0000"`, `"\ud800"`, `"\udc00\ud800"`, `"`+"\xff"+`"`, `"`+strings.Repeat("x", 300)+`"`, `"`+strings.Repeat("y", 70_000)+`"`,
		strings.Repeat("[", 200)+strings.Repeat("]", 200), strings.Repeat(`{"a":`, 2000)+"1"+strings.Repeat("}", 2000),
		`["`+strings.Repeat(`x","`, 2000)+`x"]`, `{"a":1,"a":2}`, `{"signed":{"mxid":7}}`,
	))
}

// mutateJSON changes one value of a body, wherever it stands in it.
func (b *badInput) mutateJSON(body []byte) []byte {
	var object map[string]jsontext.Value
	if json.Unmarshal(body, &object) == nil && len(object) > 0 {
		name := oneOf(b, slices.Sorted(maps.Keys(object))...)
		if inner := object[name]; (inner.Kind() == '{' || inner.Kind() == '[') && b.random.IntN(3) > 0 {
			object[name] = b.mutateJSON(inner)
			return b.join(object)
		}
		switch b.random.IntN(8) {
		case 0:
			delete(object, name)
		case 1:
			object[name+"x"] = object[name]
			delete(object, name)
		case 2: // the same name twice
			return append(append(append(bytes.TrimSuffix(b.join(object), []byte("}")), ',', '"'), name...), `":1}`...)
		case 3:
			object[strings.ToValidUTF8(b.badName(), "\ufffd")] = b.badValue()
		default:
			object[name] = b.badValue()
		}
		return b.join(object)
	}
	var list []jsontext.Value
	if json.Unmarshal(body, &list) == nil && len(list) > 0 {
		i := b.random.IntN(len(list))
		if b.random.IntN(2) == 0 {
			list[i] = b.mutateJSON(list[i])
		} else {
			list = slices.Insert(list, i, b.badValue())
		}
		return append(appendValues([]byte{'['}, list, true), ']')
	}
	return b.badValue()
}

// join writes an object whose values need not be valid.
func (b *badInput) join(object map[string]jsontext.Value) []byte {
	var members []jsontext.Value
	for _, name := range slices.Sorted(maps.Keys(object)) {
		members = append(members, append(append(quote(name), ':'), object[name]...))
	}
	return append(appendValues([]byte{'{'}, members, true), '}')
}

// mutateBytes changes a body as text.
func (b *badInput) mutateBytes(body []byte) []byte {
	at := b.random.IntN(len(body))
	switch b.random.IntN(12) {
	case 0:
		return body[:at]
	case 1:
		return nil
	case 2:
		return slices.Insert(slices.Clone(body), at, oneOf[byte](b, 0xff, 0, 0x22, 0x5c))
	case 3:
		return slices.Concat(body, body)
	case 4:
		return []byte(strings.Repeat("[", 100_000))
	case 5:
		return []byte(strings.Repeat(`{"a":`, 50_000))
	case 6:
		return append([]byte("\xef\xbb\xbf"), body...)
	case 7:
		return slices.Concat([]byte(strings.Repeat(" ", 100_000)), body)
	case 8: // above all limits, but not often
		if b.random.IntN(4) == 0 {
			return slices.Concat([]byte(`{"x":"`), bytes.Repeat([]byte("x"), 3<<20), []byte(`"}`))
		}
		return []byte("x")
	default:
		changed := slices.Clone(body)
		changed[at] = byte(b.random.IntN(256))
		return changed
	}
}
