package client

import (
	"strings"
	"unicode"

	"hearth/state/matrix"
)

// userTerm is what somebody types to find a user: words, all of which must be in
// the user's ID or display name, whatever their case.
type userTerm struct {
	words []string // folded
}

// The ranks of what a term finds, the best first.
const (
	rankID    = iota // the whole user ID
	rankName         // the whole localpart or name
	rankBegin        // the ID or name, or a word of it, begins so
	rankPart         // it is somewhere in the middle
)

func newUserTerm(text string) userTerm { return userTerm{strings.Fields(foldCase(text))} }

func (t userTerm) empty() bool { return len(t.words) == 0 }

// prefix returns how the IDs of users begin that the term finds by ID, "" where
// only a name can be meant.
func (t userTerm) prefix() string {
	if len(t.words) != 1 {
		return ""
	}
	word := strings.TrimPrefix(t.words[0], "@")
	if word == "" {
		return ""
	}
	return "@" + word
}

// match says whether the term finds a user, and how well.
func (t userTerm) match(id matrix.UserID, name string) (rank int, ok bool) {
	folded, local := foldCase(string(id)), foldCase(id.Localpart())
	name = strings.Join(strings.Fields(foldCase(name)), " ")
	if len(t.words) == 1 && t.words[0] == folded {
		return rankID, true
	}
	if whole := strings.Join(t.words, " "); whole == name || strings.TrimPrefix(whole, "@") == local {
		return rankName, true
	}
	rank = rankBegin
	for _, word := range t.words {
		switch {
		case strings.HasPrefix(folded, word) || strings.HasPrefix(local, word) || beginsWord(name, word):
		case strings.Contains(local, word) || strings.Contains(name, word):
			rank = rankPart
		default:
			return 0, false
		}
	}
	return rank, true
}

// beginsWord says whether one of the words of text begins with word.
func beginsWord(text, word string) bool {
	return strings.HasPrefix(text, word) || strings.Contains(text, " "+word)
}

// foldCase returns text with each letter in the form that stands for all its
// cases, which is the lower one where there is such.
//
// Unicode: simple case folding.
func foldCase(text string) string { return strings.Map(foldRune, text) }

func foldRune(r rune) rune {
	if r < unicode.MaxASCII {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}
	least := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		least = min(least, next)
	}
	return unicode.ToLower(least)
}
