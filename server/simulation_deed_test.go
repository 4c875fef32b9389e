package server

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"hearth/state/matrix"
)

// A deed is an event that a server has acknowledged.
type deed struct {
	room  *shared
	id    matrix.EventID
	by    *home
	about string // what it is
	at    time.Time
	// present are the servers with a member there when it was sent, as both its server
	// and they had it.
	present []*home
}

var simVersions = []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"}

func (w *world) makeRoom() {
	u, version := w.user(), pick(w.rand, simVersions)
	var made struct {
		Room matrix.RoomID `json:"room_id"`
	}
	status := u.ask("POST", "/createRoom", map[string]any{"preset": "public_chat", "room_version": version}, &made)
	if status != http.StatusOK {
		w.t.Fatalf("%s: create a room: %d", u.id, status)
	}
	w.rooms = append(w.rooms, &shared{id: made.Room, version: version, maker: u, entered: []*inhabitant{u}})
}

// act has a user do something in a room, if he can.
func (w *world) act() {
	room, other := pick(w.rand, w.rooms), w.user()
	u := pick(w.rand, room.entered)
	if w.rand.IntN(3) == 0 {
		u = room.maker
	}
	defer func() {
		for _, s := range w.homes {
			s.members(room)
		}
	}()
	in := "/rooms/" + url.PathEscape(string(room.id))
	why := fmt.Sprintf("deed %d", len(w.sent))
	switch n := w.rand.IntN(100); {
	case n < 38:
		via := url.Values{"via": {w.server(), string(room.maker.home.name()), w.server()}}
		if w.do(other, room, "join", "POST", "/join/"+url.PathEscape(string(room.id))+"?"+via.Encode(), map[string]any{}) {
			room.entered = append(room.entered, other)
		}
	case n < 40:
		w.call(u, room, other)
	case n < 42:
		w.do(other, room, "knock", "POST", "/knock/"+url.PathEscape(string(room.id))+"?via="+string(room.maker.home.name()), map[string]any{})
	case n < 62:
		w.say(u, room)
	case n < 68:
		w.do(u, room, "topic", "PUT", in+"/state/m.room.topic", map[string]any{"topic": why})
	case n < 74:
		w.promote(u, room, other)
	case n < 80:
		w.do(u, room, "invite", "POST", in+"/invite", map[string]any{"user_id": other.id})
	case n < 84:
		w.do(u, room, "kick", "POST", in+"/kick", map[string]any{"user_id": other.id})
	case n < 87:
		w.do(u, room, "ban", "POST", in+"/ban", map[string]any{"user_id": other.id})
	case n < 90:
		w.do(u, room, "unban", "POST", in+"/unban", map[string]any{"user_id": other.id})
	case n < 93:
		w.do(u, room, "leave", "POST", in+"/leave", map[string]any{})
	case n < 95:
		w.do(u, room, "join rules", "PUT", in+"/state/m.room.join_rules", map[string]any{
			"join_rule": pick(w.rand, []string{"public", "invite", "knock", "restricted"}),
			"allow":     []any{map[string]any{"type": "m.room_membership", "room_id": pick(w.rand, w.rooms).id}},
		})
	case n < 96:
		w.upgrade(u, room)
	default:
		w.redact(u, room)
	}
}

// call gives a room a name on its maker's server, or one that it has a new meaning, by
// which another joins.
func (w *world) call(u *inhabitant, room *shared, other *inhabitant) {
	alias := "#" + strings.TrimPrefix(strings.SplitN(u.id, ":", 2)[0], "@") + ":" + string(u.home.name())
	path := url.PathEscape(alias)
	if u.ask("PUT", "/directory/room/"+path, map[string]any{"room_id": room.id}, nil) == http.StatusConflict {
		u.ask("DELETE", "/directory/room/"+path, nil, nil)
		u.ask("PUT", "/directory/room/"+path, map[string]any{"room_id": room.id}, nil)
	}
	var joined struct {
		Room matrix.RoomID `json:"room_id"`
	}
	status := other.ask("POST", "/join/"+path, map[string]any{}, &joined)
	w.tally[fmt.Sprint("join by alias ", status)]++
	if status == http.StatusOK && joined.Room == room.id {
		room.entered = append(room.entered, other)
	}
}

// upgrade replaces a room.
func (w *world) upgrade(u *inhabitant, room *shared) {
	version := pick(w.rand, simVersions)
	var made struct {
		Room matrix.RoomID `json:"replacement_room"`
	}
	status := u.ask("POST", "/rooms/"+url.PathEscape(string(room.id))+"/upgrade", map[string]any{"new_version": version}, &made)
	w.tally[fmt.Sprint("upgrade ", status)]++
	if status == http.StatusOK {
		room.replaced = true
		w.rooms = append(w.rooms, &shared{id: made.Room, version: version, maker: u, entered: []*inhabitant{u}})
	}
}

// say sends a message.
func (w *world) say(u *inhabitant, room *shared) {
	path := "/rooms/" + url.PathEscape(string(room.id)) + "/send/m.room.message/" + u.next()
	w.do(u, room, "message", "PUT", path, map[string]any{"msgtype": "m.text", "body": fmt.Sprintf("deed %d", len(w.sent))})
}

// chatter does what leaves no event to look for: a new name, a new device, typing, a
// receipt.
func (w *world) chatter() {
	u := w.user()
	switch w.rand.IntN(3) {
	case 0:
		u.ask("PUT", "/profile/"+url.PathEscape(u.id)+"/displayname", map[string]any{"displayname": u.next()}, nil)
	case 1:
		u.ask("PUT", "/devices/"+u.device, map[string]any{"display_name": u.next()}, nil)
	default:
		if len(w.sent) == 0 {
			return
		}
		d := pick(w.rand, w.sent)
		in := "/rooms/" + url.PathEscape(string(d.room.id))
		u.ask("PUT", in+"/typing/"+url.PathEscape(u.id), map[string]any{"typing": true, "timeout": 10_000}, nil)
		u.ask("POST", in+"/receipt/m.read/"+url.PathEscape(string(d.id)), map[string]any{}, nil)
	}
}

// do makes a request, notes the event that it made, and says whether it was granted.
// That some are refused is part of life.
func (w *world) do(u *inhabitant, room *shared, about, method, path string, body any) bool {
	var made struct {
		Event matrix.EventID `json:"event_id"`
	}
	status := u.ask(method, path, body, &made)
	w.tally[fmt.Sprint(about, " ", status)]++
	if status >= 500 && status != http.StatusBadGateway && status != http.StatusGatewayTimeout {
		w.t.Errorf("%s: %s: %d", u.id, about, status)
	}
	if status != http.StatusOK || made.Event == "" {
		return status == http.StatusOK
	}
	w.sent = append(w.sent, deed{room: room, id: made.Event, by: w.home(u), about: about, at: time.Now(), present: w.present(w.home(u), room)})
	return true
}

// members returns who is in a room, as a server has it that has a user there, else none;
// of one that is down, as it last said.
func (s *home) members(room *shared) map[string]any {
	var members struct {
		Joined map[string]any `json:"joined"`
	}
	for _, u := range s.users {
		switch u.ask("GET", "/rooms/"+url.PathEscape(string(room.id))+"/joined_members", nil, &members) {
		case http.StatusOK:
			s.among[room] = members.Joined
			return members.Joined
		case 0:
			return s.among[room]
		}
	}
	s.among[room], s.out[room] = nil, time.Now()
	return nil
}

// present lists the servers that have a member in a room, as one of them has it and as
// they have it themselves: a join may have failed on its way back.
func (w *world) present(as *home, room *shared) (present []*home) {
	members := as.members(room)
	for _, s := range w.homes {
		own := s.members(room)
		for _, u := range s.users {
			_, there := members[u.id]
			if _, here := own[u.id]; there && here {
				present = append(present, s)
				break
			}
		}
	}
	return present
}

// promote gives another user power.
func (w *world) promote(u *inhabitant, room *shared, other *inhabitant) {
	path := "/rooms/" + url.PathEscape(string(room.id)) + "/state/m.room.power_levels"
	levels := make(map[string]any)
	if u.ask("GET", path, nil, &levels) != http.StatusOK {
		return
	}
	users, _ := levels["users"].(map[string]any)
	if users == nil {
		users = make(map[string]any)
	}
	users[other.id] = 10 * w.rand.IntN(11)
	levels["users"] = users
	w.do(u, room, "power levels", "PUT", path, levels)
}

func (w *world) redact(u *inhabitant, room *shared) {
	for _, d := range slices.Backward(w.sent) {
		if d.room == room && d.about == "message" {
			path := "/rooms/" + url.PathEscape(string(room.id)) + "/redact/" + url.PathEscape(string(d.id)) + "/" + u.next()
			w.do(u, room, "redaction", "PUT", path, map[string]any{})
			return
		}
	}
}

// whisper sends a to-device message.
func (w *world) whisper() {
	u, other := w.user(), w.user()
	body := fmt.Sprintf("note %d", len(w.notes))
	messages := map[string]any{other.id: map[string]any{other.device: map[string]any{"body": body}}}
	if u.ask("PUT", "/sendToDevice/m.note/"+u.next(), map[string]any{"messages": messages}, nil) == http.StatusOK {
		w.notes[body], w.whom[body] = 1, other
	}
}
