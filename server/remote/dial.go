// Package remote reaches other hosts for the server: whatever Hearth asks of the
// network, it asks through the one [Dialer] here. That dialer refuses addresses of
// this host and its own networks, so that no stranger can make the server talk to
// the router of its owner; it bounds how many connections are being made, and how
// long each may take.
//
// It never follows the proxy settings of the environment: a proxy would make the
// check of addresses void.
package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"
)

// ErrPrivateAddress is wrapped by the error of a dial that was refused, as the
// address is none of the public internet.
var ErrPrivateAddress = errors.New("no address of the public internet; --allow-private-networks allows it")

const (
	// maxDials is how many connections may be in the making.
	maxDials = 128
	// dialTimeout is how long looking up a name and connecting may take together.
	dialTimeout = 10 * time.Second
	// keepAlive is how often an idle connection is tried.
	keepAlive = 30 * time.Second
)

// A Dialer connects to other hosts. Its methods may be called by several
// goroutines.
type Dialer struct {
	dialer net.Dialer
	free   *semaphore.Weighted // of the connections in the making
}

// NewDialer returns a dialer. With allowPrivate it connects to every address, else
// to those of the public internet alone.
func NewDialer(allowPrivate bool) *Dialer {
	d := &Dialer{free: semaphore.NewWeighted(maxDials)}
	d.dialer.Timeout = dialTimeout
	d.dialer.KeepAlive = keepAlive
	if !allowPrivate {
		d.dialer.ControlContext = refusePrivate
	}
	return d
}

// Dial connects to an address, "host:port". A host that is a name is looked up, and
// every address that it has is held to the rules at the moment it is tried: what a
// name says can change between two looks. The error wraps ErrPrivateAddress if
// one of them was refused and no other answered.
func (d *Dialer) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	wait, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := d.free.Acquire(wait, 1); err != nil {
		return nil, fmt.Errorf("dial %s: too many connections are being made: %w", address, err)
	}
	defer d.free.Release(1)
	haveRoots()
	return d.dialer.DialContext(ctx, network, address)
}

// refusePrivate is called with each address before it is connected to.
func refusePrivate(_ context.Context, network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return fmt.Errorf("%s %s: %w", network, address, ErrPrivateAddress)
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%s: %w", address, ErrPrivateAddress)
	}
	if is := privacy(ap.Addr()); is != "" {
		return fmt.Errorf("%s is %s: %w", ap.Addr(), is, ErrPrivateAddress)
	}
	return nil
}
