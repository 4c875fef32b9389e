package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// content returns the content of a room's current state, "" where there is none.
func (h *house) content(room matrix.RoomID, typ string) (content string) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) error {
		ev, err := Current(tx, room, typ, "")
		if ev != nil {
			content = string(ev.Content)
		}
		return err
	}))
	return content
}

// field returns a member of an object, "" where there is none.
func (h *house) field(object string, path ...string) string {
	h.Helper()
	for _, name := range path {
		var members map[string]jsontext.Value
		if object == "" || json.Unmarshal([]byte(object), &members) != nil {
			return ""
		}
		object = string(members[name])
	}
	return object
}

// upgradable makes a room of alice's with bob and carol in it, who have these levels.
func (h *house) upgradable(version, users string) matrix.RoomID {
	h.Helper()
	room := h.create(Creation{
		Creator: alice, Preset: PresetPublic, Version: version, Name: "Kitchen", Topic: "Food",
		Alias: "#kitchen:home.example", Publish: true, Content: []byte(`{"type":"m.space","m.federate":false}`),
		Initial: []InitialEvent{
			{Type: "m.room.encryption", Content: []byte(`{"algorithm":"m.megolm.v1.aes-sha2"}`)},
			{Type: "m.room.server_acl", Content: []byte(`{"allow":["*"],"deny":["evil.example"]}`)},
			{Type: "m.room.history_visibility", Content: []byte(`{"history_visibility":"joined"}`)},
			{Type: "m.room.guest_access", Content: []byte(`{"guest_access":"can_join"}`)},
			{Type: "m.room.avatar", Content: []byte(`{"url":"mxc://home.example/a"}`)},
			{Type: "org.example.own", Content: []byte(`{}`)},
		},
	})
	h.must(h.join(room, bob))
	h.must(h.join(room, carol))
	if users != "" {
		_, err := h.set(room, alice, "m.room.power_levels", "", fmt.Sprintf(`{"users":{%s},"events":{"m.room.tombstone":100,"m.x":"60"}}`, users))
		if err != nil {
			_, err = h.set(room, alice, "m.room.power_levels", "", fmt.Sprintf(`{"users":{%s},"events":{"m.room.tombstone":100,"m.x":60}}`, users))
		}
		h.must(err)
	}
	return room
}

func TestUpgrade(t *testing.T) {
	level := func(user matrix.UserID, level int) string { return fmt.Sprintf(`"%s":%d`, user, level) }
	for _, tt := range []struct {
		from, to string
		users    string // in the old room
		by       matrix.UserID
		creators []matrix.UserID

		// In the new room, the last being the level of m.room.tombstone.
		newCreators, newUsers, tombstone string
	}{
		{"1", "12", level(alice, 100) + "," + level(bob, 100), bob, nil, "", `{` + level(alice, 100) + `}`, "150"},
		{"1", "12", `"@alice:home.example":"100","@carol:home.example":"50"`, alice, nil, "", `{` + level(carol, 50) + `}`, "150"},
		{"1", "11", level(alice, 100) + "," + level(bob, 100), bob, []matrix.UserID{carol}, "", `{` + level(alice, 100) + "," + level(bob, 100) + `}`, "100"},
		{"11", "12", level(alice, 100) + "," + level(bob, 100) + "," + level(carol, 50), alice, []matrix.UserID{bob, alice, bob}, `["@bob:home.example"]`, `{` + level(carol, 50) + `}`, "150"},
		{"11", "12", "", alice, nil, "", `{}`, "150"},
		{"12", "12", level(bob, 150) + "," + level(carol, 50), bob, []matrix.UserID{carol}, `["@carol:home.example"]`, `{}`, "100"},
		{"12", "12", level(bob, 50), alice, nil, "", `{` + level(bob, 50) + `}`, "100"},
		{"12", "12", "", alice, nil, "", `{}`, "150"},
		{"12", "11", level(bob, 150), alice, nil, "", `{` + level(alice, 100) + "," + level(bob, 150) + `}`, "100"},
		{"12", "1", "", alice, nil, "", `{` + level(alice, 150) + `}`, "150"},
		{"6", "6", level(alice, 100), alice, nil, "", `{` + level(alice, 100) + `}`, "100"},
	} {
		t.Run(fmt.Sprintf("%s to %s by %s", tt.from, tt.to, tt.by), func(t *testing.T) {
			h := newHouse(t)
			old := h.upgradable(tt.from, tt.users)
			fresh, err := h.rooms.Upgrade(context.Background(), old, tt.by, tt.to, tt.creators)
			h.must(err)
			h.wantReplaced(old, fresh)

			create, levels := h.content(fresh, "m.room.create"), h.content(fresh, "m.room.power_levels")
			for _, f := range []struct{ name, got, want string }{
				{"room_version", h.field(create, "room_version"), string(quote(tt.to))},
				{"additional_creators", h.field(create, "additional_creators"), tt.newCreators},
				{"users", h.field(levels, "users"), tt.newUsers},
				{"level of m.room.tombstone", h.field(levels, "events", "m.room.tombstone"), tt.tombstone},
			} {
				if f.got != f.want {
					t.Errorf("%s is %s, want %s", f.name, f.got, f.want)
				}
			}
			if tt.users != "" && h.field(levels, "events", "m.x") != "60" {
				t.Errorf("levels of events: %s", levels)
			}
			h.send(fresh, tt.by, "m.room.message", `{"body":"here"}`)
		})
	}
}

// wantReplaced holds a room and its replacement to what is the same in all versions.
func (h *house) wantReplaced(old, fresh matrix.RoomID) {
	h.Helper()
	create, tombstone := h.content(fresh, "m.room.create"), h.content(old, "m.room.tombstone")
	named := "" // the tombstone, unless the room's ID is made of what names it
	h.must(h.store.View(func(tx *store.Tx) error {
		ev, err := Current(tx, old, "m.room.tombstone", "")
		if err != nil {
			return err
		}
		if _, isNamed := fresh.Server(); isNamed {
			named = string(quote(string(ev.ID)))
		}
		return nil
	}))
	for _, f := range []struct{ name, got, want string }{
		{"type", h.field(create, "type"), `"m.space"`},
		{"m.federate", h.field(create, "m.federate"), `false`},
		{"predecessor", h.field(create, "predecessor", "room_id"), string(quote(string(old)))},
		{"event of the predecessor", h.field(create, "predecessor", "event_id"), named},
		{"replacement_room", h.field(tombstone, "replacement_room"), string(quote(string(fresh)))},
		{"acl", h.content(fresh, "m.room.server_acl"), h.content(old, "m.room.server_acl")},
		{"encryption", h.content(fresh, "m.room.encryption"), `{"algorithm":"m.megolm.v1.aes-sha2"}`},
		{"name", h.content(fresh, "m.room.name"), `{"name":"Kitchen"}`},
		{"avatar", h.content(fresh, "m.room.avatar"), h.content(old, "m.room.avatar")},
		{"topic", h.content(fresh, "m.room.topic"), h.content(old, "m.room.topic")},
		{"guest access", h.content(fresh, "m.room.guest_access"), `{"guest_access":"can_join"}`},
		{"visibility", h.content(fresh, "m.room.history_visibility"), `{"history_visibility":"joined"}`},
		{"join rules", h.content(fresh, "m.room.join_rules"), `{"join_rule":"public"}`},
		{"what is not Matrix's", h.content(fresh, "org.example.own"), ""},
		{"events_default", h.field(h.content(old, "m.room.power_levels"), "events_default"), "50"},
		{"invite", h.field(h.content(old, "m.room.power_levels"), "invite"), "50"},
		{"new canonical alias", h.content(fresh, "m.room.canonical_alias"), `{"alias":"#kitchen:home.example"}`},
		{"old canonical alias", h.content(old, "m.room.canonical_alias"), `{}`},
	} {
		if f.got != f.want {
			h.Errorf("%s is %s, want %s", f.name, f.got, f.want)
		}
	}
	if got := h.field(h.content(fresh, "m.room.power_levels"), "events_default"); got != "" && got != "0" {
		h.Errorf("events_default of the new room is %s", got)
	}
	h.must(h.store.View(func(tx *store.Tx) error {
		room, creator, err := tx.Alias("#kitchen:home.example")
		if room != tx.RoomNum(fresh) || tx.UserID(creator) != alice {
			h.Errorf("the alias leads to room %d, made by %d", room, creator)
		}
		if tx.Published(tx.RoomNum(old)) || !tx.Published(tx.RoomNum(fresh)) {
			h.Error("the place in the directory did not move")
		}
		_, head, _ := Head(tx, fresh)
		if head.Joined != 1 || head.Invited != 0 {
			h.Errorf("%d joined, %d invited", head.Joined, head.Invited)
		}
		return err
	}))
}

// A refused upgrade leaves nothing behind.
func TestUpgradeRefused(t *testing.T) {
	h := newHouse(t)
	for _, tt := range []struct {
		version string
		by      matrix.UserID
		to      string
		want    error
	}{
		{"11", bob, "12", ErrForbidden},
		{"12", bob, "12", ErrForbidden},
		{"11", "@dave:home.example", "12", ErrForbidden},
		{"11", alice, "13", ErrUnsupportedVersion},
		{"11", alice, "", ErrUnsupportedVersion},
	} {
		room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: tt.version})
		h.must(h.join(room, bob))
		before := h.timeline(room)
		if _, err := h.rooms.Upgrade(context.Background(), room, tt.by, tt.to, nil); !errors.Is(err, tt.want) {
			t.Errorf("%s to %s by %s: %v, want %v", tt.version, tt.to, tt.by, err, tt.want)
		}
		if after := h.timeline(room); !slices.Equal(before, after) {
			t.Errorf("%s to %s by %s: events %v, had %v", tt.version, tt.to, tt.by, after, before)
		}
	}
	if _, err := h.rooms.Upgrade(context.Background(), "!nowhere:home.example", alice, "12", nil); !errors.Is(err, ErrForbidden) {
		t.Errorf("an unknown room: %v", err)
	}
}

// Levels that are above the raised ones stay, and a user without the power to change
// levels upgrades all the same. What version 6 on has no form for is left out.
func TestUpgradeOddLevels(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: "5"})
	h.must(h.join(room, bob))
	_, err := h.set(room, alice, "m.room.name", "", `{"name":"x","version":1.5}`)
	h.must(err)
	_, err = h.set(room, alice, "m.room.power_levels", "", fmt.Sprintf(
		`{"users":{%q:100,%q:60},"users_default":"55","events_default":70,"events":{"m.room.tombstone":60,"m.room.power_levels":100},"odd":0.5}`, alice, bob))
	h.must(err)
	fresh, err := h.rooms.Upgrade(context.Background(), room, bob, "11", nil)
	h.must(err)
	if got := h.content(fresh, "m.room.name"); got != `{"name":"x"}` {
		t.Errorf("name: %s", got)
	}
	want := fmt.Sprintf(`{"events":{"m.room.power_levels":100,"m.room.tombstone":60},"events_default":70,"users":{%q:100,%q:60},"users_default":55}`, alice, bob)
	if got := h.content(fresh, "m.room.power_levels"); got != want {
		t.Errorf("levels:\n got %s\nwant %s", got, want)
	}
	if got := h.field(h.content(room, "m.room.power_levels"), "invite"); got != "" {
		t.Errorf("bob raised invite to %s", got)
	}
	_, err = h.rooms.Upgrade(context.Background(), room, alice, "11", nil)
	h.must(err)
	levels := h.content(room, "m.room.power_levels")
	if invite, events := h.field(levels, "invite"), h.field(levels, "events_default"); invite != "56" || events != "70" {
		t.Errorf("invite %s, events_default %s, want 56 and 70", invite, events)
	}
}

// Who joins a replacement gets what he kept about the room before, whichever of the
// two events comes first; a room that only claims to replace another gets nothing.
func TestCarry(t *testing.T) {
	h := newHouse(t)
	var carried []string
	h.rooms.carry = func(tx *store.Tx, user store.UserNum, from, to store.RoomNum) error {
		carried = append(carried, fmt.Sprintf("%s %d to %d", tx.UserID(user).Localpart(), from, to))
		return nil
	}
	number := func(id matrix.RoomID) (num store.RoomNum) {
		h.must(h.store.View(func(tx *store.Tx) error { num = tx.RoomNum(id); return nil }))
		return num
	}
	for _, version := range []string{"11", "12"} {
		carried = nil
		old := h.create(Creation{Creator: alice, Preset: PresetPublic})
		h.must(h.join(old, bob))
		fresh, err := h.rooms.Upgrade(context.Background(), old, alice, version, nil)
		h.must(err)
		h.must(h.join(fresh, bob))
		h.must(h.join(fresh, carol)) // was never in the old room
		from, to := number(old), number(fresh)
		if want := []string{fmt.Sprintf("alice %d to %d", from, to), fmt.Sprintf("bob %d to %d", from, to)}; !slices.Equal(carried, want) {
			t.Errorf("version %s: %q, want %q", version, carried, want)
		}

		carried = nil
		claims := func(to matrix.RoomID) matrix.RoomID {
			claim := h.create(Creation{Creator: bob, Preset: PresetPublic, Content: encode(map[string]any{"predecessor": map[string]any{"room_id": to}})})
			h.must(h.join(claim, alice))
			return claim
		}
		claims(old) // which has gone elsewhere
		claim := claims(fresh)
		other := h.create(Creation{Creator: alice, Preset: PresetPublic})
		_, err = h.set(other, alice, "m.room.tombstone", "", fmt.Sprintf(`{"replacement_room":%q}`, claim))
		h.must(err)
		if len(carried) > 0 {
			t.Errorf("version %s: carried where only one room claims it: %q", version, carried)
		}
		_, err = h.set(fresh, alice, "m.room.tombstone", "", fmt.Sprintf(`{"replacement_room":%q}`, claim))
		h.must(err)
		if len(carried) != 2 {
			t.Errorf("version %s: by hand: %q", version, carried)
		}
	}
}
