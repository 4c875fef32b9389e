package state

import (
	"cmp"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// A SpaceChild is an m.space.child event as the hierarchy of a space shows it: a
// stripped state event with its time. Spec: CS space_hierarchy.yaml.
type SpaceChild struct {
	Type           string         `json:"type"`
	StateKey       matrix.RoomID  `json:"state_key"` // the child
	Content        jsontext.Value `json:"content"`
	Sender         matrix.UserID  `json:"sender"`
	OriginServerTS int64          `json:"origin_server_ts"`

	order     string // "": none that is valid
	suggested bool
	via       []matrix.ServerName // some that may know the child
}

// A SpaceRoom is one room of a space's hierarchy: its summary, and its children in
// their order, of which a room that is no space has none.
type SpaceRoom struct {
	Summary
	Children []SpaceChild `json:"children_state"`
}

// spaceType is the type of rooms that are spaces. Spec: CS Spaces.
const spaceType = "m.space"

// Bounds of one space. Children beyond them, by room ID, are none.
const (
	maxChildren      = 1000
	maxChildSlots    = 10_000  // m.space.child events that are looked at, those of former children too
	maxChildrenBytes = 1 << 20 // of the children's contents
	maxVia           = 3       // servers that are asked for one child
)

// ReadSpace returns the summary of a room that is known here with its children,
// whoever may see them. Spec: CS Spaces; SS space_hierarchy.
func ReadSpace(tx *store.Tx, num store.RoomNum, head store.Head) (SpaceRoom, error) {
	summary, err := Summarize(tx, num, head)
	if err != nil {
		return SpaceRoom{}, err
	}
	children, err := spaceChildren(tx, num, head)
	return SpaceRoom{Summary: summary, Children: children}, err
}

// spaceChildren returns the children of a space in the order in which they are
// shown, none of a room of another type.
func spaceChildren(tx *store.Tx, num store.RoomNum, head store.Head) ([]SpaceChild, error) {
	r := summaryReader{tx: tx, num: num, at: head.Current}
	if r.text("m.room.create", "type") != spaceType || r.err != nil {
		return nil, r.err
	}
	var children []SpaceChild
	slots, size := 0, 0
	err := tx.Slots(num, "m.space.child", func(key string, slot store.Slot) (bool, error) {
		at, err := tx.StateAt(num, head.Current, slot)
		if err != nil {
			return false, err
		}
		if at != 0 {
			ev, err := tx.Event(num, at)
			if err != nil {
				return false, err
			}
			if child, ok := spaceChild(ev.Event); ok {
				children = append(children, child)
				size += len(child.Content)
			}
		}
		slots++
		return slots < maxChildSlots && len(children) < maxChildren && size < maxChildrenBytes, nil
	})
	slices.SortFunc(children, SpaceChild.compare)
	return children, err
}

// spaceChild reads an m.space.child event. ok is false where it names no child.
func spaceChild(ev *matrix.Event) (child SpaceChild, ok bool) {
	child, ok = readChild(*ev.StateKey, ev.Content)
	child.Type, child.Sender, child.OriginServerTS = ev.Type, ev.Sender, ev.OriginServerTS
	return child, ok
}

// readChild reads the state key and content of an m.space.child event. ok is false
// where they name no child: "When not present or invalid, the child room is not
// considered to be part of the space."
func readChild(stateKey string, value jsontext.Value) (child SpaceChild, ok bool) {
	room, err := matrix.ParseRoomID(stateKey)
	if err != nil {
		return SpaceChild{}, false
	}
	var content struct {
		Via       jsontext.Value `json:"via"`
		Order     jsontext.Value `json:"order"`
		Suggested jsontext.Value `json:"suggested"`
	}
	var via []string
	if json.Unmarshal(value, &content, lenient) != nil || content.Via.Kind() != '[' ||
		json.Unmarshal(content.Via, &via, lenient) != nil || len(via) == 0 {
		return SpaceChild{}, false
	}
	child = SpaceChild{StateKey: room, Content: value, suggested: string(content.Suggested) == "true"}
	if order := textOf(content.Order); validOrder(order) {
		child.order = order
	}
	for _, text := range via[:min(len(via), maxVia)] {
		if server, err := matrix.ParseServerName(text); err == nil {
			child.via = append(child.via, server)
		}
	}
	return child, true
}

// validOrder: "Must consist of ASCII characters within the range \x20 (space) and
// \x7E (~), inclusive. Must not exceed 50 characters."
func validOrder(order string) bool {
	for i := range len(order) {
		if order[i] < ' ' || order[i] > '~' {
			return false
		}
	}
	return order != "" && len(order) <= 50
}

// compare orders the children of a space. Spec: CS Ordering of children within a
// space.
func (c SpaceChild) compare(d SpaceChild) int {
	// "first order the children with a valid `order` key lexicographically", "then,
	// take the remaining children and order them by the `origin_server_ts`"; "In cases
	// where the `order` values are the same, the children are ordered by their
	// timestamps. If the timestamps are the same, the children are ordered
	// lexicographically by their room IDs".
	if (c.order == "") != (d.order == "") {
		return -cmp.Compare(c.order, d.order)
	}
	return cmp.Or(
		cmp.Compare(c.order, d.order),
		cmp.Compare(c.OriginServerTS, d.OriginServerTS),
		cmp.Compare(c.StateKey, d.StateKey),
	)
}
