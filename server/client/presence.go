package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// PresenceMode says whose presence users see.
type PresenceMode uint8

// The modes of presence.
const (
	PresenceOn    PresenceMode = iota // everybody's
	PresenceLocal                     // that of the users of this server
	PresenceOff                       // nobody's: what clients say of it is taken and forgotten
)

// Presence is what is known of one user's presence.
//
// Spec: CS Presence.
type Presence struct {
	User       matrix.UserID
	State      PresenceState
	Status     string    // what the user says about it; "": nothing
	LastActive time.Time // zero: never, as far as is known
	Active     bool      // online, and active just now
}

// A PresenceState says whether a user is there.
type PresenceState string

// The states of presence.
const (
	Online      PresenceState = "online"
	Unavailable PresenceState = "unavailable"
	Offline     PresenceState = "offline"
)

// rank orders the states: of several devices the most present one counts.
func (p PresenceState) rank() int {
	switch p {
	case Online:
		return 2
	case Unavailable:
		return 1
	}
	return 0
}

// parsePresence reads a state; name is what it came in.
func parsePresence(name, text string) (PresenceState, error) {
	switch p := PresenceState(text); p {
	case Online, Unavailable, Offline:
		return p, nil
	}
	return "", api.ErrInvalidParam.Because("%s must be online, unavailable or offline", name)
}

// maxStatus is the longest status message, in bytes.
const maxStatus = 1 << 10

// presenceContent is the content of m.presence, and what GET answers but for the
// profile.
type presenceContent struct {
	Presence      PresenceState `json:"presence"`
	LastActiveAgo *int64        `json:"last_active_ago,omitzero"` // milliseconds
	Active        *bool         `json:"currently_active,omitzero"`
	Status        string        `json:"status_msg,omitzero"`
	DisplayName   string        `json:"displayname,omitzero"`
	AvatarURL     string        `json:"avatar_url,omitzero"`
}

// contentOf tells a presence as of now.
func contentOf(p Presence, now time.Time) presenceContent {
	c := presenceContent{Presence: p.State, Status: p.Status}
	if !p.LastActive.IsZero() {
		ago := max(0, now.Sub(p.LastActive).Milliseconds())
		c.LastActiveAgo = &ago
	}
	if p.State == Online {
		c.Active = &p.Active
	}
	return c
}

// getPresence answers GET /presence/{userID}/status: to the user, and to who
// shares a room with the user. That there is no such user nobody learns here.
func (s *Server) getPresence(w http.ResponseWriter, r *http.Request, who session) error {
	user, err := matrix.ParseUserID(r.PathValue("userID"))
	if err != nil {
		return api.InvalidParam("userID", err)
	}
	found := Presence{User: user, State: Offline}
	err = s.store.View(func(tx *store.Tx) error {
		shares, err := (&listSearch{tx: tx, who: who}).shares(user)
		if err != nil {
			return err
		}
		if !shares {
			return api.ErrForbidden.Because("You share no room with this user")
		}
		if s.config.Presence != PresenceOff {
			found, err = s.presence(tx, tx.UserNum(user), user)
		}
		return err
	})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, contentOf(found, s.now()))
}

// presence returns what is known of a user's presence, in memory or stored.
func (s *Server) presence(tx *store.Tx, num store.UserNum, user matrix.UserID) (Presence, error) {
	if p, known := s.presences.get(num); known {
		p.User = user
		return p, nil
	}
	stored, err := tx.Presence(num)
	return Presence{User: user, State: Offline, Status: stored.Status, LastActive: stored.LastActive}, err
}

// setPresence answers PUT /presence/{userID}/status. A status message that is not
// given is taken away.
func (s *Server) setPresence(w http.ResponseWriter, r *http.Request, who session) error {
	if err := who.isSelf(r.PathValue("userID")); err != nil {
		return err
	}
	var body struct {
		Presence *string `json:"presence"`
		Status   *string `json:"status_msg"`
	}
	if err := api.ReadJSON(r, maxSmallBody, &body); err != nil {
		return err
	}
	if body.Presence == nil {
		return api.MissingParam("presence")
	}
	state, err := parsePresence("presence", *body.Presence)
	if err != nil {
		return err
	}
	status := ""
	if body.Status != nil {
		status = *body.Status
	}
	if len(status) > maxStatus {
		return api.ErrInvalidParam.Because("status_msg may have %d bytes at most", maxStatus)
	}
	if err := s.limits.Take(api.LimitProfile, string(who.user)); err != nil {
		return err
	}
	s.changePresence(who, func(u *localPresence, now time.Time) { u.set(who.device, state, status, now) })
	return api.WriteEmpty(w)
}

// noteSync notes that a device waits in a sync, and noteSyncEnd that it waits no
// longer. A state of offline leaves no trace: "the client is not marked as being
// online when it uses this API".
func (s *Server) noteSync(who session, state PresenceState) {
	if state != Offline {
		s.changePresence(who, func(u *localPresence, now time.Time) { u.connect(who.device, state, now) })
	}
}

func (s *Server) noteSyncEnd(who session, state PresenceState) {
	if state != Offline {
		s.changePresence(who, func(u *localPresence, now time.Time) { u.disconnect(who.device, now) })
	}
}

// noteActive notes that a user has done something: sent, typed or read.
func (s *Server) noteActive(who session) {
	s.changePresence(who, func(u *localPresence, now time.Time) { u.act(who.device, now) })
}

// presenceProfile tells a user's new name or avatar with the presence.
func (s *Server) presenceProfile(who session) {
	s.changePresence(who, func(u *localPresence, _ time.Time) { u.renamed = true })
}

// changePresence makes a change to a local user's presence and tells whom it
// concerns if it is news. What goes wrong is logged: nobody's request fails
// because of presence.
func (s *Server) changePresence(who session, change func(*localPresence, time.Time)) {
	if s.config.Presence == PresenceOff {
		return
	}
	if !s.presences.knows(who.num) {
		var stored store.Presence
		err := s.store.View(func(tx *store.Tx) (err error) {
			stored, err = tx.Presence(who.num)
			return err
		})
		if err != nil {
			s.log.Warn("stored presence is lost", "user", who.user, "err", err)
		}
		s.presences.add(who.num, who.user, stored)
	}
	if told, news := s.presences.change(who.num, s.now(), change); news {
		s.tellPresence(who.num, told)
	}
}

// tellPresence tells the syncs of the local users who share a room with a local
// user, and other servers, of a change.
func (s *Server) tellPresence(num store.UserNum, p Presence) {
	if err := s.wakeSharers(num); err != nil {
		s.log.Warn("presence is not told", "user", p.User, "err", err)
	}
	s.sendPresence(p)
}

// sendPresence hands a local user's presence on for other servers.
func (s *Server) sendPresence(p Presence) {
	if s.config.Presence == PresenceOn && s.config.OnPresence != nil {
		s.config.OnPresence(p)
	}
}

// wakeSharers wakes the syncs of the other local users in the rooms of one.
func (s *Server) wakeSharers(user store.UserNum) error {
	sharers := make(map[store.UserNum]bool)
	err := s.store.View(func(tx *store.Tx) error {
		return tx.LocalMemberships(user, func(m store.LocalMembership) (bool, error) {
			if m.Membership != matrix.Join {
				return true, nil
			}
			return true, addLocalMembers(tx, m.Room, sharers)
		})
	})
	delete(sharers, user)
	s.touchAll(sharers)
	return err
}

// addLocalMembers adds the local users who are in a room.
func addLocalMembers(tx *store.Tx, room store.RoomNum, users map[store.UserNum]bool) error {
	return tx.LocalMembers(room, func(user store.UserNum, m matrix.Membership) (bool, error) {
		if m == matrix.Join {
			users[user] = true
		}
		return true, nil
	})
}

// touchAll wakes the syncs of users.
func (s *Server) touchAll(users map[store.UserNum]bool) {
	list := make([]store.UserNum, 0, len(users))
	for user := range users {
		list = append(list, user)
	}
	s.store.Touch(list...)
}

// How often presence is looked through for what has timed out, and stored.
const (
	presenceTick     = 5 * time.Second
	presenceInterval = 15 * time.Minute
)

// runPresence lets presence time out, and stores what shall outlive a restart now
// and then and when ctx ends.
func (s *Server) runPresence(ctx context.Context) error {
	if s.config.Presence == PresenceOff {
		return nil
	}
	tick, write := time.NewTicker(presenceTick), time.NewTicker(presenceInterval)
	defer tick.Stop()
	defer write.Stop()
	for {
		select {
		case <-tick.C:
			changed, last := s.presences.expire(s.now())
			for num, p := range changed {
				s.tellPresence(num, p)
			}
			for _, p := range last {
				s.sendPresence(p)
			}
		case <-write.C:
			if err := s.writePresence(ctx, sightingPatience); err != nil && ctx.Err() == nil {
				s.log.Error("write presence", "err", err)
			}
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
			defer cancel()
			return s.writePresence(last, 0)
		}
	}
}

// writePresence stores the presence of the local users for whom it has changed
// since the last time. A crash forgets that much.
func (s *Server) writePresence(ctx context.Context, patience time.Duration) error {
	all := s.presences.takeChanged()
	if len(all) == 0 {
		return nil
	}
	err := s.store.UpdatePatiently(ctx, patience, func(tx *store.Tx) error {
		for user, p := range all {
			if err := tx.PutPresence(user, p); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("presence of %d users: %w", len(all), err)
	}
	return nil
}
