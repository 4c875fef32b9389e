package client

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of a search.
const (
	maxSearchBytes   = 64 << 10 // of a request
	maxSearchResults = 100      // in a page
	maxSearchContext = 50       // events on each side of a result
)

// searchBody is what a client sends.
type searchBody struct {
	Categories *struct {
		RoomEvents *searchCriteria `json:"room_events"`
	} `json:"search_categories"`
}

// searchCriteria says what to look for, and what to tell of it.
type searchCriteria struct {
	Term    *string        `json:"search_term"`
	Keys    []string       `json:"keys"` // nil: all
	Filter  jsontext.Value `json:"filter"`
	OrderBy string         `json:"order_by"` // "rank" (or "") or "recent"
	Context *struct {
		Before  *int `json:"before_limit"`
		After   *int `json:"after_limit"`
		Profile bool `json:"include_profile"`
	} `json:"event_context"`
	IncludeState bool `json:"include_state"`
	Groupings    struct {
		GroupBy []struct {
			Key string `json:"key"`
		} `json:"group_by"`
	} `json:"groupings"`
}

// searchRequest is a search that was understood.
type searchRequest struct {
	term    *searchTerm
	keys    []string
	filter  *RoomEventFilter
	wanted  *RoomEventFilter // filter for events, once the rooms are chosen
	limit   int
	byRank  bool
	after   searchToken
	groups  []string // "room_id", "sender"
	context bool
	before  int // events around each result
	behind  int
	profile bool
	state   bool
}

// search answers POST /search. The work of one request is bounded: what it has not
// come to is for the next page, so a page may hold few results, or none, and have
// a next_batch; count is of what was looked at. Searches take their turn, since each
// wants a core of a small machine for itself.
//
// Spec: CS Server Side Search; search.yaml.
func (s *Server) search(w http.ResponseWriter, r *http.Request, who session) error {
	req, err := readSearch(r)
	if err != nil {
		return err
	}
	if req == nil {
		return api.WriteJSON(w, jsontext.Value(`{"search_categories":{}}`))
	}
	s.searching.Lock()
	page, made, err := s.searchPage(req, who)
	if err == nil {
		s.putWords(r, made)
	}
	s.searching.Unlock()
	if err != nil {
		return fmt.Errorf("search of %s: %w", who.user, err)
	}
	return s.writeSearch(w, page)
}

// readSearch reads a request, nil for one that searches nothing.
func readSearch(r *http.Request) (*searchRequest, error) {
	var body searchBody
	if err := api.ReadJSON(r, maxSearchBytes, &body); err != nil {
		return nil, err
	}
	if body.Categories == nil {
		return nil, api.MissingParam("search_categories")
	}
	c := body.Categories.RoomEvents
	if c == nil {
		return nil, nil
	}
	if c.Term == nil {
		return nil, api.MissingParam("search_term")
	}
	req := &searchRequest{term: newSearchTerm(*c.Term), keys: c.Keys, byRank: c.OrderBy != "recent", state: c.IncludeState}
	if req.keys == nil {
		req.keys = []string{keyBody, keyName, keyTopic}
	}
	if !slices.Contains([]string{"", "rank", "recent"}, c.OrderBy) {
		return nil, api.ErrInvalidParam.Because("order_by must be rank or recent")
	}
	for _, group := range c.Groupings.GroupBy {
		if group.Key != "room_id" && group.Key != "sender" {
			return nil, api.ErrInvalidParam.Because("group_by may have the keys room_id and sender")
		}
		req.groups = append(req.groups, group.Key)
	}
	if err := req.readContext(c); err != nil {
		return nil, err
	}
	var err error
	if req.filter, err = ParseRoomEventFilter(c.Filter); err != nil {
		return nil, err
	}
	req.limit = req.filter.Most(10, maxSearchResults)
	wanted := *req.filter
	wanted.Rooms, wanted.NotRooms = nil, nil
	req.wanted = &wanted
	if text := r.URL.Query().Get("next_batch"); text != "" {
		req.after, err = parseSearchToken(text)
	}
	return req, err
}

// readContext reads how much of what is around the results is wanted.
func (req *searchRequest) readContext(c *searchCriteria) error {
	if c.Context == nil {
		return nil
	}
	req.context, req.before, req.behind, req.profile = true, 5, 5, c.Context.Profile
	for _, limit := range []struct{ is, to *int }{{c.Context.Before, &req.before}, {c.Context.After, &req.behind}} {
		if limit.is == nil {
			continue
		}
		if *limit.is < 0 {
			return api.ErrInvalidParam.Because("before_limit and after_limit must not be negative")
		}
		*limit.to = min(*limit.is, maxSearchContext)
	}
	return nil
}

// searchPage is a page of results.
type searchPage struct {
	answer searchAnswer
	state  []stateList // of the rooms of the results, if it was asked for
	rooms  []matrix.RoomID
}

// searchAnswer is what a client gets of it, but for the state, which follows.
type searchAnswer struct {
	Count      int                               `json:"count"`
	Highlights []string                          `json:"highlights"`
	Results    []searchResult                    `json:"results"`
	Groups     map[string]map[string]searchGroup `json:"groups,omitzero"`
	NextBatch  string                            `json:"next_batch,omitzero"`
}

// searchResult is an event that was found.
type searchResult struct {
	Rank    float64        `json:"rank"`
	Result  jsontext.Value `json:"result"`
	Context *searchContext `json:"context,omitzero"`
}

// searchContext is what is around it.
type searchContext struct {
	eventContext
	Profiles map[matrix.UserID]searchProfile `json:"profile_info,omitzero"`
}

// searchProfile is what a sender called himself then.
type searchProfile struct {
	DisplayName *string `json:"displayname,omitzero"`
	AvatarURL   *string `json:"avatar_url,omitzero"`
}

// searchGroup is the results that are alike in something.
type searchGroup struct {
	NextBatch string           `json:"next_batch,omitzero"`
	Order     int              `json:"order"`
	Results   []matrix.EventID `json:"results"`
}

// searchPage walks the timelines and formats a page of what matches.
func (s *Server) searchPage(req *searchRequest, who session) (page *searchPage, made []madeBlock, err error) {
	err = s.store.View(func(tx *store.Tx) error {
		walk := &searchWalk{tx: tx, req: req}
		if req.after.top == 0 {
			req.after.top = tx.Position()
		}
		if len(req.term.hashes) > 0 {
			if err := walk.addRooms(s, who); err != nil {
				return err
			}
		}
		if err := walk.run(); err != nil {
			return err
		}
		walk.sort()
		made = walk.made
		page, err = walk.page()
		return err
	})
	return page, made, err
}

// putWords stores the blocks that a search has made. A room in which something has
// happened since gets none: it may have been a redaction. That no block is stored
// costs the next search some time and is no reason for this one to fail.
func (s *Server) putWords(r *http.Request, made []madeBlock) {
	for part := range slices.Chunk(made, blocksPerWrite) {
		err := s.store.Update(r.Context(), func(tx *store.Tx) error {
			for _, m := range part {
				head, err := tx.Head(m.room)
				if err != nil || head.Latest != m.latest {
					continue
				}
				if err := tx.PutWordBlock(m.room, m.block); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			s.log.Error("store words for searches", "err", err)
			return
		}
	}
}

// writeSearch writes a page, the state of its rooms event by event.
func (s *Server) writeSearch(w http.ResponseWriter, page *searchPage) error {
	head, err := json.Marshal(page.answer)
	if err != nil {
		return err
	}
	begin := `{"search_categories":{"room_events":` + string(head[:len(head)-1])
	if page.state == nil {
		return s.writeState(w, stateList{}, begin, `}}}`)
	}
	begin += `,"state":{`
	for i, list := range page.state {
		begin += string(appendQuoted(nil, string(page.rooms[i]))) + `:[`
		if err := s.writeState(w, list, begin, `]`); err != nil {
			return err
		}
		begin = `,`
	}
	if len(page.state) > 0 {
		begin = ""
	}
	return s.writeState(w, stateList{}, begin, `}}}}`)
}
