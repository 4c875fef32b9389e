package client

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// A searchToken is where a page of results ends. A search looks at a window of the
// stream, from the newest position that it may look at down to where the work of one
// request ends. A page gives some of what was found there, in its order; when all
// was given, the next window begins. It is "w" and five numbers, and for the pages of
// a group one more: "r" and a room, or "u" and a sender.
type searchToken struct {
	top    store.Position // of the window; 0: the newest of all
	bottom store.Position // the newest behind the window; 0: not known yet, or none
	rank   int            // of the result given last
	num    store.EventNum // of the result given last; 0: none was
	room   store.RoomNum  // of the group; 0: all rooms
	sender store.UserNum  // of the group; 0: all senders
}

// String returns the token as clients keep it.
func (t searchToken) String() string {
	s := fmt.Sprintf("w%d_%d_%d_%d", t.top, t.bottom, t.rank, t.num)
	switch {
	case t.room != 0:
		s += fmt.Sprintf("_r%d", t.room)
	case t.sender != 0:
		s += fmt.Sprintf("_u%d", t.sender)
	}
	return s
}

// parseSearchToken reads what String wrote.
func parseSearchToken(text string) (t searchToken, err error) {
	bad := api.InvalidParam("next_batch", errToken)
	rest, ok := strings.CutPrefix(text, "w")
	parts := strings.Split(rest, "_")
	if !ok || len(parts) < 4 || len(parts) > 5 {
		return t, bad
	}
	var numbers [4]uint64
	for i := range numbers {
		if numbers[i], err = strconv.ParseUint(parts[i], 10, 62); err != nil {
			return t, bad
		}
	}
	t = searchToken{
		top: store.Position(numbers[0]), bottom: store.Position(numbers[1]),
		rank: int(numbers[2]), num: store.EventNum(numbers[3]),
	}
	if len(parts) == 4 {
		return t, nil
	}
	if len(parts[4]) < 2 {
		return t, bad
	}
	group, err := strconv.ParseUint(parts[4][1:], 10, 32)
	switch {
	case err != nil || group == 0:
		return t, bad
	case parts[4][0] == 'r':
		t.room = store.RoomNum(group)
	case parts[4][0] == 'u':
		t.sender = store.UserNum(group)
	default:
		return t, bad
	}
	return t, nil
}

// given says whether a page before has had a hit.
func (w *searchWalk) given(hit searchHit) bool {
	last := w.req.after
	switch {
	case last.num == 0:
		return false
	case w.req.byRank && hit.rank != last.rank:
		return hit.rank > last.rank
	}
	return hit.num >= last.num
}

// behind returns the token behind a hit.
func (w *searchWalk) behind(hit searchHit) searchToken {
	t := w.req.after
	t.bottom, t.rank, t.num = w.bottom, hit.rank, hit.num
	return t
}

// below returns the token of the next window; ok is false when there is none.
func (w *searchWalk) below() (t searchToken, ok bool) {
	t = w.req.after
	t.top, t.bottom, t.rank, t.num = w.bottom, 0, 0, 0
	return t, w.bottom != 0
}

// page formats what comes after the pages before.
func (w *searchWalk) page() (*searchPage, error) {
	rest := w.hits
	for len(rest) > 0 && w.given(rest[0]) {
		rest = rest[1:]
	}
	page := &searchPage{answer: searchAnswer{Count: len(w.hits), Highlights: w.req.term.words, Results: []searchResult{}}}
	size, shown := 0, 0
	for ; shown < min(len(rest), w.req.limit) && size < maxPageBytes; shown++ {
		result, n, err := w.result(rest[shown])
		if err != nil {
			return nil, err
		}
		page.answer.Results = append(page.answer.Results, result)
		size += n
	}
	// A full page has a next one, even if it is empty: clients know that from other
	// servers.
	if shown > 0 && (shown == w.req.limit || shown < len(rest)) {
		page.answer.NextBatch = w.behind(rest[shown-1]).String()
	} else if t, ok := w.below(); ok && w.req.limit > 0 {
		page.answer.NextBatch = t.String()
	}
	if err := w.addGroups(page, rest[:shown], rest[shown:]); err != nil {
		return nil, err
	}
	if w.req.state {
		page.state = []stateList{}
		return page, w.addState(page, rest[:shown])
	}
	return page, nil
}

// result formats a hit, and says how many bytes it takes.
func (w *searchWalk) result(hit searchHit) (result searchResult, size int, err error) {
	format := hit.room.format
	ev, err := w.tx.Event(hit.room.num, hit.num)
	if err != nil {
		return result, 0, err
	}
	if result.Result, err = format.event(ev); err != nil {
		return result, 0, err
	}
	result.Rank, size = float64(hit.rank)/1000, len(result.Result)
	if !w.req.context {
		return result, size, nil
	}
	around, err := hit.room.around(ev, w.req.before, w.req.behind, new(RoomEventFilter))
	if err != nil {
		return result, 0, err
	}
	result.Context = new(searchContext)
	if result.Context.eventContext, err = format.context(around); err != nil {
		return result, 0, err
	}
	for _, ev := range around.all() {
		size += len(ev.JSON())
	}
	if w.req.profile {
		result.Context.Profiles, err = w.profiles(hit.room, around)
	}
	return result, size, err
}

// profiles returns what the senders of some events called themselves then.
func (w *searchWalk) profiles(room *searchRoom, s surroundings) (map[matrix.UserID]searchProfile, error) {
	profiles := make(map[matrix.UserID]searchProfile)
	for _, ev := range s.all() {
		if _, known := profiles[ev.Sender]; known {
			continue
		}
		num, err := memberAt(w.tx, room.num, s.state(), ev.Sender)
		if err != nil {
			return nil, err
		}
		if num == 0 {
			continue
		}
		ev, err := w.tx.Event(room.num, num)
		if err != nil {
			return nil, err
		}
		if m, err := ev.Member(); err == nil {
			profiles[matrix.UserID(*ev.StateKey)] = searchProfile{DisplayName: m.DisplayName, AvatarURL: m.AvatarURL}
		}
	}
	return profiles, nil
}

// addGroups sorts the results of a page into the groups that were asked for. A group
// has a next page where more of it follows.
func (w *searchWalk) addGroups(page *searchPage, shown, rest []searchHit) error {
	if len(w.req.groups) == 0 {
		return nil
	}
	page.answer.Groups = make(map[string]map[string]searchGroup)
	for _, key := range w.req.groups {
		groups := make(map[string]searchGroup)
		for _, hit := range shown {
			name := w.groupOf(key, hit)
			group, known := groups[name]
			if !known {
				group.Order = len(groups)
				group.NextBatch = w.nextOfGroup(key, hit, shown, rest)
			}
			id, err := w.tx.EventID(hit.room.num, hit.num)
			if err != nil {
				return err
			}
			group.Results = append(group.Results, id)
			groups[name] = group
		}
		page.answer.Groups[key] = groups
	}
	return nil
}

// groupOf returns the name of the group that a hit is in.
func (w *searchWalk) groupOf(key string, hit searchHit) string {
	if key == "sender" {
		return string(w.tx.UserID(hit.sender))
	}
	return string(hit.room.format.id)
}

// nextOfGroup returns the token for more of the group that a hit is in, "" where
// there is none.
func (w *searchWalk) nextOfGroup(key string, hit searchHit, shown, rest []searchHit) string {
	alike := func(other searchHit) bool {
		return key == "sender" && other.sender == hit.sender || key == "room_id" && other.room == hit.room
	}
	t, more := w.below()
	if slices.ContainsFunc(rest, alike) {
		t, more = w.behind(shown[len(shown)-1]), true
	}
	if !more {
		return ""
	}
	if key == "sender" {
		t.sender = hit.sender
	} else {
		t.room = hit.room.num
	}
	return t.String()
}

// addState collects the state of the rooms of a page's results, as the user may
// see it.
func (w *searchWalk) addState(page *searchPage, shown []searchHit) error {
	for _, hit := range shown {
		room := hit.room
		if slices.Contains(page.rooms, room.format.id) {
			continue
		}
		list := stateList{room: room.num, who: room.format.who, item: (*formatter).event}
		err := w.tx.WalkState(room.num, room.state, store.StateAll, func(_ store.Slot, num store.EventNum) (bool, error) {
			list.events = append(list.events, num)
			return true, nil
		})
		if err != nil {
			return err
		}
		page.rooms, page.state = append(page.rooms, room.format.id), append(page.state, list)
	}
	return nil
}
