package client

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/store"
)

// A syncModel is a client as the specification wants it: it knows of the server
// only what the answers of /sync have told it, and what it then asked /messages
// for to fill the gaps.
type syncModel struct {
	t        *testing.T
	house    *syncHouse
	random   *rand.Rand
	user     *syncUser
	device   string
	token    string // of the access
	make     filterMaker
	filter   *filterModel
	filterID string
	after    bool // use_state_after
	since    string
	refresh  bool // the next sync asks for the full state
	syncedAt store.Position
	firstAt  store.Position // of the first sync
	segments []segmentModel // of all timelines, a segment for each sync
	rooms    map[string]*roomModel
	data     map[string]string         // global account data by type
	lists    map[string]store.Position // by user: when the client was last told to look at his devices
	messages []int                     // to the device
	acked    int                       // how many of them the server knows to have come
}

// roomModel is what a client knows of a room.
type roomModel struct {
	section  string
	strange  bool              // the client was not told of the end of the user's stay
	state    map[string]string // event IDs by type and state key
	timeline []string          // event IDs, oldest first
	first    int               // of the client's segments: the one that brought what came before it, too
	senders  map[string]bool   // of the events that syncs brought
	summary  summaryModel
	unread   map[string]int // "main", "main!" for highlights, and a thread's root
	ephemeralModel
}

// segmentModel is what a sync reaches up to, and its filter.
type segmentModel struct {
	filter *filterModel
	upto   store.Position
}

// begin makes a client that knows nothing, of a device that has what is acknowledged.
func (m *syncModel) begin() {
	m.since, m.syncedAt, m.firstAt, m.segments = "", 0, 0, nil
	m.rooms, m.data, m.lists = map[string]*roomModel{}, map[string]string{}, map[string]store.Position{}
	m.messages = m.messages[:m.acked]
}

// refilter changes what the client sees of timelines and state. What it has no more
// use for it forgets, and asks for what it lacks.
func (m *syncModel) refilter() {
	changed := *m.filter
	m.make.views(&changed)
	m.filter, m.filterID, m.refresh = &changed, "", true
	for _, room := range m.rooms {
		room.strange = room.strange || room.section != "join"
		clear(room.state)
		clear(room.senders)
		room.summary.Heroes = nil
	}
}

// query is what the client asks of /sync.
func (m *syncModel) query() string {
	q := url.Values{"filter": {m.filter.json()}}
	if m.random.IntN(3) == 0 {
		q.Set("filter", m.storedFilter())
	}
	if m.since != "" {
		q.Set("since", m.since)
	}
	if m.after {
		q.Set("use_state_after", "true")
	}
	if m.since != "" && (m.refresh || m.random.IntN(12) == 0) {
		q.Set("full_state", "true")
	}
	if m.random.IntN(3) == 0 {
		q.Set("timeout", strconv.Itoa(m.random.IntN(4)))
	}
	return "/_matrix/client/v3/sync?" + q.Encode()
}

// storedFilter is the ID of the client's filter.
func (m *syncModel) storedFilter() string {
	if m.filterID == "" {
		var answer filterResponse
		w := m.house.server.do(http.MethodPost, "/_matrix/client/v3/user/"+m.user.id+"/filter", m.token, m.filter.json())
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.FilterID == "" {
			m.t.Fatalf("store a filter: %d %s", w.Code, w.Body)
		}
		m.filterID = answer.FilterID
	}
	return m.filterID
}

// sync asks what is new and takes it in. Some answers get lost on the way.
func (m *syncModel) sync() {
	m.t.Helper()
	for m.random.IntN(5) == 0 {
		m.ask(m.query())
	}
	m.take(m.ask(m.query()))
}

// syncDuring is sync while somebody does something, of which the answer may tell or
// not. It says whether it took place: what a filter wants of old events may not
// depend on what happens meanwhile.
func (m *syncModel) syncDuring(deed func()) bool {
	m.t.Helper()
	if !m.filter.Room.Timeline.steady() {
		return false
	}
	query, answered := m.query()+"&timeout=10", make(chan *syncAnswerModel, 1)
	go func() { answered <- m.ask(query) }()
	deed()
	m.take(<-answered)
	return true
}

func (m *syncModel) ask(query string) *syncAnswerModel {
	m.t.Helper()
	if m.since != "" {
		m.acked = len(m.messages)
	}
	answer := new(syncAnswerModel)
	m.house.get(query, m.token, answer)
	return answer
}

// take takes in an answer.
func (m *syncModel) take(answer *syncAnswerModel) {
	m.t.Helper()
	text, _, _ := strings.Cut(strings.TrimPrefix(answer.Next, "s"), "_")
	at, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		m.t.Fatalf("next_batch %q: %v", answer.Next, err)
	}
	first := m.since == ""
	m.syncedAt = store.Position(at)
	m.segments = append(m.segments, segmentModel{m.filter, m.syncedAt})
	for section, rooms := range answer.Rooms {
		for id, room := range rooms {
			if !wantsRoom(m.filter.Room.Rooms, m.filter.Room.NotRooms, id) {
				m.t.Errorf("%s: told of %s", m, id)
			}
			m.takeRoom(section, id, &room)
		}
	}
	m.takeData(answer)
	if m.since, m.refresh = answer.Next, false; first {
		m.firstAt = m.syncedAt
		m.verifyArchive(answer)
	}
}

// takeRoom takes in what an answer says of a room.
func (m *syncModel) takeRoom(section, id string, answer *roomAnswerModel) {
	m.t.Helper()
	room := m.rooms[id]
	if room == nil || section == "join" && room.section != "join" { // it begins anew
		room = &roomModel{
			first: len(m.segments) - 1, state: map[string]string{}, senders: map[string]bool{}, unread: map[string]int{},
			ephemeralModel: newEphemeralModel(),
		}
		m.rooms[id] = room
	}
	begins := room.section == ""
	if section == "join" || answer.whole() {
		room.strange = false
	} else if room.section != "join" {
		room.strange = true
	}
	if section == "leave" && room.section != "join" && answer.whole() {
		// Of a stay that the client knew nothing of.
		room.state, room.senders, room.summary = map[string]string{}, map[string]bool{}, summaryModel{}
	}
	room.section = section
	if section != "join" && section != "leave" {
		m.takeStripped(section, id, answer)
		return
	}
	m.takeState(id, room, answer)
	m.takeTimeline(section, id, room, answer, begins)
	if answer.Summary.Joined != nil {
		room.summary = answer.Summary
	}
	if answer.Unread != nil {
		room.unread = map[string]int{"main": answer.Unread.Count, "main!": answer.Unread.Highlight}
		for root, counts := range answer.Threads {
			room.unread[root] = counts.Count
		}
	}
	m.takeEphemeral(id, room, answer)
}

// takeTimeline adds the timeline and what is left out before it.
func (m *syncModel) takeTimeline(section, id string, room *roomModel, answer *roomAnswerModel, begins bool) {
	m.t.Helper()
	from := m.since
	if answer.Timeline.Limited && (begins || section == "leave") { // the user may have been back for a while
		from, room.timeline, room.first = "", nil, len(m.segments)-1
	}
	if answer.Timeline.Limited {
		room.timeline = append(room.timeline, m.fill(id, answer.Timeline.Prev, from)...)
	}
	for _, ev := range answer.Timeline.Events {
		m.checkFields(&ev)
		room.timeline = append(room.timeline, ev.ID)
		room.senders[ev.Sender] = true
	}
}

// takeState applies the state before the timeline and then the timeline's, or
// the state behind it.
func (m *syncModel) takeState(id string, room *roomModel, answer *roomAnswerModel) {
	m.t.Helper()
	if forgotten := answer.Timeline.Prev == "" && answer.State == nil && !m.after; forgotten {
		return
	}
	if (answer.StateAfter != nil) != m.after || (answer.State == nil) != m.after {
		m.t.Errorf("%s: state %v, state_after %v", id, answer.State, answer.StateAfter)
		return
	}
	state, events := answer.State, answer.Timeline.Events
	if m.after {
		state, events = answer.StateAfter, nil
	}
	seen := map[string]bool{}
	for _, ev := range state.Events {
		m.checkFields(&ev)
		if !m.filter.Room.State.matchesEvent(id, &ev, m.house.urls[ev.ID]) {
			m.t.Errorf("%s: the state of %s has %s, which is not wanted", m, id, ev.key())
		}
		if seen[ev.ID] || seen[ev.key()] {
			m.t.Errorf("%s: %s (%s) is twice in the state of %s", m, ev.ID, ev.key(), id)
		}
		seen[ev.ID], seen[ev.key()] = true, true
		room.state[ev.key()] = ev.ID
	}
	for _, ev := range events {
		if seen[ev.ID] {
			m.t.Errorf("%s: %s is in the timeline and in the state", id, ev.ID)
		}
		if ev.StateKey != nil {
			room.state[ev.key()] = ev.ID
		}
	}
}

// checkFields holds an event to event_fields.
func (m *syncModel) checkFields(ev *eventModel) {
	m.t.Helper()
	trimmed := ev.TS == 0 && !strings.Contains(string(ev.Content), `"body"`)
	if trimmed != (m.filter.Fields != nil) || ev.ID == "" {
		m.t.Errorf("%s: not the fields that are wanted: %v %s", m, ev, ev.Content)
	}
}

// fill asks for the events of a gap, page by page. It ends at the token to, or
// ("") at the beginning of the room.
func (m *syncModel) fill(id, from, to string) []string {
	m.t.Helper()
	filter := m.filter.Room.Timeline
	filter.Limit = nil
	text, err := json.Marshal(filter)
	if err != nil {
		m.t.Fatal(err)
	}
	var events []string
	for range 1000 {
		q := url.Values{"dir": {"b"}, "from": {from}, "limit": {fmt.Sprint(1 + m.random.IntN(30))}, "filter": {string(text)}}
		if to != "" {
			q.Set("to", to)
		}
		var page struct {
			Chunk []eventModel `json:"chunk"`
			End   string       `json:"end"`
		}
		m.house.get("/_matrix/client/v3/rooms/"+url.PathEscape(id)+"/messages?"+q.Encode(), m.token, &page)
		for _, ev := range page.Chunk {
			events = append(events, ev.ID)
		}
		if page.End == "" {
			slices.Reverse(events)
			return events
		}
		if page.End == from {
			m.t.Fatalf("%s: page %s does not end", id, from)
		}
		from = page.End
	}
	m.t.Fatalf("%s: the pages have no end", id)
	return nil
}

// String tells what kind of client this is.
func (m *syncModel) String() string {
	return fmt.Sprintf("%s on %s, after %v, filter %s", m.user.name, m.device, m.after, m.filter.json())
}

// get sends a request whose answer must be 200 and reads it.
func (h *syncHouse) get(path, token string, v any) {
	h.t.Helper()
	w := h.server.do(http.MethodGet, path, token, "")
	if w.Code != http.StatusOK {
		h.t.Errorf("%s: %d %s", path, w.Code, w.Body)
		return
	}
	if err := json.Unmarshal(w.Body.Bytes(), v, jsontext.AllowDuplicateNames(true)); err != nil {
		h.t.Errorf("%s: %v\n%s", path, err, w.Body)
	}
}
