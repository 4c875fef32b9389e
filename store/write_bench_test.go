package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// The database in which BenchmarkSend measures.
const (
	benchRooms  = 50
	benchEvents = 100_000
)

// BenchmarkSend measures what a sent event costs the disk, by the process's own
// count of what it hands to write calls, in a database with 100,000 earlier
// events in 50 rooms: messages and encrypted messages of local users with
// transaction IDs, at one event a commit and at 100 events of random rooms a
// commit.
func BenchmarkSend(b *testing.B) {
	house := newBenchHouse(b)
	for _, group := range []int{1, 100} {
		b.Run(fmt.Sprintf("group=%d", group), func(b *testing.B) { house.measure(b, group) })
	}
}

// benchHouse is a household that has written a lot.
type benchHouse struct {
	dir    string
	store  *Store
	rooms  []*testRoom
	random *rand.Rand
	sent   int
}

func newBenchHouse(b *testing.B) *benchHouse {
	h := &benchHouse{dir: b.TempDir(), random: rand.New(rand.NewPCG(7, 7))}
	h.store = openDir(b, h.dir)
	for i := range benchRooms {
		version := []string{"12", "11"}[i%2]
		h.rooms = append(h.rooms, putTestRoom(b, h.store, version, alice, bob))
	}
	for h.sent < benchEvents {
		update(b, h.store, func(tx *Tx) error { return h.send(tx, 100) })
	}
	closeStore(b, h.store)
	var err error
	if h.store, err = Open(h.dir, testServer, Options{}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		checkStore(b, h.store)
		closeStore(b, h.store)
	})
	return h
}

// send writes n events into random rooms.
func (h *benchHouse) send(tx *Tx, n int) error {
	for range n {
		h.sent++
		r := h.rooms[h.random.IntN(len(h.rooms))]
		txn := TxnID{User: 1, Device: "GHTYAJCE", Endpoint: "send/" + string(r.id), ID: "m1790000000.7" + strconv.Itoa(h.sent)}
		draft := matrix.Draft{Sender: alice, Type: "m.room.message",
			Content: jsontext.Value(`{"body":"See you at the station at 7, I bring the tickets","m.mentions":{},"msgtype":"m.text"}`)}
		if h.sent%2 == 0 {
			draft.Sender, draft.Type = bob, "m.room.encrypted"
			draft.Content = jsontext.Value(`{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"` + base64Of(h.random, 200) +
				`","device_id":"GHTYAJCE","sender_key":"` + base64Of(h.random, 32) +
				`","session_id":"` + base64Of(h.random, 32) + `"}`)
		}
		if _, err := r.put(tx, draft, txn); err != nil {
			return err
		}
	}
	return nil
}

// measure counts over the first commits alone, so that the database has the
// size that it is said to have however long the benchmark runs.
func (h *benchHouse) measure(b *testing.B, group int) {
	const counted = 50
	rooted := h.roots(b)
	touched, commits := 0, 0
	written, stored := processWrites(b)
	for b.Loop() {
		err := h.store.Update(context.Background(), func(tx *Tx) error { return h.send(tx, group) })
		if err != nil {
			b.Fatal(err)
		}
		if commits++; commits > counted {
			continue
		}
		now := h.roots(b)
		for i := range now {
			if now[i] != rooted[i] {
				touched++
			}
		}
		rooted = now
		writtenNow, storedNow := processWrites(b)
		events := float64(commits * group)
		b.ReportMetric(float64(writtenNow-written)/events/1024, "KiB/event")
		b.ReportMetric(float64(storedNow-stored)/events/1024, "stored-KiB/event")
		b.ReportMetric(float64(touched)/float64(commits), "buckets/commit")
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(commits*group), "µs/event")
}

// roots returns the root page of each bucket: a bucket that a commit touches
// gets another.
func (h *benchHouse) roots(b *testing.B) (roots [buckets]uint64) {
	view(b, h.store, func(tx *Tx) error {
		for name := range roots {
			roots[name] = uint64(tx.in(bucketName(name)).Root())
		}
		return nil
	})
	return roots
}

// processWrites returns how many bytes this process has handed to write calls,
// and how many of those the kernel counts for a disk.
func processWrites(b *testing.B) (written, stored int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Skip(err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, _ := strconv.ParseInt(value, 10, 64)
		switch name {
		case "wchar":
			written = n
		case "write_bytes":
			stored = n
		}
	}
	return written, stored
}
