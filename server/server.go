package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"hearth/server/api"
	"hearth/server/client"
	"hearth/server/federation"
	"hearth/server/media"
	"hearth/server/push"
	"hearth/server/remote"
	"hearth/state"
	"hearth/store"
)

// shutdownGrace is how long requests under way may take after the server was told
// to stop; long polls end at once.
const shutdownGrace = 10 * time.Second

// A Server is everything that runs: the listeners, the APIs behind them and the
// store below. Make it with [New], then call [Server.Run] once.
type Server struct {
	config     Config
	log        *slog.Logger
	store      *store.Store
	owner      *owner
	media      *media.Repository
	client     *client.Server
	network    *remote.Network // nil where federation is off, as are the next three
	sender     *remote.Sender
	joiner     *remote.Joiner
	federation *federation.Server
	push       *push.Gateway
	handler    http.Handler // of all APIs
	admin      *admin
	listeners  []net.Listener
	outside    outside
}

// outside is what a server meets beyond its settings. A simulation has its own.
type outside struct {
	store store.Options
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	now   func() time.Time // the time that events carry
}

// New opens the data and the listeners of a server. It starts nothing, and Run
// closes what it opened.
func New(config Config, log *slog.Logger) (*Server, error) {
	config = config.withDefaults()
	if err := config.check(); err != nil {
		return nil, err
	}
	holdMemory(config.Memory)
	dialer := remote.NewDialer(config.AllowPrivateNetworks == On)
	s := &Server{config: config, log: log, outside: outside{store.Options{Lock: lockWait}, dialer.Dial, time.Now}}
	if err := s.open(dialer); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// open opens everything, from the bottom up.
func (s *Server) open(dialer *remote.Dialer) (err error) {
	if err := s.openParts(dialer); err != nil {
		return err
	}
	if s.admin, err = openAdmin(s.store.Dir(), s.owner, s.log); err != nil {
		return err
	}
	return s.listen()
}

// openParts opens everything but sockets.
func (s *Server) openParts(dialer *remote.Dialer) (err error) {
	s.store, err = store.Open(s.config.Data, s.config.ServerName, s.outside.store)
	if err != nil {
		return err
	}
	rooms, err := openRooms(s.store, s.config.DefaultRoomVersion, s.outside.now, s.log)
	if err != nil {
		return err
	}
	limits := new(api.Limiter)
	if s.config.RateLimits == On {
		limits = api.NewLimiter()
	}
	memory := newBudget(s.config.Memory)
	mediaConfig := media.Config{Budget: memory.take, Log: s.log}
	if s.config.URLPreviews == On {
		mediaConfig.Previews = dialer.Client(remote.ClientConfig{Redirects: media.PreviewRedirects, PerHost: 2})
	}
	s.push = push.NewGateway(s.store, dialer.Client(remote.ClientConfig{Timeout: push.SendTimeout}), s.log)
	if s.config.Federation == On {
		if s.network, err = s.newNetwork(rooms, memory); err != nil {
			return err
		}
		rooms.SetOutside(state.Outside{Invite: s.network.Invite, Sign: s.network.SignByPolicy, Alias: s.network.Alias, KeyHolds: s.network.KeyHolds})
		s.sender = s.newSender()
		s.joiner = s.newJoiner(rooms, memory)
		mediaConfig.Fetch = s.network.Media
	}
	s.media = media.New(s.store, mediaConfig)
	s.client = client.New(s.store, rooms, s.clientConfig(limits))
	s.owner = &owner{
		store: s.store, rooms: rooms, client: s.client, passwords: client.NewPasswords(s.config.PasswordCost),
		now: time.Now, network: s.network, sender: s.sender,
	}
	routes := append(s.client.Routes(), api.Route{Pattern: "GET " + healthPath, Handle: s.health})
	if s.network != nil {
		s.federation = federation.New(s.federationConfig(rooms, limits, memory))
		routes = append(routes, s.federation.Routes()...)
	}
	s.handler, err = api.NewRouter(s.log, routes...)
	return err
}

// clientConfig returns the settings of the Client-Server API.
func (s *Server) clientConfig(limits *api.Limiter) client.Config {
	registration := map[Registration]client.Registration{
		RegistrationClosed: client.RegistrationClosed,
		RegistrationToken:  client.RegistrationToken,
		RegistrationOpen:   client.RegistrationOpen,
	}
	presence := map[Presence]client.PresenceMode{
		PresenceOn:    client.PresenceOn,
		PresenceLocal: client.PresenceLocal,
		PresenceOff:   client.PresenceOff,
	}
	config := client.Config{
		Registration:    registration[s.config.Registration],
		Presence:        presence[s.config.Presence],
		SharedSecret:    string(s.config.RegistrationSharedSecret),
		PasswordCost:    s.config.PasswordCost,
		TURN:            client.TURNServer{URIs: s.config.TURNURIs, Secret: string(s.config.TURNSecret)},
		Media:           s.media,
		Network:         s.network,
		Joiner:          s.joiner,
		LegacyMedia:     s.config.LegacyMedia == On,
		PrivateNetworks: s.config.AllowPrivateNetworks == On,
		Limits:          limits,
		Log:             s.log,
	}
	if s.sender != nil {
		config.OnTyping, config.OnPresence, config.OnMeeting = s.sendTyping, s.sendPresence, s.sendMeeting
	}
	return config
}

// What a parked long poll costs, in bytes: over plain HTTP 19 KiB were measured,
// over TLS 38. Connections may use a quarter of the ceiling.
const (
	memoryPerConn    = 24 << 10
	memoryPerTLSConn = 40 << 10
	connShare        = 4
	leastConns       = 100
)

// maxConns returns how many connections all listeners together may have.
func (s *Server) maxConns() int {
	each := Bytes(memoryPerConn)
	if len(s.config.ListenTLS) > 0 {
		each = memoryPerTLSConn
	}
	return max(int(s.config.Memory/connShare/each), leastConns)
}

// listen opens the listeners. All share one bound on their connections.
func (s *Server) listen() error {
	conns := newConnTable(s.maxConns(), s.isShared)
	for _, addr := range s.config.Listen {
		l, err := openListener(addr)
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, &trackedListener{l, conns})
	}
	if len(s.config.ListenTLS) == 0 {
		return nil
	}
	cert, err := openCertificate(s.config.TLSCert, s.config.TLSKey, s.log)
	if err != nil {
		return err
	}
	for _, addr := range s.config.ListenTLS {
		l, err := openListener(addr)
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, tls.NewListener(&trackedListener{l, conns}, cert.config()))
	}
	return nil
}

// isShared reports whether an address stands for many clients: this host, where a
// proxy or a test may be, and the trusted proxies.
func (s *Server) isShared(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return true
	}
	ip := tcp.AddrPort().Addr().Unmap()
	if ip.IsLoopback() {
		return true
	}
	for _, p := range s.config.TrustedProxies {
		if p.Contains(ip.WithZone("")) {
			return true
		}
	}
	return false
}

// Run serves until ctx ends, then stops in order: no new connections, long polls
// end, requests under way are answered, the store is closed. It returns nil after
// such a stop. Everything that New opened is closed when it returns.
func (s *Server) Run(ctx context.Context) error {
	stopping, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	requests, cutOff := context.WithCancel(context.WithoutCancel(ctx))
	defer cutOff()
	base := api.WithStopping(api.WithTrustedProxies(requests, s.config.TrustedProxies), stopping)
	web := newHTTPServer(base, s.handler, s.log)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.owner.rooms.Run(ctx) })
	g.Go(func() error { return s.client.Run(ctx) })
	g.Go(func() error { return s.media.Run(ctx) })
	if s.network != nil {
		g.Go(func() error { return s.network.Run(ctx) })
		g.Go(func() error { return s.sender.Run(ctx) })
		g.Go(func() error { return s.joiner.Run(ctx) })
		g.Go(func() error { return s.federation.Run(ctx) })
	}
	g.Go(func() error {
		return s.push.Run(ctx, push.Sources{Notices: s.client.Notices, Invite: s.client.InviteNotice, Unread: s.client.UnreadCount})
	})
	if s.admin != nil {
		g.Go(func() error { return s.admin.run(ctx) })
	}
	g.Go(func() error { return newIdle().run(ctx) })
	for _, l := range s.listeners {
		s.log.Info("listening", "server", s.config.ServerName, "address", listenName(l))
		g.Go(func() error { return serve(web, l) })
	}
	g.Go(func() error {
		<-ctx.Done()
		s.log.Info("stopping")
		stop()
		return shutDown(web, cutOff)
	})
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	s.listeners, s.admin = nil, nil // closed by those who served them
	return errors.Join(err, s.close())
}

// serve serves one listener until it is closed.
func serve(web *http.Server, l net.Listener) error {
	if err := web.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// shutDown lets requests under way end, and cuts them off when the grace is over.
func shutDown(web *http.Server, cutOff context.CancelFunc) error {
	grace, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	if err := web.Shutdown(grace); err == nil {
		return nil
	}
	cutOff()
	return web.Close()
}

// close closes what is open, from the top down.
func (s *Server) close() error {
	var err error
	for _, l := range s.listeners {
		err = errors.Join(err, l.Close())
	}
	if s.admin != nil {
		err = errors.Join(err, s.admin.close())
	}
	if s.store != nil {
		err = errors.Join(err, s.store.Close())
	}
	return err
}

// Addresses returns where the server listens, in the order of the settings.
func (s *Server) Addresses() []net.Addr {
	var all []net.Addr
	for _, l := range s.listeners {
		all = append(all, l.Addr())
	}
	return all
}

// listenName names a listener in the log.
func listenName(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return unixPrefix + l.Addr().String()
	}
	if _, plain := l.(*trackedListener); plain {
		return "http://" + l.Addr().String()
	}
	return "https://" + l.Addr().String()
}

// NewLogger returns the log that the settings ask for.
func NewLogger(config Config, w io.Writer) *slog.Logger {
	levels := map[LogLevel]slog.Level{
		LogDebug: slog.LevelDebug, LogInfo: slog.LevelInfo, LogWarn: slog.LevelWarn, LogError: slog.LevelError,
	}
	options := &slog.HandlerOptions{Level: levels[config.LogLevel]}
	if config.LogFormat == LogJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// Welcome tells on w how to make the owner's account, while there is none, and logs
// what the settings ask for in vain.
func (s *Server) Welcome(w io.Writer) error {
	for _, text := range s.config.Warnings() {
		s.log.Warn(text)
	}
	some, err := s.owner.hasOwner()
	if err != nil || some {
		return err
	}
	_, err = fmt.Fprintf(w, `
This server has no owner yet. Make the first account, which owns it:

    %s user add NAME%s

`, ownCommand(), s.dataFlag())
	return err
}

// ownCommand is how this process was called.
func ownCommand() string {
	if strings.Contains(os.Args[0], "go-build") {
		return "go run ."
	}
	return os.Args[0]
}

// dataFlag is the flag that a subcommand needs to find the data.
func (s *Server) dataFlag() string {
	if s.config.Data == (Config{}).withDefaults().Data {
		return ""
	}
	return " --data " + s.config.Data
}
