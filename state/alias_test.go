package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"hearth/state/matrix"
	"hearth/store"
)

const kitchen = matrix.RoomAlias("#kitchen:home.example")

// Of many who make a room with one alias at once, one has it, and the others have
// made no room.
func TestAliasIsTakenOnce(t *testing.T) {
	h := newHouse(t)
	const rivals = 16
	errs := make([]error, rivals)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = h.rooms.Create(context.Background(), Creation{Creator: alice, Preset: PresetPublic, Alias: kitchen, Publish: true})
		})
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else if !errors.Is(err, ErrAliasInUse) {
			t.Errorf("error %v, want ErrAliasInUse", err)
		}
	}
	rooms, published := 0, 0
	h.must(h.store.View(func(tx *store.Tx) error {
		count := func(n *int) func(store.RoomNum) (bool, error) {
			return func(store.RoomNum) (bool, error) { *n++; return true, nil }
		}
		one := count(&rooms)
		return errors.Join(
			tx.Rooms(func(num store.RoomNum, _ store.Head) (bool, error) { return one(num) }),
			tx.PublishedRooms(0, count(&published)),
		)
	}))
	if made != 1 || rooms != 1 || published != 1 {
		t.Errorf("%d succeeded, %d rooms, %d of them published; want one", made, rooms, published)
	}
}

// An administrator needs no power, and does not send events where he is not.
func TestAdminKeepsAliases(t *testing.T) {
	h := newHouse(t)
	ctx := context.Background()
	room := h.create(Creation{Creator: alice, Preset: PresetPrivate, Alias: kitchen})
	before := h.content(room, "m.room.canonical_alias")
	for _, tt := range []struct {
		name string
		do   func(Keeper) error
	}{
		{"publish", func(by Keeper) error { return h.rooms.Publish(ctx, room, by, true) }},
		{"add", func(by Keeper) error { return h.rooms.AddAlias(ctx, "#new:home.example", room, by) }},
		{"delete", func(by Keeper) error { return h.rooms.DeleteAlias(ctx, kitchen, by) }},
	} {
		if err := tt.do(Keeper{User: carol}); !errors.Is(err, ErrForbidden) {
			t.Errorf("%s as a stranger: %v, want ErrForbidden", tt.name, err)
		}
		if err := tt.do(Keeper{User: carol, Admin: true}); err != nil {
			t.Errorf("%s as administrator: %v", tt.name, err)
		}
	}
	if after := h.content(room, "m.room.canonical_alias"); after != before {
		t.Errorf("canonical alias %s, want %s as before", after, before)
	}
	err := h.rooms.AddAlias(ctx, "#x:home.example", "!nowhere:home.example", Keeper{User: carol, Admin: true})
	if !errors.Is(err, ErrUnknownRoom) {
		t.Errorf("alias of no room: %v, want ErrUnknownRoom", err)
	}
}

// An alias that moves while it is deleted is deleted where it is then.
func TestDeleteAliasOfUpgradedRoom(t *testing.T) {
	h := newHouse(t)
	ctx := context.Background()
	old := h.create(Creation{Creator: alice, Preset: PresetPublic, Alias: kitchen})
	fresh, err := h.rooms.Upgrade(ctx, old, alice, "12", nil)
	h.must(err)
	err = h.rooms.change(ctx, old, func(rm *room) error { return rm.deleteAlias(kitchen, Keeper{User: alice}) })
	if !errors.Is(err, errMoved) {
		t.Errorf("delete from the old room: %v, want errMoved", err)
	}
	h.must(h.rooms.DeleteAlias(ctx, kitchen, Keeper{User: alice}))
	if got := h.content(fresh, "m.room.canonical_alias"); got != "{}" {
		t.Errorf("canonical alias of the new room: %s, want {}", got)
	}
	if _, err := h.rooms.AliasRoom(kitchen); !errors.Is(err, ErrUnknownAlias) {
		t.Errorf("alias: %v, want ErrUnknownAlias", err)
	}
}

// A room that is purged is found no more, from the moment when it is given up.
func TestPurgedRoomIsNotFound(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, Alias: kitchen, Publish: true})
	gone := func(when string) {
		t.Helper()
		if _, err := h.rooms.AliasRoom(kitchen); !errors.Is(err, ErrUnknownAlias) {
			t.Errorf("%s: alias: %v, want ErrUnknownAlias", when, err)
		}
		page, err := h.rooms.Directory(DirectoryQuery{Limit: 10})
		if err != nil || len(page.Rooms) != 0 || page.Total != 0 {
			t.Errorf("%s: directory: %+v, %v", when, page, err)
		}
	}
	_, err := h.rooms.giveUp(context.Background(), room, func(matrix.UserID) {})
	h.must(err)
	gone("given up")
	h.must(h.rooms.resumePurges(context.Background()))
	gone("purged")
	again := h.create(Creation{Creator: bob, Preset: PresetPublic, Alias: kitchen})
	if id, err := h.rooms.AliasRoom(kitchen); id != again || err != nil {
		t.Errorf("alias leads to %s, %v; want %s", id, err, again)
	}
}

func TestAliasesOfARoomAreBounded(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic})
	h.must(h.store.Update(context.Background(), func(tx *store.Tx) error {
		for i := range maxAliases {
			if err := tx.PutAlias(matrix.RoomAlias(fmt.Sprintf("#%d:home.example", i)), tx.RoomNum(room), tx.UserNum(alice)); err != nil {
				return err
			}
		}
		return nil
	}))
	if err := h.rooms.AddAlias(context.Background(), kitchen, room, Keeper{User: alice}); !errors.Is(err, ErrForbidden) {
		t.Errorf("one alias more: %v, want ErrForbidden", err)
	}
	h.must(h.rooms.DeleteAlias(context.Background(), "#7:home.example", Keeper{User: alice}))
	h.must(h.rooms.AddAlias(context.Background(), kitchen, room, Keeper{User: alice}))
}

// directoryRooms walks pages of the directory from a place on.
func (h *house) directoryRooms(q DirectoryQuery) (names []string, last DirectoryPage) {
	h.Helper()
	for pages := 0; ; pages++ {
		page, err := h.rooms.Directory(q)
		h.must(err)
		if len(page.Rooms) > q.Limit || pages > 100 {
			h.Fatalf("page %d has %d rooms, limit %d", pages, len(page.Rooms), q.Limit)
		}
		var here []string
		for _, room := range page.Rooms {
			here = append(here, room.Name)
		}
		next := page.Next
		if q.Back {
			names, next = append(here, names...), page.Prev
		} else {
			names = append(names, here...)
		}
		if next == nil {
			return names, page
		}
		q.From = *next
	}
}

// Pages of every size, in both directions and with a filter, put together are the
// directory.
func TestDirectoryPages(t *testing.T) {
	h := newHouse(t)
	const rooms = 70 // more than are looked at in one View
	type listed struct {
		name   string
		joined int
	}
	var want []listed
	for i := range rooms {
		c := Creation{Creator: alice, Preset: PresetPublic, Publish: i%7 != 3, Name: fmt.Sprintf("room %d", i), Topic: "odd"}
		if i%2 == 0 {
			c.Topic, c.Content = "", []byte(`{"type":"m.space"}`)
		}
		room, joined := h.create(c), 1
		for j, user := range []matrix.UserID{bob, carol} {
			if i%(j+2) == 0 {
				h.must(h.join(room, user))
				joined++
			}
		}
		if c.Publish {
			want = append(want, listed{c.Name, joined})
		}
	}
	slices.SortStableFunc(want, func(a, b listed) int { return b.joined - a.joined })
	var all, odd []string
	for _, w := range want {
		all = append(all, w.name)
		var i int
		if _, err := fmt.Sscanf(w.name, "room %d", &i); err == nil && i%2 == 1 {
			odd = append(odd, w.name)
		}
	}
	for _, limit := range []int{1, 3, 64, 100} {
		for _, tt := range []struct {
			query DirectoryQuery
			want  []string
		}{
			{DirectoryQuery{}, all},
			{DirectoryQuery{Types: []string{"", "m.space"}}, all},
			{DirectoryQuery{Types: []string{""}}, odd},
			{DirectoryQuery{Term: "ODD"}, odd},
		} {
			tt.query.Limit = limit
			got, last := h.directoryRooms(tt.query)
			if !slices.Equal(got, tt.want) || last.Total != len(all) {
				t.Fatalf("%+v: total %d, rooms %v, want %v", tt.query, last.Total, got, tt.want)
			}
			if last.Prev == nil {
				if limit < len(tt.want) {
					t.Errorf("%+v: the last of several pages has no way back", tt.query)
				}
				continue
			}
			tt.query.From, tt.query.Back = *last.Prev, true
			back, first := h.directoryRooms(tt.query)
			if got := append(back, tt.want[len(tt.want)-len(last.Rooms):]...); !slices.Equal(got, tt.want) || first.Next == nil {
				t.Errorf("%+v: back: %v, want %v", tt.query, got, tt.want)
			}
		}
	}
}

// An alias of another server is one of a room if that server says so; those that the
// room has already are not asked for again, and strangers cannot have anybody asked.
func TestCanonicalAliasElsewhere(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic})
	other := h.create(Creation{Creator: alice, Preset: PresetPublic})
	set := func(user matrix.UserID, content string) error {
		_, err := h.set(room, user, "m.room.canonical_alias", "", content)
		return err
	}
	if err := set(alice, `{"alias":"#a:far.example"}`); !errors.Is(err, ErrBadAlias) {
		t.Errorf("nobody can be asked: %v, want ErrBadAlias", err)
	}
	leads := map[matrix.RoomAlias]matrix.RoomID{"#a:far.example": room, "#b:far.example": room, "#other:far.example": other}
	var asked []matrix.RoomAlias
	h.rooms.SetOutside(Outside{Alias: func(_ context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error) {
		asked = append(asked, alias)
		if id, known := leads[alias]; known {
			return id, nil, nil
		}
		return "", nil, errors.New("it cannot be reached")
	}})
	var many strings.Builder
	for i := range maxAliasesAsked + 1 {
		fmt.Fprintf(&many, `"#m%d:far.example",`, i)
	}
	for _, tt := range []struct {
		user    matrix.UserID
		content string
		want    error
		asked   int
	}{
		{alice, `{"alias":"#a:far.example","alt_aliases":["#a:far.example"]}`, nil, 1},
		{alice, `{"alias":"#a:far.example","alt_aliases":["#b:far.example"]}`, nil, 1},
		{alice, `{"alias":"#b:far.example"}`, nil, 0},
		{alice, `{"alias":"#b:far.example","alt_aliases":["#other:far.example"]}`, ErrBadAlias, 1},
		{alice, `{"alias":"#silent:far.example"}`, ErrBadAlias, 1},
		{alice, `{"alt_aliases":[` + many.String() + `"#b:far.example"]}`, ErrBadAlias, 0},
		{carol, `{"alias":"#other:far.example"}`, ErrForbidden, 0},
	} {
		asked = nil
		if err := set(tt.user, tt.content); !errors.Is(err, tt.want) || len(asked) != tt.asked {
			t.Errorf("%.60s by %s: %v, asked for %v; want %v, %d", tt.content, tt.user, err, asked, tt.want, tt.asked)
		}
	}
}

// Who asks where an alias leads is told servers of the room: this one, then those with
// the most members.
func TestAliasTarget(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, Alias: kitchen})
	h.must(h.store.Update(context.Background(), func(tx *store.Tx) error {
		for i := range 60 {
			if err := tx.CountRoomServer(tx.RoomNum(room), matrix.ServerName(fmt.Sprintf("s%02d.example", i)), int64(1+i)); err != nil {
				return err
			}
		}
		return nil
	}))
	id, servers, err := h.rooms.AliasTarget(kitchen)
	if err != nil || id != room || len(servers) != maxAliasServers || servers[0] != "home.example" || servers[1] != "s59.example" {
		t.Errorf("%s %v, %v", id, servers, err)
	}
	h.must(h.store.Update(context.Background(), func(tx *store.Tx) error { // as Check will count them
		for i := range 60 {
			if err := tx.CountRoomServer(tx.RoomNum(room), matrix.ServerName(fmt.Sprintf("s%02d.example", i)), -int64(1+i)); err != nil {
				return err
			}
		}
		return nil
	}))
	if _, _, err := h.rooms.AliasTarget("#none:home.example"); !errors.Is(err, ErrUnknownAlias) {
		t.Errorf("no alias: %v", err)
	}
}
