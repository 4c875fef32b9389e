package client

import (
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// syncAnswerModel is what a client reads of an answer of /sync.
type syncAnswerModel struct {
	Next        string                                `json:"next_batch"`
	AccountData dataModel                             `json:"account_data"`
	Presence    eventsModel                           `json:"presence"`
	ToDevice    eventsModel                           `json:"to_device"`
	DeviceLists listsModel                            `json:"device_lists"`
	Rooms       map[string]map[string]roomAnswerModel `json:"rooms"`
}

// roomAnswerModel is what it reads of a room, whatever the section.
type roomAnswerModel struct {
	Timeline struct {
		eventsModel `json:",embed"`
		Limited     bool   `json:"limited"`
		Prev        string `json:"prev_batch"`
	} `json:"timeline"`
	State       *eventsModel           `json:"state"`
	StateAfter  *eventsModel           `json:"state_after"`
	InviteState *eventsModel           `json:"invite_state"`
	KnockState  *eventsModel           `json:"knock_state"`
	Ephemeral   dataModel              `json:"ephemeral"`
	AccountData dataModel              `json:"account_data"`
	Summary     summaryModel           `json:"summary"`
	Unread      *unreadModel           `json:"unread_notifications"`
	Threads     map[string]unreadModel `json:"unread_thread_notifications"`
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

// eventModel is what a client reads of an event.
type eventModel struct {
	ID       string         `json:"event_id"`
	Type     string         `json:"type"`
	Sender   string         `json:"sender"`
	StateKey *string        `json:"state_key"`
	TS       int64          `json:"origin_server_ts"`
	Content  jsontext.Value `json:"content"`
	Unsigned struct {
		Because jsontext.Value `json:"redacted_because"`
	} `json:"unsigned"`
}

func (ev *eventModel) key() string { return ev.Type + " " + *ev.StateKey }

type eventsModel struct {
	Events []eventModel `json:"events"`
}

// dataModel is a section of what has a type and a content and nothing else.
type dataModel struct {
	Events []struct {
		Type    string         `json:"type"`
		Content jsontext.Value `json:"content"`
	} `json:"events"`
}

type listsModel struct {
	Changed []string `json:"changed"`
}

type summaryModel struct {
	Heroes  []string `json:"m.heroes"`
	Joined  *int     `json:"m.joined_member_count"`
	Invited *int     `json:"m.invited_member_count"`
}

type unreadModel struct {
	Count     int `json:"notification_count"`
	Highlight int `json:"highlight_count"`
}
