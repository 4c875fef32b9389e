package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of a page of history.
const (
	maxPage      = 1000    // events
	maxPageBytes = 2 << 20 // of events, but for the last
)

// messagesRequest is what a client asks of a room's history.
type messagesRequest struct {
	who      session
	room     matrix.RoomID
	back     bool
	from, to *streamToken // nil: not given
	limit    int
	filter   *RoomEventFilter
}

// historyPage is a page of a room's history.
type historyPage struct {
	start, end string // tokens; no end: there is no more
	chunk      []jsontext.Value
	state      []jsontext.Value // nil: not asked for
}

// write answers with the page. Its events are JSON of our own making: they are
// copied and not read again.
func (p *historyPage) write(w http.ResponseWriter) error {
	size := 64 + len(p.start) + len(p.end)
	for _, ev := range p.chunk {
		size += len(ev) + 1
	}
	for _, ev := range p.state {
		size += len(ev) + 1
	}
	b := append(make([]byte, 0, size), `{"start":"`+p.start+`"`...)
	if p.end != "" {
		b = append(b, `,"end":"`+p.end+`"`...)
	}
	b = append(appendValues(append(b, `,"chunk":[`...), p.chunk, true), ']')
	if p.state != nil {
		b = append(appendValues(append(b, `,"state":[`...), p.state, true), ']')
	}
	return api.WriteEncoded(w, append(b, '}'))
}

// getRoomEvents answers GET /rooms/{roomID}/messages: a page of the events
// behind or before a token. An absent end says that there is no more.
//
// Spec: CS Getting events for a room.
func (s *Server) getRoomEvents(w http.ResponseWriter, r *http.Request, who session) error {
	req, err := s.readMessages(r, who)
	if err != nil {
		if forbidden := s.mayRead(r, who); forbidden != nil {
			return forbidden
		}
		return err
	}
	page, err := s.historyPage(r.Context(), req)
	if err != nil {
		return err
	}
	return page.write(w)
}

// mayRead says to who may not read the room of a path that it is so, whatever
// else is wrong with the request.
func (s *Server) mayRead(r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	return s.store.View(func(tx *store.Tx) error {
		_, err := s.roomView(tx, room, who)
		return err
	})
}

func (s *Server) readMessages(r *http.Request, who session) (messagesRequest, error) {
	q := r.URL.Query()
	if q.Get("dir") == "" {
		return messagesRequest{}, api.MissingParam("dir")
	}
	req, err := readPage(r, who, q.Get("dir"))
	if err != nil {
		return req, err
	}
	if req.filter, err = ParseRoomEventFilter([]byte(q.Get("filter"))); err != nil {
		return req, err
	}
	req.limit = min(req.filter.Most(req.limit, maxPage), req.limit)
	return req, nil
}

// readPage reads the parameters that all endpoints with pages of events have.
//
// Spec: APP Pagination.
func readPage(r *http.Request, who session, dir string) (req messagesRequest, err error) {
	req = messagesRequest{who: who, limit: 10, back: dir == "b"}
	if dir != "b" && dir != "f" {
		return req, api.ErrInvalidParam.Because("dir must be b or f")
	}
	if req.room, err = pathRoom(r); err != nil {
		return req, err
	}
	q := r.URL.Query()
	for name, token := range map[string]**streamToken{"from": &req.from, "to": &req.to} {
		if text := q.Get(name); text != "" {
			t, err := parseToken(name, text)
			if err != nil {
				return req, err
			}
			*token = &t
		}
	}
	if text := q.Get("limit"); text != "" {
		if req.limit, err = strconv.Atoi(text); err != nil || req.limit < 0 {
			return req, api.ErrInvalidParam.Because("limit must be a number that is not negative")
		}
	}
	req.limit = min(req.limit, maxPage)
	return req, nil
}

// begin returns the place that the page begins at, none where no token says it.
func (req *messagesRequest) begin(tx *store.Tx, room store.RoomNum) (store.Place, error) {
	if req.from == nil {
		return store.Place{}, nil
	}
	return req.from.place(tx, room)
}

// end returns what says of a place that it lies behind the token that ends the page.
func (req *messagesRequest) end(tx *store.Tx, room store.RoomNum) (beyond func(store.Place) bool, err error) {
	if req.to == nil {
		return func(store.Place) bool { return false }, nil
	}
	end, err := req.to.place(tx, room)
	return func(place store.Place) bool { return place.Compare(end) < 0 == req.back }, err
}

// historyPage reads a page. Where a user comes to the end of what is here of the room's
// past, or to a gap in it, more is fetched from other servers.
func (s *Server) historyPage(ctx context.Context, req messagesRequest) (page historyPage, err error) {
	err = s.fillGaps(ctx, func() (gap *store.StoredEvent, err error) {
		err = s.store.View(func(tx *store.Tx) error {
			view, err := s.roomView(tx, req.room, req.who)
			if err != nil {
				return err
			}
			p := pager{view: view, req: req, gap: s.gap}
			if err := p.read(); err != nil {
				return fmt.Errorf("history of %s: %w", req.room, err)
			}
			gap = p.found
			page, err = p.page()
			return err
		})
		return gap, err
	})
	return page, err
}

// pager walks a room's past for one page.
type pager struct {
	view   *roomView
	req    messagesRequest
	gap    func(*store.Tx, *store.StoredEvent) (*store.StoredEvent, error) // see Server.gap; nil: nobody is asked
	from   streamToken
	at     streamToken        // behind the last event that was looked at, in walking direction
	more   bool               // there is more behind it
	passed bool               // events were passed over: filtered out, or not to be seen
	broken bool               // the last event that was looked at stands on what is not here
	found  *store.StoredEvent // the page came to a gap before this event
	events []*store.StoredEvent
	size   int // of events, in bytes
}

// read collects the events. It looks at a bounded number, so that a page may
// be empty and still have an end.
func (p *pager) read() error {
	tx, room := p.view.format.tx, p.view.num
	begin, err := p.start()
	if err != nil {
		return err
	}
	beyond, err := p.req.end(tx, room)
	if err != nil {
		return err
	}
	looked := 0
	step := func(place store.Place, ev *store.StoredEvent) (bool, error) {
		if place.Position > p.view.upto && !p.req.back || beyond(place) {
			p.broken = false
			return false, nil
		}
		if len(p.events) >= p.req.limit || p.size >= maxPageBytes || looked >= maxLookedAt {
			p.more = p.req.limit > 0 // who wants none gets no token to ask again
			if !p.req.back && (place.BackFilled() || p.at.past.Num != 0) {
				p.at = tokenBefore(place)
			}
			return false, nil
		}
		looked++
		return p.look(place, ev)
	}
	if !p.req.back {
		return tx.Past(room, begin, step)
	}
	if more, err := p.lookAbove(begin); err != nil || !more {
		return err
	}
	return tx.PastBack(room, begin, step)
}

// look takes an event into the page, if it is wanted.
func (p *pager) look(place store.Place, ev *store.StoredEvent) (more bool, err error) {
	if p.at = tokenBefore(place); !p.req.back && !place.BackFilled() {
		p.at = streamToken{pos: place.Position}
	}
	wanted, err := p.view.format.wants(p.req.filter, ev)
	if wanted {
		p.events = append(p.events, ev)
		p.size += len(ev.JSON())
	}
	p.passed = p.passed || !wanted
	if err != nil || !p.req.back {
		return err == nil, err
	}
	return p.lookBelow(ev)
}

// lookBelow looks for a gap before an event, of a page that is not complete yet.
func (p *pager) lookBelow(ev *store.StoredEvent) (more bool, err error) {
	if p.gap == nil {
		return true, nil
	}
	if p.broken, err = state.HasGap(p.view.format.tx, ev); err != nil || !p.broken || len(p.events) >= p.req.limit {
		return err == nil, err
	}
	p.found, err = p.gap(p.view.format.tx, ev)
	return p.found == nil, err
}

// lookAbove looks for a gap that the page begins in: before the first event behind it.
func (p *pager) lookAbove(begin store.Place) (more bool, err error) {
	more = true
	if p.gap == nil || p.req.limit == 0 {
		return more, nil
	}
	err = p.view.format.tx.Past(p.view.num, begin, func(place store.Place, ev *store.StoredEvent) (bool, error) {
		if place.Position <= p.view.upto {
			more, err = p.lookBelow(ev)
		}
		return false, err
	})
	return more, err
}

// goesOn says whether the page has an end to ask on from. A page with events that
// passed over others has one even where no more follow: clients know that from
// other servers, and their next page is empty and the last. So has one behind which
// there is more that nobody could give now.
func (p *pager) goesOn() bool { return p.more || (p.passed || p.broken) && len(p.events) > 0 }

// start returns the place that the page begins at, and notes its token.
func (p *pager) start() (place store.Place, err error) {
	switch {
	case p.req.from != nil && p.req.from.pos < p.view.upto: // a token may be one of the future
		p.from = streamToken{pos: p.req.from.pos, past: p.req.from.past}
	case p.req.from != nil || p.req.back:
		p.from.pos = p.view.upto
	default:
		return store.Place{}, nil
	}
	p.at = p.from
	return p.from.place(p.view.format.tx, p.view.num)
}

// page formats what was read.
func (p *pager) page() (historyPage, error) {
	page := historyPage{start: p.from.String()}
	if p.goesOn() {
		page.end = p.at.String()
	}
	var err error
	if page.chunk, err = p.view.format.events(p.events); err != nil || !p.req.filter.LazyLoadMembers {
		return page, err
	}
	page.state, err = p.members()
	return page, err
}

// members returns the member events of those who sent what the page shows. All
// of them: nobody tells which of them the device has still.
//
// Spec: CS Lazy-loading room members.
func (p *pager) members() ([]jsontext.Value, error) {
	tx := p.view.format.tx
	var seen []matrix.UserID
	events := []jsontext.Value{}
	for _, shown := range p.events {
		if slices.Contains(seen, shown.Sender) {
			continue
		}
		seen = append(seen, shown.Sender)
		num, err := memberAt(tx, p.view.num, p.view.state, shown.Sender)
		if err != nil {
			return nil, err
		}
		if num == 0 {
			continue
		}
		ev, err := tx.Event(p.view.num, num)
		if err != nil {
			return nil, err
		}
		event, err := p.view.format.event(ev)
		if err != nil {
			return nil, err
		}
		events = append(events, event)
	}
	return events, nil
}

// getOneRoomEvent answers GET /rooms/{roomID}/event/{eventID}. What the user may
// not see is not found.
func (s *Server) getOneRoomEvent(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	id, err := pathEvent(r)
	if err != nil {
		return err
	}
	var event jsontext.Value
	err = s.store.View(func(tx *store.Tx) error {
		ev, format, err := s.visibleEvent(tx, room, id, who)
		if err != nil {
			return err
		}
		event, err = format.event(ev)
		return err
	})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, event)
}

// errNoEvent is the answer for an event that is not there or not to be seen.
var errNoEvent = api.ErrNotFound.Because("There is no such event, or none that you may see")

// visibleEvent finds an event of a room that the user may see.
func (s *Server) visibleEvent(tx *store.Tx, room matrix.RoomID, id matrix.EventID, who session) (*store.StoredEvent, *formatter, error) {
	num, at, ok := tx.EventByID(id)
	if !ok || num != tx.RoomNum(room) {
		return nil, nil, errNoEvent
	}
	format, err := s.formatter(tx, num, who)
	if err != nil {
		return nil, nil, err
	}
	head, err := tx.Head(num)
	if err != nil {
		return nil, nil, err
	}
	if _, may, err := format.viewer.Reach(head); err != nil || !may {
		return nil, nil, errors.Join(err, errNoEvent)
	}
	ev, err := tx.Event(num, at)
	if err != nil {
		return nil, nil, err
	}
	sees, err := format.viewer.Sees(ev)
	switch {
	case err != nil:
		return nil, nil, err
	case !sees || ev.Rejected || ev.SoftFailed:
		return nil, nil, errNoEvent
	}
	return ev, format, nil
}
