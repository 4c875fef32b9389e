package remote

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// ErrRedirect is wrapped by the error of a request that was sent elsewhere once too
// often, or to where requests do not go.
var ErrRedirect = errors.New("redirect refused")

// ClientConfig says how the requests of a client are made.
type ClientConfig struct {
	// Timeout is how long one request with its redirects and the reading of the
	// answer may take. If zero, 30 seconds.
	Timeout time.Duration
	// Redirects is how many redirects are followed. If zero, the redirect is the
	// answer.
	Redirects int
	// PerHost is how many connections one host may have. If zero, 4.
	PerHost int
	// Roots are the certificates that a server's must lead to. If nil, the system's.
	Roots *x509.CertPool
}

const (
	defaultTimeout = 30 * time.Second
	defaultPerHost = 4
	// headerTimeout is how long a host may think before it begins to answer.
	headerTimeout = 20 * time.Second
	// handshakeTimeout bounds the making of a TLS connection.
	handshakeTimeout = 10 * time.Second
	// maxHeaderBytes bounds the header of an answer.
	maxHeaderBytes = 32 << 10
	// idleConns is how many connections are kept for the next request, in all; each
	// costs some 40 KiB.
	idleConns   = 8
	idleTimeout = 60 * time.Second
)

// Client returns a client for HTTP and HTTPS whose connections d makes. The body of
// an answer has no bound but the time: read it with [io.LimitReader].
func (d *Dialer) Client(config ClientConfig) *http.Client {
	if config.Timeout <= 0 {
		config.Timeout = defaultTimeout
	}
	if config.PerHost <= 0 {
		config.PerHost = defaultPerHost
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Client{
		Timeout: config.Timeout,
		Transport: &http.Transport{
			Proxy:                  nil,
			DialContext:            d.Dial,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: config.Roots},
			TLSHandshakeTimeout:    handshakeTimeout,
			ResponseHeaderTimeout:  headerTimeout,
			MaxResponseHeaderBytes: maxHeaderBytes,
			MaxConnsPerHost:        config.PerHost,
			MaxIdleConns:           idleConns,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        idleTimeout,
			Protocols:              protocols,
		},
		CheckRedirect: func(to *http.Request, via []*http.Request) error {
			return checkRedirect(to, via, config.Redirects)
		},
	}
}

// checkRedirect says whether a request goes on to where it is sent. The address is
// checked when it is dialed.
func checkRedirect(to *http.Request, via []*http.Request, most int) error {
	switch {
	case most == 0:
		return http.ErrUseLastResponse
	case len(via) > most:
		return fmt.Errorf("more than %d: %w", most, ErrRedirect)
	case to.URL.Scheme != "http" && to.URL.Scheme != "https":
		return fmt.Errorf("to the scheme %q: %w", to.URL.Scheme, ErrRedirect)
	case via[0].URL.Scheme == "https" && to.URL.Scheme == "http":
		return fmt.Errorf("from https to http: %w", ErrRedirect)
	}
	return nil
}
