package state

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"hearth/store"
)

// A DirectoryQuery asks for a page of this server's published directory.
type DirectoryQuery struct {
	Term  string   // in the name, topic or canonical alias, in whatever case; "": any
	Types []string // the rooms' types, "" for rooms without one; nil: any
	Limit int      // rooms at most, more than 0
	From  DirectoryPlace
	Back  bool // the page before From, not the one behind it
}

// A DirectoryPlace is the place of a room in the directory: rooms with more members
// come first, then those that are longer known here. The zero value is before them
// all.
type DirectoryPlace struct {
	Joined uint64
	Room   store.RoomNum
}

// compare orders two places.
func (p DirectoryPlace) compare(q DirectoryPlace) int {
	return cmp.Or(-cmp.Compare(p.Joined, q.Joined), cmp.Compare(p.Room, q.Room))
}

// A DirectoryPage is a part of the published directory.
type DirectoryPage struct {
	Rooms      []PublishedRoom
	Prev, Next *DirectoryPlace // where the pages before and behind it begin; nil: there is none
	Total      int             // how many rooms are published, whatever was asked for
}

// Bounds of the work for a page of the directory.
const (
	directoryChunk = 64      // published rooms looked at in one View
	maxPublished   = 1 << 20 // bytes of a page, but for the last room
)

// Directory returns a page of the rooms that are published here and have members.
// It looks at all published rooms but keeps only those of the page. Spec: CS
// Published room directory.
func (r *Rooms) Directory(q DirectoryQuery) (DirectoryPage, error) {
	q.Term = strings.ToLower(q.Term)
	w := directoryWalk{query: q}
	for more := true; more; {
		err := r.store.View(func(tx *store.Tx) (err error) {
			more, err = w.look(tx)
			return err
		})
		if err != nil {
			return DirectoryPage{}, err
		}
	}
	return w.page(r.store)
}

// A directoryWalk finds the rooms of a page.
type directoryWalk struct {
	query DirectoryQuery
	at    store.RoomNum    // the last room looked at
	best  []DirectoryPlace // the first rooms on the wanted side of From, one more than the limit
	other bool             // there are rooms on the other side
	total int
}

// look looks at some more rooms.
func (w *directoryWalk) look(tx *store.Tx) (more bool, err error) {
	seen := 0
	err = tx.PublishedRooms(w.at, func(num store.RoomNum) (bool, error) {
		w.at = num
		seen++
		return seen < directoryChunk, w.consider(tx, num)
	})
	return seen == directoryChunk, err
}

// order compares places in the direction of the page.
func (w *directoryWalk) order(p, q DirectoryPlace) int {
	if w.query.Back {
		return q.compare(p)
	}
	return p.compare(q)
}

// consider takes a room up if it is one of the page's, as far as is known yet. What
// the room is called is read only where it matters.
func (w *directoryWalk) consider(tx *store.Tx, num store.RoomNum) error {
	head, err := tx.Head(num)
	if errors.Is(err, store.ErrNotFound) || err == nil && head.Joined == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	w.total++
	place := DirectoryPlace{Joined: head.Joined, Room: num}
	begun := w.query.From != (DirectoryPlace{})
	far := begun && w.order(place, w.query.From) <= 0
	full := len(w.best) > w.query.Limit && w.order(place, w.best[w.query.Limit]) > 0
	if far && w.other || !far && full {
		return nil
	}
	wanted, err := w.wants(tx, num, head)
	if !wanted || err != nil {
		return err
	}
	if far {
		w.other = true
		return nil
	}
	i, _ := slices.BinarySearchFunc(w.best, place, w.order)
	w.best = slices.Insert(w.best, i, place)
	w.best = w.best[:min(len(w.best), w.query.Limit+1)]
	return nil
}

// wants says whether a room is one that was asked for.
func (w *directoryWalk) wants(tx *store.Tx, num store.RoomNum, head store.Head) (bool, error) {
	r := summaryReader{tx: tx, num: num, at: head.Current}
	if w.query.Types != nil && !slices.Contains(w.query.Types, r.text("m.room.create", "type")) {
		return false, r.err
	}
	has := func(text string) bool { return strings.Contains(strings.ToLower(text), w.query.Term) }
	found := w.query.Term == "" || has(r.text("m.room.name", "name")) || has(r.topic()) ||
		has(r.text("m.room.canonical_alias", "alias"))
	return found, r.err
}

// page reads what there is to tell of the rooms that were found.
func (w *directoryWalk) page(st *store.Store) (DirectoryPage, error) {
	page := DirectoryPage{Total: w.total, Rooms: []PublishedRoom{}}
	found := w.best[:min(len(w.best), w.query.Limit)]
	size, read := 0, 0
	for ; read < len(found) && size < maxPublished; read++ {
		err := st.View(func(tx *store.Tx) error {
			num := found[read].Room
			head, err := tx.Head(num)
			if errors.Is(err, store.ErrNotFound) || !tx.Published(num) {
				return nil // it has gone just now
			}
			if err != nil {
				return err
			}
			s, err := Summarize(tx, num, head)
			if err == nil {
				page.Rooms = append(page.Rooms, s.PublishedRoom)
				size += len(s.Name) + len(s.Topic) + len(s.CanonicalAlias) + len(s.AvatarURL)
			}
			return err
		})
		if err != nil {
			return DirectoryPage{}, err
		}
	}
	if read == 0 {
		return page, nil
	}
	w.link(&page, found[0], found[read-1], read < len(w.best))
	return page, nil
}

// link says where the pages beside a page begin, which holds the rooms from first
// to last in its own direction.
func (w *directoryWalk) link(page *DirectoryPage, first, last DirectoryPlace, more bool) {
	ahead, behind := &page.Next, &page.Prev
	if w.query.Back {
		slices.Reverse(page.Rooms)
		ahead, behind = behind, ahead
	}
	if more {
		*ahead = &last
	}
	if w.other {
		*behind = &first
	}
}
