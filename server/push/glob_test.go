package push

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

// slowGlob is matchWhole as one would say it.
func slowGlob(pattern, text []rune) bool {
	if len(pattern) == 0 {
		return len(text) == 0
	}
	switch {
	case pattern[0] == '*':
		return slowGlob(pattern[1:], text) || len(text) > 0 && slowGlob(pattern, text[1:])
	case len(text) == 0:
		return false
	case pattern[0] == '?' || pattern[0] == text[0]:
		return slowGlob(pattern[1:], text[1:])
	}
	return false
}

// slowWords is matchWords as the specification says it.
func slowWords(pattern, text []rune) bool {
	isWord := func(r rune) bool {
		return r == '_' || r < utf8.RuneSelf && (r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	}
	edge := func(i int) bool { return i == 0 || i == len(text) || !isWord(text[i-1]) || !isWord(text[i]) }
	for i := range len(text) + 1 {
		for j := i; j <= len(text); j++ {
			if edge(i) && edge(j) && slowGlob(pattern, text[i:j]) {
				return true
			}
		}
	}
	return false
}

func TestGlob(t *testing.T) {
	for _, tc := range []struct {
		pattern, text string
		whole, words  bool
	}{
		{"", "", true, true},
		{"", "x", false, true}, // the empty part at a boundary
		{"*", "", true, true},
		{"*", "anything", true, true},
		{"?", "", false, false},
		{"?", "é", true, true},
		{"??", "é", false, false},
		{"a*", "abc", true, true},
		{"*c", "abc", true, true},
		{"a*c", "abcb", false, false},
		{"a?c", "abc", true, true},
		{"a*a", "a", false, false},
		{"*a*", "bab", true, true},
		{"a**b", "ab", true, true},
		{"ex*ple", "exple", true, true},
		{"ex*ple", "an example event.", false, true},
		{"ex*ple", "an exciting triple-whammy", false, true},
		{"ex*ple", "exam peoples", false, false},
		{"ex*ple", "an exam: peoples, simple", false, true}, // not the first end will do
		{"cake", "cakes", false, false},
		{"cake", "pancake", false, false},
		{"cake", "cake!", false, true},
		{"cake", "cakes or cake", false, true}, // nor the first beginning
		{"cake", "_cake", false, false},
		{"cake", "ücakeü", false, true},
		{"@room", "hi @room", false, true},
		{"@room", "hi@room", false, true}, // there is a boundary between i and @
		{"@room", "@rooms", false, false},
		{"a?b", "xa b ya b", false, false},
		{"a?b", "xa b a-b", false, true},
		{"?*?", "x", false, false},
		{"*?", "世界", true, true},
		{"**", "", true, true},
		{"a*?", "a", false, false},
		{"a*b?", "axb", false, false},
		{"a*b?", "axbc", true, true},
	} {
		if got := matchWhole(tc.pattern, tc.text); got != tc.whole {
			t.Errorf("%q is the whole of %q: %v", tc.pattern, tc.text, got)
		}
		if got := matchWords(tc.pattern, tc.text); got != tc.words {
			t.Errorf("%q is words of %q: %v", tc.pattern, tc.text, got)
		}
	}
}

// compareGlobs holds both ways of matching to the slow ones.
func compareGlobs(t *testing.T, pattern, text string) {
	t.Helper()
	if got, want := matchWhole(pattern, text), slowGlob([]rune(pattern), []rune(text)); got != want {
		t.Errorf("%q is the whole of %q: %v, want %v", pattern, text, got, want)
	}
	if got, want := matchWords(pattern, text), slowWords([]rune(pattern), []rune(text)); got != want {
		t.Errorf("%q is words of %q: %v, want %v", pattern, text, got, want)
	}
}

func TestGlobAgainstSlowGlob(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	word := func(alphabet string, most int) string {
		letters := []rune(alphabet)
		var b strings.Builder
		for range random.IntN(most + 1) {
			b.WriteRune(letters[random.IntN(len(letters))])
		}
		return b.String()
	}
	for range 50_000 {
		compareGlobs(t, word("ab é*?", 6), word("ab é-", 10))
	}
}

// A pattern made to be slow must not be.
func TestGlobIsBounded(t *testing.T) {
	text := strings.Repeat("a", maxText)
	for _, pattern := range []string{
		strings.Repeat("a*", maxPattern/2) + "b", strings.Repeat("*?", maxPattern/2) + "b",
		strings.Repeat("a", maxPattern-1) + "b", strings.Repeat("?", maxPattern-1) + "b", strings.Repeat("?a", maxPattern/2-1) + "b",
	} {
		if matchWords(pattern, text) || matchWhole(pattern, text) {
			t.Errorf("%.10q... matches", pattern)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("ex*ple", "An exciting triple-whammy", "content.body")
	f.Add("?*?", "é", `content.m\.mentions.room`)
	f.Add("a*b?", "a b c", `\\.\.`)
	f.Fuzz(func(t *testing.T, pattern, text, path string) {
		pattern, text = strings.ToValidUTF8(pattern, "\ufffd"), strings.ToValidUTF8(text, "\ufffd")
		if len(pattern) <= 12 && len(text) <= 24 && strings.Count(pattern, "*") <= 3 { // the slow way is exponential
			compareGlobs(t, fold(pattern), fold(text))
		}
		ev := message("m.room.message", `{"body":`+string(quote(text))+`}`)
		c := &Context{User: alice}
		for _, key := range []string{bodyPath, "type", path} {
			cond := Condition{Kind: "event_match", Key: key, Pattern: &pattern}
			cond.holds(&inspection{Event: ev, Context: c})
		}
		// The path of any name leads to it.
		name := strings.NewReplacer(`\`, `\\`, `.`, `\.`).Replace(pattern)
		ev.Content = []byte(`{` + string(quote(pattern)) + `:` + string(quote(text)) + `}`)
		in := &inspection{Event: ev, Context: c}
		if got, ok := in.text("content." + name); !ok || got != text {
			t.Errorf("at %q is %q, %v, want %q", name, got, ok, text)
		}
	})
}
