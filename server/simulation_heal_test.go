package server

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// maxReturns bounds how often people make up for what no server can.
const maxReturns = 6

// owed says whether a server must get what was done in a room where it is now: it was
// there then, and has been since. Who has left, and come back, has no right to what he
// had not got by then: all who have it may be gone.
func (d *deed) owed(s *home) bool {
	return slices.Contains(d.present, s) && !s.out[d.room].After(d.at)
}

// heal mends all links, and lets everybody say something where he is until there is
// nothing left to tell. Before that the servers find each other again: none is left alone
// for much longer than a quarter of the time for which it has been away, and what waits
// for something is tried again once an hour.
func (w *world) heal() {
	w.net.settle()
	time.Sleep(min(time.Since(w.began)/3, 8*time.Hour))
	if w.patient {
		time.Sleep(70 * time.Minute)
	}
	for round := range 20 {
		time.Sleep(120 * w.pace)
		if round > 0 && w.agrees() == "" {
			return
		}
		for _, s := range w.homes {
			for _, u := range s.users {
				for _, room := range w.rooms {
					path := "/rooms/" + url.PathEscape(string(room.id)) + "/send/m.room.message/" + u.next()
					u.ask("PUT", path, map[string]any{"msgtype": "m.text", "body": fmt.Sprintf("round %d", round)}, nil)
					time.Sleep(w.pace)
				}
				u.sync()
			}
		}
		if round > 1 {
			w.comeBack()
		}
	}
}

// undelivered says which to-device messages did not arrive once, or "".
func (w *world) undelivered() string {
	for _, u := range w.users() {
		u.sync()
	}
	var text []string
	for body, u := range w.whom {
		if u.got[body] != 1 {
			text = append(text, fmt.Sprintf("%s got %q %d times", u.id, body, u.got[body]))
		}
	}
	slices.Sort(text)
	return strings.Join(text, "; ")
}

// comeBack has users leave and come back who believe themselves in a room and whom most
// of its other servers take for gone. Nothing else tells a server that: where somebody
// closes a room while another comes in by way of a server that has not heard of it, the
// resolution has him out, and who is out is sent nothing. He sees that nobody answers.
// Those of one server in each room at a time, of that which made it last of all.
func (w *world) comeBack() {
	for _, room := range w.rooms {
		views := make(map[*home]map[string]any)
		for _, s := range w.homes {
			if members := s.members(room); len(members) > 0 {
				views[s] = members
			}
		}
		last := w.home(room.maker)
		others := slices.DeleteFunc(slices.Clone(w.homes), func(s *home) bool { return s == last })
		for _, s := range append(others, last) {
			if lonely, by := unheard(s, views); len(lonely) > 0 {
				if w.returns++; w.returns > maxReturns {
					w.t.Fatalf("seed %d: somebody has to come back for the %dth time: into %s", w.seed, w.returns, room.id)
				}
				w.reenter(room, lonely, by)
				break
			}
		}
	}
}

// unheard returns the users of a server who are in a room by what it has, and whom most
// others do not have there, or whose server has none of theirs; and one of those others.
func unheard(s *home, views map[*home]map[string]any) (users []*inhabitant, by *home) {
	for _, u := range s.users {
		if _, in := views[s][u.id]; !in {
			continue
		}
		apart := 0
		for other, members := range views {
			if _, in := members[u.id]; in && (other == s || has(views[s], other, members)) {
				continue
			}
			apart++
			if by == nil || other.name() < by.name() {
				by = other
			}
		}
		if 2*apart > len(views)-1 {
			users = append(users, u)
		}
	}
	return users, by
}

// has says whether a view of a room has a user of a server who is there by its own.
func has(view map[string]any, s *home, own map[string]any) bool {
	for _, u := range s.users {
		_, there := own[u.id]
		if _, seen := view[u.id]; there && seen {
			return true
		}
	}
	return false
}

// reenter has users leave a room and join it by way of a server.
func (w *world) reenter(room *shared, users []*inhabitant, by *home) {
	path := url.PathEscape(string(room.id))
	for _, u := range users {
		status := u.ask("POST", "/rooms/"+path+"/leave", map[string]any{}, nil)
		w.tally[fmt.Sprint("leaves to come back ", status)]++
	}
	for _, s := range w.homes {
		s.members(room)
	}
	for _, u := range users {
		status := u.ask("POST", "/join/"+path+"?via="+string(by.name()), map[string]any{}, nil)
		w.tally[fmt.Sprint("comes back ", status)]++
	}
}

// agrees says what the servers do not agree about, or "".
func (w *world) agrees() string {
	for _, room := range w.rooms {
		if room.replaced {
			continue
		}
		var first *inhabitant
		var want map[string]matrix.EventID
		for _, u := range w.users() {
			state, in := u.stateOf(room.id)
			switch {
			case !in:
			case first == nil:
				first, want = u, state
			case !maps.Equal(state, want):
				return fmt.Sprintf("%s (version %s): %s and %s differ: %s", room.id, room.version, first.id, u.id, difference(want, state))
			}
		}
	}
	return ""
}

func (w *world) users() (all []*inhabitant) {
	for _, s := range w.homes {
		all = append(all, s.users...)
	}
	return all
}

func difference(a, b map[string]matrix.EventID) string {
	var text []string
	for key, id := range a {
		if b[key] != id {
			text = append(text, fmt.Sprintf("%s: %s, %s", key, id, b[key]))
		}
	}
	for key, id := range b {
		if _, both := a[key]; !both {
			text = append(text, fmt.Sprintf("%s: none, %s", key, id))
		}
	}
	slices.Sort(text)
	return strings.Join(text, "; ")
}

// judge ends the world and says what was wrong with it.
func (w *world) judge() {
	if text := w.agrees(); text != "" {
		w.t.Errorf("seed %d: %s", w.seed, text)
	}
	if text := w.undelivered(); text != "" {
		w.t.Errorf("seed %d: %s", w.seed, text)
	}
	inside := make(map[*home]map[*shared]bool) // who is still in which rooms
	for _, s := range w.homes {
		inside[s] = make(map[*shared]bool)
		for _, room := range w.rooms {
			for _, u := range s.users {
				if _, in := u.stateOf(room.id); in {
					inside[s][room] = true
					u.page(room.id)
				}
			}
		}
	}
	for _, s := range w.homes {
		s.end()
		examine(w.t, s.host, func(tx *store.Tx) error {
			for _, d := range w.sent {
				if d.by != s && inside[s][d.room] && d.owed(s) {
					w.crossed++
				}
				if _, _, has := tx.EventByID(d.id); has {
					continue
				}
				switch {
				case d.by == s:
					w.t.Errorf("seed %d: %s forgot %s, a %s in %s", w.seed, s.name(), d.id, d.about, d.room.id)
				case inside[s][d.room] && d.owed(s):
					w.t.Errorf("seed %d: %s never got %s, a %s in %s (version %s) of %s", w.seed, s.name(), d.id, d.about, d.room.id, d.room.version, d.by.name())
				}
			}
			return nil
		})
	}
	w.t.Logf("seed %d: %d servers, %d rooms, %d deeds, %d deliveries: %v", w.seed, len(w.homes), len(w.rooms), len(w.sent), w.crossed, w.tally)
}
