package remote

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"hearth/state/matrix"
)

// How slow the body of a streamed answer may be.
const (
	streamStall = 60 * time.Second // the longest without any progress
	streamRate  = 4 << 10          // bytes per second, on average, after that
)

// errTooMuch is why a body ends that has more than it may.
var errTooMuch = errors.New("the answer has more bytes than it may")

// streamed is the body of an answer that must make progress and has a bound.
type streamed struct {
	body   io.ReadCloser
	left   int64
	read   int64
	timer  *time.Timer // ends the request
	cancel context.CancelFunc
	ended  func() error // why the request ended, nil before
	began  time.Time
	now    func() time.Time
}

// Read reads on and moves the end of the time.
func (s *streamed) Read(p []byte) (int, error) {
	if s.left <= 0 {
		if n, err := s.body.Read(make([]byte, 1)); n == 0 {
			return 0, err
		}
		return 0, errTooMuch
	}
	n, err := s.body.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	s.read += int64(n)
	if n > 0 {
		budget := streamStall + time.Duration(s.read/streamRate)*time.Second - s.now().Sub(s.began)
		s.timer.Reset(min(budget, streamStall))
	}
	if cause := s.ended(); err == io.EOF && cause != nil {
		err = cause // the other side may end what we gave up, as if it were whole
	}
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read the answer: %w: %w", ErrUnreachable, err)
	}
	return n, err
}

// Close ends the request.
func (s *streamed) Close() error {
	s.timer.Stop()
	err := s.body.Close()
	s.cancel()
	return err
}

// dialServer makes a connection for the transport to the server whose name the host
// of the URL is, in hexadecimal digits: so a server that is found elsewhere is
// another one for nobody, and two names for one host share no connection.
func (n *Network) dialServer(ctx context.Context, _, address string) (net.Conn, error) {
	digits, _, _ := strings.Cut(address, ":")
	name, err := hex.DecodeString(digits)
	if err != nil {
		return nil, fmt.Errorf("connect to %q: %w", address, err)
	}
	where, err := n.find(ctx, matrix.ServerName(name))
	if err != nil {
		return nil, err
	}
	var errs error
	for _, t := range where.targets {
		conn, err := n.secure(ctx, where.cert, t.Name, t.Port)
		if err == nil {
			return conn, nil
		}
		errs = also(errs, err)
	}
	return nil, errs
}

// secure connects to a host and checks its certificate.
func (n *Network) secure(ctx context.Context, cert, name string, port uint16) (net.Conn, error) {
	conn, err := n.connect(ctx, name, port)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	secured := tls.Client(conn, n.tlsConfig(cert))
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secured, nil
}
