package remote

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// Of too many strangers the keys go that were fetched first; those of servers that are in
// a room of ours, or were, stay.
func TestKeysOfStrangersAreForgotten(t *testing.T) {
	h := newHomestead(t, "here.test")
	room := h.create("12", 0)
	h.visitors(room, "@a:member.test", "@b:former.test")
	h.send(room, "m.room.member", new("@b:former.test"), `{"membership":"leave"}`)
	n := NewNetwork(NetworkConfig{Store: h.store})
	put := func(server matrix.ServerName, fetched time.Time) {
		answer := store.KeyAnswer{JSON: jsontext.Value(`{}`), Fetched: fetched, ValidUntil: fetched}
		keys := []store.VerifyKey{{ID: "ed25519:a", Public: make([]byte, 32)}, {ID: "ed25519:b", Public: make([]byte, 32)}}
		h.must(n.putKeys(context.Background(), server, answer, keys, true))
	}
	now := time.Now()
	put("member.test", now.Add(-9999*time.Hour))
	put("former.test", now.Add(-9999*time.Hour))
	for i := range 30 {
		put(matrix.ServerName(fmt.Sprintf("s%d.test", i)), now.Add(-time.Duration(i)*time.Hour))
	}
	known := func() (servers int, kept map[matrix.ServerName]bool) {
		kept = make(map[matrix.ServerName]bool)
		h.must(h.store.View(func(tx *store.Tx) error {
			return tx.KeyAnswers(func(server matrix.ServerName, _ time.Time) (bool, error) {
				_, err := tx.VerifyKey(server, "ed25519:b")
				kept[server] = true
				return true, err
			})
		}))
		return len(kept), kept
	}
	h.must(n.forgetKeys(t.Context(), 30, 10))
	if servers, _ := known(); servers != 32 {
		t.Errorf("keys of %d servers are left of 32, of which there may be so many", servers)
	}
	h.must(n.forgetKeys(t.Context(), 29, 10))
	servers, kept := known()
	if servers != 12 || !kept["member.test"] || !kept["former.test"] || !kept["s0.test"] || !kept["s9.test"] {
		t.Errorf("left are %v", kept)
	}
}
