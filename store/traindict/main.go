// Command traindict makes the zstd dictionary that packs the bodies of events.
// It makes up events of all common types, with the names, numbers and texts in
// them drawn by chance, in the form in which the store packs them. The history
// of the dictionary holds each shape of event once, the most common ones last;
// its tables come from thousands of events. The same flags give the same
// dictionary. Run it by go generate in the folder above. A new dictionary is a
// new format of the database: what was packed with the old one needs the old
// one.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"slices"

	"github.com/klauspost/compress/zstd"
)

func main() {
	log.SetFlags(0)
	out := flag.String("o", "body.dict", "file to write")
	count := flag.Int("events", 8000, "events to train on")
	id := flag.Uint("id", 1, "number of the dictionary, named in each frame")
	seed := flag.Uint64("seed", 1, "of the random numbers")
	flag.Parse()
	if err := train(*out, *count, uint32(*id), *seed); err != nil {
		log.Fatal(err)
	}
}

func train(out string, count int, id uint32, seed uint64) error {
	w := newWriter(rand.New(rand.NewPCG(seed, 0)))
	events := make([][]byte, count)
	for i := range events {
		events[i] = w.event(w.shape())
	}
	dictionary, err := zstd.BuildDict(zstd.BuildDictOptions{
		ID:       id,
		Contents: events,
		History:  history(w),
		Offsets:  [3]int{1, 4, 8}, // the format's own start values
		Level:    zstd.SpeedFastest,
	})
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	return os.WriteFile(out, dictionary, 0o644)
}

// common is the weight from which on a shape is in the history as a whole
// event; of the others it holds what is theirs alone.
const common = 10

// history makes up what the dictionary lets events refer to. What is nearer
// its end is cheaper to refer to.
func history(w *writer) []byte {
	var h []byte
	byWeight := slices.SortedStableFunc(slices.Values(shapes), func(a, b shape) int {
		return cmp.Compare(a.weight, b.weight)
	})
	for _, s := range byWeight {
		if s.weight >= common {
			h = append(h, w.event(s)...)
			continue
		}
		h = append(h, `,"content":`+w.fill(s.content)+`,"depth":`...)
		if s.stateKey != nil {
			h = append(h, `"state_key":"`...)
		} else {
			h = append(h, `"}}`...)
		}
		h = append(h, `","type":"`+s.kind+`"`...)
	}
	return h
}
