package remote

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// A server in the room vouches for the keys of servers that are gone: for members'
// events alone, and not for longer than it is asked. It is asked once for each key.
func TestWitness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInternet(t)
		key, own := seedKey("ed25519:k", 2), seedKey("ed25519:w", 3)
		var asked []string
		i.serve("9.0.0.1:8448", "9.0.0.1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/_matrix/key/v2/server" {
				_, _ = w.Write(keyAnswerOf(t, "9.0.0.1", time.Now().Add(time.Hour), nil, own))
				return
			}
			body, _ := io.ReadAll(r.Body)
			asked = append(asked, string(body))
			answer, err := matrix.SignJSON(keyAnswerOf(t, "1.0.0.1", time.Now().Add(time.Hour), nil, key), "9.0.0.1", own)
			if err != nil {
				t.Error(err)
			}
			_ = json.MarshalWrite(w, map[string]any{"server_keys": []jsontext.Value{answer}})
		}))
		n := openNetwork(t, i, t.TempDir(), func(*NetworkConfig) {})
		message := eventFrom(t, "10", "1.0.0.1", key, time.Now())
		member, unknown := memberFrom(t, "1.0.0.1", key), memberFrom(t, "1.0.0.2", key)
		forged := memberFrom(t, "1.0.0.1", seedKey("ed25519:k", 7))
		verify := n.witnessed("8.0.0.1", "9.0.0.1")
		for range 2 {
			errs := verify(t.Context(), []*matrix.Event{message, member, unknown, forged})
			if !errors.Is(errs[0], ErrUnreachable) || errs[1] != nil || !errors.Is(errs[2], ErrUnreachable) || !errors.Is(errs[3], matrix.ErrBadSignature) {
				t.Errorf("verified: %v", errs)
			}
		}
		if len(asked) != 1 || !strings.Contains(asked[0], `"1.0.0.1"`) || !strings.Contains(asked[0], `"1.0.0.2"`) {
			t.Errorf("asked %q", asked)
		}
		if err := n.VerifyEvent(t.Context(), member); !errors.Is(err, ErrUnreachable) {
			t.Errorf("without the witness: %v", err)
		}
		if errs := n.witnessed()(t.Context(), []*matrix.Event{member}); errs[0] != nil {
			t.Errorf("by what the witness said before: %v", errs)
		}
		if said, hearsay, err := n.ServerKeys(t.Context(), "1.0.0.1", time.Now()); !hearsay || err != nil {
			t.Errorf("another is told %s, %v", said, err)
		}
		if _, _, err := n.ServerKeys(t.Context(), "1.0.0.2", time.Now()); !errors.Is(err, ErrUnreachable) {
			t.Errorf("of a server that nobody knows: %v", err)
		}
		if err := n.store.View(func(tx *store.Tx) error {
			if _, err := tx.VerifyKey("1.0.0.1", "ed25519:k"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("what a witness says counts for all: %v", err)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		n.stop()
	})
}

// Nobody adds a key to those that a server has told itself: not while it is there, and not
// when it is gone.
func TestWitnessAgainstTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInternet(t)
		key, forger, own := seedKey("ed25519:k", 2), seedKey("ed25519:forged", 3), seedKey("ed25519:w", 4)
		i.keyServer("1.0.0.1:8448", "1.0.0.1", func() []byte {
			return keyAnswerOf(t, "1.0.0.1", time.Now().Add(24*time.Hour), nil, key)
		})
		i.serve("9.0.0.1:8448", "9.0.0.1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/_matrix/key/v2/server" {
				_, _ = w.Write(keyAnswerOf(t, "9.0.0.1", time.Now().Add(time.Hour), nil, own))
				return
			}
			forged := keyAnswerOf(t, "1.0.0.1", time.Now().Add(24*time.Hour), nil, key, forger)
			_ = json.MarshalWrite(w, map[string]any{"server_keys": []jsontext.Value{forged}})
		}))
		n := openNetwork(t, i, t.TempDir(), func(*NetworkConfig) {})
		member, forged := memberFrom(t, "1.0.0.1", key), memberFrom(t, "1.0.0.1", forger)
		verify := n.witnessed("9.0.0.1")
		for range 2 {
			errs := verify(t.Context(), []*matrix.Event{member, forged})
			if errs[0] != nil || !errors.Is(errs[1], ErrUnreachable) {
				t.Errorf("verified: %v", errs)
			}
			i.holes["1.0.0.1:8448"] = true
			time.Sleep(time.Hour)
		}
		n.stop()
	})
}

// What a witness is remembered to have told, or not, is bounded.
func TestWitnessForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := openNetwork(t, newInternet(t), t.TempDir(), func(*NetworkConfig) {})
		w := witness{network: n.Network, told: make(map[keyName]store.VerifyKey), asked: make(map[keyName]bool)}
		for k := range 2 * maxWitnessed {
			w.ask(t.Context(), []wanted{{server: matrix.ServerName(fmt.Sprintf("s%d.test", k)), id: "ed25519:k"}})
		}
		if len(w.asked) > maxWitnessed+1 {
			t.Errorf("%d keys are remembered", len(w.asked))
		}
		n.stop()
	})
}

// memberFrom returns the join of a server's user, signed by it.
func memberFrom(t *testing.T, server matrix.ServerName, key matrix.SigningKey) *matrix.Event {
	t.Helper()
	v, _ := matrix.VersionByID("10")
	user := "@u:" + string(server)
	ev, err := matrix.Draft{
		Room: "!room:9.0.0.1", Sender: matrix.UserID(user), Type: "m.room.member", StateKey: &user,
		Content: jsontext.Value(`{"membership":"join"}`), OriginServerTS: time.Now().UnixMilli(),
	}.Build(v, matrix.Placing{Prev: []matrix.EventID{"$a"}, Auth: []matrix.EventID{"$b"}, Depth: 5}, server, key)
	if err != nil {
		t.Fatal(err)
	}
	return ev
}
