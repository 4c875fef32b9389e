package state

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"hearth/state/matrix"
	"hearth/store"
)

// The example of CS Ordering of children within a space, with what it leaves out.
func TestSpaceChildOrder(t *testing.T) {
	long := strings.Repeat("a", 51)
	events := []struct {
		room    string
		ts      int64
		content string
	}{
		{"!i:x", 3, `{"via":["x"],"order":"` + long + `"}`}, // too long an order is none
		{"!h:x", 2, `{"via":["x"],"order":7}`},
		{"!g:x", 2, `{"via":["x"],"order":""}`},
		{"!e:x", 1640641000000, `{"via":["x"]}`},
		{"!d:x", 1640741000000, `{"via":["x"]}`},
		{"!f:x", 9, `{"via":["x"],"order":"first"}`},
		{"!c:x", 1640841000000, `{"via":["x"],"order":"first"}`},
		{"!a:x", 1640141000000, `{"via":["x"],"order":"aaaa"}`},
		{"!b:x", 1640341000000, `{"via":["x"],"order":" "}`},
		{"!n1:x", 1, `{}`}, // no children from here on
		{"!n2:x", 1, `{"via":[]}`},
		{"!n3:x", 1, `{"via":"x"}`},
		{"!n4:x", 1, `{"via":[7]}`},
		{"!n5:x", 1, `{"via":null}`},
		{"n6", 1, `{"via":["x"]}`},
	}
	var children []SpaceChild
	for _, e := range events {
		ev := &matrix.Event{Type: "m.space.child", StateKey: &e.room, OriginServerTS: e.ts, Content: []byte(e.content)}
		if child, ok := spaceChild(ev); ok {
			children = append(children, child)
		}
	}
	slices.SortFunc(children, SpaceChild.compare)
	var got []string
	for _, c := range children {
		got = append(got, string(c.StateKey))
	}
	want := []string{"!b:x", "!a:x", "!f:x", "!c:x", "!g:x", "!h:x", "!i:x", "!e:x", "!d:x"}
	if !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

// hierarchy walks all pages of a space's tree as carol.
func (h *house) hierarchy(q HierarchyQuery) (rooms []matrix.RoomID) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) error { q.User = tx.UserNum(carol); return nil }))
	for {
		page, err := h.rooms.Hierarchy(context.Background(), q)
		h.must(err)
		if len(page.Rooms) == 0 || len(page.Rooms) > q.Limit {
			h.Fatalf("%+v: a page of %d rooms", q, len(page.Rooms))
		}
		for _, room := range page.Rooms {
			rooms = append(rooms, room.Room)
		}
		if q.After = page.Next; q.After == "" {
			return rooms
		}
	}
}

// The pages of a random tangle of spaces, of whatever size, are a depth-first walk of
// it that visits each room once and stops at what carol is not shown.
func TestHierarchyOfTangles(t *testing.T) {
	for seed := range uint64(8) {
		h := newHouse(t)
		rng := rand.New(rand.NewPCG(seed, 0))
		const size = 14
		var rooms []matrix.RoomID
		hidden := make(map[matrix.RoomID]bool)
		children := make(map[matrix.RoomID][]matrix.RoomID)
		for i := range size {
			c := Creation{Creator: alice, Preset: PresetPublic, Content: []byte(`{"type":"m.space"}`)}
			if i > 0 && rng.IntN(4) == 0 {
				c.Preset = PresetPrivate
			}
			rooms = append(rooms, h.create(c))
			hidden[rooms[i]] = c.Preset == PresetPrivate
		}
		h.must(h.join(rooms[0], carol))
		for i := range 3 * size {
			from, to := rooms[rng.IntN(size)], rooms[rng.IntN(size)]
			if slices.Contains(children[from], to) {
				continue
			}
			children[from] = append(children[from], to)
			_, err := h.set(from, alice, "m.space.child", string(to), fmt.Sprintf(`{"via":["x"],"order":"%03d"}`, i))
			h.must(err)
		}
		for _, depth := range []int{0, 1, 2, 50} {
			var want []matrix.RoomID
			seen := make(map[matrix.RoomID]bool)
			var walk func(matrix.RoomID, int)
			walk = func(room matrix.RoomID, left int) {
				if seen[room] || hidden[room] {
					return
				}
				seen[room] = true
				want = append(want, room)
				for _, child := range children[room] {
					if left > 0 {
						walk(child, left-1)
					}
				}
			}
			walk(rooms[0], depth)
			for _, limit := range []int{1, 2, 5, 50} {
				got := h.hierarchy(HierarchyQuery{Root: rooms[0], MaxDepth: depth, Limit: limit})
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d, depth %d, limit %d:\n%v, want\n%v", seed, depth, limit, got, want)
				}
			}
		}
	}
}

// A space that has had very many children, or very large ones, costs bounded work.
func TestSpaceIsBounded(t *testing.T) {
	h := newHouse(t)
	space := h.create(Creation{Creator: alice, Preset: PresetPublic, Content: []byte(`{"type":"m.space"}`)})
	for i := range 40 {
		content := fmt.Sprintf(`{"via":["x"],"x":%q}`, strings.Repeat("x", 50_000))
		_, err := h.set(space, alice, "m.space.child", fmt.Sprintf("!%02d:x", i), content)
		h.must(err)
	}
	read := func() (room SpaceRoom) {
		h.must(h.store.View(func(tx *store.Tx) error {
			num, head, err := Head(tx, space)
			h.must(err)
			room, err = ReadSpace(tx, num, head)
			return err
		}))
		return room
	}
	if n := len(read().Children); n != maxChildrenBytes/50_000+1 {
		t.Errorf("%d large children are shown", n)
	}
	for i := range maxChildren + 5 {
		_, err := h.set(space, alice, "m.space.child", fmt.Sprintf("!%02d:x", i), `{"via":["x"]}`)
		h.must(err)
	}
	if n := len(read().Children); n != maxChildren {
		t.Errorf("%d children, want %d", n, maxChildren)
	}
}

// Pages end where they grow large, not only at the limit.
func TestLargePagesEnd(t *testing.T) {
	h := newHouse(t)
	space := h.create(Creation{Creator: alice, Preset: PresetPublic, Content: []byte(`{"type":"m.space"}`)})
	const rooms = 30
	for range rooms {
		room := h.create(Creation{Creator: alice, Preset: PresetPublic, Publish: true, Topic: strings.Repeat("t", 25_000),
			Initial: []InitialEvent{{Type: "m.room.name", Content: []byte(`{"name":"` + strings.Repeat("n", 50_000) + `"}`)}}})
		_, err := h.set(space, alice, "m.space.child", string(room), `{"via":["x"]}`)
		h.must(err)
	}
	h.must(h.join(space, carol))
	page, err := h.rooms.Directory(DirectoryQuery{Limit: 100})
	h.must(err)
	if n := len(page.Rooms); n >= rooms || page.Next == nil {
		t.Errorf("a page of the directory has %d large rooms, next %v", n, page.Next)
	}
	if names, _ := h.directoryRooms(DirectoryQuery{Limit: 100}); len(names) != rooms {
		t.Errorf("the pages have %d rooms, want %d", len(names), rooms)
	}
	first, err := h.rooms.Hierarchy(context.Background(), HierarchyQuery{Root: space, MaxDepth: 1, Limit: 100})
	if h.must(err); len(first.Rooms) >= rooms || first.Next == "" {
		t.Errorf("a page of the hierarchy has %d large rooms", len(first.Rooms))
	}
	if all := h.hierarchy(HierarchyQuery{Root: space, MaxDepth: 1, Limit: 100}); len(all) != rooms+1 {
		t.Errorf("the hierarchy has %d rooms, want %d", len(all), rooms+1)
	}
}

func TestHierarchyEndsWithTheRequest(t *testing.T) {
	h := newHouse(t)
	space := h.create(Creation{Creator: alice, Preset: PresetPublic})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := h.rooms.Hierarchy(ctx, HierarchyQuery{Root: space, Limit: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}
