package client

import (
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of a filter. Its lists are looked through for each event.
const (
	maxFilterBytes = 32 << 10
	maxFilterTypes = 256 // patterns in one list of types, and fields
)

// Filter says what of a sync a client wants. The zero Filter wants everything.
//
// Spec: CS Filtering; filter.yaml.
type Filter struct {
	EventFields []string    `json:"event_fields"` // see Trim; nil: all
	EventFormat string      `json:"event_format"` // "", "client" or "federation"
	Presence    EventFilter `json:"presence"`
	AccountData EventFilter `json:"account_data"`
	Room        RoomFilter  `json:"room"`

	fields *fieldTree // of EventFields; nil: all fields
}

// RoomFilter says what of which rooms a client wants.
type RoomFilter struct {
	roomLists
	IncludeLeave bool            `json:"include_leave"`
	Ephemeral    RoomEventFilter `json:"ephemeral"`
	State        RoomEventFilter `json:"state"`
	Timeline     RoomEventFilter `json:"timeline"`
	AccountData  RoomEventFilter `json:"account_data"`
}

// EventFilter says which events of a kind a client wants. A list that is nil lets
// everything through, an empty one nothing; what a not_ list names is left out
// even if the other list has it.
type EventFilter struct {
	Limit      *limit   `json:"limit"` // nil: the endpoint's own; see Most
	Types      patterns `json:"types"`
	NotTypes   patterns `json:"not_types"`
	Senders    userSet  `json:"senders"`
	NotSenders userSet  `json:"not_senders"`
}

// RoomEventFilter is EventFilter for events in rooms.
type RoomEventFilter struct {
	EventFilter
	roomLists
	ContainsURL               *bool    `json:"contains_url"`
	LazyLoadMembers           bool     `json:"lazy_load_members"`
	IncludeRedundantMembers   bool     `json:"include_redundant_members"`
	UnreadThreadNotifications bool     `json:"unread_thread_notifications"`
	RelatedBySenders          userSet  `json:"related_by_senders"`   // see MatchRelated
	RelatedByRelTypes         []string `json:"related_by_rel_types"` // see MatchRelated
}

// roomLists say which rooms are wanted.
type roomLists struct {
	Rooms    roomSet `json:"rooms"`
	NotRooms roomSet `json:"not_rooms"`
}

// Federation says whether events are wanted in the form that servers exchange.
func (f *Filter) Federation() bool { return f.EventFormat == "federation" }

// Trim returns the fields of an event that are wanted.
func (f *Filter) Trim(event jsontext.Value) (jsontext.Value, error) {
	if f.fields == nil {
		return event, nil
	}
	return f.fields.trim(event)
}

// Wants says whether anything of a room is wanted.
func (l *roomLists) Wants(room matrix.RoomID) bool {
	return (l.Rooms == nil || l.Rooms.has(room)) && !l.NotRooms.has(room)
}

// Most returns how many events are wanted: the filter's limit, at most most, or
// usual where it has none. 0 wants none.
func (f *EventFilter) Most(usual, most int) int {
	if f.Limit == nil {
		return usual
	}
	return min(int(*f.Limit), most)
}

// Match says whether an event of a type and sender ("": it has none) is wanted.
func (f *EventFilter) Match(typ string, sender matrix.UserID) bool {
	return (f.Types == nil || f.Types.match(typ)) && !f.NotTypes.match(typ) &&
		(f.Senders == nil || f.Senders.has(sender)) && !f.NotSenders.has(sender)
}

// MatchIn is Match for what is no event of the room's graph, such as a receipt or
// account data.
func (f *RoomEventFilter) MatchIn(room matrix.RoomID, typ string, sender matrix.UserID) bool {
	return f.Wants(room) && f.Match(typ, sender)
}

// MatchEvent says whether an event of a room is wanted; see MatchRelated for what
// it does not look at.
func (f *RoomEventFilter) MatchEvent(ev *matrix.Event) bool {
	return f.MatchIn(ev.Room, ev.Type, ev.Sender) &&
		(f.ContainsURL == nil || *f.ContainsURL == hasURL(ev.Content))
}

// WantsAll says whether MatchEvent lets every event through.
func (f *RoomEventFilter) WantsAll() bool {
	return f.Types == nil && f.NotTypes == nil && f.Senders == nil && f.NotSenders == nil &&
		f.Rooms == nil && f.NotRooms == nil && f.ContainsURL == nil
}

// NeedsRelations says whether MatchRelated is to be asked as well.
func (f *RoomEventFilter) NeedsRelations() bool {
	return f.RelatedBySenders != nil || f.RelatedByRelTypes != nil
}

// MatchRelated says whether one of an event's children, by sender and relation
// type, is what related_by_senders and related_by_rel_types ask for.
func (f *RoomEventFilter) MatchRelated(children iter.Seq2[matrix.UserID, string]) bool {
	if !f.NeedsRelations() {
		return true
	}
	for sender, relType := range children {
		if (f.RelatedBySenders == nil || f.RelatedBySenders.has(sender)) &&
			(f.RelatedByRelTypes == nil || slices.Contains(f.RelatedByRelTypes, relType)) {
			return true
		}
	}
	return false
}

// hasURL says whether the content of an event has a key "url".
func hasURL(content jsontext.Value) bool {
	var c struct {
		URL jsontext.Value `json:"url"`
	}
	return json.Unmarshal(content, &c) == nil && c.URL != nil
}

// ParseFilter reads a filter: what POST /filter and the parameter of /sync hold.
// The error is M_BAD_JSON or M_NOT_JSON.
func ParseFilter(text []byte) (*Filter, error) {
	if len(text) > maxFilterBytes {
		return nil, api.ErrTooLarge.Because("A filter may have %d bytes at most", maxFilterBytes)
	}
	f := new(Filter)
	if err := unmarshalFilter(text, f); err != nil {
		return nil, err
	}
	if f.EventFormat != "" && f.EventFormat != "client" && f.EventFormat != "federation" {
		return nil, api.ErrBadJSON.Because("event_format must be client or federation")
	}
	if len(f.EventFields) > maxFilterTypes {
		return nil, api.ErrBadJSON.Because("event_fields may have %d entries at most", maxFilterTypes)
	}
	if f.EventFields != nil {
		f.fields = newFieldTree(f.EventFields)
	}
	return f, nil
}

// ParseRoomEventFilter reads the filter that /messages and /context take.
func ParseRoomEventFilter(text []byte) (*RoomEventFilter, error) {
	if len(text) > maxFilterBytes {
		return nil, api.ErrTooLarge.Because("A filter may have %d bytes at most", maxFilterBytes)
	}
	f := new(RoomEventFilter)
	if len(text) == 0 {
		return f, nil
	}
	return f, unmarshalFilter(text, f)
}

// unmarshalFilter reads a filter and says what is wrong with it.
func unmarshalFilter(text []byte, f any) error {
	if !jsontext.Value(text).IsValid() {
		return api.ErrNotJSON.Because("The filter is not valid JSON")
	}
	if jsontext.Value(text).Kind() != '{' {
		return api.ErrBadJSON.Because("A filter must be a JSON object")
	}
	if err := json.Unmarshal(text, f); err != nil {
		var semantic *json.SemanticError
		if errors.As(err, &semantic) && semantic.JSONPointer != "" {
			return api.ErrBadJSON.Because("The filter's %s is not what it should be", semantic.JSONPointer)
		}
		return api.ErrBadJSON.Because("The filter does not have the form that is expected here")
	}
	return nil
}

// everything is the filter of requests without one. All of them share it, as each
// long poll keeps its filter; nobody changes it.
var everything Filter

// findFilter returns the filter that a parameter names: by its ID, as JSON, or, if
// empty, not at all.
func (s *Server) findFilter(who session, param string) (*Filter, error) {
	if param == "" {
		return &everything, nil
	}
	if param[0] == '{' {
		return ParseFilter([]byte(param))
	}
	text, err := s.storedFilter(who, param)
	if err != nil {
		return nil, err
	}
	return ParseFilter(text)
}

// storedFilter returns a filter that the user has stored, M_NOT_FOUND where there
// is no such.
func (s *Server) storedFilter(who session, id string) (text jsontext.Value, err error) {
	num, err := strconv.ParseUint(id, 16, 64)
	if err != nil {
		return nil, errNoFilter
	}
	err = s.store.View(func(tx *store.Tx) (err error) {
		text, err = tx.Filter(who.num, store.FilterID(num))
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, errNoFilter
	}
	return text, err
}

var errNoFilter = api.ErrNotFound.Because("You have no such filter")

type filterResponse struct {
	FilterID string `json:"filter_id"`
}

// defineFilter answers POST /user/{userID}/filter.
func (s *Server) defineFilter(w http.ResponseWriter, r *http.Request, who session) error {
	if err := who.isSelf(r.PathValue("userID")); err != nil {
		return err
	}
	text, err := api.ReadObject(r, maxFilterBytes)
	if err != nil {
		return err
	}
	if _, err := ParseFilter(text); err != nil {
		return err
	}
	if err := text.Canonicalize(); err != nil {
		return api.ErrBadJSON
	}
	var id store.FilterID
	err = s.store.Update(r.Context(), func(tx *store.Tx) (err error) {
		id, err = tx.PutFilter(who.num, text)
		return err
	})
	if errors.Is(err, store.ErrFull) {
		return api.ErrUserLimit.Because("You have too many filters")
	}
	if err != nil {
		return fmt.Errorf("filter of %s: %w", who.user, err)
	}
	return api.WriteJSON(w, filterResponse{FilterID: strconv.FormatUint(uint64(id), 16)})
}

// getFilter answers GET /user/{userID}/filter/{filterID}.
func (s *Server) getFilter(w http.ResponseWriter, r *http.Request, who session) error {
	if err := who.isSelf(r.PathValue("userID")); err != nil {
		return err
	}
	text, err := s.storedFilter(who, r.PathValue("filterID"))
	if err != nil {
		return err
	}
	return api.WriteJSON(w, text)
}
