package remote

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// An event that cannot be checked for now, since its server has been away for a
// moment, is one that could not be asked for: what stands on it must not be given up.
func TestFetchLater(t *testing.T) {
	events := testEvents(t, 3)
	n := fakeNetwork{"peer.test": func(q Request) (io.Reader, error) {
		if list := "events"; strings.Contains(q.Path, "get_missing_events") {
			return listOf(list, events...), nil
		}
		return listOf("pdus", events[1]), nil
	}}
	for _, why := range []error{ErrKeyLater, ErrUnreachable} {
		f := &fetcher{version: events[0].Version, servers: []matrix.ServerName{"peer.test"}, stream: n.stream}
		f.verify = func(_ context.Context, some []*matrix.Event) []error {
			errs := make([]error, len(some))
			for i, ev := range some {
				if ev.ID == events[1].ID {
					errs[i] = why
				}
			}
			return errs
		}
		came := 0
		take := func(*matrix.Event) error {
			came++
			return nil
		}
		err := f.missing(t.Context(), state.MissingEvents{Room: events[0].Room, Limit: 10}, take)
		if came != 2 || errors.Is(err, ErrKeyLater) != (why == ErrKeyLater) {
			t.Errorf("%v: %d events, %v", why, came, err)
		}
		err = f.events(t.Context(), events[0].Room, []matrix.EventID{events[1].ID}, take)
		if came != 2 || errors.Is(err, ErrKeyLater) != (why == ErrKeyLater) {
			t.Errorf("%v by its ID: %d events, %v", why, came, err)
		}
	}
}

// For how long the keys of a server that is away are expected to come.
func TestKeysLater(t *testing.T) {
	n := openNetwork(t, newInternet(t), t.TempDir(), func(*NetworkConfig) {})
	defer n.stop()
	now := time.Unix(1000, 0)
	n.Network.now = func() time.Time { return now }
	want := func(what string, later, untold bool) {
		t.Helper()
		why := n.keyless("peer.test")
		if got := errors.Is(why, ErrKeyLater); got != later || errors.Is(why, ErrKeyUntold) != untold || !errors.Is(why, ErrUnreachable) {
			t.Errorf("%s: %v", what, why)
		}
	}
	want("it was not asked", false, false)
	n.noteSilence("peer.test", ErrUnreachable)
	want("it is away", true, true)
	now = now.Add(keyHope / 2)
	n.noteSilence("peer.test", ErrUnreachable)
	now = now.Add(keyHope/2 + time.Second)
	want("it is away for long", false, true)
	n.noteSilence("peer.test", nil)
	want("it is there and has no such key", false, false)
	n.noteSilence("peer.test", ErrUnreachable)
	want("it was there and is away", true, true)
	if err := n.store.Update(t.Context(), func(tx *store.Tx) error {
		return tx.PutServerKeys("peer.test", store.KeyAnswer{JSON: []byte(`{}`), Fetched: now, ValidUntil: now}, nil)
	}); err != nil {
		t.Fatal(err)
	}
	want("it is away and has told its keys", true, false)
}
