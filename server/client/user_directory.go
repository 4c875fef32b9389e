package client

import (
	"cmp"
	"net/http"
	"slices"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// The user directory has no index of its own. Each search looks at
//
//   - all local accounts, by ID and by the name of their profile: a household has
//     few;
//   - the IDs of remote users that begin with the search term: the store keeps the
//     users by ID, so that costs by what is found, whatever the rooms;
//   - the names in the member events of the rooms that the searcher is in and of
//     public ones, the smallest rooms first, until maxMembersRead were looked at.
//
// So whoever is in a direct chat, a family's or a team's room is found by each part
// of their name, and the members of the rooms with 200,000 by ID. Measured on a
// server's core: 5,000 members take 44 ms, 1,000 accounts 1.5 ms, 500 users found by
// ID 10 ms (BenchmarkUserDirectory); a Raspberry Pi takes some four times that. An
// index of names would be written to the SD card with each member event, for a
// search that a household makes a few times a day; and what is found here is always
// as the rooms are now.
const (
	maxMembersRead   = 5000 // member events
	maxIDsRead       = 1000 // user IDs that begin with the term
	maxPublicRooms   = 500  // that are looked at for being public
	maxAccountsRead  = 20_000
	maxDirectory     = 50 // results
	usualDirectory   = 10
	maxSearchTerm    = 256 // bytes
	maxFoundUsers    = 500 // before they are ranked
	maxDirectoryName = 256 // bytes of a name or URL of a remote user
)

// foundUser is a user as the directory shows him.
type foundUser struct {
	User        matrix.UserID `json:"user_id"`
	DisplayName string        `json:"display_name,omitzero"`
	AvatarURL   string        `json:"avatar_url,omitzero"`

	rank int // lower is better
}

type directoryResponse struct {
	Results []foundUser `json:"results"`
	Limited bool        `json:"limited"`
}

// searchUserDirectory answers POST /user_directory/search.
//
// Spec: CS User Directory.
func (s *Server) searchUserDirectory(w http.ResponseWriter, r *http.Request, who session) error {
	var body struct {
		Term  *string `json:"search_term"`
		Limit *int    `json:"limit"`
	}
	if err := api.ReadJSON(r, maxSmallBody, &body); err != nil {
		return err
	}
	if body.Term == nil {
		return api.MissingParam("search_term")
	}
	if len(*body.Term) > maxSearchTerm {
		return api.ErrInvalidParam.Because("search_term may have %d bytes at most", maxSearchTerm)
	}
	limit := usualDirectory
	if body.Limit != nil {
		limit = min(*body.Limit, maxDirectory)
	}
	if limit < 0 {
		return api.ErrInvalidParam.Because("limit must not be negative")
	}
	if err := s.limits.Take(api.LimitSearch, string(who.user)); err != nil {
		return err
	}
	var found []foundUser
	err := s.store.View(func(tx *store.Tx) (err error) {
		found, err = searchUsers(tx, who, newUserTerm(*body.Term))
		return err
	})
	if err != nil {
		return err
	}
	answer := directoryResponse{Results: found, Limited: len(found) > limit}
	answer.Results = answer.Results[:min(len(found), limit)]
	return api.WriteJSON(w, answer)
}

// directorySearch is one search, within one View. It shows who shares a room with
// the searcher or is in a public room; never the searcher. Of local users it looks
// at the profile alone: what they call themselves in one room is that room's.
type directorySearch struct {
	tx     *store.Tx
	who    session
	term   userTerm
	search *listSearch
	public map[store.RoomNum]bool // what is known of rooms so far
	listed []store.RoomNum        // see publicRooms
	done   map[matrix.UserID]bool
	found  []foundUser
}

// searchUsers returns whom a term finds, the best first.
func searchUsers(tx *store.Tx, who session, term userTerm) ([]foundUser, error) {
	d := &directorySearch{
		tx: tx, who: who, term: term, search: &listSearch{tx: tx, who: who},
		public: make(map[store.RoomNum]bool), done: map[matrix.UserID]bool{who.user: true}, found: []foundUser{},
	}
	if term.empty() {
		return d.found, nil
	}
	for _, look := range []func() error{d.searchAccounts, d.searchIDs, d.searchMembers} {
		if err := look(); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(d.found, func(a, b foundUser) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), b.profiled()-a.profiled(), cmp.Compare(a.User, b.User))
	})
	return d.found, nil
}

// profiled is 1 where something of a user's profile is known: "Ordered by rank and
// then whether or not profile info is available."
func (f foundUser) profiled() int {
	if f.DisplayName != "" || f.AvatarURL != "" {
		return 1
	}
	return 0
}

// add adds a user, once.
func (d *directorySearch) add(user foundUser) {
	if !d.done[user.User] {
		d.done[user.User] = true
		d.found = append(d.found, user)
	}
}

func (d *directorySearch) full() bool { return len(d.found) >= maxFoundUsers }

// searchAccounts looks at the users of this server. Who knows the whole ID finds
// its user, as in profiles.
func (d *directorySearch) searchAccounts() error {
	looked := 0
	return d.tx.Accounts(func(num store.UserNum, a store.Account) (bool, error) {
		looked++
		if a.Deactivated || num == d.who.num {
			return true, nil
		}
		user := foundUser{User: d.tx.UserID(num), DisplayName: profileString(d.tx, num, fieldDisplayName)}
		rank, match := d.term.match(user.User, user.DisplayName)
		if !match {
			return looked < maxAccountsRead, nil
		}
		visible := rank == rankID
		if !visible {
			var err error
			if visible, err = d.seesLocal(num); err != nil {
				return false, err
			}
		}
		if visible {
			user.rank = rank
			user.AvatarURL = profileString(d.tx, num, fieldAvatarURL)
			d.add(user)
		}
		return looked < maxAccountsRead && !d.full(), nil
	})
}

// seesLocal says whether a local user is in a room that the searcher is in too, or
// in a public one.
func (d *directorySearch) seesLocal(user store.UserNum) (visible bool, err error) {
	err = d.tx.LocalMemberships(user, func(m store.LocalMembership) (bool, error) {
		if m.Membership != matrix.Join {
			return true, nil
		}
		own, _, err := d.tx.LocalMembership(d.who.num, m.Room)
		if err != nil {
			return false, err
		}
		visible = own.Membership == matrix.Join
		if !visible {
			visible, err = d.isPublic(m.Room)
		}
		return !visible, err
	})
	return visible, err
}

// isPublic says whether everybody may see who is in a room: its join rule is public
// or its history visibility world_readable.
func (d *directorySearch) isPublic(room store.RoomNum) (bool, error) {
	if is, known := d.public[room]; known {
		return is, nil
	}
	now, err := d.tx.CurrentAt(room, d.tx.Position())
	if err != nil {
		return false, err
	}
	rules, err := state.EventAt(d.tx, room, now, "m.room.join_rules", "")
	if err != nil {
		return false, err
	}
	is := rules != nil && contentString(rules.Content, "join_rule") == "public"
	if !is {
		visibility, err := state.EventAt(d.tx, room, now, "m.room.history_visibility", "")
		if err != nil {
			return false, err
		}
		is = visibility != nil && visibility.HistoryVisibility() == "world_readable"
	}
	d.public[room] = is
	return is, nil
}

// searchIDs looks at the remote users whose IDs begin with the term.
func (d *directorySearch) searchIDs() error {
	prefix := d.term.prefix()
	if prefix == "" {
		return nil
	}
	looked := 0
	return d.tx.UserIDs(prefix, func(num store.UserNum, id matrix.UserID) (bool, error) {
		looked++
		if d.done[id] || d.tx.IsLocal(num) {
			return looked < maxIDsRead, nil
		}
		user, err := d.remoteUser(id)
		if err != nil {
			return false, err
		}
		if rank, match := d.term.match(id, user.DisplayName); match && user.User != "" {
			user.rank = rank
			d.add(user)
		}
		return looked < maxIDsRead && !d.full(), nil
	})
}

// remoteUser returns a remote user as a room tells that the searcher may look into,
// the zero foundUser where there is none.
func (d *directorySearch) remoteUser(id matrix.UserID) (foundUser, error) {
	rooms, err := d.rooms()
	if err != nil {
		return foundUser{}, err
	}
	for _, room := range rooms {
		if _, known := d.tx.Slot(room, "m.room.member", string(id)); !known {
			continue
		}
		now, err := d.tx.CurrentAt(room, d.tx.Position())
		if err != nil {
			return foundUser{}, err
		}
		ev, err := state.EventAt(d.tx, room, now, "m.room.member", string(id))
		if err != nil {
			return foundUser{}, err
		}
		if user, joined := memberFound(ev); joined {
			return user, nil
		}
	}
	return foundUser{}, nil
}

// memberFound returns the user of a member event, if he is in the room.
func memberFound(ev *store.StoredEvent) (user foundUser, joined bool) {
	if ev == nil {
		return user, false
	}
	m, err := ev.Member()
	if err != nil || m.Membership != matrix.Join {
		return user, false
	}
	user.User = matrix.UserID(*ev.StateKey)
	if m.DisplayName != nil {
		user.DisplayName = shorten(*m.DisplayName, maxDirectoryName)
	}
	if m.AvatarURL != nil && len(*m.AvatarURL) <= maxDirectoryName {
		user.AvatarURL = *m.AvatarURL
	}
	return user, true
}

// searchMembers looks at the remote members of the rooms, small ones first.
func (d *directorySearch) searchMembers() error {
	rooms, err := d.rooms()
	if err != nil {
		return err
	}
	looked := 0
	for _, room := range rooms {
		now, err := d.tx.CurrentAt(room, d.tx.Position())
		if err != nil {
			return err
		}
		err = d.tx.WalkState(room, now, store.StateMembers, func(_ store.Slot, num store.EventNum) (bool, error) {
			looked++
			ev, err := d.tx.Event(room, num)
			if err != nil {
				return false, err
			}
			if user, joined := memberFound(ev); joined && !d.done[user.User] {
				d.addMember(user)
			}
			return looked < maxMembersRead && !d.full(), nil
		})
		if err != nil || looked >= maxMembersRead || d.full() {
			return err
		}
	}
	return nil
}

// addMember adds a member of a room if the term finds him and he is remote.
func (d *directorySearch) addMember(user foundUser) {
	rank, match := d.term.match(user.User, user.DisplayName)
	if match && !d.tx.IsLocal(d.tx.UserNum(user.User)) {
		user.rank = rank
		d.add(user)
	}
}

// rooms returns the rooms whose members the searcher may see, those with few
// members first: his own, and the public ones that this server is in.
func (d *directorySearch) rooms() ([]store.RoomNum, error) {
	if d.listed != nil {
		return d.listed, nil
	}
	own, err := d.search.joined()
	if err != nil {
		return nil, err
	}
	type sized struct {
		room    store.RoomNum
		members uint64
	}
	var rooms []sized
	for _, room := range own {
		head, err := d.tx.Head(room)
		if err != nil {
			return nil, err
		}
		rooms = append(rooms, sized{room, head.Joined})
	}
	inside, err := openRooms(d.tx)
	if err != nil {
		return nil, err
	}
	looked := 0
	for _, room := range inside {
		if slices.Contains(own, room) {
			continue
		}
		if looked++; looked > maxPublicRooms {
			break
		}
		is, err := d.isPublic(room)
		if err != nil {
			return nil, err
		}
		if !is {
			continue
		}
		head, err := d.tx.Head(room)
		if err != nil {
			return nil, err
		}
		rooms = append(rooms, sized{room, head.Joined})
	}
	slices.SortFunc(rooms, func(a, b sized) int { return cmp.Compare(a.members, b.members) })
	d.listed = make([]store.RoomNum, 0, len(rooms))
	for _, r := range rooms {
		d.listed = append(d.listed, r.room)
	}
	return d.listed, nil
}

// openRooms returns the rooms that local users are in.
func openRooms(tx *store.Tx) (rooms []store.RoomNum, err error) {
	err = tx.Rooms(func(room store.RoomNum, _ store.Head) (bool, error) {
		inside, err := state.Resident(tx, room)
		if inside {
			rooms = append(rooms, room)
		}
		return true, err
	})
	return rooms, err
}
