package client

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/store"
)

// threadsPage is a page of the threads of a room.
type threadsPage struct {
	Chunk     []jsontext.Value `json:"chunk"`
	NextBatch string           `json:"next_batch,omitzero"`
}

// getThreadRoots answers GET /rooms/{roomID}/threads: the events that threads of
// the room begin at, the thread with the newest reply first. Threads whose root is
// not here, or nothing of which the user may see, are left out.
//
// Spec: CS Threading; threads_list.yaml.
func (s *Server) getThreadRoots(w http.ResponseWriter, r *http.Request, who session) error {
	if err := s.mayRead(r, who); err != nil {
		return err
	}
	req, err := readPage(r, who, "b")
	if err != nil {
		return err
	}
	if req.limit == 0 {
		return api.ErrInvalidParam.Because("limit must be more than 0")
	}
	include := r.URL.Query().Get("include")
	if !slices.Contains([]string{"", "all", "participated"}, include) {
		return api.ErrInvalidParam.Because("include must be all or participated")
	}
	var page threadsPage
	err = s.store.View(func(tx *store.Tx) error {
		view, err := s.roomView(tx, req.room, who)
		if err != nil {
			return err
		}
		page, err = view.threads(req, include == "participated")
		return err
	})
	if err != nil {
		return fmt.Errorf("threads of %s: %w", req.room, err)
	}
	return api.WriteJSON(w, page)
}

// threads reads a page of the room's threads. It looks at a bounded number, so
// that a page may be empty and still have a next one.
func (v *roomView) threads(req messagesRequest, participated bool) (page threadsPage, err error) {
	page.Chunk = []jsontext.Value{}
	before, err := req.begin(v.format.tx, v.num)
	if err != nil {
		return page, err
	}
	var last store.Place // of the newest reply of the thread looked at last
	looked, size := 0, 0
	err = v.format.tx.ThreadsBack(v.num, before, func(t store.Thread) (bool, error) {
		if len(page.Chunk) >= req.limit || size >= maxPageBytes || looked >= maxLookedAt {
			page.NextBatch = tokenBefore(last).String()
			return false, nil
		}
		looked++
		last = t.Latest
		root, err := v.threadRoot(t, participated)
		if root != nil {
			page.Chunk = append(page.Chunk, root)
			size += len(root)
		}
		return true, err
	})
	return page, err
}

// threadRoot returns the root of a thread in the form for clients, nil for one
// that is not to be shown. That of an ignored user is redacted: "This is to
// simulate the same behaviour of a client doing aggregation locally on the thread."
func (v *roomView) threadRoot(t store.Thread, participated bool) (jsontext.Value, error) {
	f := v.format
	room, num, ok := f.tx.EventByID(t.Root)
	if !ok || room != v.num {
		return nil, nil
	}
	root, err := f.tx.Event(room, num)
	if err != nil || participated && !f.participates(root, t) {
		return nil, err
	}
	if sees, err := f.viewer.Sees(root); err != nil || !sees {
		return nil, err
	}
	if latest, err := f.newestReply(root); latest == nil || err != nil {
		return nil, err
	}
	if !f.ignored.hides(root.Event) {
		return f.event(root)
	}
	hidden := *root
	if hidden.Event, err = root.RedactedCopy(); err != nil {
		return nil, err
	}
	return f.event(&hidden)
}

// participates says whether the user takes part in a thread: he sent the root or a
// reply.
//
// Spec: CS Threading, Server behaviour, current_user_participated.
func (f *formatter) participates(root *store.StoredEvent, t store.Thread) bool {
	return root.SenderNum == f.who.num || slices.Contains(t.Locals, f.who.num)
}
