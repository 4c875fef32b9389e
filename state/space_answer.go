package state

import (
	"context"
	"errors"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// A SpaceAnswer is what one server tells another of a space: its summary with its
// children, and the summaries of those of them that it knows and the other may be
// told of. Spec: SS space_hierarchy.yaml.
type SpaceAnswer struct {
	Room     SpaceRoom `json:"room"`
	Children []Summary `json:"children"`
	// Inaccessible are the children that the one who asks has no way to peek into
	// or join. "They should not be re-requested."
	Inaccessible []matrix.RoomID `json:"inaccessible_children"`
}

// ErrBadAnswer is wrapped where another server tells nothing that makes sense.
var ErrBadAnswer = errors.New("the answer makes no sense")

// SpaceFor returns what a server is told of a room that this server is in. The
// error is ErrUnknownRoom where there is none, and where the other has no way to
// peek into it or to join. Each room is read in a View of its own; beyond 1 MiB the
// children left are neither described nor called inaccessible.
func (r *Rooms) SpaceFor(ctx context.Context, id matrix.RoomID, to matrix.ServerName, suggestedOnly bool) (SpaceAnswer, error) {
	room, told, err := r.tell(id, to, ReadSpace)
	if err != nil {
		return SpaceAnswer{}, err
	}
	if told != toldAll {
		return SpaceAnswer{}, refuse(ErrUnknownRoom, "There is no room %s here that %s may be told of", id, to)
	}
	if suggestedOnly {
		room.keepSuggested()
	}
	answer := SpaceAnswer{Room: room, Children: []Summary{}, Inaccessible: []matrix.RoomID{}}
	size := room.size()
	for _, child := range room.Children {
		if err := ctx.Err(); err != nil {
			return SpaceAnswer{}, err
		}
		if size >= maxHierarchyBytes {
			break
		}
		known, told, err := r.tell(child.StateKey, to, readSummary)
		switch {
		case err != nil:
			return SpaceAnswer{}, err
		case told == toldAll:
			answer.Children = append(answer.Children, known.Summary)
			size += known.size()
		case told == toldNothing:
			answer.Inaccessible = append(answer.Inaccessible, child.StateKey)
		}
	}
	return answer, nil
}

// told is how much another server is told of a room.
type told uint8

const (
	toldUnknown told = iota // this server is not in the room
	toldNothing
	toldAll
)

// tell reads a room for another server.
func (r *Rooms) tell(id matrix.RoomID, to matrix.ServerName, read func(*store.Tx, store.RoomNum, store.Head) (SpaceRoom, error)) (room SpaceRoom, how told, err error) {
	err = r.store.View(func(tx *store.Tx) error {
		how = toldUnknown
		num := tx.RoomNum(id)
		head, err := tx.Head(num)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if inside, err := Resident(tx, num); !inside || err != nil {
			return err
		}
		reader := summaryReader{tx: tx, num: num, at: head.Current}
		d, err := reader.door(head.Version)
		if err != nil {
			return err
		}
		open, err := d.opensToServer(tx, num, to)
		if err != nil {
			return err
		}
		if how = toldNothing; !open {
			return nil
		}
		how = toldAll
		room, err = read(tx, num, head)
		return err
	})
	return room, how, err
}

// readSummary is ReadSpace without the children.
func readSummary(tx *store.Tx, num store.RoomNum, head store.Head) (SpaceRoom, error) {
	summary, err := Summarize(tx, num, head)
	return SpaceRoom{Summary: summary}, err
}

// opensToServer says whether a user of another server could be shown the room: one
// of its users is in it, anybody may peek or join, or one of its users is in a room
// whose members may join. The other does the filtering for each of its users. A
// server that the room's ACL denies has no way in.
func (d door) opensToServer(tx *store.Tx, room store.RoomNum, server matrix.ServerName) (bool, error) {
	if allowed, err := ServerAllowed(tx, room, server); !allowed || err != nil {
		return false, err
	}
	num := tx.ServerNum(server)
	switch {
	case num != 0 && tx.ServerInRoom(room, num), d.open():
		return true, nil
	case num == 0:
		return false, nil
	}
	for _, id := range d.allow {
		allowed := tx.RoomNum(id)
		if inside, err := Resident(tx, allowed); err != nil {
			return false, err
		} else if inside && tx.ServerInRoom(allowed, num) {
			return true, nil
		}
	}
	return false, nil
}

// keepSuggested leaves the children that are suggested.
func (s *SpaceRoom) keepSuggested() {
	s.Children = slices.DeleteFunc(s.Children, func(c SpaceChild) bool { return !c.suggested })
}

// size is about how many bytes the room takes in an answer.
func (s *SpaceRoom) size() int {
	n := s.Summary.size()
	for _, child := range s.Children {
		n += len(child.StateKey) + len(child.Sender) + len(child.Content)
	}
	return n
}

func (s *Summary) size() int {
	n := 200 + len(s.Room) + len(s.Name) + len(s.Topic) + len(s.CanonicalAlias) + len(s.AvatarURL) + len(s.Type) + len(s.Encryption)
	for _, id := range s.Allowed {
		n += len(id)
	}
	return n
}

// Size is about how many bytes the answer takes.
func (a *SpaceAnswer) Size() int {
	n := a.Room.size()
	for i := range a.Children {
		n += a.Children[i].size()
	}
	for _, id := range a.Inaccessible {
		n += len(id)
	}
	return n
}

// ReadSpaceAnswer reads what another server tells of a room. Of the children, those
// stay that the room names and that are described as they should be, at most 1000,
// in the order in which they are shown; the rest is as if it had not been said. The
// error wraps ErrBadAnswer where the room itself is not the one asked for.
func ReadSpaceAnswer(body []byte, room matrix.RoomID) (SpaceAnswer, error) {
	var raw struct {
		Room         jsontext.Value   `json:"room"`
		Children     []jsontext.Value `json:"children"`
		Inaccessible []jsontext.Value `json:"inaccessible_children"`
	}
	var head struct {
		Children []jsontext.Value `json:"children_state"`
	}
	var answer SpaceAnswer
	if json.Unmarshal(body, &raw, lenient) != nil || json.Unmarshal(raw.Room, &head, lenient) != nil ||
		!readTold(raw.Room, &answer.Room.Summary) || answer.Room.Room != room {
		return SpaceAnswer{}, ErrBadAnswer
	}
	answer.Room.Children = readChildren(answer.Room.Type, head.Children)
	named := make(map[matrix.RoomID]bool, len(answer.Room.Children)) // true: not yet described
	for _, child := range answer.Room.Children {
		named[child.StateKey] = true
	}
	for _, value := range raw.Children {
		var child Summary
		if readTold(value, &child) && named[child.Room] {
			named[child.Room] = false
			answer.Children = append(answer.Children, child)
		}
	}
	for _, value := range raw.Inaccessible {
		if id := matrix.RoomID(textOf(value)); named[id] {
			named[id] = false
			answer.Inaccessible = append(answer.Inaccessible, id)
		}
	}
	return answer, nil
}

// readChildren reads the children_state of a room of a type.
func readChildren(typ string, values []jsontext.Value) []SpaceChild {
	children := []SpaceChild{}
	if typ != spaceType {
		return children
	}
	seen, size := make(map[matrix.RoomID]bool), 0
	for _, value := range values {
		if len(children) == maxChildren || size >= maxChildrenBytes {
			break
		}
		var event struct {
			Type     string         `json:"type"`
			StateKey string         `json:"state_key"`
			Content  jsontext.Value `json:"content"`
			Sender   string         `json:"sender"`
			Time     int64          `json:"origin_server_ts"`
		}
		if json.Unmarshal(value, &event, lenient) != nil || event.Type != "m.space.child" {
			continue
		}
		sender, err := matrix.ParseUserID(event.Sender)
		if err != nil {
			continue
		}
		if child, ok := readChild(event.StateKey, event.Content); ok && !seen[child.StateKey] {
			seen[child.StateKey] = true
			child.Type, child.Sender, child.OriginServerTS = event.Type, sender, event.Time
			children = append(children, child)
			size += len(child.Content)
		}
	}
	slices.SortFunc(children, SpaceChild.compare)
	return children
}

// maxTold is how long a text may be that another server tells of a room, in bytes.
const maxTold = 64 << 10

// readTold reads the summary of a room as another server tells it, and says whether
// it is one.
func readTold(value jsontext.Value, s *Summary) bool {
	if json.Unmarshal(value, s, lenient) != nil {
		return false
	}
	if _, err := matrix.ParseRoomID(string(s.Room)); err != nil {
		return false
	}
	if s.JoinRule == "" { // "If not present, the room is assumed to be public."
		s.JoinRule = "public"
	}
	return !slices.ContainsFunc([]string{
		s.Name, s.Topic, s.CanonicalAlias, s.AvatarURL, s.Type, s.JoinRule, s.Encryption, s.Version,
	}, func(text string) bool { return len(text) > maxTold })
}
