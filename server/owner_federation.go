package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"hearth/server/remote"
	"hearth/state/matrix"
	"hearth/store"
)

// destination is another server that has not got everything or did not answer, as the
// owner sees one.
type destination struct {
	Server   matrix.ServerName `json:"server"`
	Pending  int               `json:"pending,omitzero"`  // what waits for it, as far as that is known
	More     bool              `json:"more,omitzero"`     // and there is more
	Failures int               `json:"failures,omitzero"` // in a row
	Since    time.Time         `json:"since,omitzero"`    // the first of them
	Retry    time.Time         `json:"retry,omitzero"`    // when it is tried again
	Err      string            `json:"err,omitzero"`      // the last failure
}

// maxDestinations bounds the list of destinations.
const maxDestinations = 10_000

// allDestinations returns the servers that have not got everything, or did not
// answer when they were last asked, by name.
func (o *owner) allDestinations() ([]destination, error) {
	all := make(map[matrix.ServerName]destination)
	if err := o.pending(all); err != nil {
		return nil, err
	}
	err := o.store.View(func(tx *store.Tx) error {
		return tx.Backoffs(func(server matrix.ServerName, b store.Backoff) bool {
			d := all[server]
			d.Server, d.Since = server, b.Since
			d.Failures = max(d.Failures, b.Failures)
			if b.Until.After(o.now()) && b.Until.After(d.Retry) {
				d.Retry = b.Until
			}
			all[server] = d
			return len(all) < maxDestinations
		})
	})
	list := make([]destination, 0, len(all))
	for _, d := range all {
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b destination) int { return strings.Compare(string(a.Server), string(b.Server)) })
	return list, err
}

// pending adds the servers that have not got everything: by the sender where one
// runs, else by their records.
func (o *owner) pending(all map[matrix.ServerName]destination) error {
	if o.sender == nil {
		return o.store.View(func(tx *store.Tx) error {
			return tx.AllBehind(func(server store.ServerNum, _ store.Behind) (bool, error) {
				name := tx.ServerName(server)
				all[name] = destination{Server: name, More: true}
				return len(all) < maxDestinations, nil
			})
		})
	}
	list, err := o.sender.Destinations()
	for _, d := range list[:min(len(list), maxDestinations)] {
		all[d.Server] = shownDestination(d)
	}
	return err
}

func shownDestination(d remote.DestinationStatus) destination {
	shown := destination{
		Server: d.Server, Pending: d.Pending, More: d.More, Failures: d.Failures, Since: d.Since, Retry: d.Retry,
	}
	if d.Err != nil {
		shown.Err = d.Err.Error()
	}
	return shown
}

// retry has servers tried again at once, all of those that are left alone if none is
// named, and returns which.
func (o *owner) retry(ctx context.Context, names []string) (servers []matrix.ServerName, err error) {
	for _, name := range names {
		server, err := matrix.ParseServerName(name)
		if err != nil {
			return nil, fmt.Errorf("server: %w", err)
		}
		servers = append(servers, server)
	}
	if len(names) == 0 {
		list, err := o.allDestinations()
		if err != nil {
			return nil, err
		}
		for _, d := range list {
			servers = append(servers, d.Server)
		}
	}
	if o.network == nil {
		return servers, o.forgetBackoffs(ctx, servers)
	}
	for _, server := range servers {
		o.network.Heard(server)
	}
	return servers, nil
}

// forgetBackoffs has servers tried at once when this one runs again.
func (o *owner) forgetBackoffs(ctx context.Context, servers []matrix.ServerName) error {
	err := o.store.Update(ctx, func(tx *store.Tx) error {
		for _, server := range servers {
			if err := tx.PutBackoff(server, store.Backoff{}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("try %d servers again: %w", len(servers), err)
	}
	return nil
}
