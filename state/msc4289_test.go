package state

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// The cases of MSC4289, "Explicitly privilege room creators", that are about creating
// and upgrading rooms; its rules are in package auth. [TestUpgrade] has the creators,
// users and tombstone levels of all upgrades to and from version 12.

// "The net result is that the union of `invite` and
// `creation_content.additional_creators` in the request body form the
// `additional_creators` in the `m.room.create` event." "Requests with BOTH `preset:
// trusted_private_chat` and users in the `invite` field have additional meaning".
func TestMSC4289CreateRoom(t *testing.T) {
	for _, tt := range []struct {
		name             string
		version, preset  string
		invite           []matrix.UserID
		content          string
		creators, levels string // additional_creators, and the users of the power levels
	}{
		{"a direct chat", "12", PresetTrusted, []matrix.UserID{bob}, ``, `["@bob:home.example"]`, `{}`},
		{"de-duplicated", "12", PresetTrusted, []matrix.UserID{bob, alice, bob}, `{"additional_creators":["@carol:home.example","@bob:home.example","@carol:home.example"]}`,
			`["@carol:home.example","@bob:home.example"]`, `{}`},
		{"nobody invited", "12", PresetTrusted, nil, `{"additional_creators":["@carol:home.example"]}`, `["@carol:home.example"]`, `{}`},
		{"nobody at all", "12", PresetTrusted, nil, ``, ``, `{}`},
		{"another preset", "12", PresetPrivate, []matrix.UserID{bob}, ``, ``, `{}`},
		{"another preset, with creators", "12", PresetPublic, []matrix.UserID{bob}, `{"additional_creators":["@eve:elsewhere.example"]}`, `["@eve:elsewhere.example"]`, `{}`},
		{"before there were creators", "11", PresetTrusted, []matrix.UserID{bob}, ``, ``, `{"@alice:home.example":100,"@bob:home.example":100}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t)
			room := h.create(Creation{Creator: alice, Preset: tt.preset, Version: tt.version, Invite: tt.invite, Content: []byte(tt.content)})
			if got := h.field(h.content(room, "m.room.create"), "additional_creators"); got != tt.creators {
				t.Errorf("additional_creators are %s, want %s", got, tt.creators)
			}
			if got := h.field(h.content(room, "m.room.power_levels"), "users"); got != tt.levels {
				t.Errorf("users are %s, want %s", got, tt.levels)
			}
		})
	}
}

// A request that names creators in a wrong form, or gives them a level, makes no room.
func TestMSC4289CreateRoomRefuses(t *testing.T) {
	users := []byte(`{"users":{"@alice:home.example":100}}`)
	for _, preset := range []string{PresetPrivate, PresetTrusted} {
		for what, tt := range map[string]struct {
			c    Creation
			want error
		}{
			"null":             {Creation{Content: []byte(`{"additional_creators":null}`)}, ErrBadEvent},
			"a user":           {Creation{Content: []byte(`{"additional_creators":"@bob:home.example"}`)}, ErrBadEvent},
			"no user":          {Creation{Content: []byte(`{"additional_creators":["bob"]}`)}, ErrBadEvent},
			"null among them":  {Creation{Content: []byte(`{"additional_creators":[null]}`)}, ErrBadEvent},
			"level by request": {Creation{PowerOverride: users}, ErrInvalidRoomState},
			"level by state": {Creation{Initial: []InitialEvent{{Type: "m.room.power_levels", Content: users}}},
				ErrInvalidRoomState},
			"level of an additional creator": {Creation{Content: []byte(`{"additional_creators":["@carol:home.example"]}`),
				PowerOverride: []byte(`{"users":{"@carol:home.example":50}}`)}, ErrInvalidRoomState},
		} {
			h := newHouse(t)
			tt.c.Creator, tt.c.Preset, tt.c.Invite = alice, preset, []matrix.UserID{bob}
			_, err := h.rooms.Create(context.Background(), tt.c)
			h.wantReason(preset+", "+what, err, tt.want)
		}
	}
}

// "The initial power levels event in the room MUST have the level required to send
// `m.room.tombstone` events be higher than the level required to send state events."
// "Note: this may still be overridden by `power_level_content_override`."
func TestMSC4289Tombstone(t *testing.T) {
	h := newHouse(t)
	for _, tt := range []struct{ version, override, want string }{
		{"12", ``, "150"},
		{"12", `{"events":{"m.room.name":0}}`, "150"},
		{"12", `{"events":{}}`, "150"},
		{"12", `{"state_default":100}`, "150"},
		{"12", `{"state_default":200}`, "201"},
		{"12", `{"state_default":9007199254740991}`, "9007199254740991"},
		{"12", `{"events":{"m.room.tombstone":50}}`, "50"},
		{"12", `{"events":{"m.room.tombstone":100},"state_default":100}`, "100"},
		{"11", ``, "100"},
		{"11", `{"events":{"m.room.name":0}}`, ""},
	} {
		room := h.create(Creation{Creator: alice, Preset: PresetPrivate, Version: tt.version, PowerOverride: []byte(tt.override)})
		if got := h.field(h.content(room, "m.room.power_levels"), "events", "m.room.tombstone"); got != tt.want {
			t.Errorf("version %s, %s: m.room.tombstone needs %s, want %s", tt.version, tt.override, got, tt.want)
		}
	}
	for _, override := range []string{`{"events":7}`, `{"events":null}`, `{"state_default":"50"}`} {
		_, err := h.rooms.Create(context.Background(), Creation{Creator: alice, Preset: PresetPrivate, PowerOverride: []byte(override)})
		h.wantReason(override, err, ErrInvalidRoomState)
	}
}

// "This is to ensure only creators are able to upgrade the room by default, but
// allowing them to transfer ownership by increasing the PL of any user to PL150". And:
// "Alice created a room and put Bob as an additional creator. Charlie has PL150 and
// wants to upgrade the room so Alice is no longer a creator. He wants to keep Bob as an
// additional creator. Charlie can `/upgrade` the room and specify Bob as an additional
// creator. The new room does not have Alice as a creator or additional creator."
func TestMSC4289Upgrade(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, Content: []byte(`{"additional_creators":["@bob:home.example"]}`)})
	h.must(h.join(room, bob))
	h.must(h.join(room, carol))
	raise := func(level int) {
		t.Helper()
		levels := h.content(room, "m.room.power_levels")
		changed := strings.Replace(levels, `"users":`+h.field(levels, "users"), fmt.Sprintf(`"users":{%q:%d}`, carol, level), 1)
		_, err := h.set(room, alice, "m.room.power_levels", "", changed)
		h.must(err)
	}
	raise(100)
	_, err := h.rooms.Upgrade(context.Background(), room, carol, "12", []matrix.UserID{bob})
	h.wantReason("an upgrade by an admin", err, ErrForbidden)
	raise(150)
	fresh, err := h.rooms.Upgrade(context.Background(), room, carol, "12", []matrix.UserID{bob})
	h.must(err)
	h.wantPowers(fresh, map[matrix.UserID]int64{alice: 0, bob: auth.Infinite, carol: auth.Infinite})

	// The creators of the old room are still those, and can do it again.
	again, err := h.rooms.Upgrade(context.Background(), room, bob, "12", nil)
	h.must(err)
	h.wantPowers(again, map[matrix.UserID]int64{alice: 0, bob: auth.Infinite, carol: 150})

	// "the request would (probably) 200 OK but the new room's `m.room.create` event
	// would not have an `additional_creators` field"
	older, err := h.rooms.Upgrade(context.Background(), room, alice, "11", []matrix.UserID{bob})
	h.must(err)
	if got := h.field(h.content(older, "m.room.create"), "additional_creators"); got != "" {
		t.Errorf("version 11 has additional_creators %s", got)
	}
}

// wantPowers holds users to their power in a room.
func (h *house) wantPowers(room matrix.RoomID, want map[matrix.UserID]int64) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) error {
		create, err := Current(tx, room, "m.room.create", "")
		if err != nil {
			return err
		}
		levels, err := Current(tx, room, "m.room.power_levels", "")
		for user, want := range want {
			if got := auth.UserPower(create.Event, levels.Event, user); got != want {
				h.Errorf("%s has power %d, want %d", user, got, want)
			}
		}
		return err
	}))
}
