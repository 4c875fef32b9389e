package remote

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// answerCache keeps what other servers have answered for a while, and has those who ask
// for the same at the same time wait for one request. What goes wrong is not kept.
// The zero value is empty and of use.
type answerCache[V any] struct {
	flight singleflight.Group

	mu    sync.Mutex // guards the fields below
	kept  map[string]kept[V]
	bytes int
}

// kept is one answer.
type kept[V any] struct {
	value V
	bytes int
	until time.Time
}

// answerBytes is how much each kind of answers may take.
const answerBytes = 2 << 20

// get returns the answer that is kept under a key.
func (a *answerCache[V]) get(key string, now time.Time) (value V, found bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, found := a.kept[key]
	if !found || !now.Before(k.until) {
		return value, false
	}
	return k.value, true
}

// put keeps an answer. Where there are too many, old ones go, then any.
func (a *answerCache[V]) put(key string, k kept[V], now time.Time) {
	k.bytes += len(key) + 100 // of the map
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.kept == nil {
		a.kept = make(map[string]kept[V])
	}
	a.drop(key)
	if k.bytes > answerBytes {
		return
	}
	if a.bytes+k.bytes > answerBytes {
		for key, old := range a.kept {
			if !now.Before(old.until) {
				a.drop(key)
			}
		}
	}
	for key := range a.kept {
		if a.bytes+k.bytes <= answerBytes {
			break
		}
		a.drop(key)
	}
	a.kept[key] = k
	a.bytes += k.bytes
}

// drop forgets an answer, if there is one. The caller holds mu.
func (a *answerCache[V]) drop(key string) {
	a.bytes -= a.kept[key].bytes
	delete(a.kept, key)
}

// ask returns what is kept under a key, or what fetch gets, which it keeps for a
// time. fetch returns how many bytes the answer takes, too; it goes on when this
// caller leaves, for the others. asked says that nothing was kept.
func (a *answerCache[V]) ask(ctx context.Context, clock func() time.Time, key string, life time.Duration, fetch func(context.Context) (V, int, error)) (value V, asked bool, err error) {
	if value, found := a.get(key, clock()); found {
		return value, false, nil
	}
	got, err, _ := a.flight.Do(key, func() (any, error) {
		if value, found := a.get(key, clock()); found {
			return value, nil // somebody else's question has ended since
		}
		value, bytes, err := fetch(context.WithoutCancel(ctx))
		if err == nil {
			now := clock()
			a.put(key, kept[V]{value, bytes, now.Add(life)}, now)
		}
		return value, err
	})
	return got.(V), true, err
}
