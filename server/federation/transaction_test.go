package federation

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// What a transaction brings is in the room when it is answered; one that comes again
// is answered the same and changes nothing, also after a restart.
func TestTransaction(t *testing.T) {
	p := newPair(t)
	first, second := p.peer.send(p.room, "1"), p.peer.send(p.room, "2")
	code, answer := p.transact(peer, "a", body(first, second))
	want := fmt.Sprintf(`{"pdus":{%q:{},%q:{}}}`, min(first.ID, second.ID), max(first.ID, second.ID))
	if code != 200 || answer != want {
		t.Errorf("%d %s, want %s", code, answer, want)
	}
	if !p.here.shown(first.ID) || !p.here.shown(second.ID) {
		t.Error("the events are not there")
	}
	third := p.peer.send(p.room, "3")
	if code, again := p.transact(peer, "a", body(third)); code != 200 || again != answer {
		t.Errorf("again: %d %s", code, again)
	}
	p.stop()
	p.start()
	if code, again := p.transact(peer, "a", body(third)); code != 200 || again != answer {
		t.Errorf("after a restart: %d %s", code, again)
	}
	if p.here.shown(third.ID) {
		t.Error("what a known transaction brings counts")
	}
	if code, other := p.transact("other.test", "a", body(third)); code != 200 || other == answer {
		t.Errorf("of another server: %d %s", code, other)
	}
	if !p.here.shown(third.ID) {
		t.Error("the third event is not there")
	}
}

// One event that is not taken says so under its ID, and the others are.
func TestTransactionRefusals(t *testing.T) {
	p := newPair(t)
	good := p.peer.send(p.room, "good")
	mallory := p.peer.build(matrix.Draft{Room: p.room, Sender: "@mallory:peer.test", Type: "m.room.message", Content: jsontext.Value(`{}`)})
	if got := p.deliver(good, mallory); got[good.ID] != "" || !strings.Contains(got[mallory.ID], "rules") || !p.here.shown(good.ID) {
		t.Errorf("who is not in the room: %q", got)
	}
	changed := p.peer.send(p.room, "was")
	text := strings.Replace(body(changed, p.peer.send(p.room, "next")), `"was"`, `"is"`, 1)
	code, answer := p.transact(peer, "changed", strings.Replace(text, `"pdus":[`, `"pdus":[7,{"room_id":"!x:y"},{"room_id":3},`, 1))
	if code != 200 || !strings.Contains(answer, fmt.Sprintf(`%q:{"error"`, changed.ID)) {
		t.Errorf("a changed event: %d %s", code, answer)
	}

	other, err := p.peer.rooms.Create(t.Context(), state.Creation{Creator: alice, Version: "1", Preset: "public_chat"})
	p.peer.must(err)
	foreign := p.peer.send(other, "elsewhere")
	if got := p.deliver(foreign); !strings.Contains(got[foreign.ID], "not in the room") {
		t.Errorf("another room: %q", got)
	}

	acl := p.peer.set(p.room, "m.room.server_acl", "", `{"allow":["*"],"deny":["PEER.*"]}`)
	if got := p.deliver(acl); got[acl.ID] != "" {
		t.Errorf("the ACL: %q", got)
	}
	p.eventually("the ACL holds", func() bool { return p.here.shown(acl.ID) })
	denied := p.peer.send(p.room, "denied")
	if got := p.deliver(denied); !strings.Contains(got[denied.ID], "ACL") || p.here.find(denied.ID) != nil {
		t.Errorf("denied: %q", got)
	}
	if code, _ := p.transact("other.test", "x", body(denied)); code != 200 || !p.here.shown(denied.ID) {
		t.Errorf("through another server: %d", code)
	}
	p.here.must(p.here.rooms.Leave(t.Context(), p.room, bob, ""))
	late := p.peer.send(p.room, "late")
	code, answer = p.transact("other.test", "late", body(late))
	if code != 200 || !strings.Contains(answer, "not in the room") || p.here.find(late.ID) != nil {
		t.Errorf("after the last has left: %d %s", code, answer)
	}
}

// Bodies are refused as a whole where their form or size is wrong.
func TestTransactionForm(t *testing.T) {
	p := newPair(t)
	list := func(n int, element string) string {
		return strings.TrimSuffix(strings.Repeat(element+",", n), ",")
	}
	for _, tt := range []struct {
		name, body string
		code       int
	}{
		{"empty", `{}`, 200},
		{"no lists", `{"pdus":null,"edus":null}`, 200},
		{"what nobody knows", `{"pdus":[],"edus":[{"edu_type":"x.y","content":{}},3,{}],"a":[{}]}`, 200},
		{"a name twice within an event", `{"pdus":[{"a":1,"a":2}]}`, 200},
		{"as much as is allowed", `{"pdus":[` + list(50, `{}`) + `],"edus":[` + list(100, `{}`) + `]}`, 200},
		{"too many PDUs", `{"pdus":[` + list(51, `{}`) + `]}`, 413},
		{"too many PDUs in two lists", `{"pdus":[` + list(26, `{}`) + `],"pdus":[` + list(26, `{}`) + `]}`, 413},
		{"too many EDUs", `{"edus":[` + list(101, `{}`) + `]}`, 413},
		{"no list", `{"pdus":{}}`, 400},
		{"no object", `[]`, 400},
		{"nothing", ``, 400},
		{"half of it", `{"pdus":[`, 400},
		{"more behind it", `{}{}`, 400},
		{"too deep", `{"x":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`, 400},
	} {
		if code, answer := p.transact(peer, tt.name, tt.body); code != tt.code {
			t.Errorf("%s: %d %s, want %d", tt.name, code, answer, tt.code)
		}
	}
	if code, _ := p.transact(peer, strings.Repeat("x", 256), `{}`); code != 400 {
		t.Errorf("a long ID: %d", code)
	}
}

// EDUs come after the PDUs, each to who takes its type. What is wrong with one does
// not matter to the others; that this server cannot keep it does.
func TestEDUs(t *testing.T) {
	p := newPair(t)
	ev := p.peer.send(p.room, "1")
	var got []string
	fails := fmt.Errorf("no such user: %w", remote.ErrBadEDU)
	p.server.config.EDU = map[string]Receive{"m.typing": func(_ context.Context, origin matrix.ServerName, content jsontext.Value) error {
		got = append(got, fmt.Sprintf("%s %s %v", origin, content, p.here.shown(ev.ID)))
		return fails
	}}
	text := strings.TrimSuffix(body(ev), "}") + `,"edus":[{"edu_type":"m.typing","content":{"n":1}},{"edu_type":"m.x","content":{}},{"edu_type":"m.typing"},{"edu_type":"m.typing","content":{"n":2}}]}`
	if code, answer := p.transact(peer, "1", text); code != 200 {
		t.Errorf("%d %s", code, answer)
	}
	if want := []string{`peer.test {"n":1} true`, `peer.test {"n":2} true`}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	// What could not be kept comes again, and is not taken for known then.
	p.server.config.EDU["m.direct_to_device"] = p.server.config.EDU["m.typing"]
	for _, fault := range []error{store.ErrFull, &fs.PathError{Op: "write", Path: "hearth.db", Err: syscall.EIO}, store.ErrDamaged} {
		got, fails = nil, fmt.Errorf("put: %w", fault)
		text := `{"edus":[{"edu_type":"m.direct_to_device","content":{}}]}`
		if code, _ := p.transact(peer, fault.Error(), text); code < 500 {
			t.Errorf("%v: %d", fault, code)
		}
		fails = nil
		if code, _ := p.transact(peer, fault.Error(), text); code != 200 || len(got) != 2 {
			t.Errorf("again, after %v: %d, taken %d times", fault, code, len(got))
		}
	}
}

// Whoever thinks about the events of one server for long, keeps no other waiting.
func TestSlowServersKeepNobodyWaiting(t *testing.T) {
	p := newPair(t)
	slow, reached := make(chan struct{}), make(chan struct{}, 2*maxTransactions)
	p.server.check = func(ctx context.Context, v *matrix.Version, pdus []jsontext.Value) ([]*matrix.Event, []error) {
		if !strings.Contains(string(pdus[0]), "hello") {
			reached <- struct{}{}
			<-slow
		}
		return checkForm(ctx, v, pdus)
	}
	var waiting sync.WaitGroup
	ev := p.peer.send(p.room, "tarpit")
	for i := range maxTransactions {
		waiting.Go(func() { p.transact(matrix.ServerName(fmt.Sprintf("s%d.test", i)), "1", body(ev)) })
	}
	for range maxTransactions {
		<-reached
	}
	next := p.peer.build(matrix.Draft{Room: p.room, Sender: alice, Type: "m.room.message", Content: []byte(`{"body":"hello"}`)}, ev.PrevEvents...)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	context.AfterFunc(ctx, func() { close(slow) })
	if wrong := p.deliver(next); wrong[next.ID] != "" || ctx.Err() != nil || !p.here.shown(next.ID) {
		t.Errorf("%q, waited for the others: %v", wrong, ctx.Err())
	}
	cancel()
	waiting.Wait()
}

// A policy server is asked while nobody waits for it.
func TestPolicyServerIsAskedLater(t *testing.T) {
	p := newPair(t)
	key := matrix.SigningKey{ID: "ed25519:policy_server", Private: p.peer.key.Private}
	answer, late := make(chan struct{}), time.AfterFunc(60*time.Second, func() { t.Error("the transaction waits for the policy server") })
	p.here.rooms.SetOutside(state.Outside{Sign: func(ctx context.Context, server matrix.ServerName, ev *matrix.Event) (map[string]string, error) {
		select {
		case <-answer:
		case <-time.After(90 * time.Second):
		}
		signed, err := ev.Signed(server, key)
		if err != nil {
			return nil, err
		}
		return signed.SignaturesOf(server), nil
	}})
	public := base64.RawStdEncoding.EncodeToString(key.Private.Public().(ed25519.PublicKey))
	p.deliver(p.peer.set(p.room, "m.room.policy", "", `{"via":"peer.test","public_keys":{"ed25519":"`+public+`"}}`))
	ev := p.peer.send(p.room, "hello")
	if wrong := p.deliver(ev); wrong[ev.ID] != "" || p.here.shown(ev.ID) {
		t.Errorf("%q", wrong)
	}
	late.Stop()
	close(answer)
	p.eventually("the event is signed and shown", func() bool { return p.here.shown(ev.ID) })
}

// The transactions of one server have turns; too many of them are told to come back.
func TestTurns(t *testing.T) {
	turns := newTurns()
	end, err := turns.take(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	order := make(chan error, 4)
	var waiting sync.WaitGroup
	for range maxTurns - 1 {
		waiting.Go(func() {
			end, err := turns.take(t.Context(), "a")
			if order <- err; err == nil {
				end()
			}
		})
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		turns.mu.Lock()
		users := turns.of["a"].users
		turns.mu.Unlock()
		if users == maxTurns || time.Now().After(deadline) {
			break
		}
	}
	if _, err := turns.take(t.Context(), "a"); !errors.Is(err, errBusy) {
		t.Errorf("one more: %v", err)
	}
	other, err := turns.take(t.Context(), "b")
	if err != nil {
		t.Errorf("another server: %v", err)
	}
	other()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := turns.take(gone, "c"); !errors.Is(err, context.Canceled) {
		t.Errorf("who has gone: %v", err)
	}
	if len(order) > 0 {
		t.Error("two at a time")
	}
	end()
	waiting.Wait()
	if len(turns.of) != 0 || len(order) != maxTurns-1 {
		t.Errorf("%d turns are left, %d had theirs", len(turns.of), len(order))
	}
}

// Whatever the body of a transaction is, no more is kept of it than is allowed.
func FuzzTransaction(f *testing.F) {
	f.Add(`{"pdus":[{"room_id":"!a:b"}],"edus":[{"edu_type":"m.typing","content":{}}]}`)
	f.Add(`{"pdus":[{"a":1,"a":"\ud800"}],"pdus":null}`)
	f.Fuzz(func(t *testing.T, text string) {
		tr, err := readTransaction(io.LimitReader(strings.NewReader(text), maxTransactionBytes))
		if len(tr.pdus) > maxPDUs || len(tr.edus) > maxEDUs {
			t.Errorf("%d PDUs, %d EDUs", len(tr.pdus), len(tr.edus))
		}
		if err != nil {
			return
		}
		rooms, byRoom := groupByRoom(tr.pdus)
		if len(rooms) != len(byRoom) {
			t.Errorf("%d rooms, %d groups", len(rooms), len(byRoom))
		}
		for _, v := range []string{"1", "6", "12"} {
			version, _ := matrix.VersionByID(v)
			results := make(pduResults)
			new(Server).refuse(version, tr.pdus, errNotInRoom, results)
		}
	})
}
