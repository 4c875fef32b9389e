package remote

import (
	"context"
	"fmt"
	"maps"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

const (
	// maxHosts bounds the hosts that are kept in memory.
	maxHosts = 1024
	// resolveTimeout bounds finding one host.
	resolveTimeout = 20 * time.Second
	// oldHost is when a server that nobody asked is forgotten.
	oldHost = 30 * 24 * time.Hour
)

// cachedHost is where a server is.
type cachedHost struct {
	store.Host
	unwritten bool // what was found is to be written once the server has answered
}

// find returns where a server is. Several who want to know wait for one answer.
func (n *Network) find(ctx context.Context, server matrix.ServerName) (place, error) {
	if p, ok := direct(server); ok {
		return p, nil
	}
	h, err := n.knownHost(server)
	if err != nil {
		return place{}, err
	}
	if n.holds(h) {
		return placeOf(server, h), nil
	}
	ask := context.WithoutCancel(ctx) // others may wait for the answer, too
	answer := n.finding.DoChan(string(server), func() (any, error) {
		ctx, cancel := context.WithTimeout(ask, resolveTimeout)
		defer cancel()
		h, err := n.knownHost(server)
		if err != nil || n.holds(h) {
			return h, err // somebody else's search has ended since
		}
		found, err := n.resolve(ctx, server, h)
		if err == nil {
			n.keepHost(server, found)
		}
		return found, err
	})
	select {
	case a := <-answer:
		if a.Err != nil {
			return place{}, fmt.Errorf("find %s: %w", server, a.Err)
		}
		return placeOf(server, a.Val.(store.Host)), nil
	case <-ctx.Done():
		return place{}, fmt.Errorf("find %s: %w", server, ctx.Err())
	}
}

// holds says whether what is known of where a server is need not be looked up again.
func (n *Network) holds(h store.Host) bool {
	now := n.now()
	return now.Before(h.DelegatedUntil) && now.Before(h.TargetsUntil)
}

// knownHost returns what memory or disk knows of where a server is.
func (n *Network) knownHost(server matrix.ServerName) (store.Host, error) {
	n.mu.Lock()
	h, known := n.hosts[server]
	n.mu.Unlock()
	if known {
		return h.Host, nil
	}
	var host store.Host
	err := n.store.View(func(tx *store.Tx) (err error) {
		host, err = tx.Host(server)
		return err
	})
	if err == nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.putHost(server, cachedHost{host, false})
	}
	return host, err
}

// keepHost keeps what was found.
func (n *Network) keepHost(server matrix.ServerName, h store.Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.putHost(server, cachedHost{h, true})
}

// putHost puts a host into memory; another one goes where that is full. n.mu is
// held.
func (n *Network) putHost(server matrix.ServerName, h cachedHost) {
	if _, known := n.hosts[server]; !known && len(n.hosts) >= maxHosts {
		for other := range n.hosts {
			delete(n.hosts, other)
			break
		}
	}
	n.hosts[server] = h
}

// reached notes that a server has answered where we thought that it is: only then
// it is written down, so that names without a server never reach the disk. n.mu is
// held.
func (n *Network) reached(server matrix.ServerName) {
	h, known := n.hosts[server]
	if !known || !h.unwritten {
		return
	}
	h.unwritten = false
	n.hosts[server] = h
	if len(n.unwrittenHosts) < maxHosts {
		n.unwrittenHosts[server] = h.Host
	}
}

// missed notes that nobody answered where we thought that a server is: next time,
// it is found anew.
func (n *Network) missed(server matrix.ServerName) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h, known := n.hosts[server]
	if !known {
		return
	}
	h.TargetsUntil = time.Time{}
	if h.Delegated != "" {
		h.DelegatedUntil = time.Time{}
	}
	n.hosts[server] = h
}

// takeHosts returns the hosts that are to be written.
func (n *Network) takeHosts() map[matrix.ServerName]store.Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	hosts := maps.Clone(n.unwrittenHosts)
	clear(n.unwrittenHosts)
	return hosts
}
