package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/store"
)

// openGateway returns a gateway over a fresh store with a pusher of alice's. It is
// not run.
func openGateway(t *testing.T) (*Gateway, target) {
	t.Helper()
	st, err := store.Open(t.TempDir(), "hearth.test", store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := st.Check(context.Background(), func(fault string) { t.Errorf("check: %s", fault) })
		if err := errors.Join(err, st.Close()); err != nil {
			t.Error(err)
		}
	})
	at := target{id: store.PusherID{App: "app", Key: "key"}}
	err = st.Update(t.Context(), func(tx *store.Tx) (err error) {
		if at.user, err = tx.CreateAccount("@alice:hearth.test", store.Account{Created: time.Now()}); err != nil {
			return err
		}
		return errors.Join(
			tx.PutDevice(at.user, store.Device{ID: "PHONE"}),
			tx.PutPusher(at.user, store.Pusher{PusherID: at.id, Kind: "http", Data: []byte("{}"), Device: "PHONE"}),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	g := NewGateway(st, http.DefaultClient, slog.New(slog.DiscardHandler))
	t.Cleanup(g.stopRetries)
	return g, at
}

// advance gives the stream n more entries.
func advance(t *testing.T, g *Gateway, at target, n int) {
	t.Helper()
	err := g.store.Update(t.Context(), func(tx *store.Tx) error {
		for i := range n {
			if err := tx.PutAccountData(at.user, store.AccountData{Type: "a", Content: fmt.Appendf(nil, `{"n":%d}`, i)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (g *Gateway) stored(t *testing.T, at target) store.Position {
	t.Helper()
	var p store.Pusher
	err := g.store.View(func(tx *store.Tx) (err error) {
		p, err = tx.Pusher(at.user, at.id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return p.Cursor
}

func TestBackoffGrows(t *testing.T) {
	for failures, most := range map[int]time.Duration{1: firstPause, 2: 2 * firstPause, 5: 16 * firstPause, 12: maxPause, 1000: maxPause} {
		for range 100 {
			if pause := backoff(failures); pause < most/2 || pause > most {
				t.Errorf("after %d failures: %v, want %v to %v", failures, pause, most/2, most)
			}
		}
	}
}

// A cursor is written when something was sent or it is far ahead, and at the end.
func TestCursorsAreSaved(t *testing.T) {
	g, at := openGateway(t)
	g.wake(at, false)
	began := g.stored(t, at)
	task := g.take()
	task.running = false
	for _, tt := range []struct {
		what      string
		n         int
		sent, all bool
		saved     bool
	}{
		{"nothing was sent", 3, false, false, false},
		{"something was sent", 3, true, false, true},
		{"far ahead", saveLag + 1, false, false, true},
		{"nothing was sent again", 3, false, false, false},
		{"the end", 3, false, true, true},
	} {
		advance(t, g, at, tt.n)
		g.move(task, g.store.Position(), tt.sent)
		if err := g.save(t.Context(), tt.all); err != nil {
			t.Fatal(err)
		}
		now := g.stored(t, at)
		if saved := now == task.cursor; saved != tt.saved || !saved && now != began {
			t.Errorf("%s: %d is stored, the cursor is %d", tt.what, now, task.cursor)
		}
		began = now
	}
}

// What a push gateway does not take for a day is given up.
func TestPatienceEnds(t *testing.T) {
	g, at := openGateway(t)
	now := time.Now()
	g.now = func() time.Time { return now }
	g.backoff = func(int) time.Duration { return time.Hour }
	g.wake(at, false)
	task := g.take()
	g.move(task, 1, false)
	advance(t, g, at, 5)
	fail := errors.New("refused")
	g.rest(task, fail)
	now = now.Add(patience)
	g.rest(task, fail)
	if task.cursor != 1 {
		t.Errorf("given up too soon: %d", task.cursor)
	}
	now = now.Add(time.Minute)
	g.rest(task, fail)
	if task.cursor != g.store.Position() || task.failed != 3 {
		t.Errorf("cursor %d after %d failures", task.cursor, task.failed)
	}
	g.wake(at, false)
	if g.take() != nil {
		t.Error("an event cuts the pause short")
	}
}

// Pushers that have nothing to do are forgotten where there are many; what is not
// stored of them never is.
func TestIdlePushersAreForgotten(t *testing.T) {
	g, at := openGateway(t)
	for i := range maxIdle + 50 {
		g.wake(target{at.user, store.PusherID{App: "app", Key: fmt.Sprint(i)}}, false)
	}
	for task := g.take(); task != nil; task = g.take() {
		g.move(task, 1, false)
		task.saved = 1
		task.sent = len(task.id.Key) > 1 // all but ten
		g.rest(task, nil)
	}
	if err := g.save(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if len(g.tasks) != maxIdle+40 {
		t.Errorf("%d are left", len(g.tasks))
	}
}

func TestTweaks(t *testing.T) {
	rule := Rule{Actions: raw(`"notify"`, `{"set_tweak":"highlight"}`, `{"set_tweak":"sound","value":"ring"}`, `{"set_tweak":"x"}`, `{"y":1}`)}
	tweaks := rule.Tweaks()
	if len(tweaks) != 2 || string(tweaks["highlight"]) != "true" || string(tweaks["sound"]) != `"ring"` {
		t.Errorf("%s", tweaks)
	}
}

// raw are actions.
func raw(values ...string) (actions []jsontext.Value) {
	for _, v := range values {
		actions = append(actions, jsontext.Value(v))
	}
	return actions
}
