package client

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// surroundings is an event and what stands next to it in its room's timeline.
type surroundings struct {
	event  *store.StoredEvent
	before []*store.StoredEvent // newest first
	after  []*store.StoredEvent // oldest first
	start  streamToken          // before all of them
	end    streamToken          // behind them
	gap    *store.StoredEvent   // the oldest of them, where there should be more
}

// eventContext is the surroundings of an event as clients get them; state follows
// in the answer of /context.
type eventContext struct {
	Start  string           `json:"start"`
	End    string           `json:"end"`
	Before []jsontext.Value `json:"events_before"`
	Event  jsontext.Value   `json:"event,omitzero"`
	After  []jsontext.Value `json:"events_after"`
}

// getEventContext answers GET /rooms/{roomID}/context/{eventID}: the event, what
// was before and after it, and the state at the last event given. Half of the limit
// is for the events before. What the user may not see is not found.
//
// Spec: CS Getting events for a room; event_context.yaml.
func (s *Server) getEventContext(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	id, err := pathEvent(r)
	if err != nil {
		return err
	}
	limit, filter, err := readContext(r)
	if err != nil {
		return err
	}
	var head []byte
	list := stateList{who: who, item: (*formatter).event}
	err = s.fillGaps(r.Context(), func() (gap *store.StoredEvent, err error) {
		err = s.store.View(func(tx *store.Tx) error {
			ev, _, err := s.visibleEvent(tx, room, id, who)
			if err != nil {
				return err
			}
			view, err := s.roomView(tx, room, who)
			if err != nil {
				return err
			}
			around, err := view.around(ev, limit/2, limit-limit/2, filter)
			if err != nil {
				return fmt.Errorf("context of %s: %w", id, err)
			}
			if around.gap != nil {
				if gap, err = s.gap(tx, around.gap); gap != nil || err != nil {
					return err
				}
			}
			list.room = view.num
			if list.events, err = view.stateFor(around, filter); err != nil {
				return fmt.Errorf("state for the context of %s: %w", id, err)
			}
			head, err = view.format.contextHead(around)
			return err
		})
		return gap, err
	})
	if err != nil {
		return err
	}
	return s.writeState(w, list, string(head)+`,"state":[`, `]}`)
}

// readContext reads the query of /context.
func readContext(r *http.Request) (limit int, filter *RoomEventFilter, err error) {
	q := r.URL.Query()
	limit = 10
	if text := q.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 0 {
			return 0, nil, api.ErrInvalidParam.Because("limit must be a number that is not negative")
		}
	}
	if filter, err = ParseRoomEventFilter([]byte(q.Get("filter"))); err != nil {
		return 0, nil, err
	}
	return min(limit, maxPage), filter, nil
}

// around collects what stands next to an event: so many events before and after
// it that the user may see and the filter lets through. It looks at a bounded
// number. An event that has no place in the room's past has nothing next to it.
func (v *roomView) around(ev *store.StoredEvent, before, after int, filter *RoomEventFilter) (surroundings, error) {
	tx, found := v.format.tx, surroundings{event: ev}
	place, ok, err := tx.PlaceOf(v.num, ev.Num)
	if err != nil || !ok {
		return found, err
	}
	size, last := 0, place // bytes of all of them; the newest that was looked at
	collect := func(list *[]*store.StoredEvent, limit int, passed func(store.Place)) func(store.Place, *store.StoredEvent) (bool, error) {
		looked := 0
		return func(at store.Place, next *store.StoredEvent) (bool, error) {
			if next.Num == ev.Num {
				return true, nil
			}
			if looked++; len(*list) >= limit || looked > maxLookedAt || size >= maxPageBytes || at.Position > v.upto {
				if at.BackFilled() || last.BackFilled() {
					found.end = tokenBefore(at)
				}
				return false, nil
			}
			passed(at)
			wanted, err := v.format.wants(filter, next)
			if wanted {
				*list = append(*list, next)
				size += len(next.JSON())
			}
			return true, err
		}
	}
	found.start, found.gap = tokenBefore(place), ev
	err = tx.PastBack(v.num, place, collect(&found.before, before, func(at store.Place) { found.start = tokenBefore(at) }))
	if err != nil {
		return found, err
	}
	switch n := len(found.before); {
	case n >= before:
		found.gap = nil
	case n > 0:
		found.gap = found.before[n-1]
	}
	found.end = streamToken{pos: place.Position}
	return found, tx.Past(v.num, place, collect(&found.after, after, func(at store.Place) {
		last, found.end = at, streamToken{pos: at.Position}
	}))
}

// all are the events, oldest first.
func (s *surroundings) all() []*store.StoredEvent {
	events := slices.Clone(s.before)
	slices.Reverse(events)
	return append(append(events, s.event), s.after...)
}

// state is the state at the last of the events.
func (s *surroundings) state() store.SnapshotID {
	events := s.all()
	last := events[len(events)-1]
	if last.Num.Aside() {
		return last.Before
	}
	return last.After
}

// context returns the surroundings of an event as clients get them.
func (f *formatter) context(s surroundings) (c eventContext, err error) {
	c = eventContext{Start: s.start.String(), End: s.end.String()}
	if c.Before, err = f.events(s.before); err != nil {
		return c, err
	}
	c.After, err = f.events(s.after)
	return c, err
}

// events returns some events in the form for clients.
func (f *formatter) events(list []*store.StoredEvent) ([]jsontext.Value, error) {
	events := make([]jsontext.Value, 0, len(list))
	for _, ev := range list {
		event, err := f.event(ev)
		if err != nil {
			return nil, err
		}
		events = append(events, event)
	}
	return events, nil
}

// contextHead is the answer of /context up to the state, without a closing brace.
func (f *formatter) contextHead(s surroundings) ([]byte, error) {
	c, err := f.context(s)
	if err != nil {
		return nil, err
	}
	if c.Event, err = f.event(s.event); err != nil {
		return nil, err
	}
	head, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return head[:len(head)-1], nil
}

// stateFor returns the state events at the last of some events that the filter
// lets through: with lazy loading, of the members only those who sent them.
//
// Spec: CS Lazy-loading room members.
func (v *roomView) stateFor(s surroundings, filter *RoomEventFilter) (nums []store.EventNum, err error) {
	tx, at := v.format.tx, s.state()
	part := store.StateAll
	if filter.LazyLoadMembers {
		part = store.StateOthers
	}
	add := func(num store.EventNum) error {
		if filter.WantsAll() {
			nums = append(nums, num)
			return nil
		}
		ev, err := tx.Event(v.num, num)
		if err == nil && filter.MatchEvent(ev.Event) {
			nums = append(nums, num)
		}
		return err
	}
	err = tx.WalkState(v.num, at, part, func(_ store.Slot, num store.EventNum) (bool, error) { return true, add(num) })
	if err != nil || !filter.LazyLoadMembers {
		return nums, err
	}
	var seen []matrix.UserID
	for _, ev := range s.all() {
		if slices.Contains(seen, ev.Sender) {
			continue
		}
		seen = append(seen, ev.Sender)
		num, err := memberAt(tx, v.num, at, ev.Sender)
		if err != nil {
			return nil, err
		}
		if num == 0 {
			continue
		}
		if err := add(num); err != nil {
			return nil, err
		}
	}
	return nums, nil
}

// memberAt returns the member event of a user in a snapshot, 0 for none.
func memberAt(tx *store.Tx, room store.RoomNum, at store.SnapshotID, user matrix.UserID) (store.EventNum, error) {
	slot, ok := tx.Slot(room, "m.room.member", string(user))
	if !ok {
		return 0, nil
	}
	return tx.StateAt(room, at, slot)
}
