// Package federation is the Server-Server API: what other Matrix servers ask of
// this one. It has one file per API of the specification; each handler has the
// operationId of its endpoint and stands in the one table of routes.go.
//
// A request is signed by the server that makes it, and auth.go checks that before
// any handler runs. A handler then decides what this server may know or do: it
// trusts nothing but the name. What goes out to other servers is in package remote.
//
// Spec: SS, all of it.
package federation

import (
	"context"
	"log/slog"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"hearth/server/api"
	"hearth/server/media"
	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// Receive takes one EDU of a type from another server. An error that wraps
// [remote.ErrBadEDU] is the other server's fault: the EDU is dropped. Any other says
// that it could not be kept here, and has the transaction come again.
type Receive func(ctx context.Context, origin matrix.ServerName, content jsontext.Value) error

// Config is what a Server needs; Store, Rooms, Network, Profile and OpenIDUser are required.
type Config struct {
	Store   *store.Store
	Rooms   *state.Rooms
	Network *remote.Network
	// Media keeps the files that other servers may ask for. If nil, there are none.
	Media *media.Repository
	// Profile returns the profile of a user of this server; M_NOT_FOUND where there is
	// none.
	Profile func(user matrix.UserID) (remote.Profile, error)
	// OpenIDUser returns the user whom an OpenID token speaks for; M_UNKNOWN_TOKEN
	// where it is no good.
	OpenIDUser func(token string) (matrix.UserID, error)
	// EDU takes EDUs by their type. Those of other types are ignored.
	EDU map[string]Receive
	// Take takes so many bytes of the memory for big jobs, and returns what gives them
	// back. If nil, there is no end of it.
	Take func(ctx context.Context, bytes int64) (release func(), err error)
	// Version is told to those who ask for it.
	Version string
	// Limits counts requests. If nil, nothing is limited.
	Limits *api.Limiter
	// Now is the clock. If nil, time.Now.
	Now func() time.Time
	// Log takes what goes wrong. If nil, nothing is logged.
	Log *slog.Logger
}

// A Server answers the Server-Server API. Make it with [New] and let [Server.Run]
// run as long as it serves.
type Server struct {
	config  Config
	store   *store.Store
	rooms   *state.Rooms
	network *remote.Network
	media   *media.Repository
	limits  *api.Limiter
	now     func() time.Time
	log     *slog.Logger
	// bodies are the bytes of requests that are in memory.
	bodies bodies
	// vouching are the requests that we make as a notary.
	vouching *semaphore.Weighted
	turns    *turns
	inbox    *inbox
	answered *answered
	// check is the network's Check.
	check func(context.Context, *matrix.Version, []jsontext.Value) ([]*matrix.Event, []error)
}

// New returns a server over a store, its rooms and the network.
func New(config Config) *Server {
	if config.Limits == nil {
		config.Limits = new(api.Limiter)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Take == nil {
		config.Take = func(context.Context, int64) (func(), error) { return func() {}, nil }
	}
	s := &Server{
		config: config, store: config.Store, rooms: config.Rooms, network: config.Network, media: config.Media,
		limits: config.Limits, now: config.Now, log: config.Log,
		vouching: semaphore.NewWeighted(2 * notaryWorkers),
		turns:    newTurns(), inbox: newInbox(config), check: config.Network.Check,
		answered: newAnswered(config.Store, config.Log),
	}
	config.Network.OnHeard(s.inbox.queue.heard)
	return s
}

// Run does the work of the Server-Server API that no request waits for, until ctx
// ends.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.inbox.run(ctx) })
	group.Go(func() error { return s.answered.run(ctx) })
	return group.Wait()
}
