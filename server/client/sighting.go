package client

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// sightings remember when and from where each device was last used, between the
// writes of [Server.Run]: a request must not cost a commit.
type sightings struct {
	mu   sync.Mutex // guards seen
	seen map[deviceName]sighting
}

// deviceName names a device among all users.
type deviceName struct {
	user   store.UserNum
	device matrix.DeviceID
}

type sighting struct {
	time time.Time
	ip   netip.Addr
}

// maxSightings bounds the devices remembered; more are remembered after the next
// write.
const maxSightings = 4096

// note remembers that who was here. Sessions without a device leave no trace.
func (s *sightings) note(who session, now time.Time, ip netip.Addr) {
	if who.device == "" {
		return
	}
	name := deviceName{who.num, who.device}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.seen[name]; !known && len(s.seen) >= maxSightings {
		return
	}
	if s.seen == nil {
		s.seen = make(map[deviceName]sighting)
	}
	s.seen[name] = sighting{now, ip}
}

// newest returns d as it was last seen, be that in memory or in the store.
func (s *sightings) newest(user store.UserNum, d store.Device) store.Device {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seen, ok := s.seen[deviceName{user, d.ID}]; ok && !seen.time.Before(d.LastSeen) {
		d.LastSeen, d.LastIP = seen.time, addressText(seen.ip)
	}
	return d
}

// take returns all that was noted and forgets it.
func (s *sightings) take() []store.Sighting {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]store.Sighting, 0, len(s.seen))
	for name, seen := range s.seen {
		all = append(all, store.Sighting{
			User: name.user, Device: name.device, Time: seen.time, IP: addressText(seen.ip),
		})
	}
	s.seen = nil
	return all
}

// addressText returns ip as text, "" where it is unknown.
func addressText(ip netip.Addr) string {
	if !ip.IsValid() {
		return ""
	}
	return ip.String()
}

// How often sightings are written, and how long a write may wait for company.
const (
	sightingInterval = 15 * time.Minute
	sightingPatience = time.Second
)

// runSightings writes down now and then, and when ctx ends, when devices were last
// seen.
func (s *Server) runSightings(ctx context.Context) error {
	return s.runWrites(ctx, writes{"write when devices were seen", sightingInterval, sightingPatience, s.writeSightings})
}

// writeSightings stores what was noted since the last time.
func (s *Server) writeSightings(ctx context.Context, patience time.Duration) error {
	all := s.sightings.take()
	if len(all) == 0 {
		return nil
	}
	err := s.store.UpdatePatiently(ctx, patience, func(tx *store.Tx) error {
		for _, seen := range all {
			if err := tx.PutSighting(seen); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("sightings of %d devices: %w", len(all), err)
	}
	return nil
}
