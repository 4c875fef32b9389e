package client

import (
	"cmp"
	"container/heap"
	"errors"
	"slices"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of one request. Work is counted in word blocks that are looked at; an event
// that is read counts for many. So a request reads at most 12,500 events (an eighth
// of a second on a desktop core); what it has not come to is for the next page.
const (
	maxSearchWork  = 100_000
	eventWork      = 8
	maxSearchHits  = 10_000
	wordBlockSize  = 64  // events in a block
	maxWordRun     = 512 // events taken at once, a multiple of wordBlockSize
	maxForebears   = 20  // rooms that one was upgraded from
	blocksPerWrite = 128
)

// searchWalk goes through the timelines of some rooms at once, newest event first,
// and collects what matches. Runs of events in which, by their block of words, the
// term cannot stand are passed over; what has no block yet gets one.
type searchWalk struct {
	tx     *store.Tx
	req    *searchRequest
	rooms  searchRooms // by the newest event that was not looked at
	bottom store.Position
	work   int
	hits   []searchHit
	made   []madeBlock
}

// searchRoom is one of the rooms.
type searchRoom struct {
	*roomView
	before store.EventNum   // from here on all was looked at
	nums   []store.EventNum // to be read next, newest first
	block  *store.WordBlock // to be looked at next, if not nums
	making wordRun
}

// searchHit is an event that matches.
type searchHit struct {
	room   *searchRoom
	num    store.EventNum
	rank   int
	sender store.UserNum
}

// madeBlock is a block that is to be stored, unless the room has changed.
type madeBlock struct {
	room   store.RoomNum
	latest store.EventNum
	block  store.WordBlock
}

// searchRooms is a heap of rooms, the one with the newest next event first.
type searchRooms []*searchRoom

func (h searchRooms) Len() int           { return len(h) }
func (h searchRooms) Less(i, j int) bool { return h[i].next() > h[j].next() }
func (h searchRooms) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push is for package heap.
func (h *searchRooms) Push(x any) { *h = append(*h, x.(*searchRoom)) }

// Pop is for package heap.
func (h *searchRooms) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// next is the newest event that was not looked at, 0 for none.
func (r *searchRoom) next() store.EventNum {
	switch {
	case len(r.nums) > 0:
		return r.nums[0]
	case r.block != nil:
		return r.block.Last
	}
	return 0
}

// addRooms adds the rooms that the request is about and the user was ever in. A
// room that was asked for by name brings along those that it was upgraded from.
// Rooms that are end-to-end encrypted are left out.
//
// Spec: CS Server Side Search, room_events.
func (w *searchWalk) addRooms(s *Server, who session) error {
	format, err := s.formatter(w.tx, 0, who)
	if err != nil {
		return err
	}
	if w.req.filter.Rooms != nil {
		for id := range w.req.filter.Rooms {
			if err := w.addForebears(format, id); err != nil {
				return err
			}
		}
		return nil
	}
	return w.tx.LocalMemberships(who.num, func(m store.LocalMembership) (bool, error) {
		_, err := w.addRoom(format, m.Room)
		return true, err
	})
}

// addForebears adds a room and what it was upgraded from.
func (w *searchWalk) addForebears(format *formatter, id matrix.RoomID) error {
	for range maxForebears {
		num := w.tx.RoomNum(id)
		if num == 0 {
			return nil
		}
		room, err := w.addRoom(format, num)
		if room == nil || err != nil {
			return err
		}
		create, err := state.EventAt(w.tx, num, room.state, "m.room.create", "")
		if err != nil || create == nil {
			return err
		}
		content, err := create.CreateContent()
		if err != nil || content.Predecessor == nil {
			return nil
		}
		id = content.Predecessor.Room
	}
	return nil
}

// addRoom adds one room, unless it is not wanted or there already; it returns nil
// where the user has never been in it.
func (w *searchWalk) addRoom(format *formatter, num store.RoomNum) (*searchRoom, error) {
	member, _, err := w.tx.LocalMembership(format.who.num, num)
	if err != nil || member.Joined == 0 || member.Forgotten {
		return nil, err
	}
	if i := slices.IndexFunc(w.rooms, func(r *searchRoom) bool { return r.num == num }); i >= 0 {
		return w.rooms[i], nil
	}
	view, err := format.viewOf(num)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, errNotMember) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &searchRoom{roomView: view}
	encryption, err := state.EventAt(w.tx, num, view.state, "m.room.encryption", "")
	if encryption != nil || err != nil || w.req.filter.NotRooms.has(view.format.id) ||
		w.req.after.room != 0 && w.req.after.room != num {
		return r, err
	}
	top := view.upto
	if w.req.after.top != 0 {
		top = min(top, w.req.after.top)
	}
	r.before = store.EventNum(top+1) << 1
	r.making.tail = true
	w.rooms = append(w.rooms, r)
	return r, nil
}

// run walks until there is nothing more, the work is done for this request, or the
// window of the request's token ends. Then bottom is the newest position that was
// not looked at, 0 for none.
func (w *searchWalk) run() error {
	for _, r := range w.rooms {
		if err := r.load(w.tx); err != nil {
			return err
		}
	}
	heap.Init(&w.rooms)
	most := maxSearchWork
	if w.req.after.bottom != 0 {
		most *= 2 // a page before has come so far with less
	}
	for len(w.rooms) > 0 {
		r := w.rooms[0]
		at := r.next().Position()
		switch {
		case at == 0:
			heap.Pop(&w.rooms)
			continue
		case at <= w.req.after.bottom, w.work >= most, len(w.hits) >= maxSearchHits:
			w.bottom = at
			return nil
		}
		if err := w.step(r); err != nil {
			return err
		}
		heap.Fix(&w.rooms, 0)
	}
	return nil
}

// step looks at the next block or event of a room.
func (w *searchWalk) step(r *searchRoom) error {
	if r.block != nil {
		w.work++
		if block := r.block; slices.ContainsFunc(w.req.term.hashes, func(word uint64) bool { return !block.MayHave(word) }) {
			r.before = block.First
			return r.load(w.tx)
		}
		return r.open(w.tx)
	}
	w.work += eventWork
	ev, err := w.tx.Event(r.num, r.nums[0])
	if err != nil {
		return err
	}
	if block, done := r.making.add(ev); done {
		w.made = append(w.made, madeBlock{r.num, r.head.Latest, block})
	}
	r.before, r.nums = r.nums[0], r.nums[1:]
	if err := w.look(r, ev); err != nil || len(r.nums) > 0 {
		return err
	}
	return r.load(w.tx)
}

// load finds what comes next: events that are in no block, or a block.
func (r *searchRoom) load(tx *store.Tx) error {
	r.block, r.nums = nil, nil
	block, ok, err := tx.WordBlockBefore(r.num, r.before)
	if err != nil {
		return err
	}
	err = tx.TimelineNumsBack(r.num, r.before, func(num store.EventNum) bool {
		if ok && num <= block.Last {
			return false
		}
		r.nums = append(r.nums, num)
		return len(r.nums) < maxWordRun
	})
	r.making = wordRun{left: len(r.nums), tail: r.making.tail && len(r.nums)%wordBlockSize != 0}
	if len(r.nums) == 0 && ok {
		r.block = &block
	}
	return err
}

// open takes the events of a block to be read.
func (r *searchRoom) open(tx *store.Tx) error {
	block := r.block
	r.block, r.making = nil, wordRun{}
	return tx.TimelineNumsBack(r.num, block.Last+2, func(num store.EventNum) bool {
		if num < block.First {
			return false
		}
		r.nums = append(r.nums, num)
		return true
	})
}

// look keeps an event if it matches and the user may see it.
func (w *searchWalk) look(r *searchRoom, ev *store.StoredEvent) error {
	if ev.RedactedBy != 0 || !w.req.wanted.MatchEvent(ev.Event) || w.req.after.sender != 0 && w.req.after.sender != ev.SenderNum {
		return nil
	}
	rank := w.req.term.rankEvent(ev.Event, w.req.keys)
	if rank == 0 {
		return nil
	}
	shows, err := r.format.wants(w.req.wanted, ev)
	if err != nil || !shows {
		return err
	}
	if stale, err := r.format.replaced(ev); err != nil || stale {
		return err
	}
	w.hits = append(w.hits, searchHit{room: r, num: ev.Num, rank: rank, sender: ev.SenderNum})
	return nil
}

// sort orders the hits as the request wants it.
func (w *searchWalk) sort() {
	slices.SortFunc(w.hits, func(a, b searchHit) int {
		if w.req.byRank && a.rank != b.rank {
			return cmp.Compare(b.rank, a.rank)
		}
		return cmp.Compare(b.num, a.num)
	})
}

// wordRun makes blocks of the events of a run that are read newest first. The
// oldest of the run is the first of a whole block; the newest events of a timeline
// get none until there are enough of them.
type wordRun struct {
	left  int  // events of the run that are still to come
	tail  bool // the first block has no end yet
	last  store.EventNum
	words map[uint64]struct{}
}

// add takes the next event, and returns a block when it is done.
func (m *wordRun) add(ev *store.StoredEvent) (block store.WordBlock, done bool) {
	if m.left == 0 {
		return block, false
	}
	if m.words == nil {
		m.last, m.words = ev.Num, make(map[uint64]struct{})
	}
	if ev.RedactedBy == 0 {
		eachSearchable(ev.Event, func(_, text string) {
			eachWord(text, func(word []byte) { m.words[wordHash(word)] = struct{}{} })
		})
	}
	if m.left--; m.left%wordBlockSize != 0 {
		return block, false
	}
	block, done = store.NewWordBlock(ev.Num, m.last, m.words), !m.tail
	m.words, m.tail = nil, false
	return block, done
}
