package client

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// A syncModel is a client as the specification wants it: it knows of the server
// only what the answers of /sync have told it, and what it then asked /messages
// for to fill the gaps.
type syncModel struct {
	t      *testing.T
	house  *syncHouse
	random *rand.Rand
	user   *syncUser
	token  string // of the access
	limit  int
	lazy   bool
	after  bool // use_state_after
	thread bool // unread_thread_notifications
	since  string
	rooms  map[string]*roomModel
}

// roomModel is what a client knows of a room.
type roomModel struct {
	section  string
	strange  bool              // the client was not told of the end of the user's stay
	state    map[string]string // event IDs by type and state key
	timeline []string          // event IDs, oldest first
	senders  map[string]bool   // of the events that syncs brought
	summary  summaryModel
	unread   map[string]int // "main", "main!" for highlights, and a thread's root
}

type summaryModel struct {
	Heroes  []string `json:"m.heroes"`
	Joined  *int     `json:"m.joined_member_count"`
	Invited *int     `json:"m.invited_member_count"`
}

// eventModel is what a client reads of an event.
type eventModel struct {
	ID       string         `json:"event_id"`
	Type     string         `json:"type"`
	Sender   string         `json:"sender"`
	StateKey *string        `json:"state_key"`
	Content  jsontext.Value `json:"content"`
	Unsigned struct {
		Because jsontext.Value `json:"redacted_because"`
	} `json:"unsigned"`
}

func (ev *eventModel) key() string { return ev.Type + " " + *ev.StateKey }

type eventsModel struct {
	Events []eventModel `json:"events"`
}

type roomAnswerModel struct {
	Timeline struct {
		eventsModel `json:",embed"`
		Limited     bool   `json:"limited"`
		Prev        string `json:"prev_batch"`
	} `json:"timeline"`
	State      *eventsModel           `json:"state"`
	StateAfter *eventsModel           `json:"state_after"`
	Summary    summaryModel           `json:"summary"`
	Unread     *unreadModel           `json:"unread_notifications"`
	Threads    map[string]unreadModel `json:"unread_thread_notifications"`
}

type unreadModel struct {
	Count     int `json:"notification_count"`
	Highlight int `json:"highlight_count"`
}

type syncAnswerModel struct {
	Next  string                                `json:"next_batch"`
	Rooms map[string]map[string]roomAnswerModel `json:"rooms"`
}

// query is what the client asks of /sync, always with the same filter.
func (m *syncModel) query() string {
	filter := fmt.Sprintf(`{"room":{"timeline":{"limit":%d,"unread_thread_notifications":%v},"state":{"lazy_load_members":%v}}}`, m.limit, m.thread, m.lazy)
	q := url.Values{"filter": {filter}}
	if m.since != "" {
		q.Set("since", m.since)
	}
	if m.after {
		q.Set("use_state_after", "true")
	}
	if m.since != "" && m.random.IntN(12) == 0 {
		q.Set("full_state", "true")
	}
	return "/_matrix/client/v3/sync?" + q.Encode()
}

// sync asks what is new and takes it in. Some answers get lost on the way.
func (m *syncModel) sync() {
	m.t.Helper()
	for m.random.IntN(5) == 0 {
		m.house.get(m.query(), m.token, new(syncAnswerModel))
	}
	var answer syncAnswerModel
	m.house.get(m.query(), m.token, &answer)
	if answer.Next == "" {
		m.t.Fatal("no next_batch")
	}
	for section, rooms := range answer.Rooms {
		for id, room := range rooms {
			m.take(section, id, &room)
		}
	}
	m.since = answer.Next
}

// take takes in what an answer says of a room.
func (m *syncModel) take(section, id string, answer *roomAnswerModel) {
	m.t.Helper()
	room := m.rooms[id]
	if room == nil || section == "join" && room.section != "join" { // it begins anew
		room = &roomModel{state: map[string]string{}, senders: map[string]bool{}, unread: map[string]int{}}
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
		return
	}
	m.takeState(id, room, answer)
	if answer.Timeline.Limited {
		from := m.since
		if begins || section == "leave" { // the user may have been back for a while
			from, room.timeline = "", nil
		}
		room.timeline = append(room.timeline, m.fill(id, answer.Timeline.Prev, from)...)
	}
	for _, ev := range answer.Timeline.Events {
		room.timeline = append(room.timeline, ev.ID)
		room.senders[ev.Sender] = true
	}
	if answer.Summary.Joined != nil {
		room.summary = answer.Summary
	}
	if answer.Unread != nil {
		room.unread = map[string]int{"main": answer.Unread.Count, "main!": answer.Unread.Highlight}
		for root, counts := range answer.Threads {
			room.unread[root] = counts.Count
		}
	}
}

// whole says whether an answer has the whole state of a room.
func (answer *roomAnswerModel) whole() bool {
	for _, section := range []*eventsModel{&answer.Timeline.eventsModel, answer.State, answer.StateAfter} {
		if section != nil && slices.ContainsFunc(section.Events, func(ev eventModel) bool { return ev.Type == "m.room.create" }) {
			return true
		}
	}
	return false
}

// takeState applies the state before the timeline and then the timeline's, or
// the state behind it.
func (m *syncModel) takeState(id string, room *roomModel, answer *roomAnswerModel) {
	m.t.Helper()
	if (answer.StateAfter != nil) != m.after || (answer.State == nil) != m.after {
		m.t.Errorf("%s: state %v, state_after %v", id, answer.State, answer.StateAfter)
		return
	}
	events := answer.Timeline.Events
	if m.after {
		events = answer.StateAfter.Events
	} else {
		seen := map[string]bool{}
		for _, ev := range answer.State.Events {
			seen[ev.ID] = true
			room.state[ev.key()] = ev.ID
		}
		for _, ev := range events {
			if seen[ev.ID] {
				m.t.Errorf("%s: %s is in the timeline and in the state", id, ev.ID)
			}
		}
	}
	for _, ev := range events {
		if ev.StateKey != nil {
			room.state[ev.key()] = ev.ID
		}
	}
}

// fill asks for the events of a gap, page by page. It ends at the token to, or
// ("") at the beginning of the room.
func (m *syncModel) fill(id, from, to string) []string {
	m.t.Helper()
	var events []string
	for range 1000 {
		q := url.Values{"dir": {"b"}, "from": {from}, "limit": {fmt.Sprint(1 + m.random.IntN(7))}}
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

// verify holds what the client knows of the rooms to what the server says of them.
func (m *syncModel) verify() {
	m.t.Helper()
	for _, id := range slices.Sorted(maps.Keys(m.rooms)) {
		room := m.rooms[id]
		if room.section != "join" && room.section != "leave" {
			continue
		}
		truth, ok := m.house.truth(id, m.user)
		if !ok {
			truth = &roomTruth{}
			if room.section == "join" {
				m.t.Errorf("%s: is closed to %s", id, m.user.name)
			}
		}
		m.verifyTimeline(id, room, truth)
		if !room.strange {
			m.verifyState(id, room, truth)
		}
		if room.section == "join" {
			m.verifySummary(id, room, truth)
			m.verifyUnread(id, room, truth)
		}
	}
}

func (m *syncModel) verifyTimeline(id string, room *roomModel, truth *roomTruth) {
	m.t.Helper()
	want := make([]string, 0, len(truth.timeline))
	for _, ev := range truth.timeline {
		want = append(want, ev.ID)
	}
	got := room.timeline
	if room.section == "leave" { // what came behind the stay is only about oneself
		for _, ev := range got[min(len(want), len(got)):] {
			if !m.house.about(ev, m.user) {
				m.t.Errorf("%s: %s was told of %s after he left", id, m.user.name, ev)
			}
		}
		got = got[:min(len(want), len(got))]
	}
	if !slices.Equal(got, want) {
		m.t.Errorf("%s %s (%s): the timeline is\n%s\nwant\n%s", room.section, id, m, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (m *syncModel) verifyState(id string, room *roomModel, truth *roomTruth) {
	m.t.Helper()
	own := "m.room.member " + m.user.id
	for key, want := range truth.state {
		got, known := room.state[key]
		typ, user, _ := strings.Cut(key, " ")
		needed := !m.lazy || typ != "m.room.member" || key == own || room.senders[user] || slices.Contains(room.summary.Heroes, user)
		if room.section == "leave" && key == own {
			continue // he may be banned by now
		}
		if got != want && (known || needed) {
			m.t.Errorf("%s %s (%s): %s is %q, want %q", room.section, id, m, key, got, want)
		}
	}
	for key := range room.state {
		if truth.state[key] == "" && key != own {
			m.t.Errorf("%s %s (%s): %s is %q, want nothing", room.section, id, m, key, room.state[key])
		}
	}
}

// verifySummary holds counts and heroes to the members of the room.
//
// Spec: CS Syncing, Room Summary.
func (m *syncModel) verifySummary(id string, room *roomModel, truth *roomTruth) {
	m.t.Helper()
	s := room.summary
	if s.Joined == nil || *s.Joined != len(truth.members["join"]) || s.Invited == nil || *s.Invited != len(truth.members["invite"]) {
		m.t.Errorf("%s (%s): counts %v and %v, want %d and %d", id, m, s.Joined, s.Invited, len(truth.members["join"]), len(truth.members["invite"]))
	}
	if truth.name != "" {
		return
	}
	others := func(memberships ...string) (all []string) {
		for _, membership := range memberships {
			all = append(all, truth.members[membership]...)
		}
		all = slices.DeleteFunc(all, func(user string) bool { return user == m.user.id })
		slices.Sort(all)
		return all
	}
	want := others("join", "invite")
	if len(want) == 0 {
		want = others("leave", "ban")
	}
	if got := slices.Sorted(slices.Values(s.Heroes)); !slices.Equal(got, want) {
		m.t.Errorf("%s (%s): heroes %v, want %v", id, m, got, want)
	}
}

// verifyUnread counts again what the user has not read, by his receipts and his
// own messages.
//
// Spec: CS Receiving notifications; Threaded read receipts.
func (m *syncModel) verifyUnread(id string, room *roomModel, truth *roomTruth) {
	m.t.Helper()
	read := map[string]int{} // how far, by thread; "" for all
	thread := func(ev *eventModel) string {
		var content struct {
			Relation struct {
				Type string `json:"rel_type"`
				Root string `json:"event_id"`
			} `json:"m.relates_to"`
		}
		if json.Unmarshal(ev.Content, &content) == nil && content.Relation.Type == "m.thread" {
			return content.Relation.Root
		}
		return "main"
	}
	joined := false
	for i, ev := range truth.timeline {
		if ev.Type == "m.room.member" && *ev.StateKey == m.user.id {
			was := joined
			if joined = strings.Contains(string(ev.Content), `"join"`); joined && !was {
				read[""] = i // what came before a stay is not unread
			}
		}
		if ev.Sender == m.user.id && ev.StateKey == nil {
			read[thread(&ev)] = i
		}
		for in, at := range m.user.receipts[id] {
			if slices.Contains(at, ev.ID) {
				read[in] = max(read[in], i)
			}
		}
	}
	want := map[string]int{}
	for i, ev := range truth.timeline {
		in := thread(&ev)
		if ev.Type != "m.room.message" || ev.Sender == m.user.id || ev.Unsigned.Because != nil || i <= read[""] || i <= read[in] {
			continue
		}
		if !m.thread {
			in = "main"
		}
		want[in]++
	}
	for _, in := range append(slices.Collect(maps.Keys(want)), slices.Collect(maps.Keys(room.unread))...) {
		if in != "main!" && want[in] != room.unread[in] {
			m.t.Errorf("%s (%s): %d unread in %s, want %d", id, m, room.unread[in], in, want[in])
		}
	}
}

// String tells what kind of client this is.
func (m *syncModel) String() string {
	return fmt.Sprintf("%s limit %d lazy %v after %v thread %v", m.user.name, m.limit, m.lazy, m.after, m.thread)
}

// get sends a request whose answer must be 200 and reads it.
func (h *syncHouse) get(path, token string, v any) {
	h.t.Helper()
	w := h.server.do(http.MethodGet, path, token, "")
	if w.Code != http.StatusOK {
		h.t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), v, jsontext.AllowDuplicateNames(true)); err != nil {
		h.t.Fatalf("%s: %v\n%s", path, err, w.Body)
	}
}
