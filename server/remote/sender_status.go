package remote

import (
	"slices"
	"strings"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// A DestinationStatus is how it stands with a server that has not got everything.
type DestinationStatus struct {
	Server   matrix.ServerName
	Pending  int       // how many things wait for it, as far as they are known
	More     bool      // there are others
	Failures int       // in a row
	Since    time.Time // the first of them
	Retry    time.Time // when it is tried again; zero: now
	Err      error     // the last failure
}

// Destinations returns how it stands with the servers that have not got everything
// yet, by name.
func (s *Sender) Destinations() ([]DestinationStatus, error) {
	all := make(map[store.ServerNum]DestinationStatus)
	s.mu.Lock()
	for server, d := range s.destinations {
		if d.behind() {
			all[server] = DestinationStatus{
				Pending: len(d.pending), More: d.newest > d.known || d.outbox > d.outboxSent,
				Failures: d.failures, Since: d.failing, Retry: d.until, Err: d.err,
			}
		}
	}
	s.mu.Unlock()
	list := make([]DestinationStatus, 0, len(all))
	err := s.store.View(func(tx *store.Tx) error {
		for server, status := range all {
			status.Server = tx.ServerName(server)
			list = append(list, status)
		}
		return nil
	})
	slices.SortFunc(list, func(a, b DestinationStatus) int { return strings.Compare(string(a.Server), string(b.Server)) })
	return list, err
}
