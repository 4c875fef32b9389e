package store

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// A WordBlock says which words may stand in a run of a room's timeline, so that a
// search reads only the runs that may hold what it looks for. It is a Bloom filter
// over the hashes of the words: it never denies a word that is there, and affirms
// about one in a hundred that is not.
//
// A reader of all bodies comes by some 100,000 events a second on a desktop core
// (the frames of zstd are nearly all of it), an eighth of that on the boards that
// this is for: too slow for a household's 200,000. A list of events for each word
// would make each message write ten more leaves. A block for 64 events is some 500
// bytes, made from what a search has read anyway: whoever never searches pays
// nothing, and a rare word is found among 200,000 events in 0.2 s, in 3,000 look-ups.
//
// Blocks do not overlap, and leave gaps: the newest events, and runs that had an
// event redacted, since a word that was taken away is in no block either.
type WordBlock struct {
	First, Last EventNum // both in the timeline and in the block
	filter      []byte   // empty: no words at all
}

// The filter of a block: ten bits and five probes for each word, up to a size.
const (
	wordBits       = 10
	wordProbes     = 5
	maxWordsFilter = 4096 // bytes; what has more words says yes too often
)

// NewWordBlock returns the block of a run whose words have these hashes.
func NewWordBlock(first, last EventNum, words map[uint64]struct{}) WordBlock {
	b := WordBlock{First: first, Last: last}
	if len(words) == 0 {
		return b
	}
	b.filter = make([]byte, min((len(words)*wordBits+7)/8, maxWordsFilter))
	for word := range words {
		for probe := range uint64(wordProbes) {
			bit := b.probe(word, probe)
			b.filter[bit/8] |= 1 << (bit % 8)
		}
	}
	return b
}

// MayHave says whether a word with this hash may stand in the block.
func (b *WordBlock) MayHave(word uint64) bool {
	if len(b.filter) == 0 {
		return false
	}
	for probe := range uint64(wordProbes) {
		if bit := b.probe(word, probe); b.filter[bit/8]&(1<<(bit%8)) == 0 {
			return false
		}
	}
	return true
}

// probe returns the bit that one of the probes for a word looks at.
func (b *WordBlock) probe(word, probe uint64) uint64 {
	mixed := (word + probe*(bits.RotateLeft64(word, 32)|1)) * 0x9e3779b97f4a7c15
	high, _ := bits.Mul64(mixed, uint64(len(b.filter))*8)
	return high
}

// PutWordBlock stores a block, unless it overlaps with one that is there: two
// searches may have made blocks of the same events.
func (tx *Tx) PutWordBlock(room RoomNum, b WordBlock) error {
	before, ok, err := tx.wordBlockAt(room, b.First)
	if err != nil || ok && before.First <= b.Last {
		return err
	}
	v := binary.AppendUvarint(nil, uint64(b.First))
	return tx.put(bucketRoom, wordBlockKey(room, b.Last), append(v, b.filter...))
}

// WordBlockBefore returns the newest block of a room whose events are all older
// than before; ok is false when there is none.
func (tx *Tx) WordBlockBefore(room RoomNum, before EventNum) (b WordBlock, ok bool, err error) {
	prefix := keyOf(uint32(room), roomWords)
	err = tx.scanBack(bucketRoom, prefix, wordBlockKey(room, before), func(key, v []byte) (bool, error) {
		b, err = readWordBlock(key, v)
		ok = err == nil
		return false, err
	})
	if err != nil {
		return WordBlock{}, false, fmt.Errorf("words of room %d: %w", room, err)
	}
	return b, ok, nil
}

// wordBlockAt returns the oldest block that ends at an event or behind it.
func (tx *Tx) wordBlockAt(room RoomNum, num EventNum) (b WordBlock, ok bool, err error) {
	prefix := keyOf(uint32(room), roomWords)
	err = tx.scan(bucketRoom, prefix, wordBlockKey(room, num), func(key, v []byte) (bool, error) {
		b, err = readWordBlock(key, v)
		ok = err == nil
		return false, err
	})
	if err != nil {
		return WordBlock{}, false, fmt.Errorf("words of room %d: %w", room, err)
	}
	return b, ok, nil
}

// dropWords deletes the block that an event lies in, as its words are to go.
func (tx *Tx) dropWords(room RoomNum, num EventNum) error {
	b, ok, err := tx.wordBlockAt(room, num)
	if err != nil || !ok || num < b.First {
		return err
	}
	return tx.delete(bucketRoom, wordBlockKey(room, b.Last))
}

// TimelineNumsBack calls fn with the number of each event of a room's timeline that
// is older than before, newest to oldest, until fn returns false. It reads no
// events.
func (tx *Tx) TimelineNumsBack(room RoomNum, before EventNum, fn func(EventNum) bool) error {
	end := appendU64(regionKey(room, regionTimeline), uint64(before.Position()))
	return tx.scanBack(bucketEvent, regionKey(room, regionTimeline), end, func(key, _ []byte) (bool, error) {
		if len(key) != 8 {
			return false, fmt.Errorf("timeline key of room %d: %w", room, ErrDamaged)
		}
		return fn(timelineNum(Position(u64(key)))), nil
	})
}

func wordBlockKey(room RoomNum, last EventNum) []byte {
	return appendU64(keyOf(uint32(room), roomWords), uint64(last))
}

func readWordBlock(key, v []byte) (WordBlock, error) {
	r := reader{b: v}
	b := WordBlock{First: EventNum(r.uvarint())}
	if len(key) != 8 || r.err != nil || len(r.b) > maxWordsFilter {
		return WordBlock{}, ErrDamaged
	}
	b.Last = EventNum(u64(key))
	b.filter = append([]byte(nil), r.b...)
	return b, nil
}

// checkWords holds the blocks to their form and keeps them apart.
func checkWords(c *checker) error {
	room, last := RoomNum(0), EventNum(0)
	return c.eachOf(bucketRoom, roomWords, func(num uint32, rest, value []byte) {
		b, err := readWordBlock(rest, value)
		if err != nil {
			c.faultf("room %d: words at %x: %v", num, rest, err)
			return
		}
		if RoomNum(num) != room {
			room, last = RoomNum(num), 0
		}
		for _, end := range []EventNum{b.First, b.Last} {
			if end.Aside() || c.get(bucketEvent, eventKey(room, end)) == nil {
				c.faultf("room %d: words at event %d, which is not in the timeline", room, end)
			}
		}
		if b.First > b.Last || b.First <= last {
			c.faultf("room %d: words of events %d to %d, those before end at %d", room, b.First, b.Last, last)
		}
		last = b.Last
	})
}
