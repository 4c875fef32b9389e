package remote

import (
	"context"
	"slices"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// What is known about servers is forgotten in the end: anybody can have as many names as
// he likes, and have us ask each of them for its keys.
const (
	forgetEvery = 24 * time.Hour
	// maxStrangers is for how many servers keys are kept that are in no room of ours and
	// have not left one: a few KiB each, 150 KiB at most. Of more those fetched last stay,
	// so many as keptStrangers. Events of theirs that come later need their keys anew.
	maxStrangers  = 4096
	keptStrangers = 3072
)

// forget removes from disk what is old or too much, now and then.
func (n *Network) forget(ctx context.Context) {
	if now := n.now(); n.forgot.IsZero() || now.Sub(n.forgot) >= forgetEvery {
		n.forgot = now
		if err := n.forgetHosts(ctx); err != nil && ctx.Err() == nil {
			n.log.Error("forget where servers were", "err", err)
		}
	} else if n.learned.Load() < maxStrangers-keptStrangers {
		return
	}
	n.learned.Store(0)
	if err := n.forgetKeys(ctx, maxStrangers, keptStrangers); err != nil && ctx.Err() == nil {
		n.log.Error("forget the keys of strangers", "err", err)
	}
}

// forgetKeys removes, if there are keys of more than most strangers, those fetched first
// until no more than kept have some.
func (n *Network) forgetKeys(ctx context.Context, most, kept int) error {
	var fetched []int64
	err := n.strangers(func(_ matrix.ServerName, at time.Time) bool {
		fetched = append(fetched, at.UnixMilli())
		return true
	})
	if err != nil || len(fetched) <= most {
		return err
	}
	slices.Sort(fetched)
	first := fetched[len(fetched)-kept]
	for {
		var old []matrix.ServerName
		err := n.strangers(func(server matrix.ServerName, at time.Time) bool {
			if at.UnixMilli() < first {
				old = append(old, server)
			}
			return len(old) < maxWritten
		})
		if err != nil || len(old) == 0 {
			return err
		}
		n.log.Info("forgetting the keys of strangers", "servers", len(old), "of", len(fetched))
		if err := n.forgetEach(ctx, old, (*store.Tx).DeleteServerKeys); err != nil {
			return err
		}
	}
}

// strangers calls fn for each server whose keys are kept and that is in no room of ours and
// has not left one. fn says whether to go on.
func (n *Network) strangers(fn func(server matrix.ServerName, fetched time.Time) bool) error {
	return n.store.View(func(tx *store.Tx) error {
		return tx.KeyAnswers(func(server matrix.ServerName, fetched time.Time) (bool, error) {
			known, err := hasBeenHere(tx, tx.ServerNum(server))
			return err == nil && (known || fn(server, fetched)), err
		})
	})
}

// hasBeenHere says whether a server is in a room of ours, or was.
func hasBeenHere(tx *store.Tx, server store.ServerNum) (is bool, err error) {
	if server == 0 {
		return false, nil
	}
	found := func(store.RoomNum) (bool, error) {
		is = true
		return false, nil
	}
	if err = tx.ServerRooms(server, found); err == nil && !is {
		err = tx.RoomsLeft(server, 0, found)
	}
	return is, err
}

// forgetEach deletes something of each of some servers.
func (n *Network) forgetEach(ctx context.Context, servers []matrix.ServerName, forget func(*store.Tx, matrix.ServerName) error) error {
	return n.store.UpdatePatiently(ctx, writeEvery/2, func(tx *store.Tx) error {
		for _, server := range servers {
			if err := forget(tx, server); err != nil {
				return err
			}
		}
		return nil
	})
}

// forgetHosts removes from disk the servers that nobody asked for long.
func (n *Network) forgetHosts(ctx context.Context) error {
	before := n.now().Add(-oldHost)
	for {
		var old []matrix.ServerName
		err := n.store.View(func(tx *store.Tx) (err error) {
			old, err = tx.OldHosts(before, maxWritten)
			return err
		})
		if err != nil || len(old) == 0 {
			return err
		}
		if err := n.forgetEach(ctx, old, (*store.Tx).DeleteHost); err != nil {
			return err
		}
	}
}
