package server

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificate is the owner's own certificate, read again when its files change.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex // guards the fields below
	pair    *tls.Certificate
	seen    [2]fileState // of the files that pair, or the last failure, came from
	checked time.Time
}

// fileState tells one version of a file from another.
type fileState struct {
	modified time.Time
	size     int64
}

// checkEvery is how often the files are looked at, at most.
const checkEvery = time.Second

// openCertificate reads a certificate and its key for the first time.
func openCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	c.pair, c.seen, c.checked = &pair, c.states(), time.Now()
	return c, nil
}

// config returns the TLS configuration that serves c.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: c.get,
	}
}

// get returns the certificate for a handshake. New files that cannot be read are
// logged, and the old certificate stays: they may be half written.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < checkEvery {
		return c.pair, nil
	}
	c.checked = time.Now()
	now := c.states()
	if now == c.seen {
		return c.pair, nil
	}
	c.seen = now
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		c.log.Error("the changed certificate cannot be used, the old one stays", "err", err)
		return c.pair, nil
	}
	c.pair = &pair
	c.log.Info("the certificate has been read again", "until", pair.Leaf.NotAfter)
	return c.pair, nil
}

// states looks at the two files. One that is not there has no state.
func (c *certificate) states() [2]fileState {
	var both [2]fileState
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			both[i] = fileState{info.ModTime(), info.Size()}
		}
	}
	return both
}
