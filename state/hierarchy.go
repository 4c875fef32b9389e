package state

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// A HierarchyQuery asks for a page of the tree of rooms below a space.
type HierarchyQuery struct {
	Root          matrix.RoomID
	Via           []matrix.ServerName // may know the root, if it is not known here
	User          store.UserNum       // the local user who asks
	SuggestedOnly bool                // only children that are suggested
	MaxDepth      int                 // 0: the space alone
	Limit         int                 // rooms at most, more than 0
	After         string              // Next of the page before, "" for the first
	// Ask returns what other servers tell of a room that this server is not in, and
	// whether one had to be asked for it now. Without servers it returns what is
	// still known. If nil, rooms that are not known here are left out.
	Ask func(ctx context.Context, room matrix.RoomID, via []matrix.ServerName) (answer SpaceAnswer, asked bool, err error)
}

// A HierarchyPage is some rooms of a hierarchy, each before its children.
type HierarchyPage struct {
	Rooms []SpaceRoom
	Next  string // for the page behind this one; "": there is none
}

// Bounds of a hierarchy.
const (
	maxHierarchyBytes = 1 << 20          // of a page, but for the last room
	maxHierarchyRooms = 5000             // rooms visited for one page, those of the pages before included
	maxHierarchyAhead = 20_000           // rooms yet to be visited
	maxHierarchyAsks  = 12               // rooms that other servers are asked about for one page
	maxHierarchyTime  = 20 * time.Second // after which nobody is asked any more for the page
)

// Hierarchy returns a page of a space's tree, depth first, with the rooms that the
// user may be shown; below others nothing is looked at. No room comes twice, so
// that a loop ends. A root that is not known here or not for the user is
// ErrForbidden; a page that follows a room which is no longer in the tree is
// ErrStale. Spec: CS Discovering rooms within spaces.
//
// Rooms that this server is not in are those that other servers tell of, where
// query.Ask asks them. Where that takes too long the page ends early.
//
// Nothing is kept between pages: each walks from the root to where the last one
// ended. Every room is read in a View of its own.
func (r *Rooms) Hierarchy(ctx context.Context, q HierarchyQuery) (HierarchyPage, error) {
	w := hierarchyWalk{
		rooms: r, query: q, found: q.After == "",
		ahead: []hierarchyStep{{room: q.Root, via: q.Via}}, seen: make(map[matrix.RoomID]bool),
		until: r.now().Add(maxHierarchyTime),
	}
	for len(w.ahead) > 0 && len(w.seen) < maxHierarchyRooms && w.page.Next == "" {
		if err := ctx.Err(); err != nil {
			return HierarchyPage{}, err
		}
		if err := w.step(ctx); err != nil {
			return HierarchyPage{}, err
		}
	}
	if !w.found {
		return HierarchyPage{}, refuse(ErrStale, "The space has changed since from was given: begin again without it")
	}
	return w.page, nil
}

// A hierarchyWalk visits the rooms of a tree.
type hierarchyWalk struct {
	rooms *Rooms
	query HierarchyQuery
	ahead []hierarchyStep // a stack
	seen  map[matrix.RoomID]bool
	found bool // the walk is behind the pages before
	page  HierarchyPage
	size  int // of the page, in bytes
	asks  int // for the page
	until time.Time
}

type hierarchyStep struct {
	room   matrix.RoomID
	depth  int
	via    []matrix.ServerName
	told   *Summary // by the server that told of its parent
	barred bool     // which said that nobody here may see it
}

// A visited room is one that a walk has come to.
type visited struct {
	room   SpaceRoom
	shown  bool         // to the user
	inside bool         // this server is in the room
	below  *SpaceAnswer // what another server tells of its children; nil: nothing
	later  bool         // it takes more asking than the page has left
}

// step visits the next room.
func (w *hierarchyWalk) step(ctx context.Context) error {
	next := w.ahead[len(w.ahead)-1]
	w.ahead = w.ahead[:len(w.ahead)-1]
	if w.seen[next.room] {
		return nil
	}
	w.seen[next.room] = true
	at, err := w.visit(next.room)
	if err == nil && !at.inside && w.query.Ask != nil {
		at, err = w.visitElsewhere(ctx, next, at)
	}
	switch {
	case err != nil:
		return err
	case at.later && len(w.page.Rooms) > 0:
		w.end()
		return nil
	case !at.shown && next.depth == 0:
		return refuse(ErrForbidden, "You may not see the room %s", next.room)
	case !at.shown:
		return nil
	}
	if w.query.SuggestedOnly {
		at.room.keepSuggested()
	}
	if w.found && !w.take(at.room) {
		return nil
	}
	if !w.found && w.mark(next.room) == w.query.After {
		w.found, w.asks = true, 0
	}
	if next.depth < w.query.MaxDepth {
		w.push(at, next.depth+1)
	}
	return nil
}

// push puts the children of a room ahead.
func (w *hierarchyWalk) push(at visited, depth int) {
	told := make(map[matrix.RoomID]*Summary)
	barred := make(map[matrix.RoomID]bool)
	if at.below != nil {
		for i := range at.below.Children {
			told[at.below.Children[i].Room] = &at.below.Children[i]
		}
		for _, id := range at.below.Inaccessible {
			barred[id] = true
		}
	}
	for _, child := range slices.Backward(at.room.Children) {
		if id := child.StateKey; !w.seen[id] && len(w.ahead) < maxHierarchyAhead {
			w.ahead = append(w.ahead, hierarchyStep{id, depth, child.via, told[id], barred[id]})
		}
	}
}

// visit reads a room that this server knows.
func (w *hierarchyWalk) visit(id matrix.RoomID) (at visited, err error) {
	err = w.rooms.store.View(func(tx *store.Tx) error {
		at = visited{}
		num := tx.RoomNum(id)
		head, err := tx.Head(num)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if at.inside, err = Resident(tx, num); err != nil {
			return err
		}
		r := summaryReader{tx: tx, num: num, at: head.Current}
		d, err := r.door(head.Version)
		if err != nil {
			return err
		}
		if at.shown, err = d.opensTo(tx, num, w.query.User); !at.shown || err != nil {
			return err
		}
		if !w.found { // what it is called was told on a page before
			at.room.Children, err = spaceChildren(tx, num, head)
		} else {
			at.room, err = ReadSpace(tx, num, head)
		}
		return err
	})
	return at, err
}

// visitElsewhere is visit for a room that this server is not in, of which it may
// have old knowledge. A room that was told of with its parent is asked about only if
// it is a space. Where no server tells of it, what is known already counts.
func (w *hierarchyWalk) visitElsewhere(ctx context.Context, next hierarchyStep, known visited) (visited, error) {
	if next.told != nil {
		known = visited{room: SpaceRoom{Summary: *next.told, Children: []SpaceChild{}}}
	}
	if next.barred || next.told != nil && next.told.Type != spaceType {
		return w.judge(known, next.told != nil)
	}
	spent := w.asks >= maxHierarchyAsks || !w.rooms.now().Before(w.until)
	via := next.via
	if spent {
		via = nil
	}
	answer, asked, err := w.query.Ask(ctx, next.room, via)
	if asked {
		w.asks++
	}
	if err := ctx.Err(); err != nil {
		return visited{}, err
	}
	if err != nil {
		known.later = spent
		return w.judge(known, next.told != nil)
	}
	at := visited{room: answer.Room, below: &answer}
	at.room.Children = slices.Clone(answer.Room.Children) // the answer is not ours to change
	return w.judge(at, true)
}

// judge says whether the user is shown a room, if that is not known already.
func (w *hierarchyWalk) judge(at visited, elsewhere bool) (visited, error) {
	if !elsewhere {
		return at, nil
	}
	err := w.rooms.store.View(func(tx *store.Tx) (err error) {
		at.shown, err = at.room.ShownTo(tx, w.query.User)
		return err
	})
	return at, err
}

// take puts a room on the page. Where it is full the page ends, and take returns
// false.
func (w *hierarchyWalk) take(room SpaceRoom) bool {
	if len(w.page.Rooms) >= w.query.Limit || w.size >= maxHierarchyBytes {
		w.end()
		return false
	}
	w.page.Rooms = append(w.page.Rooms, room)
	w.size += room.size()
	return true
}

// end ends the page, which has a room.
func (w *hierarchyWalk) end() {
	w.page.Next = w.mark(w.page.Rooms[len(w.page.Rooms)-1].Room)
}

// mark names the place behind a room in the tree of this root.
func (w *hierarchyWalk) mark(room matrix.RoomID) string {
	sum := sha256.Sum256([]byte(w.query.Root + "\x00" + room))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}
