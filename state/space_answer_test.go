package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"hearth/state/matrix"
	"hearth/store"
)

// toldRoom is a room as another server tells of it.
func toldRoom(id, more string) string {
	return fmt.Sprintf(`{"room_id":%q,"num_joined_members":1,"world_readable":false,"guest_can_join":false%s}`, id, more)
}

func toldChild(id string) string {
	return fmt.Sprintf(`{"type":"m.space.child","state_key":%q,"sender":"@u:x","origin_server_ts":1,"content":{"via":["x","y:8448"],"suggested":true}}`, id)
}

// What another server tells is taken as far as it makes sense.
func TestReadSpaceAnswer(t *testing.T) {
	children := strings.Join([]string{
		toldChild("!b:x"), toldChild("!a:x"), toldChild("!b:x"), toldChild("!secret:x"), `7`,
		`{"type":"m.room.name","state_key":"!n:x","sender":"@u:x","origin_server_ts":1,"content":{"via":["x"]}}`,
		`{"type":"m.space.child","state_key":"!n:x","sender":"@u:x","origin_server_ts":1,"content":{"via":[]}}`,
		`{"type":"m.space.child","state_key":"!n:x","sender":"nobody","origin_server_ts":1,"content":{"via":["x"]}}`,
	}, ",")
	body := fmt.Sprintf(`{"room":%s,"children":[%s,%s,%s,{"room_id":7},8],"inaccessible_children":["!secret:x","!other:x",9]}`,
		toldRoom("!s:x", `,"room_type":"m.space","join_rule":"knock","children_state":[`+children+`]`),
		toldRoom("!a:x", `,"name":"A"`), toldRoom("!unasked:x", ""), toldRoom("!a:x", `,"name":"again"`))
	answer, err := ReadSpaceAnswer([]byte(body), "!s:x")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, child := range answer.Room.Children {
		got = append(got, string(child.StateKey))
	}
	if want := []string{"!a:x", "!b:x", "!secret:x"}; !slices.Equal(got, want) {
		t.Errorf("children %v, want %v", got, want)
	}
	if c := answer.Room.Children[0]; !c.suggested || !slices.Equal(c.via, []matrix.ServerName{"x", "y:8448"}) {
		t.Errorf("the first child is %+v", c)
	}
	if len(answer.Children) != 1 || answer.Children[0].Name != "A" || answer.Children[0].JoinRule != "public" {
		t.Errorf("described children: %+v", answer.Children)
	}
	if !slices.Equal(answer.Inaccessible, []matrix.RoomID{"!secret:x"}) {
		t.Errorf("inaccessible: %v", answer.Inaccessible)
	}
	for _, body := range []string{
		``, `{}`, `[]`, `{"room":7}`, `{"room":{}}`, `{"room":` + toldRoom("!other:x", "") + `}`,
		`{"room":` + toldRoom("!s:x", `,"name":7`) + `}`, `{"room":` + toldRoom("!s:x", `,"name":"`+strings.Repeat("n", maxTold+1)+`"`) + `}`,
	} {
		if _, err := ReadSpaceAnswer([]byte(body), "!s:x"); !errors.Is(err, ErrBadAnswer) {
			t.Errorf("%.80s: error %v, want ErrBadAnswer", body, err)
		}
	}
}

func FuzzReadSpaceAnswer(f *testing.F) {
	f.Add([]byte(`{"room":` + toldRoom("!s:x", `,"room_type":"m.space","children_state":[`+toldChild("!a:x")+`]`) +
		`,"children":[` + toldRoom("!a:x", "") + `],"inaccessible_children":["!b:x"]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		answer, err := ReadSpaceAnswer(body, "!s:x")
		if err != nil {
			return
		}
		if n := len(answer.Room.Children); n > maxChildren || len(answer.Children)+len(answer.Inaccessible) > n {
			t.Errorf("%d children, %d described, %d barred", n, len(answer.Children), len(answer.Inaccessible))
		}
		if _, err := json.Marshal(answer, lenient); err != nil {
			t.Errorf("cannot be written: %v", err)
		}
	})
}

// A server is told of what its users could see.
func TestSpaceFor(t *testing.T) {
	h := newHouse(t)
	room := func(preset, content string) matrix.RoomID {
		return h.create(Creation{Creator: alice, Preset: preset, Version: "11", Content: []byte(content)})
	}
	space := room(PresetPublic, `{"type":"m.space"}`)
	public, private := room(PresetPublic, `{}`), room(PresetPrivate, `{}`)
	restricted, left, denied := room(PresetPrivate, `{}`), room(PresetPublic, `{}`), room(PresetPublic, `{}`)
	set := func(room matrix.RoomID, typ, key, content string) {
		_, err := h.set(room, alice, typ, key, content)
		h.must(err)
	}
	set(restricted, "m.room.join_rules", "", fmt.Sprintf(`{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":%q}]}`, space))
	set(denied, "m.room.server_acl", "", `{"allow":["*"],"deny":["far.example"]}`)
	for _, child := range []matrix.RoomID{public, private, restricted, left, denied, "!unknown:far.example"} {
		set(space, "m.space.child", string(child), `{"via":["home.example"]}`)
	}
	set(space, "m.space.child", string(public), `{"via":["home.example"],"suggested":true}`)
	h.must(h.change(left, alice, alice, matrix.Leave))
	ask := func(suggestedOnly bool) (described, barred []matrix.RoomID) {
		answer, err := h.rooms.SpaceFor(context.Background(), space, "far.example", suggestedOnly)
		h.must(err)
		for _, child := range answer.Children {
			described = append(described, child.Room)
		}
		return described, answer.Inaccessible
	}
	expect := func(when string, suggestedOnly bool, wantDescribed, wantBarred []matrix.RoomID) {
		t.Helper()
		described, barred := ask(suggestedOnly)
		for _, list := range [][]matrix.RoomID{described, barred, wantDescribed, wantBarred} {
			slices.Sort(list)
		}
		if !slices.Equal(described, wantDescribed) || !slices.Equal(barred, wantBarred) {
			t.Errorf("%s: described %v, barred %v; want %v and %v", when, described, barred, wantDescribed, wantBarred)
		}
	}
	rooms := func(ids ...matrix.RoomID) []matrix.RoomID { return ids }
	expect("a stranger", false, rooms(public), rooms(private, restricted, denied))
	expect("suggested", true, rooms(public), nil)
	h.must(h.store.Update(context.Background(), func(tx *store.Tx) error {
		return tx.CountRoomServer(tx.RoomNum(space), "far.example", 1)
	}))
	expect("a server in the space", false, rooms(public, restricted), rooms(private, denied))
	h.must(h.store.Update(context.Background(), func(tx *store.Tx) error {
		return errors.Join(tx.CountRoomServer(tx.RoomNum(space), "far.example", -1),
			tx.CountRoomServer(tx.RoomNum(private), "far.example", 1))
	}))
	expect("a server in the private room", false, rooms(public, private), rooms(restricted, denied))
	h.must(h.store.Update(context.Background(), func(tx *store.Tx) error {
		return tx.CountRoomServer(tx.RoomNum(private), "far.example", -1)
	}))
	for _, id := range rooms(private, left, denied, "!unknown:far.example") {
		if _, err := h.rooms.SpaceFor(context.Background(), id, "far.example", false); !errors.Is(err, ErrUnknownRoom) {
			t.Errorf("%s: error %v, want ErrUnknownRoom", id, err)
		}
	}
}

// elsewhere is what other servers tell, and how often they were asked.
type elsewhere struct {
	answers map[matrix.RoomID]SpaceAnswer
	asks    int
	kept    map[matrix.RoomID]bool
}

func (e *elsewhere) ask(_ context.Context, room matrix.RoomID, via []matrix.ServerName) (SpaceAnswer, bool, error) {
	answer, known := e.answers[room]
	if e.kept[room] {
		return answer, false, nil
	}
	if len(via) == 0 {
		return SpaceAnswer{}, false, ErrBadAnswer
	}
	e.asks++
	if !known {
		return SpaceAnswer{}, true, ErrBadAnswer
	}
	e.kept[room] = true
	return answer, true, nil
}

// tell adds a space with children, of which some are described.
func (e *elsewhere) tell(t *testing.T, space string, described []string, children ...string) {
	var events []string
	for _, child := range children {
		events = append(events, toldChild(child))
	}
	body := fmt.Sprintf(`{"room":%s,"children":[%s],"inaccessible_children":["!barred:x"]}`,
		toldRoom(space, `,"room_type":"m.space","children_state":[`+strings.Join(events, ",")+`]`), strings.Join(described, ","))
	answer, err := ReadSpaceAnswer([]byte(body), matrix.RoomID(space))
	if err != nil {
		t.Fatal(err)
	}
	e.answers[answer.Room.Room] = answer
}

// A hierarchy goes on into rooms that other servers tell of, and what they describe
// is not asked for again.
func TestHierarchyElsewhere(t *testing.T) {
	h := newHouse(t)
	space := h.create(Creation{Creator: alice, Preset: PresetPublic, Content: []byte(`{"type":"m.space"}`)})
	here := h.create(Creation{Creator: alice, Preset: PresetPublic})
	for _, child := range []string{"!far:x", "!silent:x"} {
		_, err := h.set(space, alice, "m.space.child", child, `{"via":["x"]}`)
		h.must(err)
	}
	e := &elsewhere{answers: make(map[matrix.RoomID]SpaceAnswer), kept: make(map[matrix.RoomID]bool)}
	e.tell(t, "!far:x", []string{toldRoom("!plain:x", ""), toldRoom("!deep:x", `,"room_type":"m.space"`), toldRoom("!members:x", `,"join_rule":"restricted","allowed_room_ids":["`+string(space)+`"]`),
		toldRoom("!invite:x", `,"join_rule":"invite"`)},
		"!barred:x", "!deep:x", "!invite:x", "!members:x", "!plain:x")
	far := e.answers["!far:x"]
	far.Room.Children = append(far.Room.Children, SpaceChild{Type: "m.space.child", StateKey: here})
	e.answers["!far:x"] = far
	e.tell(t, "!deep:x", nil, "!far:x", "!unheard:x")
	q := HierarchyQuery{Root: space, MaxDepth: 5, Limit: 2, Ask: e.ask}
	want := []matrix.RoomID{space, "!far:x", "!deep:x", "!plain:x", here}
	if got := h.hierarchy(q); !slices.Equal(got, want) {
		t.Errorf("the hierarchy is %v, want %v", got, want)
	}
	h.must(h.join(space, carol))
	want = slices.Insert(want, 3, "!members:x")
	if got := h.hierarchy(q); !slices.Equal(got, want) {
		t.Errorf("for a member the hierarchy is %v, want %v", got, want)
	}
	for room := range e.kept {
		if room != "!far:x" && room != "!deep:x" {
			t.Errorf("%s was asked for", room)
		}
	}
	q.Root, q.Via = "!far:x", []matrix.ServerName{"x"}
	if got := h.hierarchy(q); !slices.Equal(got, want[1:]) {
		t.Errorf("from elsewhere the hierarchy is %v, want %v", got, want[1:])
	}
}

// Very many rooms elsewhere are asked for in bounded pages, each room once.
func TestHierarchyElsewhereIsBounded(t *testing.T) {
	h := newHouse(t)
	space := h.create(Creation{Creator: alice, Preset: PresetPublic, Content: []byte(`{"type":"m.space"}`)})
	e := &elsewhere{answers: make(map[matrix.RoomID]SpaceAnswer), kept: make(map[matrix.RoomID]bool)}
	const rooms = 3*maxHierarchyAsks + 1
	for i := range rooms {
		id := fmt.Sprintf("!%03d:x", i)
		_, err := h.set(space, alice, "m.space.child", id, `{"via":["x"]}`)
		h.must(err)
		e.tell(t, id, nil)
	}
	q := HierarchyQuery{Root: space, MaxDepth: 5, Limit: 100, Ask: e.ask}
	page, err := h.rooms.Hierarchy(context.Background(), q)
	h.must(err)
	if len(page.Rooms) != 1+maxHierarchyAsks || page.Next == "" || e.asks != maxHierarchyAsks {
		t.Errorf("the first page has %d rooms for %d questions, next %q", len(page.Rooms), e.asks, page.Next)
	}
	if got := h.hierarchy(q); len(got) != rooms+1 || e.asks != rooms {
		t.Errorf("%d rooms for %d questions, want %d", len(got), e.asks, rooms)
	}
}
