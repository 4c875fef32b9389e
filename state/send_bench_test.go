package state

import (
	"context"
	"crypto/ed25519"
	"strconv"
	"testing"

	"hearth/state/matrix"
	"hearth/store"
)

// BenchmarkSend sends messages one after the other into a room with some history,
// without waiting for the disk: what a message costs the processor.
func BenchmarkSend(b *testing.B) {
	st, err := store.Open(b.TempDir(), "home.example", store.Options{NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	key := matrix.SigningKey{ID: "ed25519:bench", Private: ed25519.NewKeyFromSeed(make([]byte, 32))}
	rooms := New(Config{Store: st, Server: "home.example", Key: key})
	ctx := context.Background()
	room, err := rooms.Create(ctx, Creation{Creator: alice, Preset: PresetPrivate})
	if err != nil {
		b.Fatal(err)
	}
	send := func(id int) {
		txn := store.TxnID{User: 1, Device: "DEVICE", Endpoint: "send", ID: strconv.Itoa(id)}
		draft := matrix.Draft{Room: room, Sender: alice, Type: "m.room.message", Content: []byte(`{"msgtype":"m.text","body":"a message of some words"}`)}
		if _, err := rooms.Send(ctx, txn, draft); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 3000 {
		send(-1 - i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		send(i)
	}
}
