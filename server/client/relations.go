package client

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of a look-up of relations.
const (
	maxRecursion = 3      // hops from the event, with recurse
	maxRelated   = 10_000 // events gathered with recurse
)

// relationsRequest is what a client asks of the events that relate to one.
type relationsRequest struct {
	messagesRequest
	parent  matrix.EventID
	relType string // "": all
	typ     string // event type, "": all
	recurse bool
	depth   int // of recursion, as the answer names it; 0: it was not asked for
}

// relationsPage is a page of the events that relate to another.
type relationsPage struct {
	Chunk          []jsontext.Value `json:"chunk"`
	NextBatch      string           `json:"next_batch,omitzero"`
	PrevBatch      string           `json:"prev_batch,omitzero"`
	RecursionDepth int              `json:"recursion_depth,omitzero"`
}

// getRelatingEvents answers GET /rooms/{roomID}/relations/{eventID}.
//
// Spec: CS Relationships API; relations.yaml.
func (s *Server) getRelatingEvents(w http.ResponseWriter, r *http.Request, who session) error {
	req, err := s.readRelations(r, who)
	if err != nil {
		return err
	}
	var page relationsPage
	err = s.store.View(func(tx *store.Tx) error {
		page, err = s.relationsPage(tx, req)
		return err
	})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, page)
}

// getRelatingEventsWithRelType answers GET .../relations/{eventID}/{relType}.
func (s *Server) getRelatingEventsWithRelType(w http.ResponseWriter, r *http.Request, who session) error {
	return s.getRelatingEvents(w, r, who)
}

// getRelatingEventsWithRelTypeAndEventType answers GET
// .../relations/{eventID}/{relType}/{eventType}.
func (s *Server) getRelatingEventsWithRelTypeAndEventType(w http.ResponseWriter, r *http.Request, who session) error {
	return s.getRelatingEvents(w, r, who)
}

func (s *Server) readRelations(r *http.Request, who session) (req relationsRequest, err error) {
	q := r.URL.Query()
	dir := q.Get("dir")
	if dir == "" {
		dir = "b"
	}
	if req.messagesRequest, err = readPage(r, who, dir); err != nil {
		return req, err
	}
	if req.parent, err = pathEvent(r); err != nil {
		return req, err
	}
	req.relType, req.typ = r.PathValue("relType"), r.PathValue("eventType")
	req.recurse, err = queryBool(q.Get("recurse"), "recurse")
	switch {
	case req.recurse:
		req.depth = maxRecursion
	case q.Has("recurse"):
		req.depth = 1
	}
	return req, err
}

// relationsPage reads a page.
func (s *Server) relationsPage(tx *store.Tx, req relationsRequest) (page relationsPage, err error) {
	page.Chunk = []jsontext.Value{}
	parent, format, err := s.visibleEvent(tx, req.room, req.parent, req.who)
	if err != nil {
		return page, err
	}
	related := relatives{tx: tx, room: parent.RoomNum, req: req, format: format}
	if err := related.gather(); err != nil {
		return page, fmt.Errorf("relations of %s: %w", req.parent, err)
	}
	page.RecursionDepth = req.depth
	if page.Chunk, err = format.events(related.events); err != nil {
		return page, err
	}
	if related.more {
		page.NextBatch = tokenBefore(related.at).String()
	}
	if req.from != nil {
		page.PrevBatch = req.from.String()
	}
	return page, nil
}

// relatives collects the events that relate to one.
type relatives struct {
	tx     *store.Tx
	room   store.RoomNum
	req    relationsRequest
	format *formatter
	events []*store.StoredEvent
	size   int         // of events, in bytes
	looked int         // how many were read
	begin  store.Place // of the page; none for all
	beyond func(store.Place) bool
	at     store.Place // right behind the token that ends the page
	more   bool
}

// gather takes a page of them, in the order of the request.
func (r *relatives) gather() (err error) {
	if r.begin, err = r.req.begin(r.tx, r.room); err != nil {
		return err
	}
	if r.beyond, err = r.req.end(r.tx, r.room); err != nil {
		return err
	}
	if !r.req.recurse {
		return r.children(r.take)
	}
	all, err := r.descendants()
	if err != nil {
		return err
	}
	for _, rel := range all {
		if more, err := r.take(rel); !more || err != nil {
			return err
		}
	}
	return nil
}

// children walks the events that relate to the parent directly, in the order of the
// request.
func (r *relatives) children(fn func(store.Relation) (bool, error)) error {
	if r.req.back {
		return r.tx.RelationsBack(r.room, r.req.parent, r.begin, fn)
	}
	return r.tx.Relations(r.room, r.req.parent, r.begin, fn)
}

// descendants returns the events that relate to the parent over some hops, in
// the order of the request.
func (r *relatives) descendants() (all []store.Relation, err error) {
	parents := []matrix.EventID{r.req.parent}
	seen := make(map[store.EventNum]bool)
	for range maxRecursion {
		var next []matrix.EventID
		for _, parent := range parents {
			err := r.tx.Relations(r.room, parent, store.Place{}, func(rel store.Relation) (bool, error) {
				if seen[rel.Child] {
					return true, nil
				}
				seen[rel.Child] = true
				all = append(all, rel)
				id, err := r.tx.EventID(r.room, rel.Child)
				next = append(next, id)
				return len(all) < maxRelated, err
			})
			if err != nil {
				return nil, err
			}
		}
		parents = next
	}
	slices.SortFunc(all, func(a, b store.Relation) int {
		if r.req.back {
			a, b = b, a
		}
		return a.Place.Compare(b.Place)
	})
	return all, nil
}

// before says whether an event lies before the token that begins the page.
func (r *relatives) before(place store.Place) bool {
	return r.begin != (store.Place{}) && place.Compare(r.begin) < 0 != r.req.back
}

// take adds an event to the page, if it is asked for and may be seen.
func (r *relatives) take(rel store.Relation) (bool, error) {
	if r.before(rel.Place) || r.req.relType != "" && rel.Type != r.req.relType {
		return true, nil
	}
	if r.beyond(rel.Place) {
		return false, nil
	}
	if len(r.events) >= r.req.limit || r.size >= maxPageBytes || r.looked >= maxLookedAt {
		r.more = r.req.limit > 0 // who wants none gets no token to ask again
		if !r.req.back {
			r.at = rel.Place
		}
		return false, nil
	}
	ev, err := r.tx.Event(r.room, rel.Child)
	if err != nil {
		return false, err
	}
	r.looked++
	r.at = rel.Place
	if r.req.typ != "" && ev.Type != r.req.typ {
		return true, nil
	}
	sees, err := r.format.shows(ev)
	if sees {
		r.events = append(r.events, ev)
		r.size += len(ev.JSON())
	}
	return true, err
}
