package client

import (
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// ephemeralModel is what a client knows of a room beside its events.
type ephemeralModel struct {
	typing   []string
	receipts map[string]string // event IDs by type, user and thread
	data     map[string]string // account data by type
}

func newEphemeralModel() ephemeralModel {
	return ephemeralModel{receipts: map[string]string{}, data: map[string]string{}}
}

// dataTypes are the types of account data in a session.
var dataTypes = []string{"m.test", "org.example", "m.tag", "m.*", "*"}

// takeData takes in what belongs to no room.
func (m *syncModel) takeData(answer *syncAnswerModel) {
	m.t.Helper()
	for _, ev := range answer.AccountData.Events {
		if !m.filter.AccountData.matches("", ev.Type, m.user.id) {
			m.t.Errorf("%s: told of account data %s", m, ev.Type)
		}
		m.data[ev.Type] = string(ev.Content)
	}
	for _, ev := range answer.Presence.Events {
		if ev.Type != "m.presence" || !m.filter.Presence.matches("", ev.Type, ev.Sender) || m.user.ignores(ev.Sender, m.syncedAt) {
			m.t.Errorf("%s: told of the presence of %s", m, ev.Sender)
		}
	}
	for _, user := range answer.DeviceLists.Changed {
		m.lists[user] = m.syncedAt
	}
	for _, ev := range answer.ToDevice.Events {
		var content struct{ N int }
		if err := json.Unmarshal(ev.Content, &content, json.MatchCaseInsensitiveNames(true)); err != nil {
			m.t.Fatal(err)
		}
		m.messages = append(m.messages, content.N)
	}
}

// takeEphemeral takes in receipts, typing and account data of a room.
func (m *syncModel) takeEphemeral(id string, room *roomModel, answer *roomAnswerModel) {
	m.t.Helper()
	for _, ev := range answer.AccountData.Events {
		if !m.filter.Room.AccountData.matches(id, ev.Type, m.user.id) {
			m.t.Errorf("%s: told of account data %s about %s", m, ev.Type, id)
		}
		room.data[ev.Type] = string(ev.Content)
	}
	for _, ev := range answer.Ephemeral.Events {
		if !m.filter.Room.Ephemeral.matches(id, ev.Type, "") {
			m.t.Errorf("%s: told of %s in %s", m, ev.Type, id)
		}
		var err error
		switch ev.Type {
		case "m.typing":
			var content struct {
				Users []string `json:"user_ids"`
			}
			err = json.Unmarshal(ev.Content, &content)
			room.typing = content.Users
		case "m.receipt":
			var content map[string]map[string]map[string]struct {
				Thread string `json:"thread_id"`
			}
			err = json.Unmarshal(ev.Content, &content)
			for event, types := range content {
				for typ, users := range types {
					for user, receipt := range users {
						room.receipts[typ+" "+user+" "+receipt.Thread] = event
					}
				}
			}
		}
		if err != nil {
			m.t.Errorf("%s: %v in %s", ev.Type, err, ev.Content)
		}
	}
}

// takeStripped holds an invite or a knock to what must be told of it.
//
// Spec: CS Stripped state.
func (m *syncModel) takeStripped(section, id string, answer *roomAnswerModel) {
	m.t.Helper()
	state := answer.InviteState
	if section == "knock" {
		state = answer.KnockState
	}
	if state == nil {
		m.t.Errorf("%s: no state of the %s to %s", m, section, id)
		return
	}
	created, own := false, ""
	for _, ev := range state.Events {
		if ev.ID != "" || ev.TS != 0 || ev.StateKey == nil || ev.Content == nil {
			m.t.Errorf("%s: %v is not stripped", id, ev)
			continue
		}
		created = created || ev.Type == "m.room.create"
		if ev.key() == "m.room.member "+m.user.id {
			own = memberOf(&ev)
			if section == "invite" && m.user.ignores(ev.Sender, m.syncedAt) {
				m.t.Errorf("%s: invited to %s by %s, whom he ignores", m, id, ev.Sender)
			}
		}
	}
	if !created || own != section {
		m.t.Errorf("%s: %s is told without its creation (%v) or own member event (%q)", m, id, created, own)
	}
}

func memberOf(ev *eventModel) string {
	var content struct {
		Membership string `json:"membership"`
	}
	_ = json.Unmarshal(ev.Content, &content)
	return content.Membership
}

// verifyEphemeral holds receipts, typing and account data of a joined room to what
// was sent.
func (m *syncModel) verifyEphemeral(id string, room *roomModel) {
	m.t.Helper()
	want := map[string]string{}
	for typ, content := range m.user.roomData[id] {
		if m.filter.Room.AccountData.matches(id, typ, m.user.id) {
			want[typ] = content
		}
	}
	m.compare(id+": account data", room.data, want)
	if len(m.user.ignored) > 0 {
		return
	}
	want = map[string]string{}
	for _, user := range m.house.users {
		for name, event := range user.marks[id] {
			typ, _, _ := strings.Cut(name, " ")
			if (typ == "m.read" || user == m.user) && m.filter.Room.Ephemeral.matches(id, "m.receipt", "") {
				want[name] = event
			}
		}
	}
	m.compare(id+": receipts", room.receipts, want)
	typing := m.house.typing(id)
	if !m.filter.Room.Ephemeral.matches(id, "m.typing", "") {
		typing = nil
	}
	if !slices.Equal(room.typing, typing) {
		m.t.Errorf("%s: in %s %v are typing, want %v", m, id, room.typing, typing)
	}
}

// verifyData holds what belongs to no room to what was sent.
func (m *syncModel) verifyData() {
	m.t.Helper()
	want := map[string]string{}
	for typ, content := range m.user.data {
		if m.filter.AccountData.matches("", typ, m.user.id) {
			want[typ] = content
		}
	}
	got := maps.Clone(m.data)
	delete(got, "m.push_rules")
	delete(got, "m.ignored_user_list")
	m.compare("account data", got, want)
	if sent := m.house.sent[m.device]; !slices.Equal(m.messages, sent) {
		m.t.Errorf("%s: messages %v, want %v", m, m.messages, sent)
	}
	for _, other := range m.house.users {
		if other.keysAt > m.firstAt && m.lists[other.id] < other.keysAt && m.house.share(m.user, other) {
			m.t.Errorf("%s: not told of the devices of %s", m, other.id)
		}
	}
}

func (m *syncModel) compare(what string, got, want map[string]string) {
	m.t.Helper()
	if !maps.Equal(got, want) {
		m.t.Errorf("%s: %s: got %v\nwant %v", m, what, got, want)
	}
}
