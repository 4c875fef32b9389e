package client

import (
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// filterModel is a filter as its client wrote it, and what the specification says
// that it means.
//
// Spec: CS Filtering.
type filterModel struct {
	Fields      []string         `json:"event_fields,omitzero"`
	Presence    eventFilterModel `json:"presence,omitzero"`
	AccountData eventFilterModel `json:"account_data,omitzero"`
	Room        roomFilterModel  `json:"room,omitzero"`
}

type roomFilterModel struct {
	Rooms        []string         `json:"rooms,omitzero"`
	NotRooms     []string         `json:"not_rooms,omitzero"`
	IncludeLeave bool             `json:"include_leave,omitzero"`
	Ephemeral    eventFilterModel `json:"ephemeral,omitzero"`
	State        eventFilterModel `json:"state,omitzero"`
	Timeline     eventFilterModel `json:"timeline,omitzero"`
	AccountData  eventFilterModel `json:"account_data,omitzero"`
}

type eventFilterModel struct {
	Limit          *int     `json:"limit,omitzero"`
	Types          []string `json:"types,omitzero"`
	NotTypes       []string `json:"not_types,omitzero"`
	Senders        []string `json:"senders,omitzero"`
	NotSenders     []string `json:"not_senders,omitzero"`
	Rooms          []string `json:"rooms,omitzero"`
	NotRooms       []string `json:"not_rooms,omitzero"`
	ContainsURL    *bool    `json:"contains_url,omitzero"`
	RelatedSenders []string `json:"related_by_senders,omitzero"`
	RelatedTypes   []string `json:"related_by_rel_types,omitzero"`
	Lazy           bool     `json:"lazy_load_members,omitzero"`
	Redundant      bool     `json:"include_redundant_members,omitzero"`
	Threads        bool     `json:"unread_thread_notifications,omitzero"`
}

// modelFields is an event_fields that leaves the model what it needs.
var modelFields = []string{"event_id", "type", "sender", "state_key", "content.membership"}

func (f *filterModel) json() string {
	text, err := json.Marshal(f)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// matches says whether something of a type in a room is wanted, by its sender.
func (f *eventFilterModel) matches(room, typ, sender string) bool {
	like := func(pattern string) bool { return glob(pattern, typ) }
	switch {
	case f.Types != nil && !slices.ContainsFunc(f.Types, like), slices.ContainsFunc(f.NotTypes, like):
		return false
	case f.Senders != nil && !slices.Contains(f.Senders, sender), slices.Contains(f.NotSenders, sender):
		return false
	}
	return wantsRoom(f.Rooms, f.NotRooms, room)
}

// matchesEvent is matches for an event whose content has or had a url.
func (f *eventFilterModel) matchesEvent(room string, ev *eventModel, url bool) bool {
	return f.matches(room, ev.Type, ev.Sender) && (f.ContainsURL == nil || *f.ContainsURL == url)
}

// wantsAll says whether nothing is left out.
func (f *eventFilterModel) wantsAll() bool {
	return f.Types == nil && f.NotTypes == nil && f.Senders == nil && f.NotSenders == nil && f.Rooms == nil && f.NotRooms == nil &&
		f.ContainsURL == nil && f.RelatedSenders == nil && f.RelatedTypes == nil
}

// steady says whether what is wanted of an event is so for ever.
func (f *eventFilterModel) steady() bool {
	return f.ContainsURL == nil && f.RelatedSenders == nil && f.RelatedTypes == nil
}

func wantsRoom(rooms, not []string, room string) bool {
	return (rooms == nil || slices.Contains(rooms, room)) && !slices.Contains(not, room)
}

// glob says whether a pattern, in which * is anything, describes s.
func glob(pattern, s string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == s
	}
	if !strings.HasPrefix(s, first) {
		return false
	}
	for s = s[len(first):]; !glob(rest, s); s = s[1:] {
		if s == "" {
			return false
		}
	}
	return true
}

// filterMaker makes filters for the users and rooms that there are.
type filterMaker struct {
	*rand.Rand
	users, rooms []string
}

// eventTypes are patterns of what happens in a session.
var eventTypes = []string{
	"m.room.message", "m.room.message", "m.room.*", "m.*", "*", "m.test", "m.test", "m.room.member", "m.room.m*e*", "*.name", "m.reaction",
	"m.room.redaction", "m.room.create", "no.such",
}

// list returns some of a pool, or mostly no list at all.
func (r filterMaker) list(pool []string, one int) (some []string) {
	if r.IntN(one) != 0 {
		return nil
	}
	some = []string{}
	for range r.IntN(4) {
		some = append(some, pool[r.IntN(len(pool))])
	}
	return some
}

func (r filterMaker) events() (f eventFilterModel) {
	if r.IntN(2) == 0 {
		return f
	}
	f.Types, f.NotTypes = r.list(eventTypes, 3), r.list(eventTypes[:len(eventTypes)-1], 4)
	f.Senders, f.NotSenders = r.list(r.users, 6), r.list(r.users, 6)
	f.Rooms, f.NotRooms = r.list(r.rooms, 16), r.list(r.rooms, 16)
	if r.IntN(6) == 0 {
		f.ContainsURL = new(bool)
		*f.ContainsURL = r.IntN(2) == 0
	}
	return f
}

// views changes what a client sees of timelines and state.
func (r filterMaker) views(f *filterModel) {
	timeline := r.events()
	timeline.Limit = new(int)
	*timeline.Limit = r.IntN(13)
	timeline.Threads = r.IntN(2) == 0
	timeline.RelatedSenders = r.list(r.users, 15)
	timeline.RelatedTypes = r.list([]string{"m.thread", "m.annotation"}, 15)
	state := r.events()
	state.Lazy, state.Redundant = r.IntN(2) == 0, r.IntN(4) == 0
	f.Room.Timeline, f.Room.State, f.Fields = timeline, state, nil
	if r.IntN(5) == 0 {
		f.Fields = modelFields
	}
}

// filter makes a filter.
func (r filterMaker) filter() *filterModel {
	f := &filterModel{}
	f.Room.Rooms, f.Room.NotRooms = r.list(r.rooms, 12), r.list(r.rooms, 12)
	f.Room.IncludeLeave = r.IntN(2) == 0
	f.Room.Ephemeral.Types = r.list([]string{"m.receipt", "m.typing", "m.*"}, 4)
	f.Room.Ephemeral.NotTypes = r.list([]string{"m.receipt", "m.typing"}, 6)
	f.Room.Ephemeral.NotRooms = r.list(r.rooms, 12)
	f.Room.AccountData.Types, f.Room.AccountData.NotTypes = r.list(dataTypes, 5), r.list(dataTypes, 6)
	f.AccountData.Types, f.AccountData.NotTypes = r.list(dataTypes, 5), r.list(dataTypes, 6)
	f.AccountData.NotSenders = r.list(r.users, 12)
	f.Presence.Senders, f.Presence.NotTypes = r.list(r.users, 4), r.list([]string{"m.presence", "m.*e", "no.such"}, 6)
	r.views(f)
	return f
}
