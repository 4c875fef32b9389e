// Package client is the Client-Server API: what Matrix clients of this server's
// own users talk to. It has one file per API of the specification; each handler
// has the operationId of its endpoint and stands in the one table of routes.go.
//
// A handler parses the request into the types of state/matrix, does one deed with
// state or store, and answers through server/api. It decides who may ask (the
// session, see auth.go) and keeps what lives in memory alone: user-interactive
// authentication under way, nonces, and when devices were last seen. It never
// judges events, which state does, and never talks to other servers.
//
// Spec: CS, all of it but the OAuth 2.0 API.
package client

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"hearth/server/api"
	"hearth/server/media"
	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// A Server answers the Client-Server API. Make it with [New] and let [Server.Run]
// run as long as it serves.
type Server struct {
	config    Config
	store     *store.Store
	rooms     *state.Rooms
	log       *slog.Logger
	limits    *api.Limiter
	now       func() time.Time
	passwords *Passwords
	media     *media.Repository
	stages    stageSessions       // user-interactive authentication under way
	nonces    nonces              // of registration by shared secret
	notices   serverNotices       // of the server to its users
	guests    guests              // who is a guest
	erasures  erasures            // whose events newcomers do not see
	sightings sightings           // devices seen since they were last written
	lazy      lazyMembers         // who has been given which members
	serials   memorySerials       // of changes in memory alone: the next two
	typing    typingRooms         // who is typing
	presences presences           // who is there
	sending   sending             // whose events are on their way
	unreads   unreads             // what users have not read
	devices   *remote.DeviceLists // of other servers' users; nil where there are no other servers
	searching sync.Mutex          // held by the one search at a time
	fills     fills               // gaps in the past of rooms
}

// Registration says who may make an account over the client API.
type Registration uint8

// The ways of registration.
const (
	RegistrationClosed Registration = iota // nobody; the owner makes accounts
	RegistrationToken                      // whoever has a registration token
	RegistrationOpen                       // everybody
)

// Config is what the owner decides about the Client-Server API. The zero value is
// right for a closed server.
type Config struct {
	Registration Registration
	// SharedSecret enables /_synapse/admin/v1/register; empty: off.
	SharedSecret string
	// PasswordCost is the work factor of the password hash. If zero, 10.
	PasswordCost int
	// BaseURL is where clients reach this server if not at its own name, such as
	// "https://matrix.example.org". If empty, the host of the request is told to
	// those who ask by the server's own name.
	BaseURL string
	// Support is told to whoever looks for the people behind the server.
	Support Support
	// Media keeps files, and whoever made it runs it. If nil, New makes one that
	// nobody runs.
	Media *media.Repository
	// Network is the other servers. If nil, there are none.
	Network *remote.Network
	// Joiner takes users into rooms of other servers and out of them. If nil, there
	// are none.
	Joiner *remote.Joiner
	// PrivateNetworks lets pushers use plain HTTP, as push gateways may be in the
	// owner's own network then.
	PrivateNetworks bool
	// LegacyMedia gives files to whoever knows their URI, without a token.
	LegacyMedia bool
	// TURN is offered to users for their calls.
	TURN TURNServer
	// Presence says whose presence users see.
	Presence PresenceMode
	// OnTyping is told when a local user types in a room, now and then that it lasts,
	// and when the user types no longer: for other servers. It must not block. If nil,
	// nobody is told.
	OnTyping func(room matrix.RoomID, user matrix.UserID, types bool)
	// OnPresence is told of each change of a local user's presence, and now and
	// then that it lasts: for other servers. It must not block. If nil, nobody is
	// told; with another mode than PresenceOn it is not called.
	OnPresence func(Presence)
	// OnMeeting is told how a local user is when another server comes to a room of
	// the user, and when the user comes to a room; server is "" then. It is for that
	// server, or for all of the room; else as OnPresence.
	OnMeeting func(p Presence, room matrix.RoomID, server matrix.ServerName)
	// Limits counts requests. If nil, nothing is limited.
	Limits *api.Limiter
	// Log takes what goes wrong. If nil, nothing is logged.
	Log *slog.Logger
}

// New returns a server over a store and its rooms.
func New(st *store.Store, rooms *state.Rooms, config Config) *Server {
	s := &Server{
		config: config, store: st, rooms: rooms, log: config.Log, limits: config.Limits, now: time.Now,
		passwords: NewPasswords(config.PasswordCost), media: config.Media,
	}
	if s.media == nil {
		s.media = media.New(st, media.Config{Log: config.Log})
	}
	s.fills.past = pastOf(config.Network)
	s.serials.start(s.now())
	s.typing.start(&s.serials, s.now())
	s.presences.start(&s.serials)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.limits == nil {
		s.limits = &api.Limiter{}
	}
	if config.Network != nil {
		s.devices = remote.NewDeviceLists(remote.DeviceListsConfig{Store: st, Ask: config.Network.Do, Log: s.log})
		config.Network.OnHeard(func(server matrix.ServerName, _ bool) { s.devices.Heard(server) })
	}
	return s
}

// Run does the work of the Client-Server API that no request waits for, until ctx
// ends: it removes what deactivated accounts left behind, writes down when devices
// were last seen, users last active and what they have not read, ends typing and
// presence that have timed out, and has guests leave rooms that take none any more.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{
		s.runSweep, s.runSightings, s.runTyping, s.runPresence, s.runMeetings, s.runUnread, s.runGuests, s.runDevices,
	} {
		group.Go(func() error { return run(ctx) })
	}
	return group.Wait()
}

// runDevices keeps the device lists of other servers' users.
func (s *Server) runDevices(ctx context.Context) error {
	if s.devices == nil {
		return nil
	}
	return s.devices.Run(ctx)
}

// runSweep removes what deactivated accounts left behind, once.
func (s *Server) runSweep(ctx context.Context) error {
	if err := s.sweepDeactivated(ctx); err != nil && ctx.Err() == nil {
		s.log.Error("remove the data of deactivated accounts", "err", err)
	}
	return nil
}

// lastWrite is the longest that a write at the end may take.
const lastWrite = 10 * time.Second

// writes store what is in memory, as often as is worth it.
type writes struct {
	deed     string // for the log
	every    time.Duration
	patience time.Duration // how long one may wait for company
	write    func(ctx context.Context, patience time.Duration) error
}

// runWrites writes now and then, and once more when ctx ends.
func (s *Server) runWrites(ctx context.Context, w writes) error {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := w.write(ctx, w.patience); err != nil && ctx.Err() == nil {
				s.log.Error(w.deed, "err", err)
			}
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
			defer cancel()
			return w.write(last, 0)
		}
	}
}
