// What waits for connections to end waits for as long at each run.
//
//go:debug randautoseed=0
package server

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "simulate this seed alone")
	simFirst = flag.Uint64("sim.first", 2, "the first of several seeds")
	simSeeds = flag.Uint64("sim.seeds", 10, "how many seeds to simulate")
	simLog   = flag.Bool("sim.log", false, "show what the servers log")
)

// Three to eight servers live through cut links, delays, skewed clocks, lost and
// repeated transactions and crashes. When all is well again, they have the same
// state in every room that they share, and nothing that was acknowledged is lost.
func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		simulate(t, *simSeed)
		return
	}
	for seed := *simFirst; seed < *simFirst+*simSeeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { simulate(t, seed) })
	}
}

// A seed that has failed fails again, as the same happens at the same moments.
func TestSimulationRepeats(t *testing.T) {
	if one, other := simulate(t, 3), simulate(t, 3); one != other {
		t.Errorf("the same seed was lived through in two ways: %016x, %016x", one, other)
	}
}

// simulate lives through one seed, twice the same: all randomness is the seed's, time
// is virtual, and of the goroutines that could run at one moment one runs at a time. It
// returns the digest of what the servers told each other. What is left to chance is which
// of several goroutines comes first that wait for one moment, which seldom matters.
func simulate(t *testing.T, seed uint64) (digest uint64) {
	cryptotest.SetGlobalRandom(t, seed)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, func(t *testing.T) {
		f := newFabric(t, seed)
		if *simLog {
			f.log = prefixed{t}
		}
		w := newWorld(t, seed, f)
		w.patient = true
		for n := range 3 + w.rand.IntN(6) {
			skew := time.Duration(w.rand.IntN(120)-60) * time.Second
			if w.rand.IntN(10) == 0 {
				skew *= 300 // a board without a clock
			}
			s := newSimulated(t, f, n, skew)
			if *simLog {
				s.log = prefixed{t}
			}
			w.settle(s)
		}
		w.live()
		digest = f.digest
		t.Logf("seed %d: digest %016x", seed, digest)
		time.Sleep(10 * time.Minute) // what was under way as the servers ended
	})
	return digest
}

// A world is one simulation.
type world struct {
	t       *testing.T
	seed    uint64
	rand    *rand.Rand
	net     links
	homes   []*home
	began   time.Time
	pace    time.Duration // of life
	patient bool          // hours cost nothing
	rooms   []*shared
	sent    []deed         // what was acknowledged
	notes   map[string]int // to-device messages that were acknowledged, and for whom
	whom    map[string]*inhabitant
	tally   map[string]int // of what was tried, by outcome
	crossed int            // deliveries to other servers that had to be made
	returns int            // how often somebody had to come back
}

// maxReturns bounds how often people make up for what no server can.
const maxReturns = 6

// links are what connects hosts.
type links interface {
	setCut(a, b host, cut bool)
	settle() // mends all, for good
}

// A home is a host with its users.
type home struct {
	host
	users []*inhabitant
	among map[*shared]map[string]any // who is in the rooms, as it last said
	out   map[*shared]time.Time      // when it was last seen to have nobody there
}

// A shared room is one that somebody has made.
type shared struct {
	id      matrix.RoomID
	version string
	maker   *inhabitant
	entered []*inhabitant // who has joined at some time, the maker first
	// replaced: it was upgraded. Nobody may speak there any more, so that nothing
	// brings together what has come apart.
	replaced bool
}

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

func newWorld(t *testing.T, seed uint64, net links) *world {
	return &world{
		t: t, seed: seed, rand: rand.New(rand.NewPCG(seed, 5)), net: net, began: time.Now(), pace: time.Second,
		notes: make(map[string]int), whom: make(map[string]*inhabitant), tally: make(map[string]int),
	}
}

// settle starts a host and gives it users.
func (w *world) settle(h host) {
	h.start()
	at := &home{host: h, among: make(map[*shared]map[string]any), out: make(map[*shared]time.Time)}
	for n := range 1 + w.rand.IntN(2) {
		at.users = append(at.users, inhabit(w.t, h, fmt.Sprintf("u%d", n)))
	}
	w.homes = append(w.homes, at)
}

// live lets the world have its time, heals it, and judges it.
func (w *world) live() {
	for range 60 + w.rand.IntN(90) {
		w.step()
	}
	w.heal()
	w.judge()
}

// step does one thing and lets some time pass.
func (w *world) step() {
	switch n := w.rand.IntN(100); {
	case n < 10:
		a, b := pick(w.rand, w.homes), pick(w.rand, w.homes)
		if a != b {
			w.net.setCut(a.host, b.host, n < 6)
		}
	case n < 14:
		if s := pick(w.rand, w.homes); w.patient && w.rand.IntN(12) == 0 {
			w.miss(s)
		} else {
			w.crash(s)
		}
	case len(w.rooms) == 0 || n < 17:
		w.makeRoom()
	case n < 22:
		w.whisper()
	case n < 25:
		w.chatter()
	default:
		w.act()
	}
	time.Sleep(time.Duration(w.rand.IntN(8000)) * w.pace / 1000)
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

func (w *world) server() string { return string(pick(w.rand, w.homes).name()) }

func (w *world) user() *inhabitant { return pick(w.rand, pick(w.rand, w.homes).users) }

// crash ends a server in the middle of what it does. It comes back some time later.
func (w *world) crash(s *home) {
	s.crash()
	time.Sleep(time.Duration(w.rand.IntN(60)) * w.pace)
	s.start()
}

// miss has a server miss hours or days, and more than is asked for at once.
func (w *world) miss(s *home) {
	s.crash()
	for range w.rand.IntN(160) {
		if u := w.user(); len(w.rooms) > 0 && w.home(u) != s {
			w.say(u, pick(w.rand, w.rooms))
		}
		time.Sleep(time.Duration(w.rand.IntN(1000)) * w.pace)
	}
	s.start()
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

// owed says whether a server must get what was done in a room where it is now: it was
// there then, and has been since. Who has left, and come back, has no right to what he
// had not got by then: all who have it may be gone.
func (d *deed) owed(s *home) bool {
	return slices.Contains(d.present, s) && !s.out[d.room].After(d.at)
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

// home returns where a user lives.
func (w *world) home(u *inhabitant) *home {
	return w.homes[slices.IndexFunc(w.homes, func(h *home) bool { return h.host == u.home })]
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
