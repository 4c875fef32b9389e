package client

import (
	"net/http"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// getMembersByRoom answers GET /rooms/{roomID}/members: the member events, those
// at a token and of one membership where the client asks so.
func (s *Server) getMembersByRoom(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	only, not := matrix.Membership(q.Get("membership")), matrix.Membership(q.Get("not_membership"))
	var at *streamToken
	if text := q.Get("at"); text != "" {
		token, err := parseToken("at", text)
		if err != nil {
			return err
		}
		at = &token
	}
	list, err := s.stateList(room, who, func(view *roomView, tx *store.Tx) ([]store.EventNum, error) {
		snapshot := view.state
		if at != nil {
			if snapshot, err = view.membersAt(tx, at.pos); err != nil {
				return nil, err
			}
		}
		return view.stateNums(snapshot, store.StateMembers)
	})
	if err != nil {
		return err
	}
	list.item = func(f *formatter, ev *store.StoredEvent) (jsontext.Value, error) {
		// Old rooms hold member events without a membership.
		m, err := ev.Member()
		if err != nil || only != "" && m.Membership != only || not != "" && m.Membership == not {
			return nil, nil
		}
		return f.event(ev)
	}
	return s.writeState(w, list, `{"chunk":[`, `]}`)
}

// openHistory are the kinds of history visibility that show a member what was before.
var openHistory = []string{"world_readable", "shared"}

// membersAt returns the state that tells the members at a position. A sync whose
// timeline holds the whole room ends at a position before the first event: there
// the members are those whom the room begins with. Who came later is told of when
// he came, where history is not for him.
func (v *roomView) membersAt(tx *store.Tx, pos store.Position) (store.SnapshotID, error) {
	at, err := tx.CurrentAt(v.num, min(pos, v.upto))
	if err != nil {
		return 0, err
	}
	member, _, err := tx.LocalMembership(v.format.who.num, v.num)
	if err != nil {
		return 0, err
	}
	if pos < member.Joined {
		visibility, err := state.EventAt(tx, v.num, at, "m.room.history_visibility", "")
		if err != nil {
			return 0, err
		}
		if visibility != nil && !slices.Contains(openHistory, visibility.HistoryVisibility()) {
			return tx.CurrentAt(v.num, min(member.Joined, v.upto))
		}
	}
	if at != 0 {
		return at, nil
	}
	err = tx.Timeline(v.num, 0, func(ev *store.StoredEvent) (bool, error) {
		at = ev.After
		return ev.Type == "m.room.create", nil
	})
	return at, err
}

// getJoinedMembersByRoom answers GET /rooms/{roomID}/joined_members for who is
// in the room.
func (s *Server) getJoinedMembersByRoom(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	list, err := s.stateList(room, who, func(view *roomView, tx *store.Tx) ([]store.EventNum, error) {
		if m, _, err := tx.LocalMembership(who.num, view.num); err != nil || m.Membership != matrix.Join {
			return nil, errNotMember
		}
		return view.stateNums(view.state, store.StateMembers)
	})
	if err != nil {
		return err
	}
	list.item = (*formatter).joinedMember
	return s.writeState(w, list, `{"joined":{`, `}}`)
}

// joinedMember returns one member of the object that joined_members answers, the
// user's ID and what he calls himself; nil for who is not in the room. What is not
// known is empty: clients look for both keys, and the specification has strings
// there.
func (f *formatter) joinedMember(ev *store.StoredEvent) (jsontext.Value, error) {
	m, err := ev.Member()
	if err != nil || m.Membership != matrix.Join {
		return nil, nil // old rooms hold member events without a membership
	}
	var name, avatar string
	if m.DisplayName != nil {
		name = *m.DisplayName
	}
	if m.AvatarURL != nil {
		avatar = *m.AvatarURL
	}
	b := appendQuoted(nil, *ev.StateKey)
	b = appendQuoted(append(b, `:{"display_name":`...), name)
	return append(appendQuoted(append(b, `,"avatar_url":`...), avatar), '}'), nil
}
