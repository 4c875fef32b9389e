package client

import (
	"hash/fnv"
	"slices"
	"unicode"

	"hearth/state/matrix"
)

// Keys that a search may look at.
//
// Spec: CS Server Side Search, room_events.
const (
	keyBody  = "content.body"
	keyName  = "content.name"
	keyTopic = "content.topic"
)

// maxWordBytes is how much of a word counts.
const maxWordBytes = 128

// singleScripts are written without spaces between words: there each letter counts
// as a word.
var singleScripts = []*unicode.RangeTable{
	unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar,
}

// eachWord calls fn with each word of a text, in small letters. fn keeps nothing of
// it.
func eachWord(text string, fn func(word []byte)) {
	word := make([]byte, 0, maxWordBytes)
	end := func() {
		if len(word) > 0 {
			fn(word)
			word = word[:0]
		}
	}
	for _, r := range text {
		if !unicode.In(r, unicode.Letter, unicode.Number, unicode.Mark) {
			end()
			continue
		}
		single := r >= 0x0E00 && unicode.In(r, singleScripts...)
		if single {
			end()
		}
		if len(word) < maxWordBytes {
			word = append(word, string(unicode.ToLower(r))...)
		}
		if single {
			end()
		}
	}
	end()
}

// wordHash is what a word is known by in a [store.WordBlock]: never to be changed.
func wordHash(word []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(word) // a hash never fails
	return h.Sum64()
}

// eachSearchable calls fn for each text of an event that a search may find.
// An edit is found by its new content.
func eachSearchable(ev *matrix.Event, fn func(key, text string)) {
	switch {
	case ev.Type == "m.room.message" && !ev.IsState():
		var message struct {
			Body       looseString `json:"body"`
			NewContent struct {
				Body looseString `json:"body"`
			} `json:"m.new_content"`
		}
		if unmarshalLenient(ev.Content, &message) != nil {
			return
		}
		if relation, ok := ev.Relation(); ok && relation.Type == "m.replace" {
			message.Body = message.NewContent.Body
		}
		fn(keyBody, string(message.Body))
	case ev.Is("m.room.name", ""):
		fn(keyName, contentString(ev.Content, "name"))
	case ev.Is("m.room.topic", ""):
		fn(keyTopic, contentString(ev.Content, "topic"))
		fn(keyTopic, plainTopic(ev.Content))
	}
}

// plainTopic returns the text of a topic that is marked as plain.
//
// Spec: CS m.room.topic, m.topic.
func plainTopic(content []byte) string {
	var topic struct {
		Topic struct {
			Text []struct {
				Body looseString `json:"body"`
				Type looseString `json:"mimetype"`
			} `json:"m.text"`
		} `json:"m.topic"`
	}
	if unmarshalLenient(content, &topic) != nil {
		return ""
	}
	for _, text := range topic.Topic.Text {
		if text.Type == "" || text.Type == "text/plain" {
			return string(text.Body)
		}
	}
	return ""
}

// looseString is a string where an event has one; what else it has reads as none.
type looseString string

// UnmarshalJSON reads a value.
func (s *looseString) UnmarshalJSON(value []byte) error {
	if len(value) > 0 && value[0] == '"' {
		return unmarshalLenient(value, (*string)(s))
	}
	return nil
}

// searchTerm is what a search looks for: all of its words in one text.
type searchTerm struct {
	words  []string
	hashes []uint64 // of the words, in the order of the term
	text   []uint64 // of the text that is looked at
}

// maxTermWords is how many words of a term count.
const maxTermWords = 32

func newSearchTerm(text string) *searchTerm {
	t := &searchTerm{words: []string{}}
	eachWord(text, func(word []byte) {
		if len(t.hashes) == maxTermWords {
			return
		}
		t.hashes = append(t.hashes, wordHash(word))
		if !slices.Contains(t.words, string(word)) {
			t.words = append(t.words, string(word))
		}
	})
	return t
}

// rank says how well a text matches, 0 for not at all: the share of its words that
// are looked for, in thousandths, and 1000 more where it has them in a row.
func (t *searchTerm) rank(text string) int {
	t.text = t.text[:0]
	eachWord(text, func(word []byte) { t.text = append(t.text, wordHash(word)) })
	hits, row := 0, false
	for i, word := range t.text {
		if slices.Contains(t.hashes, word) {
			hits++
		}
		row = row || len(t.text)-i >= len(t.hashes) && slices.Equal(t.text[i:i+len(t.hashes)], t.hashes)
	}
	for _, word := range t.hashes {
		if !slices.Contains(t.text, word) {
			return 0
		}
	}
	if hits == 0 {
		return 0
	}
	rank := max(1, hits*1000/len(t.text))
	if row {
		rank += 1000
	}
	return rank
}

// rankEvent is the best rank of those texts of an event that are looked at.
func (t *searchTerm) rankEvent(ev *matrix.Event, keys []string) (best int) {
	eachSearchable(ev, func(key, text string) {
		if slices.Contains(keys, key) {
			best = max(best, t.rank(text))
		}
	})
	return best
}
