package store

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// sampleBodies are bodies of events of a household's rooms, as they come to be
// in a store.
func sampleBodies(tb testing.TB) (room matrix.RoomID, bodies [][]byte) {
	tb.Helper()
	s := openDir(tb, tb.TempDir())
	defer closeStore(tb, s)
	r := putTestRoom(tb, s, "12", alice, bob)
	random := rand.New(rand.NewPCG(1, 1))
	drafts := []func() matrix.Draft{
		func() matrix.Draft {
			return matrix.Draft{Sender: alice, Type: "m.room.message",
				Content: jsontext.Value(`{"body":"See you at the station at ` + fmt.Sprint(random.IntN(24)) + `, I bring the tickets","m.mentions":{},"msgtype":"m.text"}`)}
		},
		func() matrix.Draft {
			return matrix.Draft{Sender: bob, Type: "m.room.encrypted",
				Content: jsontext.Value(`{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"` + base64Of(random, 200) + `","device_id":"GHTYAJCE","sender_key":"` + base64Of(random, 32) + `","session_id":"` + base64Of(random, 32) + `"}`)}
		},
		func() matrix.Draft {
			return matrix.Draft{Sender: bob, Type: "m.reaction",
				Content: jsontext.Value(`{"m.relates_to":{"event_id":"$` + base64.RawURLEncoding.EncodeToString(bytesOf(random, 32)) + `","key":"👍️","rel_type":"m.annotation"}}`)}
		},
	}
	update(tb, s, func(tx *Tx) error {
		for i := range 60 {
			num, err := r.put(tx, drafts[i%len(drafts)](), TxnID{})
			if err != nil {
				return err
			}
			ev, err := tx.Event(r.num, num)
			if err != nil {
				return err
			}
			bodies = append(bodies, ev.JSON())
		}
		return nil
	})
	return r.id, bodies
}

func bytesOf(random *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.IntN(256))
	}
	return b
}

func base64Of(random *rand.Rand, n int) string {
	return base64.RawStdEncoding.EncodeToString(bytesOf(random, n))
}

// The aim is half of the plain size for a single event.
func TestBodyRatio(t *testing.T) {
	room, bodies := sampleBodies(t)
	var codec bodyCodec
	codec.init()
	plain, packed := 0, 0
	for _, body := range bodies {
		record, err := codec.pack(nil, body, room)
		if err != nil {
			t.Fatal(err)
		}
		plain, packed = plain+len(body), packed+len(record)
	}
	ratio := float64(plain) / float64(packed)
	t.Logf("%d bytes to %d, ratio %.2f", plain/len(bodies), packed/len(bodies), ratio)
	if ratio < 1.9 {
		t.Errorf("ratio %.2f", ratio)
	}
}

func TestBodyRoundTrip(t *testing.T) {
	room, bodies := sampleBodies(t)
	random := rand.New(rand.NewPCG(3, 4))
	for _, text := range []string{
		"", "{}", "\x01", "\x07\x05", string(room), "x" + string(room) + "y", strings.Repeat("A", 40),
		strings.Repeat("A", 41), strings.Repeat("A", 42), strings.Repeat("A", 43), strings.Repeat("B", 43),
		strings.Repeat("+", 43) + "-", strings.Repeat("_", 86), strings.Repeat("/", 1000), strings.Repeat("x", 64<<10),
		strings.Repeat("\xff", 100), strings.Repeat("é", 2000), base64Of(random, 32) + "=",
	} {
		bodies = append(bodies, []byte(text))
	}
	for n := range 200 {
		bodies = append(bodies, bytesOf(random, n), []byte(base64Of(random, n)))
	}
	var codec bodyCodec
	codec.init()
	for _, body := range bodies {
		record, err := codec.pack([]byte("head"), body, room)
		if err != nil {
			t.Fatalf("pack %.40q: %v", body, err)
		}
		if len(record) > len("head")+1+len(body) {
			t.Errorf("%d bytes became %d: %.40q", len(body), len(record), body)
		}
		got, err := codec.unpack(record[len("head"):], room)
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("unpacked %.40q, want %.40q: %v", got, body, err)
		}
	}
	if _, err := codec.pack(nil, make([]byte, matrix.MaxEventBytes+1), room); !errors.Is(err, matrix.ErrTooLarge) {
		t.Errorf("a body that is too large: %v", err)
	}
}

// Encoder and decoder stay small: they are part of what the idle process holds.
func TestBodyCodecMemory(t *testing.T) {
	room, bodies := sampleBodies(t)
	var codec bodyCodec
	codec.init()
	before := heap()
	for _, body := range bodies {
		record, err := codec.pack(nil, body, room)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := codec.unpack(record, room); err != nil {
			t.Fatal(err)
		}
	}
	grown := heap() - before
	t.Logf("%d KiB", grown>>10)
	if grown > 1200<<10 {
		t.Errorf("the codec holds %d KiB", grown>>10)
	}
	runtime.KeepAlive(codec)
}

// heap returns the live bytes of the heap.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func FuzzBodyRoundTrip(f *testing.F) {
	room, bodies := sampleBodies(f)
	for _, body := range bodies[:6] {
		f.Add(body)
	}
	var codec bodyCodec
	codec.init()
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > matrix.MaxEventBytes {
			return
		}
		record, err := codec.pack(nil, body, room)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := codec.unpack(record, room); err != nil || !bytes.Equal(got, body) {
			t.Errorf("unpacked %q, want %q: %v", got, body, err)
		}
	})
}

// Damaged bodies are errors, and never larger than an event may be.
func FuzzBodyUnpack(f *testing.F) {
	room, bodies := sampleBodies(f)
	var codec bodyCodec
	codec.init()
	for _, body := range bodies[:6] {
		record, err := codec.pack(nil, body, room)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(record)
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		body, err := codec.unpack(record, room)
		if err == nil && len(body) > matrix.MaxEventBytes || err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("%d bytes, %v", len(body), err)
		}
	})
}

func BenchmarkBody(b *testing.B) {
	room, bodies := sampleBodies(b)
	var codec bodyCodec
	codec.init()
	var records [][]byte
	for _, body := range bodies {
		record, err := codec.pack(nil, body, room)
		if err != nil {
			b.Fatal(err)
		}
		records = append(records, record)
	}
	b.Run("pack", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := codec.pack(nil, bodies[i%len(bodies)], room); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("unpack", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := codec.unpack(records[i%len(records)], room); err != nil {
				b.Fatal(err)
			}
		}
	})
}
