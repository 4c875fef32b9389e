package remote

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// eventFrom returns a message that a server's user sent at a time, signed by it.
func eventFrom(t *testing.T, version string, server matrix.ServerName, key matrix.SigningKey, at time.Time) *matrix.Event {
	t.Helper()
	v, _ := matrix.VersionByID(version)
	ev, err := matrix.Draft{
		Room: matrix.RoomID("!room:" + string(server)), Sender: matrix.UserID("@u:" + string(server)), Type: "m.room.message",
		Content: jsontext.Value(`{"body":"x"}`), OriginServerTS: at.UnixMilli(),
	}.Build(v, matrix.Placing{
		Prev: []matrix.EventID{"$a:x.example"}, Auth: []matrix.EventID{"$b:x.example"}, PrevHashes: make([]matrix.Hash, 1), AuthHashes: make([]matrix.Hash, 1), Depth: 5,
	}, server, key)
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

// keyServer has a server answer for its keys at an address, and counts how often.
func (i *internet) keyServer(addr string, server matrix.ServerName, answer func() []byte) (asked *atomic.Int64) {
	asked = new(atomic.Int64)
	i.serve(addr, server.Host(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = w.Write(answer())
	}))
	return asked
}

// Keys are fetched once, for all that want them, and are there after a restart
// although their server is not.
func TestKeysAreFetchedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, dir, key := newInternet(t), t.TempDir(), seedKey("ed25519:k", 2)
		answer := keyAnswerOf(t, "1.0.0.1", time.Now().Add(24*time.Hour), nil, key)
		asked := i.keyServer("1.0.0.1:8448", "1.0.0.1", func() []byte { return answer })
		n := openNetwork(t, i, dir, nil)
		var events []*matrix.Event
		for k := range 20 {
			events = append(events, eventFrom(t, "10", "1.0.0.1", key, time.Now().Add(-time.Duration(k)*time.Hour)))
		}
		done := make(chan error)
		for range 5 {
			go func() { done <- errors.Join(n.VerifyEvents(t.Context(), events)...) }()
		}
		for range 5 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if asked.Load() != 1 {
			t.Errorf("asked %d times", asked.Load())
		}
		n.stop()
		i.change(func() { i.holes["1.0.0.1:8448"] = true })
		n = openNetwork(t, i, dir, nil)
		if err := n.VerifyEvent(t.Context(), events[3]); err != nil {
			t.Error(err)
		}
		n.stop()
	})
}

// A key counts until the moment that its server says, for seven days at most, and
// in rooms of version 5 and later only; then the server is asked again.
func TestKeyValidity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, now := newInternet(t), time.Now()
		current, old := seedKey("ed25519:new", 2), seedKey("ed25519:old", 3)
		retired := map[string]oldKey{"ed25519:old": {publicOf(old), now.Add(-time.Hour).UnixMilli()}}
		until := time.Hour
		asked := i.keyServer("1.0.0.1:8448", "1.0.0.1", func() []byte {
			return keyAnswerOf(t, "1.0.0.1", time.Now().Add(until), retired, current)
		})
		n := openNetwork(t, i, t.TempDir(), nil)
		for _, tt := range []struct {
			version string
			key     matrix.SigningKey
			at      time.Duration // from now
			good    bool
		}{
			{"10", current, 0, true},
			{"10", current, 30 * time.Minute, true},
			{"10", current, 2 * time.Hour, false},
			{"4", current, 2 * time.Hour, true},
			{"10", old, -2 * time.Hour, true},
			{"10", old, -30 * time.Minute, false},
			{"4", old, -30 * time.Minute, true},
			{"5", old, -30 * time.Minute, false},
			{"1", old, 30 * time.Minute, true},
			{"10", current, -365 * 24 * time.Hour, true},
			{"10", current, 8 * 24 * time.Hour, false},
			{"10", seedKey("ed25519:new", 9), 0, false}, // another's, under the same name
		} {
			err := n.VerifyEvent(t.Context(), eventFrom(t, tt.version, "1.0.0.1", tt.key, now.Add(tt.at)))
			if (err == nil) != tt.good || err != nil && !errors.Is(err, matrix.ErrBadSignature) {
				t.Errorf("version %s, %s at %v: %v", tt.version, tt.key.ID, tt.at, err)
			}
		}
		// It says more than seven days: that is not believed.
		until = 365 * 24 * time.Hour
		time.Sleep(2 * time.Hour)
		if err := n.VerifyEvent(t.Context(), eventFrom(t, "10", "1.0.0.1", current, time.Now())); err != nil {
			t.Errorf("after it was renewed: %v", err)
		}
		before := asked.Load()
		time.Sleep(6 * 24 * time.Hour)
		if err := n.VerifyEvent(t.Context(), eventFrom(t, "10", "1.0.0.1", current, time.Now())); err != nil || asked.Load() != before {
			t.Errorf("six days later: %v, asked %d times", err, asked.Load()-before)
		}
		time.Sleep(2 * 24 * time.Hour)
		if err := n.VerifyEvent(t.Context(), eventFrom(t, "10", "1.0.0.1", current, time.Now())); err != nil || asked.Load() != before+1 {
			t.Errorf("eight days later: %v, asked %d times", err, asked.Load()-before)
		}
		// It is away when its key would have to be renewed: that speaks against nobody.
		i.change(func() { i.holes["1.0.0.1:8448"] = true })
		time.Sleep(8 * 24 * time.Hour)
		verify := func(key matrix.SigningKey) error {
			return n.VerifyEvent(t.Context(), eventFrom(t, "10", "1.0.0.1", key, time.Now()))
		}
		if err := verify(current); !errors.Is(err, ErrKeyLater) || !errors.Is(err, ErrKeyUntold) || errors.Is(err, matrix.ErrBadSignature) {
			t.Errorf("while it is away: %v", err)
		}
		if err := verify(seedKey("ed25519:new", 9)); !errors.Is(err, matrix.ErrBadSignature) {
			t.Errorf("what it has not signed while it is away: %v", err)
		}
		time.Sleep(2 * keyHope)
		if err := verify(current); !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrKeyLater) || errors.Is(err, matrix.ErrBadSignature) {
			t.Errorf("while it is away for long: %v", err)
		}
		i.change(func() { delete(i.holes, "1.0.0.1:8448") })
		time.Sleep(2 * silenceLong)
		if err := verify(current); err != nil {
			t.Errorf("when it is back: %v", err)
		}
		n.stop()
	})
}

// Dead servers hold up the others' events for a bounded time, all together, and are
// not asked again for each event.
func TestDeadServersDoNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, key := newInternet(t), seedKey("ed25519:k", 2)
		var events []*matrix.Event
		for h := range 64 {
			server := matrix.ServerName(fmt.Sprintf("1.0.0.%d", h))
			events = append(events, eventFrom(t, "10", server, key, time.Now()))
			if h%8 != 0 {
				i.holes[string(server)+":8448"] = true
				continue
			}
			i.keyServer(string(server)+":8448", server, func() []byte {
				return keyAnswerOf(t, server, time.Now().Add(time.Hour), nil, key)
			})
		}
		n := openNetwork(t, i, t.TempDir(), nil)
		began := time.Now()
		for h, err := range n.VerifyEvents(t.Context(), events) {
			if h%8 == 0 && err != nil || h%8 != 0 && !errors.Is(err, ErrUnreachable) {
				t.Errorf("server %d: %v", h, err)
			}
		}
		if took := time.Since(began); took > 25*time.Second {
			t.Errorf("it took %v", took)
		}
		i.taken()
		began = time.Now()
		n.VerifyEvents(t.Context(), events)
		if dialed := i.taken(); len(dialed) > 0 || time.Since(began) > 0 {
			t.Errorf("dialed %d again, for %v", len(dialed), time.Since(began))
		}
		if b := n.Backoff("1.0.0.1"); b.Failures != 0 {
			t.Error("a stranger's event has put a server on the disk")
		}
		n.stop()
	})
}

// An answer counts only if its server has signed it, with each key that it claims.
func TestParseServerKeys(t *testing.T) {
	now := time.Now()
	a, b := seedKey("ed25519:a", 1), seedKey("ed25519:b", 2)
	good := keyAnswerOf(t, "far.example", now.Add(time.Hour), map[string]oldKey{
		"ed25519:o": {publicOf(b), 5}, "ed25519:short": {"AAAA", 5}, "curve:x": {publicOf(b), 5}, "ed25519:a": {publicOf(b), 5},
	}, a)
	unsignedB := strings.Replace(string(good), `"verify_keys":{`, `"verify_keys":{"ed25519:b":{"key":"`+publicOf(b)+`"},`, 1)
	for _, tt := range []struct {
		name, json string
		want       string // IDs; "": refused
	}{
		{"good", string(good), "ed25519:a ed25519:o"},
		{"another server", strings.Replace(string(good), `"server_name":"far.example"`, `"server_name":"fur.example"`, 1), ""},
		{"changed", unsignedB, ""},
		{"twice", strings.Replace(string(good), `"server_name"`, `"server_name":"far.example","server_name"`, 1), ""},
		{"none", string(keyAnswerOf(t, "far.example", now, nil)), ""},
		{"not JSON", `{`, ""},
		{"list", `[]`, ""},
		{"time", strings.Replace(string(good), `"valid_until_ts":`, `"valid_until_ts":1.5e300,"x":`, 1), ""},
	} {
		answer, keys, err := parseServerKeys("far.example", jsontext.Value(tt.json), now)
		var ids []string
		for _, k := range keys {
			ids = append(ids, k.ID)
		}
		if got := strings.Join(ids, " "); got != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, ErrBadKeys) {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
		if err == nil && (!answer.ValidUntil.Equal(now.Add(time.Hour).Truncate(time.Millisecond)) || !keys[1].Expired) {
			t.Errorf("%s: %+v, %+v", tt.name, answer, keys)
		}
	}
	var many []matrix.SigningKey
	for k := range maxKeysAnswered + 1 {
		many = append(many, seedKey(fmt.Sprintf("ed25519:%d", k), byte(k)))
	}
	if _, _, err := parseServerKeys("far.example", keyAnswerOf(t, "far.example", now, nil, many...), now); !errors.Is(err, ErrBadKeys) {
		t.Errorf("too many: %v", err)
	}
}

func FuzzParseServerKeys(f *testing.F) {
	f.Add([]byte(`{"server_name":"far.example","verify_keys":{"ed25519:a":{"key":"AAAA"}},"old_verify_keys":{"ed25519:b":{"expired_ts":5,"key":"AAAA"}},"signatures":{"far.example":{"ed25519:a":"AAAA"}},"valid_until_ts":7}`))
	now := time.Now()
	f.Fuzz(func(t *testing.T, raw []byte) {
		answer, keys, err := parseServerKeys("far.example", raw, now)
		if err != nil {
			return
		}
		signed := false
		for _, k := range keys {
			if len(k.Public) != ed25519.PublicKeySize || k.ValidUntil.After(now.Add(keyTrust)) && !k.Expired {
				t.Errorf("%+v", k)
			}
			signed = signed || !k.Expired && matrix.VerifyJSON(answer.JSON, "far.example", k.ID, k.Public) == nil
		}
		if !signed {
			t.Errorf("signed by nobody: %s", raw)
		}
	})
}

// Where a server does not answer, the notaries do, for what it has signed itself
// and they have signed too.
func TestNotaries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInternet(t)
		key, notaryKey, wrong := seedKey("ed25519:k", 2), seedKey("ed25519:n", 3), seedKey("ed25519:n", 4)
		sign := notaryKey
		var asked []string
		i.serve("9.0.0.1:8448", "9.0.0.1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/_matrix/key/v2/server" {
				_, _ = w.Write(keyAnswerOf(t, "9.0.0.1", time.Now().Add(time.Hour), nil, notaryKey))
				return
			}
			body, _ := io.ReadAll(r.Body)
			asked = append(asked, r.Method+" "+r.URL.Path+" "+string(body))
			var answers []jsontext.Value
			for h := range 3 {
				server := matrix.ServerName(fmt.Sprintf("1.0.0.%d", h))
				answer, err := matrix.SignJSON(keyAnswerOf(t, server, time.Now().Add(time.Hour), nil, key), "9.0.0.1", sign)
				if err != nil {
					t.Error(err)
				}
				answers = append(answers, answer)
			}
			_ = json.MarshalWrite(w, map[string]any{"server_keys": answers})
		}))
		n := openNetwork(t, i, t.TempDir(), func(c *NetworkConfig) { c.Notaries = []matrix.ServerName{"8.0.0.1", "9.0.0.1"} })
		at := time.Now()
		events := []*matrix.Event{eventFrom(t, "10", "1.0.0.0", key, at), eventFrom(t, "4", "1.0.0.1", key, at), eventFrom(t, "10", "1.0.0.7", key, at)}
		sign = wrong
		if errs := n.VerifyEvents(t.Context(), events); !errors.Is(errs[0], ErrUnreachable) {
			t.Errorf("a notary's false signature: %v", errs)
		}
		sign, asked = notaryKey, nil
		errs := n.VerifyEvents(t.Context(), events)
		if errs[0] != nil || errs[1] != nil || !errors.Is(errs[2], ErrUnreachable) {
			t.Errorf("%v", errs)
		}
		want := fmt.Sprintf(`POST /_matrix/key/v2/query {"server_keys":{"1.0.0.0":{"ed25519:k":{"minimum_valid_until_ts":%d}},"1.0.0.1":{"ed25519:k":{}},"1.0.0.7":{"ed25519:k":{"minimum_valid_until_ts":%[1]d}}}}`, at.UnixMilli())
		if len(asked) != 1 || asked[0] != want {
			t.Errorf("asked %q, want %q", asked, want)
		}
		if err := n.store.View(func(tx *store.Tx) error {
			if _, err := tx.VerifyKey("1.0.0.2", "ed25519:k"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("what was not asked for is kept: %v", err)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		n.stop()
	})
}

// A notary that hangs does not use up the time of the next one, however many keys are
// missing.
func TestSilentNotary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, key := newInternet(t), seedKey("ed25519:n", 3)
		i.holes["8.0.0.1:8448"] = true
		var asked atomic.Int64
		i.serve("9.0.0.1:8448", "9.0.0.1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/_matrix/key/v2/query" {
				asked.Add(1)
			}
			fmt.Fprint(w, "{}")
		}))
		n := openNetwork(t, i, t.TempDir(), func(c *NetworkConfig) { c.Notaries = []matrix.ServerName{"8.0.0.1", "9.0.0.1"} })
		var events []*matrix.Event
		for h := range 3 * maxNotaryServers {
			events = append(events, eventFrom(t, "10", matrix.ServerName(fmt.Sprintf("1.0.1.%d", h)), key, time.Now()))
		}
		for _, err := range n.VerifyEvents(t.Context(), events) {
			if !errors.Is(err, ErrUnreachable) {
				t.Fatal(err)
			}
		}
		if asked.Load() != 3 {
			t.Errorf("the second notary is asked %d times", asked.Load())
		}
		n.stop()
	})
}

// However many servers' keys are missing, a notary is asked for all of them, in questions
// of a bounded size, and for the latest time that each is wanted for.
func TestKeyQueries(t *testing.T) {
	const servers = 2*maxNotaryServers + 2
	early := time.UnixMilli(1000)
	var missing []wanted
	for _, at := range []time.Time{early.Add(time.Second), early, {}} {
		for h := range servers {
			missing = append(missing, wanted{matrix.ServerName(fmt.Sprintf("h%d.test", h)), "ed25519:k", at})
		}
	}
	queries := keyQueries(missing, "h7.test")
	if len(queries) != 3 {
		t.Fatalf("%d questions", len(queries))
	}
	found := 0
	for _, q := range queries {
		if len(q.Servers) > maxNotaryServers {
			t.Errorf("a question about %d servers", len(q.Servers))
		}
		for server, keys := range q.Servers {
			found++
			if got := keys["ed25519:k"].ValidUntil; got != 2000 || len(keys) != 1 || server == "h7.test" {
				t.Errorf("%s is asked about with %v", server, keys)
			}
		}
	}
	if found != servers-1 {
		t.Errorf("%d servers are asked about", found)
	}
}

func TestNewerKey(t *testing.T) {
	now := time.Now()
	key := func(seed byte, until time.Duration, expired bool) store.VerifyKey {
		return store.VerifyKey{ID: "ed25519:a", Public: seedKey("", seed).Private.Public().(ed25519.PublicKey), ValidUntil: now.Add(until), Expired: expired}
	}
	for _, tt := range []struct {
		name        string
		known, told store.VerifyKey
		direct      bool
		want        bool // told counts
	}{
		{"renewed", key(1, 1, false), key(1, 2, false), true, true},
		{"older word of a notary", key(1, 2, false), key(1, 1, false), false, false},
		{"retired", key(1, 2, false), key(1, 1, true), false, true},
		{"a notary that has not heard of it", key(1, 1, true), key(1, 2, false), false, false},
		{"back in use", key(1, 1, true), key(1, 2, false), true, true},
		{"another key, says the server", key(1, 1, false), key(2, 1, false), true, true},
		{"another key, says a notary", key(1, 1, false), key(2, 1, false), false, false},
	} {
		got := newerKey(tt.known, tt.told, tt.direct)
		if isTold := got.Public.Equal(tt.told.Public) && got.ValidUntil.Equal(tt.told.ValidUntil) && got.Expired == tt.told.Expired; isTold != tt.want {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
}

// Our own events and objects verify with our own keys, without any request.
func TestOwnKeys(t *testing.T) {
	i := newInternet(t)
	n := openNetwork(t, i, t.TempDir(), nil)
	var first matrix.SigningKey
	sign := func() matrix.SigningKey {
		var key matrix.SigningKey
		if err := n.store.View(func(tx *store.Tx) (err error) {
			key, err = tx.SigningKey()
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return key
	}
	first = sign()
	before := eventFrom(t, "10", ourName, first, time.Now().Add(-time.Hour))
	if err := n.store.Update(t.Context(), func(tx *store.Tx) error { return tx.NewSigningKey(time.Now()) }); err != nil {
		t.Fatal(err)
	}
	late := eventFrom(t, "10", ourName, first, time.Now().Add(time.Hour))
	now := eventFrom(t, "10", ourName, sign(), time.Now())
	errs := n.VerifyEvents(t.Context(), []*matrix.Event{before, late, now})
	if errs[0] != nil || !errors.Is(errs[1], matrix.ErrBadSignature) || errs[2] != nil || len(i.taken()) != 0 {
		t.Errorf("%v", errs)
	}
	object, err := matrix.SignJSON([]byte(`{"a":1}`), string(ourName), first)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.VerifyJSON(t.Context(), ourName, object, time.Time{}); err != nil {
		t.Error(err)
	}
	if err := n.VerifyJSON(t.Context(), ourName, object, time.Now().Add(time.Minute)); !errors.Is(err, matrix.ErrBadSignature) {
		t.Errorf("with an old key: %v", err)
	}
	if err := n.VerifyJSON(t.Context(), "other.example", object, time.Time{}); !errors.Is(err, matrix.ErrBadSignature) {
		t.Errorf("of another: %v", err)
	}
}
