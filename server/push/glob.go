package push

import (
	"strings"
	"unicode/utf8"
)

// maxText bounds the text in which words are looked for, in bytes. The cost of a
// match is the product of text and pattern at worst, which takes a pattern with
// many ?; else it is about their sum.
const maxText = 16 << 10

// fold makes text comparable whatever the case of its letters.
func fold(s string) string { return strings.ToLower(s) }

// matchWhole says whether a glob pattern (* for any characters, ? for one)
// matches the whole of a text. Both are folded.
//
// Spec: APP Glob-style matching.
func matchWhole(pattern, text string) bool {
	head, rest, open := strings.Cut(pattern, "*")
	at, ok := matchHere(head, text)
	if !ok {
		return false
	}
	for open {
		var piece string
		piece, rest, open = strings.Cut(rest, "*")
		if !open {
			end := tail(text, utf8.RuneCountInString(piece))
			n, ok := matchHere(piece, text[max(end, 0):])
			return ok && end >= at && end+n == len(text)
		}
		start, n := find(piece, text[at:])
		if start < 0 {
			return false
		}
		at += start + n
	}
	return at == len(text)
}

// matchWords says whether a glob pattern matches a part of a text that begins
// and ends at a word boundary: the start or end of the text, or beside a
// character that belongs to no word. Both are folded.
//
// Spec: CS Push Notifications, Conditions, event_match on content.body.
func matchWords(pattern, text string) bool {
	head, rest, open := strings.Cut(pattern, "*")
	at := -1
	for i := 0; i >= 0 && at < 0; i = nextBoundary(text, i) {
		// The first place is the best: it leaves the most to the rest.
		if n, ok := matchHere(head, text[i:]); ok && (open || boundary(text, i+n)) {
			at = i + n
		}
	}
	if at < 0 {
		return false
	}
	for open {
		var piece string
		piece, rest, open = strings.Cut(rest, "*")
		start, n := find(piece, text[at:])
		for !open && start >= 0 && !boundary(text, at+start+n) {
			at += start + runeBytes(text[at+start:])
			start, n = find(piece, text[at:])
		}
		if start < 0 {
			return false
		}
		at += start + n
	}
	return true
}

// matchHere says whether a text begins with a piece of a pattern, which has no *,
// and with how many bytes.
func matchHere(piece, text string) (n int, ok bool) {
	for {
		literal, rest, more := strings.Cut(piece, "?")
		if !strings.HasPrefix(text[n:], literal) {
			return 0, false
		}
		n += len(literal)
		if !more {
			return n, true
		}
		if n == len(text) {
			return 0, false
		}
		n += runeBytes(text[n:])
		piece = rest
	}
}

// find returns the first place in a text where a piece of a pattern, which has
// no *, matches, and with how many bytes; -1 where it does not.
func find(piece, text string) (start, n int) {
	literal, _, _ := strings.Cut(piece, "?")
	for {
		skip := strings.Index(text[start:], literal)
		if skip < 0 {
			return -1, 0
		}
		start += skip
		if n, ok := matchHere(piece, text[start:]); ok {
			return start, n
		}
		if start == len(text) {
			return -1, 0
		}
		start += runeBytes(text[start:])
	}
}

// tail returns where the last n characters of a text begin, -1 where it has fewer.
func tail(text string, n int) int {
	end := len(text)
	for ; n > 0; n-- {
		if end == 0 {
			return -1
		}
		_, size := utf8.DecodeLastRuneInString(text[:end])
		end -= size
	}
	return end
}

// boundary says whether a word may begin or end before text[i].
func boundary(text string, i int) bool {
	return i == 0 || i == len(text) || !wordByte(text[i-1]) || !wordByte(text[i])
}

// nextBoundary returns the next boundary behind text[i] where a character begins,
// -1 where there is none.
func nextBoundary(text string, i int) int {
	for i < len(text) {
		i += runeBytes(text[i:])
		if boundary(text, i) {
			return i
		}
	}
	return -1
}

func runeBytes(text string) int {
	_, size := utf8.DecodeRuneInString(text)
	return size
}

func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}
