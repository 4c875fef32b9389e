package client

import (
	"fmt"
	"net/netip"
	"time"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// homeTime is how long an account counts as at home where a device of it was seen.
const homeTime = 60 * 24 * time.Hour

// limitPassword counts a try of an account's password by somebody who is not logged
// in. Each house has few tries, and all houses in which the account is not at home
// share some more. So guessing stays slow from however many addresses it is done,
// and whoever does it uses up the tries of strangers alone: those who live with the
// account log in as ever. Elsewhere, a login token of a device that is logged in
// needs no password.
func (s *Server) limitPassword(id matrix.UserID, house string) error {
	if err := s.limits.Take(api.LimitPassword, string(id)+"\x00"+house); err != nil {
		return err
	}
	home, err := s.isHome(id, house)
	if home || err != nil {
		return err
	}
	return s.limits.Take(api.LimitGuess, string(id))
}

// isHome says whether one of an account's devices was used in a house lately.
func (s *Server) isHome(id matrix.UserID, house string) (home bool, err error) {
	err = s.store.View(func(tx *store.Tx) error {
		user := tx.UserNum(id)
		if !tx.IsLocal(user) {
			return nil
		}
		return tx.Devices(user, func(d store.Device) (bool, error) {
			d = s.sightings.newest(user, d)
			ip, parseErr := netip.ParseAddr(d.LastIP)
			home = parseErr == nil && api.HouseKey(ip) == house && s.now().Sub(d.LastSeen) < homeTime
			return !home, nil
		})
	})
	if err != nil {
		return false, fmt.Errorf("where %s is at home: %w", id, err)
	}
	return home, nil
}
