package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"hearth/server/api"
	"hearth/store"
)

// healthPath is the endpoint that says whether the server is well.
const healthPath = "/health"

// health answers GET /health: 200 when the store can be read.
func (s *Server) health(w http.ResponseWriter, r *http.Request) error {
	if err := s.store.View(func(*store.Tx) error { return nil }); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return api.WriteJSON(w, struct {
		Status string `json:"status"`
	}{"ok"})
}

// healthLimit is how long a server may take to say that it is well.
const healthLimit = 5 * time.Second

// askHealth asks the server of the same settings whether it is well: it is the
// health check of the container image.
func askHealth(ctx context.Context, c call) error {
	ctx, cancel := context.WithTimeout(ctx, healthLimit)
	defer cancel()
	scheme, addr := "http", ""
	switch {
	case len(c.config.Listen) > 0:
		addr = c.config.Listen[0]
	default:
		scheme, addr = "https", c.config.ListenTLS[0]
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			network, address := dialAddress(addr)
			return new(net.Dialer).DialContext(ctx, network, address)
		},
		// It talks to this host alone, and to a certificate for another name.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://hearth"+healthPath, nil)
	if err != nil {
		return err
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answers %s", res.Status)
	}
	return nil
}

// dialAddress returns where a listening address is reached from this host.
func dialAddress(listen string) (network, address string) {
	if path, isUnix := strings.CutPrefix(listen, unixPrefix); isUnix {
		return "unix", path
	}
	host, port, _ := net.SplitHostPort(listen) // parseListen has seen it
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "tcp", net.JoinHostPort(host, port)
}
