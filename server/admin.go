package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
)

// The socket over which the subcommands reach the running server, as the file of
// the store is locked while it runs: HTTP with JSON, one POST or GET per deed of
// the owner. Whoever may open the socket may do everything; the file system says
// who that is.

// adminSocket is the name of the socket in the data directory.
const adminSocket = "admin.sock"

// maxAdminBody bounds what a subcommand sends, in bytes.
const maxAdminBody = 64 << 10

// maxTokenDays bounds the life of a registration token that has an end.
const maxTokenDays = 36500

// maxSocketPath is the longest name that a socket's address holds, in bytes.
const maxSocketPath = 107

// admin serves the socket.
type admin struct {
	listener net.Listener
	dir      *os.File // open while the socket is reached through it; or nil
	web      *http.Server
}

// openAdmin listens on the socket in dir. Call it with the store open: its lock
// says that nobody else serves here.
func openAdmin(dir string, o *owner, log *slog.Logger) (*admin, error) {
	router, err := api.NewRouter(log, o.routes()...)
	if err != nil {
		return nil, err
	}
	path, open, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	l, err := listenUnix(path, 0o600)
	if err != nil {
		return nil, errors.Join(err, closeFile(open))
	}
	web := &http.Server{
		Handler: router, ReadHeaderTimeout: headerLimit, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return &admin{l, open, web}, nil
}

// socketPath returns the socket's name, short enough for its address: a directory
// with a long name is reached through an open file of this process. Close that
// file after use; it may be nil.
func socketPath(dir string) (string, *os.File, error) {
	path := filepath.Join(dir, adminSocket)
	if len(path) <= maxSocketPath {
		return path, nil, nil
	}
	open, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(open.Fd())), adminSocket), open, nil
}

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// run serves until ctx ends; requests under way are answered, but for purges, which
// another time goes on with.
func (a *admin) run(ctx context.Context) error {
	base := api.WithStopping(context.WithoutCancel(ctx), ctx)
	a.web.BaseContext = func(net.Listener) context.Context { return base }
	done := make(chan error, 1)
	go func() { done <- a.web.Serve(a.listener) }()
	select {
	case err := <-done:
		return errors.Join(fmt.Errorf("admin socket: %w", err), closeFile(a.dir))
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	err := a.web.Shutdown(grace)
	if err != nil {
		err = a.web.Close()
	}
	<-done
	return errors.Join(err, closeFile(a.dir))
}

// close frees the socket of an admin that never ran.
func (a *admin) close() error { return errors.Join(a.listener.Close(), closeFile(a.dir)) }

// The requests and answers of the socket that have more than one field.
type (
	userRequest struct {
		Name     string `json:"name"`
		Password string `json:"password,omitzero"`
		Admin    bool   `json:"admin,omitzero"`
		LogOut   bool   `json:"log_out,omitzero"`
		Erase    bool   `json:"erase,omitzero"`
	}
	tokenRequest struct {
		Token string `json:"token,omitzero"`
		Uses  uint64 `json:"uses,omitzero"`
		Days  uint64 `json:"days,omitzero"`
	}
	roomRequest struct {
		Room string `json:"room"`
	}
	nameAnswer struct {
		User matrix.UserID `json:"user"`
	}
	usersAnswer struct {
		Users []account `json:"users"`
	}
	tokensAnswer struct {
		Tokens []token `json:"tokens"`
	}
	roomsAnswer struct {
		Rooms []room `json:"rooms"`
	}
	destinationsAnswer struct {
		Destinations []destination `json:"destinations"`
	}
	retryRequest struct {
		Servers []string `json:"servers"` // none: all
	}
	retryAnswer struct {
		Servers []matrix.ServerName `json:"servers"`
	}
	leftAnswer struct {
		Left []matrix.UserID `json:"left"`
	}
	purgeAnswer struct { // one of several, one after the other; the last has Done or Error
		Left    matrix.UserID `json:"left,omitzero"`
		Removed int           `json:"removed,omitzero"`
		Done    bool          `json:"done,omitzero"`
		Error   string        `json:"error,omitzero"`
	}
	keyAnswer struct {
		Key string `json:"key"`
	}
	checkAnswer struct {
		Faults []string `json:"faults"`
		Count  int      `json:"count"`
	}
	versionAnswer struct {
		Version string            `json:"version"`
		Server  matrix.ServerName `json:"server"`
	}
)

// routes are the deeds of the owner as endpoints of the socket.
func (o *owner) routes() []api.Route {
	return []api.Route{
		post("/user/add", func(ctx context.Context, in userRequest) (account, error) {
			return o.addUser(ctx, in.Name, in.Password, in.Admin)
		}),
		post("/user/reset", func(ctx context.Context, in userRequest) (nameAnswer, error) {
			id, err := o.resetPassword(ctx, in.Name, in.Password, in.LogOut)
			return nameAnswer{id}, err
		}),
		post("/user/list", func(context.Context, struct{}) (usersAnswer, error) {
			users, err := o.users()
			return usersAnswer{users}, err
		}),
		post("/user/deactivate", func(ctx context.Context, in userRequest) (nameAnswer, error) {
			id, err := o.deactivate(ctx, in.Name, in.Erase)
			return nameAnswer{id}, err
		}),
		post("/token/add", func(ctx context.Context, in tokenRequest) (token, error) {
			days := time.Duration(min(in.Days, maxTokenDays))
			return o.addToken(ctx, in.Token, in.Uses, days*24*time.Hour)
		}),
		post("/token/list", func(context.Context, struct{}) (tokensAnswer, error) {
			tokens, err := o.tokens()
			return tokensAnswer{tokens}, err
		}),
		post("/token/revoke", func(ctx context.Context, in tokenRequest) (struct{}, error) {
			return struct{}{}, o.revokeToken(ctx, in.Token)
		}),
		post("/room/list", func(ctx context.Context, _ struct{}) (roomsAnswer, error) {
			rooms, err := o.allRooms(ctx)
			return roomsAnswer{rooms}, err
		}),
		post("/room/leave", func(ctx context.Context, in roomRequest) (leftAnswer, error) {
			id, err := matrix.ParseRoomID(in.Room)
			if err != nil {
				return leftAnswer{}, err
			}
			left, err := o.leaveRoom(ctx, id)
			return leftAnswer{left}, err
		}),
		{Pattern: "POST /room/purge", Handle: o.purge},
		post("/federation/list", func(context.Context, struct{}) (destinationsAnswer, error) {
			all, err := o.allDestinations()
			return destinationsAnswer{all}, err
		}),
		post("/federation/retry", func(ctx context.Context, in retryRequest) (retryAnswer, error) {
			servers, err := o.retry(ctx, in.Servers)
			return retryAnswer{servers}, err
		}),
		post("/keys/rotate", func(ctx context.Context, _ struct{}) (keyAnswer, error) {
			id, err := o.rotateKeys(ctx)
			return keyAnswer{id}, err
		}),
		post("/check", func(ctx context.Context, _ struct{}) (checkAnswer, error) {
			faults, count, err := o.check(ctx)
			return checkAnswer{faults, count}, err
		}),
		{Pattern: "POST /backup", Handle: func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Type", "application/zstd")
			if err := o.store.Backup(r.Context(), w); err != nil {
				return plain(err)
			}
			return nil
		}},
		post("/version", func(context.Context, struct{}) (versionAnswer, error) {
			return versionAnswer{Version(), o.store.Server()}, nil
		}),
	}
}

// maxPurge bounds how long a command waits for a purge; the server itself goes on
// with one that was left.
const maxPurge = 24 * time.Hour

// purge answers POST /room/purge with one line of JSON after the other. A failure
// that comes before the first is an answer like any other.
func (o *owner) purge(w http.ResponseWriter, r *http.Request) error {
	var in roomRequest
	if err := api.ReadJSON(r, maxAdminBody, &in); err != nil {
		return err
	}
	id, err := matrix.ParseRoomID(in.Room)
	if err != nil {
		return plain(err)
	}
	ctx, cancel := api.LongPoll(r, maxPurge)
	defer cancel()
	began := false
	line := func(answer purgeAnswer) error {
		began = true
		return errors.Join(json.MarshalWrite(w, answer), http.NewResponseController(w).Flush())
	}
	removed, err := o.purgeRoom(ctx, id, func(p state.PurgeProgress) error {
		return line(purgeAnswer{Left: p.Left, Removed: p.Removed})
	})
	switch {
	case err == nil:
		return line(purgeAnswer{Removed: removed, Done: true})
	case began && ctx.Err() != nil:
		return nil // the server stops: the command knows what an answer without an end means
	case began:
		return line(purgeAnswer{Error: err.Error()})
	}
	return plain(err)
}

// post is an endpoint of the socket: JSON in, a deed, JSON out.
func post[In, Out any](path string, deed func(context.Context, In) (Out, error)) api.Route {
	return api.Route{Pattern: "POST " + path, Handle: func(w http.ResponseWriter, r *http.Request) error {
		var in In
		if err := api.ReadJSON(r, maxAdminBody, &in); err != nil {
			return err
		}
		out, err := deed(r.Context(), in)
		if err != nil {
			return plain(err)
		}
		return api.WriteJSON(w, out)
	}}
}

// plain returns err with its whole text for the owner, from whom nothing is kept.
func plain(err error) error {
	var e *api.Error
	if errors.As(err, &e) {
		return e
	}
	return api.AsError(err).Because("%v", err)
}
