package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"hearth/server/client"
	"hearth/state"
	"hearth/store"
)

// errNoServer is wrapped where no server serves the data directory.
var errNoServer = errors.New("no server runs on this data")

// databaseName is the file that a data directory has once a server has used it.
const databaseName = "hearth.db"

// adminClient talks to the socket of a server.
type adminClient struct {
	web *http.Client
	dir *os.File // open while the socket is reached through it; or nil
}

// dialAdmin returns a client for the server that serves the data directory. The
// error wraps errNoServer where there is none.
func dialAdmin(ctx context.Context, data string) (*adminClient, error) {
	path, open, err := socketPath(data)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", data, errNoServer)
	}
	if err != nil {
		return nil, err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			err = fmt.Errorf("%s: %w", data, errNoServer)
		}
		return nil, errors.Join(err, closeFile(open))
	}
	conn.Close()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", path)
	}}
	return &adminClient{&http.Client{Transport: transport}, open}, nil
}

func (c *adminClient) close() {
	c.web.CloseIdleConnections()
	_ = closeFile(c.dir) // it was open for reading
}

// do sends in to an endpoint of the socket and reads the answer into out.
func (c *adminClient) do(ctx context.Context, path string, in, out any) error {
	body, err := c.open(ctx, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.UnmarshalRead(body, out); err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	return nil
}

// open sends in to an endpoint of the socket and returns the body of the answer.
func (c *adminClient) open(ctx context.Context, path string, in any) (io.ReadCloser, error) {
	content, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://admin"+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	res, err := c.web.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the server: %w", err)
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	var refused struct {
		Text string `json:"error"`
	}
	if err := json.UnmarshalRead(io.LimitReader(res.Body, maxAdminBody), &refused); err != nil {
		return nil, fmt.Errorf("the server answers %s", res.Status)
	}
	return nil, errors.New(refused.Text)
}

// lockWait is how long a command waits for a server that is stopping.
const lockWait = 3 * time.Second

// withOwner runs fn with a client of the running server. Where none runs, the
// command is the server for that time: it opens the data and serves the socket, so
// that there is one way for every deed.
func withOwner(ctx context.Context, config Config, fn func(*adminClient) error) error {
	c, err := dialAdmin(ctx, config.Data)
	if err == nil {
		defer c.close()
		return fn(c)
	}
	if !errors.Is(err, errNoServer) {
		return err
	}
	if _, err := os.Stat(filepath.Join(config.Data, databaseName)); err != nil {
		return fmt.Errorf("there is no data in %s: start the server once, or say --data DIR", config.Data)
	}
	o, err := openOwner(config)
	if err != nil {
		return err
	}
	return errors.Join(serveOwner(ctx, o, fn), o.store.Close())
}

// openOwner opens the data without serving anybody.
func openOwner(config Config) (*owner, error) {
	st, err := store.Open(config.Data, "", store.Options{Lock: lockWait})
	if err != nil {
		return nil, err
	}
	rooms, err := openRooms(st, config.DefaultRoomVersion, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	c := client.New(st, rooms, client.Config{PasswordCost: config.PasswordCost})
	return &owner{store: st, rooms: rooms, client: c, passwords: client.NewPasswords(config.PasswordCost), now: time.Now}, nil
}

// openRooms returns the rooms of a store, with the server's signing key; the first
// time, it makes the key. version is that of rooms whose creator asks for none.
func openRooms(st *store.Store, version string, now func() time.Time, log *slog.Logger) (*state.Rooms, error) {
	rooms := state.Config{
		Store: st, Server: st.Server(), DefaultVersion: version, Carry: client.CarryRoom, Now: now, Log: log,
	}
	read := func(tx *store.Tx) (err error) {
		rooms.Key, err = tx.SigningKey()
		return err
	}
	err := st.View(read)
	if errors.Is(err, store.ErrNotFound) {
		err = st.Update(context.Background(), func(tx *store.Tx) error {
			return errors.Join(tx.NewSigningKey(time.Now()), read(tx))
		})
	}
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	return state.New(rooms), nil
}

// serveOwner serves the socket while fn runs.
func serveOwner(ctx context.Context, o *owner, fn func(*adminClient) error) error {
	a, err := openAdmin(o.store.Dir(), o, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- a.run(serving) }()
	c, err := dialAdmin(ctx, o.store.Dir())
	if err == nil {
		err = fn(c)
		c.close()
	}
	stop()
	return errors.Join(err, <-done)
}
