package client

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// maxPresenceEvents is how many presence events a sync brings: those that changed
// last. Who comes back after longer hears of the others when they change again.
const maxPresenceEvents = 1000

// presenceEvent is m.presence as a sync brings it.
type presenceEvent struct {
	Type    string          `json:"type"`
	Sender  matrix.UserID   `json:"sender"`
	Content presenceContent `json:"content"`
}

// presenceSync is the work on the presence section of a sync.
type presenceSync struct {
	*Server
	req     syncRequest
	search  *listSearch // who shares a room with the user
	ignored ignoredUsers
	most    int
	done    map[matrix.UserID]bool
	events  []presenceEvent
}

// syncPresence returns the presence of others that is news: of those who share a
// room with the user and have changed, and of those who share one now and did not
// (met; of a room with very many members only the first ones, see maxSharers).
//
// Spec: CS Syncing: "The updates to the presence status of other users."
func (s *Server) syncPresence(tx *store.Tx, req syncRequest, met []matrix.UserID) ([]presenceEvent, error) {
	if s.config.Presence == PresenceOff {
		return nil, nil
	}
	changes := s.presences.since(req.since.memory)
	restarted := s.serials.fromBefore(req.since.memory)
	if len(changes) == 0 && len(met) == 0 && !restarted {
		return nil, nil
	}
	ps := &presenceSync{
		Server: s, req: req, search: &listSearch{tx: tx, who: req.who},
		most: req.filter.Presence.Most(maxPresenceEvents, maxPresenceEvents),
		done: make(map[matrix.UserID]bool),
	}
	var err error
	if ps.ignored, err = readIgnored(tx, req.who.num); err != nil {
		return nil, err
	}
	for _, change := range changes {
		if err := ps.add(change.Presence, false); err != nil {
			return nil, err
		}
	}
	if restarted {
		if err := ps.addAbsent(); err != nil {
			return nil, err
		}
	}
	for _, user := range met {
		p, known := s.presences.get(tx.UserNum(user))
		if !known || p.State == Offline && !tx.IsLocal(tx.UserNum(user)) {
			continue
		}
		if err := ps.add(p, true); err != nil {
			return nil, err
		}
	}
	return ps.events, nil
}

// add adds a user's presence if the client wants it and may have it; shares says
// that the user is known to share a room.
func (ps *presenceSync) add(p Presence, shares bool) (err error) {
	user := p.User
	if len(ps.events) >= ps.most || user == ps.req.who.user || ps.done[user] || ps.ignored.has(user) ||
		!ps.req.filter.Presence.Match("m.presence", user) {
		return nil
	}
	if !shares {
		if shares, err = ps.search.shares(user); err != nil || !shares {
			return err
		}
	}
	content := contentOf(p, ps.now())
	tx := ps.search.tx
	if num := tx.UserNum(user); tx.IsLocal(num) {
		content.DisplayName = profileString(tx, num, fieldDisplayName)
		content.AvatarURL = profileString(tx, num, fieldAvatarURL)
	}
	ps.done[user] = true
	ps.events = append(ps.events, presenceEvent{"m.presence", user, content})
	return nil
}

// addAbsent adds the local users in the rooms of a client from before the start
// who were not here since: it may take them for online.
func (ps *presenceSync) addAbsent() error {
	rooms, err := ps.search.joined()
	if err != nil {
		return err
	}
	tx := ps.search.tx
	users := make(map[store.UserNum]bool)
	for _, room := range rooms {
		if err := addLocalMembers(tx, room, users); err != nil {
			return err
		}
	}
	for num := range users {
		p, err := ps.presence(tx, num, tx.UserID(num))
		if err != nil {
			return err
		}
		if err := ps.add(p, true); err != nil {
			return err
		}
	}
	return nil
}

// profileString returns a field of a local user's profile that is text, "" where
// there is none.
func profileString(tx *store.Tx, user store.UserNum, name string) (text string) {
	value, err := tx.ProfileField(user, name)
	if err != nil || value.Kind() != '"' || json.Unmarshal(value, &text, jsontext.AllowInvalidUTF8(true)) != nil {
		return ""
	}
	return text
}
