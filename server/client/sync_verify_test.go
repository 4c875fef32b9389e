package client

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// verify holds what the client knows to what the server says to one who reads
// everything, and what was done.
func (m *syncModel) verify() {
	m.t.Helper()
	for _, id := range m.house.rooms {
		room := m.rooms[id]
		if !m.verifySection(id, room) || room == nil || room.section == "leave" && m.user.forgotten[id] {
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
			m.verifyEphemeral(id, room)
			if m.filter.Room.Timeline.wantsAll() && len(m.user.ignored) == 0 {
				m.verifyUnread(id, room, truth)
			}
		}
	}
	m.verifyData()
}

// verifySection says whether the client has anything of a room to verify, and holds
// the section in which it is to the member event.
func (m *syncModel) verifySection(id string, room *roomModel) bool {
	m.t.Helper()
	if !wantsRoom(m.filter.Room.Rooms, m.filter.Room.NotRooms, id) {
		return false
	}
	got := "leave" // or nothing
	if room != nil {
		got = room.section
	}
	want, sender := m.house.membership(id, m.user)
	switch {
	case want == "invite" && m.user.ignores(sender, m.syncedAt):
		return false
	case want != "join" && want != "invite" && want != "knock":
		want = "leave"
	}
	if got != want {
		m.t.Errorf("%s: %s is in %q, want %q", m, id, got, want)
	}
	return got == "join" || got == "leave"
}

// verifyArchive holds the section of rooms that were left, in a first sync, to the
// rooms that were, if they are asked for, and to those that the user is banned from.
func (m *syncModel) verifyArchive(answer *syncAnswerModel) {
	m.t.Helper()
	for _, id := range m.house.rooms {
		membership, _ := m.house.membership(id, m.user)
		_, told := answer.Rooms["leave"][id]
		want := (m.filter.Room.IncludeLeave && membership == "leave" || membership == "ban") && !m.user.forgotten[id] &&
			wantsRoom(m.filter.Room.Rooms, m.filter.Room.NotRooms, id)
		if told != want && !m.user.forgotten[id] {
			m.t.Errorf("%s: told of %s, which was left: %v, want %v", m, id, told, want)
		}
	}
}

// wants says whether an event of the truth is to be in the client's timeline: by the
// filter of its time, and by what was known then of what relates to it.
func (m *syncModel) wants(id string, room *roomModel, ev *eventModel) bool {
	at := m.house.place(ev.ID)
	for _, segment := range m.segments[room.first:] {
		if segment.upto < at {
			continue
		}
		redacted := m.house.redacted[ev.ID]
		url := m.house.urls[ev.ID] && (redacted == 0 || redacted > segment.upto)
		if ev.StateKey == nil && m.user.ignores(ev.Sender, segment.upto) {
			return false
		}
		f := &segment.filter.Room.Timeline
		if !f.matchesEvent(id, ev, url) || f.RelatedSenders == nil && f.RelatedTypes == nil {
			return f.matchesEvent(id, ev, url)
		}
		return slices.ContainsFunc(m.house.children[ev.ID], func(child childModel) bool {
			return child.at <= segment.upto && (f.RelatedSenders == nil || slices.Contains(f.RelatedSenders, child.sender)) &&
				(f.RelatedTypes == nil || slices.Contains(f.RelatedTypes, child.typ))
		})
	}
	return true
}

func (m *syncModel) verifyTimeline(id string, room *roomModel, truth *roomTruth) {
	m.t.Helper()
	want := make([]string, 0, len(truth.timeline))
	for _, ev := range truth.timeline {
		if m.wants(id, room, &ev) {
			want = append(want, ev.ID)
		}
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
		m.t.Errorf("%s %s (%s): the timeline is\n%s\nwant\n%s", room.section, id, m, m.describe(got, truth), m.describe(want, truth))
	}
}

// describe lists events for who looks for a fault.
func (m *syncModel) describe(events []string, truth *roomTruth) string {
	var b strings.Builder
	for _, id := range events {
		fmt.Fprintf(&b, "%d %s", m.house.place(id), id)
		for _, ev := range truth.timeline {
			if ev.ID == id {
				fmt.Fprintf(&b, " %s by %s", ev.Type, ev.Sender)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (m *syncModel) verifyState(id string, room *roomModel, truth *roomTruth) {
	m.t.Helper()
	own, filter := "m.room.member "+m.user.id, &m.filter.Room.State
	for key, ev := range truth.state {
		if !filter.matchesEvent(id, &ev, m.house.urls[ev.ID]) || room.section == "leave" && key == own { // he may be banned by now
			continue
		}
		got, known := room.state[key]
		typ, user, _ := strings.Cut(key, " ")
		needed := !filter.Lazy || typ != "m.room.member" || key == own || room.senders[user] || slices.Contains(room.summary.Heroes, user)
		if got != ev.ID && (known || needed) {
			m.t.Errorf("%s %s (%s): %s is %d %q, want %d %q", room.section, id, m, key, m.house.place(got), got, m.house.place(ev.ID), ev.ID)
		}
	}
	for key := range room.state {
		if truth.state[key].ID == "" && key != own {
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
	joined := false
	for i, ev := range truth.timeline {
		if ev.Type == "m.room.member" && *ev.StateKey == m.user.id {
			was := joined
			if joined = memberOf(&ev) == "join"; joined && !was {
				read[""] = i // what came before a stay is not unread
			}
		}
		if ev.Sender == m.user.id && ev.StateKey == nil {
			read[threadModel(&ev)] = i
		}
		for in, at := range m.user.receipts[id] {
			if slices.Contains(at, ev.ID) {
				read[in] = max(read[in], i)
			}
		}
	}
	want := map[string]int{}
	for i, ev := range truth.timeline {
		in := threadModel(&ev)
		notifies := ev.Type == "m.room.message" || ev.Type == "m.room.tombstone"
		if !notifies || ev.Sender == m.user.id || ev.Unsigned.Because != nil || i <= read[""] || i <= read[in] {
			continue
		}
		if !m.filter.Room.Timeline.Threads {
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

// threadModel returns the thread that an event is in.
func threadModel(ev *eventModel) string {
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
