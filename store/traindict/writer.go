package main

import (
	"encoding/binary"
	"math/rand/v2"
	"strconv"
	"strings"
)

// The marks that stand in a skeleton for what is not compressed: see
// skeleton.go of package store, which says the same.
const (
	markRoom      = "\x01"
	markHashURL   = "\x02"
	markHash      = "\x03"
	markSignedURL = "\x04"
	markSigned    = "\x05"
	markBytes     = "\x07"
)

// A writer makes up the skeletons of events. Its servers and users are few, as
// they are for one household, but change from time to time so that none gets
// into the dictionary.
type writer struct {
	random *rand.Rand
	world  world
	left   int // events until the world changes
}

// world is the set of names that a run of events shares.
type world struct {
	servers, keys, users []string
}

func newWriter(random *rand.Rand) *writer { return &writer{random: random} }

// renew makes up other servers and users.
func (w *writer) renew() {
	w.world = world{}
	for i := range 3 {
		server := w.pick("matrix.org", "localhost", w.word()+"."+w.pick("org", "com", "net", "de", "chat", "io"))
		if i == 2 {
			server = "matrix." + w.word() + "." + w.pick("org", "com", "net", "de", "fr", "xyz")
		}
		w.world.servers = append(w.world.servers, server)
		w.world.keys = append(w.world.keys, "ed25519:"+w.pick("auto", "1", "0", "a_RXGa", "a_"+w.letters(4), w.letters(8)))
	}
	for range 8 {
		w.world.users = append(w.world.users, "@"+w.word()+":"+w.pick(w.world.servers...))
	}
	w.left = 40
}

// event makes up the skeleton of one event.
func (w *writer) event(shape shape) []byte {
	if w.left == 0 {
		w.renew()
	}
	w.left--
	sender := w.pick(w.world.users...)
	_, server, _ := strings.Cut(sender, ":")
	head := `{"auth_events":` + w.ids(3)
	prev := `,"prev_events":` + w.ids(1)
	kind := `,"type":"` + shape.kind + `"`
	room := `,"room_id":"` + markRoom + `"`
	from := `,"sender":"` + sender + `"`
	content := `,"content":` + w.fill(shape.content)
	depth := `,"depth":` + w.number(5)
	time := `,"origin_server_ts":` + w.time()
	hashes := `,"hashes":{"sha256":"` + w.hash() + `"}`
	signatures := `,"signatures":{"` + server + `":{"` + w.key(server) + `":"` + w.signature() + `"}}`
	state, origin, unsigned := "", "", ""
	if shape.stateKey != nil {
		state = `,"state_key":"` + w.fill(*shape.stateKey) + `"`
	}
	if w.random.IntN(4) == 0 {
		origin = `,"origin":"` + server + `"`
	}
	if w.random.IntN(4) == 0 {
		unsigned = `,"unsigned":{"age":` + w.number(4) + `}`
	}
	if w.random.IntN(3) == 0 { // in Synapse's order
		return []byte(head + prev + kind + room + from + content + depth + origin + time + hashes + state + signatures + unsigned + "}")
	}
	return []byte(head + content + depth + hashes + origin + time + prev + room + from + signatures + state + kind + unsigned + "}")
}

// shape draws one of the shapes by its weight.
func (w *writer) shape() shape {
	total := 0
	for _, s := range shapes {
		total += s.weight
	}
	n := w.random.IntN(total)
	for _, s := range shapes {
		if n -= s.weight; n < 0 {
			return s
		}
	}
	panic("weights do not add up")
}

// fill replaces the words in braces of a template.
func (w *writer) fill(template string) string {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(template, "{{")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		name, after, _ := strings.Cut(rest, "}}")
		out.WriteString(w.value(name))
		template = after
	}
}

// value makes up what stands for a word in braces.
func (w *writer) value(name string) string {
	switch name {
	case "text":
		return w.text(1 + w.random.IntN(25))
	case "name":
		return w.text(1 + w.random.IntN(2))
	case "user":
		return w.pick(w.world.users...)
	case "room":
		return w.pick("!"+markHashURL, "!"+w.letters(18)+":"+w.pick(w.world.servers...))
	case "server":
		return w.pick(w.world.servers...)
	case "event":
		return "$" + markHashURL
	case "time":
		return w.time()
	case "number":
		return w.number(1 + w.random.IntN(6))
	case "media":
		return "mxc://" + w.pick(w.world.servers...) + "/" + w.letters(24)
	case "file":
		return w.word() + "_" + w.number(6)
	case "hash":
		return markHashURL
	case "key":
		return w.hash()
	case "iv":
		return w.letters(10) + "AAAAAAAAAAA"
	case "cipher":
		return w.cipher()
	case "letters":
		return w.letters(10)
	case "device":
		return strings.ToUpper(w.letters(10))
	case "emoji":
		return w.pick("👍", "👍️", "❤️", "😂", "🎉", "😄", "👀", "✅", "🙏", "😢")
	}
	panic("no such word: " + name)
}

func (w *writer) pick(from ...string) string { return from[w.random.IntN(len(from))] }

func (w *writer) key(server string) string {
	for i, s := range w.world.servers {
		if s == server {
			return w.world.keys[i]
		}
	}
	return "ed25519:auto"
}

// ids makes up one to n event IDs.
func (w *writer) ids(n int) string {
	id := `"$` + markHashURL + `"`
	return "[" + id + strings.Repeat(","+id, w.random.IntN(n)) + "]"
}

// hash is 32 random bytes in standard base64; a quarter of them look as if they
// were in the other.
func (w *writer) hash() string { return w.pick(markHash, markHash, markHash, markHashURL) }

// signature is 64 random bytes in standard base64.
func (w *writer) signature() string {
	return w.pick(markSigned, markSigned, markSigned, markSigned, markSigned, markSigned, markSignedURL)
}

// cipher is some hundreds of random bytes in standard base64.
func (w *writer) cipher() string {
	size := 150 + 16*w.random.IntN(20)
	return string(binary.AppendUvarint([]byte(markBytes), uint64(size)))
}

func (w *writer) letters(n int) string {
	const from = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	b := make([]byte, n)
	for i := range b {
		b[i] = from[w.random.IntN(len(from))]
	}
	return string(b)
}

func (w *writer) word() string {
	return w.pick(words...)
}

func (w *writer) text(n int) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = w.word()
	}
	return strings.Join(parts, " ")
}

func (w *writer) number(digits int) string {
	b := []byte{byte('1' + w.random.IntN(9))}
	for range digits - 1 {
		b = append(b, byte('0'+w.random.IntN(10)))
	}
	return string(b)
}

// time makes up a time of the years in which these events will be written.
func (w *writer) time() string {
	return strconv.FormatInt(1_760_000_000_000+w.random.Int64N(150_000_000_000), 10)
}
