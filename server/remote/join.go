package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/errgroup"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// A Joiner brings local users into rooms of other servers, and takes them out of
// those that this server is not in: joins, knocks, and the leaves that reject an
// invite or withdraw a knock. A join goes on when the request that it came by has
// ended, and after a restart. Its methods may be called by several goroutines.
type Joiner struct {
	store *store.Store
	rooms *state.Rooms
	own   matrix.ServerName
	log   *slog.Logger
	dir   string

	ask    func(ctx context.Context, dest matrix.ServerName, q Request, answer any) error
	stream func(ctx context.Context, dest matrix.ServerName, q Request) (*http.Response, error)
	verify verifier
	source func(v *matrix.Version, servers ...matrix.ServerName) state.Source
	budget func(ctx context.Context, bytes int64) (release func(), err error)
	joined func(matrix.RoomID)
	// leftOut keeps what can only be checked later; see JoinerConfig.
	leftOut func(ctx context.Context, room store.RoomNum, from matrix.ServerName, pdus []jsontext.Value, state bool) (kept int, err error)
	await   func(ctx context.Context, server matrix.ServerName)
	step    int // events that are brought here at a time

	queue chan *joinWork
	mu    sync.Mutex // guards under
	under map[matrix.RoomID]*joinWork
}

// JoinerConfig is what a Joiner needs; Network, Store, Rooms and Dir are required.
type JoinerConfig struct {
	Network *Network
	Store   *store.Store
	Rooms   *state.Rooms
	// Dir takes the answers to joins while they are read; it belongs to the Joiner
	// and need not exist.
	Dir string
	// Budget takes the memory that a join needs. If nil, none is taken.
	Budget func(ctx context.Context, bytes int64) (release func(), err error)
	// Joined is told of each room that was joined, right behind it. It must not
	// block. If nil, nobody is told.
	Joined func(matrix.RoomID)
	// LeftOut is told of events of the answer to a join that cannot be checked for now, as
	// the keys that they are signed with cannot be had. It keeps them for later and returns
	// how many it has kept: the first of them. Only those may be used on the other server's
	// word; the rest is left out. state says whether the room's state has them. If nil, none
	// is kept.
	LeftOut func(ctx context.Context, room store.RoomNum, from matrix.ServerName, pdus []jsontext.Value, state bool) (kept int, err error)
	// Settle waits until a server has got what was sent to it before. It is called with a
	// server by way of which a room is joined that we were in: it may not have heard that
	// we left. If nil, nothing is waited for.
	Settle func(ctx context.Context, server matrix.ServerName)
	// Log takes how joins come along. If nil, nothing is logged.
	Log *slog.Logger
}

// Bounds of joins.
const (
	joinsAtOnce   = 2  // that are worked on
	joinsWaiting  = 64 // behind those
	joinWeight    = 8 << 20
	resumeRetries = 5
	resumePause   = time.Minute
	// maxLostCandidates is how many servers are asked first for a room that could be gone
	// on with here: each may take makeTimeout.
	maxLostCandidates = 2
)

// ErrTooManyJoins is returned where too many joins wait.
var ErrTooManyJoins = errors.New("too many joins are under way")

// ErrNoServer is returned where no other server is known that may be in a room.
var ErrNoServer = errors.New("no server is known that is in the room")

// NewJoiner returns a joiner. Let [Joiner.Run] run as long as it is used: what it is
// asked for waits until then.
func NewJoiner(c JoinerConfig) *Joiner {
	j := newJoiner(c)
	n := c.Network
	j.ask, j.stream, j.verify, j.source = n.Do, n.Stream, n.VerifyEvents, n.Source
	return j
}

func newJoiner(c JoinerConfig) *Joiner {
	if c.Budget == nil {
		c.Budget = func(context.Context, int64) (func(), error) { return func() {}, nil }
	}
	if c.Joined == nil {
		c.Joined = func(matrix.RoomID) {}
	}
	if c.Settle == nil {
		c.Settle = func(context.Context, matrix.ServerName) {}
	}
	if c.LeftOut == nil {
		c.LeftOut = func(context.Context, store.RoomNum, matrix.ServerName, []jsontext.Value, bool) (int, error) {
			return 0, nil
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Joiner{
		store: c.Store, rooms: c.Rooms, own: c.Store.Server(), log: c.Log, dir: c.Dir,
		budget: c.Budget, joined: c.Joined, leftOut: c.LeftOut, await: c.Settle, step: importStep,
		queue: make(chan *joinWork, joinsWaiting), under: make(map[matrix.RoomID]*joinWork),
	}
}

// joinWork is one join on its way. All but done and err is its worker's.
type joinWork struct {
	room    matrix.RoomID
	join    state.Join
	servers []matrix.ServerName
	resumed *store.RoomJoin // that a restart has cut short; or nil

	done chan struct{} // closed when it has ended
	err  error         // why the user is not in the room; good once done is closed
}

// Run works on joins until ctx ends, those first that were cut short by a restart.
func (j *Joiner) Run(ctx context.Context) error {
	resumed, err := j.resume()
	if err != nil {
		j.log.Error("joins cannot be gone on with", "err", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for _, w := range resumed {
			select {
			case j.queue <- w:
			case <-ctx.Done():
				return nil
			}
		}
		return nil
	})
	for range joinsAtOnce {
		group.Go(func() error {
			j.work(ctx)
			return nil
		})
	}
	return group.Wait()
}

// work takes joins from the queue until ctx ends.
func (j *Joiner) work(ctx context.Context) {
	for {
		select {
		case w := <-j.queue:
			w.err = j.run(ctx, w)
			j.mu.Lock()
			delete(j.under, w.room)
			j.mu.Unlock()
			close(w.done)
		case <-ctx.Done():
			return
		}
	}
}

// Join joins a local user to a room: at this server if it is in the room and may let
// the user in, else by way of the servers named, in their order, which may be in the
// room. It returns when the user is in the room, with the reason why not, or when ctx
// ends; then the join goes on. A refusal of another server is an [Error]; of several
// the one that says most.
//
// Spec: CS Joining rooms; SS Joining Rooms; SS Restricted rooms.
func (j *Joiner) Join(ctx context.Context, join state.Join, servers []matrix.ServerName) error {
	for {
		is, err := j.residence(join.Room)
		if err != nil {
			return err
		}
		if named := j.candidates(servers); is == residenceLost && len(named) > 0 {
			// They may have gone on, whom we took for gone.
			done, err := j.joinOutside(ctx, join, named[:min(len(named), maxLostCandidates)])
			if !done && err == nil {
				continue
			}
			if !nobodyThere(err) {
				return err
			}
		}
		if is != residenceNone {
			err := j.rooms.Join(ctx, join)
			if !errors.Is(err, state.ErrUnableToGrantJoin) {
				return err
			}
			return j.joinByAnother(ctx, join, servers)
		}
		if done, err := j.joinOutside(ctx, join, servers); done || err != nil {
			return err
		}
	}
}

// joinOutside joins a user by way of other servers. done is false where a join of another
// user to the room was waited for, or ctx ended first.
func (j *Joiner) joinOutside(ctx context.Context, join state.Join, servers []matrix.ServerName) (done bool, err error) {
	w, err := j.enter(join, servers)
	if err != nil {
		return true, err
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if w.join.User != join.User {
		return false, nil
	}
	return true, w.err
}

// nobodyThere says whether a join failed since none of the servers that were asked is in the
// room, or there at all, or could be asked.
func nobodyThere(err error) bool {
	if answer, ok := errors.AsType[*Error](err); ok {
		return answer.Status == http.StatusNotFound || answer.Status >= http.StatusInternalServerError
	}
	return errors.Is(err, ErrUnreachable) || errors.Is(err, ErrNoServer) || errors.Is(err, ErrTooManyJoins)
}

// residence says whether we know what happens in a room.
type residence int

const (
	residenceNone residence = iota // we do not
	residenceHere                  // a local user is in it
	residenceLost                  // nobody is, by all that we know
)

func (j *Joiner) residence(room matrix.RoomID) (is residence, err error) {
	err = j.store.View(func(tx *store.Tx) error {
		num, _, err := state.Head(tx, room)
		if errors.Is(err, state.ErrUnknownRoom) {
			return nil
		}
		if err != nil {
			return err
		}
		is = residenceLost
		err = tx.RoomServers(num, func(store.ServerNum, uint64) (bool, error) {
			is = residenceNone
			return false, nil
		})
		if err != nil {
			return err
		}
		return tx.LocalMembers(num, func(_ store.UserNum, m matrix.Membership) (bool, error) {
			if m == matrix.Join {
				is = residenceHere
			}
			return is != residenceHere, nil
		})
	})
	return is, err
}

// orLast returns servers; where there is none to ask, those that were in a room when we
// left it.
func (j *Joiner) orLast(servers []matrix.ServerName, room matrix.RoomID) ([]matrix.ServerName, error) {
	if len(j.candidates(servers)) > 0 {
		return servers, nil
	}
	err := j.store.View(func(tx *store.Tx) error {
		return tx.RoomServers(tx.RoomNum(room), func(num store.ServerNum, _ uint64) (bool, error) {
			servers = append(servers, tx.ServerName(num))
			return len(servers) <= maxCandidates, nil
		})
	})
	return servers, err
}

// enter returns the join to a room that is under way, and begins one if none is.
func (j *Joiner) enter(join state.Join, servers []matrix.ServerName) (*joinWork, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if w := j.under[join.Room]; w != nil {
		return w, nil
	}
	w := &joinWork{room: join.Room, join: join, servers: servers, done: make(chan struct{})}
	select {
	case j.queue <- w:
	default:
		return nil, ErrTooManyJoins
	}
	j.under[join.Room] = w
	return w, nil
}

// resume finds the joins that a restart has cut short, and removes what others left.
func (j *Joiner) resume() (works []*joinWork, err error) {
	spools := make(map[string]bool)
	err = j.store.View(func(tx *store.Tx) error {
		return tx.Joins(func(r store.RoomJoin) (bool, error) {
			room := tx.RoomID(r.Room)
			spools[j.spoolPath(r)] = true
			works = append(works, &joinWork{
				room: room, join: state.Join{Room: room, User: r.User}, resumed: &r, done: make(chan struct{}),
			})
			return true, nil
		})
	})
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(j.dir, "*"+spoolSuffix))
	for _, file := range files {
		if !spools[file] {
			err = errors.Join(err, os.Remove(file))
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, w := range works {
		if waiting := j.under[w.room]; waiting != nil { // a client was quicker
			waiting.resumed = w.resumed
			works[i] = nil
			continue
		}
		j.under[w.room] = w
	}
	kept := works[:0]
	for _, w := range works {
		if w != nil {
			kept = append(kept, w)
		}
	}
	return kept, err
}

// spoolSuffix ends the names of spools.
const spoolSuffix = ".join"

func (j *Joiner) spoolPath(r store.RoomJoin) string {
	return filepath.Join(j.dir, fmt.Sprintf("%d-%d%s", r.Room, r.Serial, spoolSuffix))
}
