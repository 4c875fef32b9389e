package state

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"

	"hearth/state/matrix"
	"hearth/store"
)

// A HierarchyQuery asks for a page of the tree of rooms below a space.
type HierarchyQuery struct {
	Root          matrix.RoomID
	User          store.UserNum // the local user who asks
	SuggestedOnly bool          // only children that are suggested
	MaxDepth      int           // 0: the space alone
	Limit         int           // rooms at most, more than 0
	After         string        // Next of the page before, "" for the first
}

// A HierarchyPage is some rooms of a hierarchy, each before its children.
type HierarchyPage struct {
	Rooms []SpaceRoom
	Next  string // for the page behind this one; "": there is none
}

// Bounds of a hierarchy.
const (
	maxHierarchyBytes = 1 << 20 // of a page, but for the last room
	maxHierarchyRooms = 5000    // rooms visited for one page, those of the pages before included
	maxHierarchyAhead = 20_000  // rooms yet to be visited
)

// Hierarchy returns a page of a space's tree, depth first, with the rooms that the
// user may be shown; below others nothing is looked at. No room comes twice, so
// that a loop ends. A root that is not known here or not for the user is
// ErrForbidden; a page that follows a room which is no longer in the tree is
// ErrStale. Spec: CS Discovering rooms within spaces.
//
// Nothing is kept between pages: each walks from the root to where the last one
// ended. Every room is read in a View of its own.
func (r *Rooms) Hierarchy(ctx context.Context, q HierarchyQuery) (HierarchyPage, error) {
	w := hierarchyWalk{
		rooms: r, query: q, found: q.After == "",
		ahead: []hierarchyStep{{room: q.Root}}, seen: make(map[matrix.RoomID]bool),
	}
	for len(w.ahead) > 0 && len(w.seen) < maxHierarchyRooms && w.page.Next == "" {
		if err := ctx.Err(); err != nil {
			return HierarchyPage{}, err
		}
		if err := w.step(); err != nil {
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
}

type hierarchyStep struct {
	room  matrix.RoomID
	depth int
}

// step visits the next room.
func (w *hierarchyWalk) step() error {
	next := w.ahead[len(w.ahead)-1]
	w.ahead = w.ahead[:len(w.ahead)-1]
	if w.seen[next.room] {
		return nil
	}
	w.seen[next.room] = true
	room, shown, err := w.visit(next.room)
	switch {
	case err != nil:
		return err
	case !shown && next.depth == 0:
		return refuse(ErrForbidden, "You may not see the room %s", next.room)
	case !shown:
		return nil
	}
	if w.found && !w.take(room) {
		return nil
	}
	if !w.found && w.mark(next.room) == w.query.After {
		w.found = true
	}
	if next.depth < w.query.MaxDepth {
		for _, child := range slices.Backward(room.Children) {
			if !w.seen[child.StateKey] && len(w.ahead) < maxHierarchyAhead {
				w.ahead = append(w.ahead, hierarchyStep{child.StateKey, next.depth + 1})
			}
		}
	}
	return nil
}

// visit reads a room, and says whether the user is shown it.
func (w *hierarchyWalk) visit(id matrix.RoomID) (room SpaceRoom, shown bool, err error) {
	err = w.rooms.store.View(func(tx *store.Tx) error {
		num := tx.RoomNum(id)
		head, err := tx.Head(num)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		r := summaryReader{tx: tx, num: num, at: head.Current}
		d, err := r.door(head.Version)
		if err != nil {
			return err
		}
		if shown, err = d.opensTo(tx, num, w.query.User); !shown || err != nil {
			return err
		}
		if !w.found { // what it is called was told on a page before
			room.Children, err = spaceChildren(tx, num, head)
		} else {
			room, err = ReadSpace(tx, num, head)
		}
		if w.query.SuggestedOnly {
			room.Children = slices.DeleteFunc(room.Children, func(c SpaceChild) bool { return !c.suggested })
		}
		return err
	})
	return room, shown, err
}

// take puts a room on the page. Where it is full the page ends, and take returns
// false.
func (w *hierarchyWalk) take(room SpaceRoom) bool {
	if n := len(w.page.Rooms); n >= w.query.Limit || w.size >= maxHierarchyBytes {
		w.page.Next = w.mark(w.page.Rooms[n-1].Room)
		return false
	}
	w.page.Rooms = append(w.page.Rooms, room)
	w.size += len(room.Name) + len(room.Topic) + len(room.AvatarURL)
	for _, child := range room.Children {
		w.size += len(child.StateKey) + len(child.Content)
	}
	return true
}

// mark names the place behind a room in the tree of this root.
func (w *hierarchyWalk) mark(room matrix.RoomID) string {
	sum := sha256.Sum256([]byte(w.query.Root + "\x00" + room))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}
