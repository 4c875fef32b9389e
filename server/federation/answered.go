package federation

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

const (
	// answeredEvery is how often the answers to transactions are written.
	answeredEvery = 30 * time.Second
	// maxAnswered bounds the bytes of those that are not, and maxAnsweredOf how many of
	// one server are kept until then.
	maxAnswered   = 512 << 10
	maxAnsweredOf = 4
	// answeredPatience is how long they may wait for other writes to share a commit.
	answeredPatience = time.Second
	// answeredLast bounds the write after the end.
	answeredLast = 5 * time.Second
)

// answered is what the newest transactions were answered with, for servers that repeat
// one. It is written now and then, so that a message costs the disk one commit and not
// two: where a crash takes an answer, the transaction is handled again, and finds that
// all it brings is here.
type answered struct {
	store *store.Store
	log   *slog.Logger
	full  chan struct{} // holds one when there is much to write

	mu        sync.Mutex // guards the fields below
	unwritten map[matrix.ServerName][]answeredTxn
	bytes     int
}

// answeredTxn is one transaction.
type answeredTxn struct {
	id     string
	answer []byte
}

func newAnswered(st *store.Store, log *slog.Logger) *answered {
	return &answered{store: st, log: log, full: make(chan struct{}, 1), unwritten: make(map[matrix.ServerName][]answeredTxn)}
}

// find returns what a server's transaction was answered with, if it is one of the last.
func (a *answered) find(from matrix.ServerName, id string) (answer []byte, known bool, err error) {
	a.mu.Lock()
	for _, t := range a.unwritten[from] {
		if t.id == id {
			answer, known = t.answer, true
		}
	}
	a.mu.Unlock()
	if known {
		return answer, true, nil
	}
	err = a.store.View(func(tx *store.Tx) (err error) {
		answer, known, err = tx.ServerTxn(from, id)
		return err
	})
	return answer, known, err
}

// put keeps what a server's transaction was answered with, if there is room.
func (a *answered) put(from matrix.ServerName, id string, answer []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.bytes += len(answer) + len(id); a.bytes > maxAnswered {
		a.bytes -= len(answer) + len(id)
		return // it is handled again if it comes again
	}
	of := append(a.unwritten[from], answeredTxn{id, answer})
	if len(of) > maxAnsweredOf {
		a.bytes -= len(of[0].answer) + len(of[0].id)
		of = slices.Delete(of, 0, 1)
	}
	a.unwritten[from] = of
	if a.bytes > maxAnswered/2 {
		select {
		case a.full <- struct{}{}:
		default:
		}
	}
}

// run writes the answers until ctx ends, and once more then.
func (a *answered) run(ctx context.Context) error {
	tick := time.NewTicker(answeredEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-a.full:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), answeredLast)
			defer cancel()
			if err := a.write(last, 0); err != nil {
				a.log.Warn("answers to transactions are not kept", "err", err)
			}
			return nil
		}
		if err := a.write(ctx, answeredPatience); err != nil && ctx.Err() == nil {
			a.log.Error("keep the answers to transactions", "err", err)
		}
	}
}

// write writes the answers. They stay in memory until they are in the store.
func (a *answered) write(ctx context.Context, patience time.Duration) error {
	a.mu.Lock()
	taken := make(map[matrix.ServerName][]answeredTxn, len(a.unwritten))
	for server, of := range a.unwritten {
		taken[server] = slices.Clone(of)
	}
	a.mu.Unlock()
	if len(taken) == 0 {
		return nil
	}
	err := a.store.UpdatePatiently(ctx, patience, func(tx *store.Tx) error {
		for server, of := range taken {
			for _, t := range of {
				if err := tx.PutServerTxn(server, t.id, t.answer); err != nil {
					return fmt.Errorf("transactions of %s: %w", server, err)
				}
			}
		}
		return nil
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	for server, of := range taken {
		a.unwritten[server] = slices.DeleteFunc(a.unwritten[server], func(t answeredTxn) bool {
			gone := slices.ContainsFunc(of, func(w answeredTxn) bool { return w.id == t.id })
			if gone {
				a.bytes -= len(t.answer) + len(t.id)
			}
			return gone
		})
		if len(a.unwritten[server]) == 0 {
			delete(a.unwritten, server)
		}
	}
	return err // what could not be written is handled again if it comes again
}
