package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

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

// Servers in a room are trusted about who came and went on servers that never told their
// keys, and what is taken so is told of; nobody is trusted about anything else.
func TestFetchOnTrust(t *testing.T) {
	v, _ := matrix.VersionByID("10")
	build := func(typ, key, content string) *matrix.Event {
		ev, err := matrix.Draft{
			Room: "!room:peer.test", Sender: "@bob:peer.test", Type: typ, StateKey: &key, Content: jsontext.Value(content), OriginServerTS: 1,
		}.Build(v, matrix.Placing{Prev: []matrix.EventID{"$first"}, Auth: []matrix.EventID{"$create"}, Depth: 2}, "peer.test", testKey)
		if err != nil {
			t.Fatal(err)
		}
		return ev
	}
	events := []*matrix.Event{
		build("m.room.member", "@bob:peer.test", `{"membership":"join"}`),
		build("m.room.member", "@bob:peer.test", `{"membership":"leave"}`),
		build("m.room.member", "@bob:peer.test", `{"membership":"join","join_authorised_via_users_server":"@a:b.test"}`),
		build("m.room.member", "@carol:peer.test", `{"membership":"ban"}`),
		build("m.room.member", "@carol:peer.test", `{"membership":"leave"}`),
		build("m.room.name", "", `{"name":"x"}`),
	}
	n := fakeNetwork{"room.test": func(q Request) (io.Reader, error) {
		if strings.Contains(q.Path, "get_missing_events") {
			return listOf("events", events...), nil
		}
		i := slices.IndexFunc(events, func(ev *matrix.Event) bool { return strings.HasSuffix(q.Path, url.PathEscape(string(ev.ID))) })
		return listOf("pdus", events[i]), nil
	}}
	for _, tc := range []struct {
		why      error
		trusting bool
		want     int
	}{
		{fmt.Errorf("%w: %w", ErrKeyLater, ErrKeyUntold), true, 2},
		{fmt.Errorf("%w: %w", ErrUnreachable, ErrKeyUntold), true, 2},
		{fmt.Errorf("%w: %w", ErrUnreachable, ErrKeyUntold), false, 0},
		{ErrKeyLater, true, 0},
		{matrix.ErrBadSignature, true, 0},
	} {
		f := &fetcher{version: v, servers: []matrix.ServerName{"room.test"}, stream: n.stream}
		f.verify = func(_ context.Context, some []*matrix.Event) []error {
			errs := make([]error, len(some))
			for i := range errs {
				errs[i] = tc.why
			}
			return errs
		}
		var told []matrix.EventID
		if tc.trusting {
			f.unchecked = func(ev *matrix.Event) { told = append(told, ev.ID) }
		}
		var came, ids []matrix.EventID
		take := func(ev *matrix.Event) error {
			came = append(came, ev.ID)
			return nil
		}
		_ = f.missing(t.Context(), state.MissingEvents{Room: events[0].Room, Limit: 10}, take)
		if len(came) > 0 {
			t.Errorf("%v: %q came as news", tc.why, came)
		}
		for _, ev := range events {
			ids = append(ids, ev.ID)
		}
		_ = f.events(t.Context(), events[0].Room, ids, take)
		if len(came) != tc.want || !slices.Equal(came, told) {
			t.Errorf("%v, trusting %v: %d came, of %d is told", tc.why, tc.trusting, len(came), len(told))
		}
		if tc.want > 0 && (came[0] != events[0].ID || came[1] != events[1].ID) {
			t.Errorf("%v: %q came", tc.why, came)
		}
	}
}

// For how long the keys of a server that is away are expected to come.
func TestKeysLater(t *testing.T) {
	st, err := store.Open(t.TempDir(), ourName, store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	now := time.Unix(1000, 0)
	n := NewNetwork(NetworkConfig{Store: st, Now: func() time.Time { return now }})
	want := func(what string, later, untold bool) {
		t.Helper()
		why := n.keyless(wanted{server: "peer.test", at: now})
		if unasked := errors.Is(why, ErrKeyUnasked); unasked != (what == "there was no time to ask it") {
			t.Errorf("%s: %v", what, why)
		}
		if got := errors.Is(why, ErrKeyLater); got != later || errors.Is(why, ErrKeyUntold) != untold || !errors.Is(why, ErrUnreachable) {
			t.Errorf("%s: %v", what, why)
		}
	}
	want("there was no time to ask it", true, false)
	if why := n.keyless(wanted{server: "peer.test", at: now.Add(keyTrust + 1)}); errors.Is(why, ErrKeyUnasked) || errors.Is(why, ErrKeyLater) {
		t.Errorf("it is not asked for the key of another time: %v", why)
	}
	if why := n.keyless(wanted{server: ourName, at: now}); errors.Is(why, ErrKeyUntold) || errors.Is(why, ErrKeyUnasked) || errors.Is(why, ErrKeyLater) {
		t.Errorf("we have no such key: %v", why)
	}
	n.noteSilence("peer.test", ErrUnreachable)
	want("it is away", true, true)
	now = now.Add(keyHope / 2)
	n.noteSilence("peer.test", ErrUnreachable)
	now = now.Add(keyHope/2 + time.Second)
	want("it is away for long", false, true)
	if !n.noteSilence("peer.test", nil) || n.noteSilence("peer.test", nil) {
		t.Error("it is back once")
	}
	if err := n.store.Update(t.Context(), func(tx *store.Tx) error {
		return tx.PutServerKeys("peer.test", store.KeyAnswer{JSON: []byte(`{}`), Fetched: now, ValidUntil: now}, nil)
	}); err != nil {
		t.Fatal(err)
	}
	want("it is there and has no such key", false, false)
	n.noteSilence("peer.test", ErrUnreachable)
	want("it is away and has told its keys", true, false)
}

// Of several signatures that an event must have the one that says most counts: one that
// is bad, then one whose server is there or has told its keys.
func TestGravity(t *testing.T) {
	untold := fmt.Errorf("%w: %w", ErrKeyLater, ErrKeyUntold)
	rising := []error{nil, untold, ErrUnreachable, matrix.ErrBadSignature}
	for i := range rising[1:] {
		if gravity(rising[i]) >= gravity(rising[i+1]) {
			t.Errorf("%v says as much as %v", rising[i], rising[i+1])
		}
	}
	if gravity(ErrKeyLater) != gravity(ErrUnreachable) || gravity(fmt.Errorf("%w: %w", ErrKeyLater, ErrKeyUnasked)) != gravity(ErrUnreachable) {
		t.Error("a server that is away and has told its keys counts as another")
	}
}
