package state

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// house is a store with rooms, and what the tests do in them.
type house struct {
	*testing.T
	store *store.Store
	rooms *Rooms
}

const (
	alice = matrix.UserID("@alice:home.example")
	bob   = matrix.UserID("@bob:home.example")
	carol = matrix.UserID("@carol:home.example")
)

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{T: t}
	h.open(t.TempDir())
	t.Cleanup(func() {
		if err := h.store.Check(context.Background(), func(problem string) { t.Errorf("check: %s", problem) }); err != nil {
			t.Errorf("check: %v", err)
		}
		if err := h.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// open begins with the store in dir, and with nothing else from before.
func (h *house) open(dir string) {
	h.Helper()
	st, err := store.Open(dir, "home.example", store.Options{NoSync: true})
	if err != nil {
		h.Fatal(err)
	}
	clock := time.UnixMilli(1_700_000_000_000)
	key := matrix.SigningKey{ID: "ed25519:test", Private: ed25519.NewKeyFromSeed(make([]byte, 32))}
	var mu sync.Mutex
	h.store = st
	h.rooms = New(Config{Store: st, Server: "home.example", Key: key, Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		clock = clock.Add(time.Millisecond)
		return clock
	}})
}

func (h *house) create(c Creation) matrix.RoomID {
	h.Helper()
	id, err := h.rooms.Create(context.Background(), c)
	if err != nil {
		h.Fatalf("create: %v", err)
	}
	return id
}

func (h *house) send(room matrix.RoomID, sender matrix.UserID, typ, content string) matrix.EventID {
	h.Helper()
	id, err := h.rooms.Send(context.Background(), store.TxnID{}, matrix.Draft{Room: room, Sender: sender, Type: typ, Content: []byte(content)})
	if err != nil {
		h.Fatalf("send %s: %v", typ, err)
	}
	return id
}

func (h *house) set(room matrix.RoomID, sender matrix.UserID, typ, key, content string) (matrix.EventID, error) {
	return h.rooms.Send(context.Background(), store.TxnID{}, matrix.Draft{Room: room, Sender: sender, Type: typ, StateKey: &key, Content: []byte(content)})
}

func (h *house) join(room matrix.RoomID, user matrix.UserID) error {
	return h.rooms.Join(context.Background(), Join{Room: room, User: user})
}

func (h *house) change(room matrix.RoomID, sender, target matrix.UserID, to matrix.Membership) error {
	_, err := h.rooms.ChangeMembership(context.Background(), MembershipChange{Room: room, Sender: sender, Target: target, Membership: to})
	return err
}

func (h *house) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// timeline returns the types of a room's events, with the state keys of state.
func (h *house) timeline(room matrix.RoomID) []string {
	h.Helper()
	var types []string
	h.must(h.store.View(func(tx *store.Tx) error {
		return tx.Timeline(tx.RoomNum(room), 0, func(ev *store.StoredEvent) (bool, error) {
			types = append(types, ev.Type)
			return true, nil
		})
	}))
	return types
}

// event returns a stored event by its ID.
func (h *house) event(id matrix.EventID) (ev *store.StoredEvent) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) (err error) {
		room, num, ok := tx.EventByID(id)
		if !ok {
			return fmt.Errorf("no event %s", id)
		}
		ev, err = tx.Event(room, num)
		return err
	}))
	return ev
}

// sees says whether a user may see an event.
func (h *house) sees(user matrix.UserID, id matrix.EventID) (sees bool) {
	h.Helper()
	ev := h.event(id)
	h.must(h.store.View(func(tx *store.Tx) error {
		viewer, err := NewViewer(tx, ev.RoomNum, user)
		if err != nil {
			return err
		}
		sees, err = viewer.Sees(ev)
		return err
	}))
	return sees
}

func TestCreateInEveryVersion(t *testing.T) {
	for _, version := range matrix.Versions() {
		for _, preset := range []string{PresetPrivate, PresetTrusted, PresetPublic} {
			t.Run(version.ID+"/"+preset, func(t *testing.T) {
				h := newHouse(t)
				room := h.create(Creation{
					Creator: alice, Preset: preset, Version: version.ID,
					Name: "Kitchen", Topic: "Food", Invite: []matrix.UserID{bob},
				})
				want := []string{
					"m.room.create", "m.room.member", "m.room.power_levels", "m.room.join_rules",
					"m.room.history_visibility", "m.room.guest_access", "m.room.name", "m.room.topic", "m.room.member",
				}
				if preset == PresetPublic { // where no guest may join, which needs no event
					want = slices.Delete(want, 5, 6)
				}
				if got := h.timeline(room); !slices.Equal(got, want) {
					t.Errorf("events are %v, want %v", got, want)
				}
				h.must(h.join(room, bob))
				h.send(room, bob, "m.room.message", `{"body":"hi"}`)
				_, err := h.set(room, bob, "m.room.history_visibility", "", `{"history_visibility":"joined"}`)
				trusted := preset == PresetTrusted
				var refused *auth.Error
				if trusted != (err == nil) || !trusted && !errors.As(err, &refused) {
					t.Errorf("bob sets the history visibility of a %s: %v", preset, err)
				}
			})
		}
	}
}

// Who asks for no version gets what the owner wants.
func TestDefaultVersion(t *testing.T) {
	h := newHouse(t)
	for _, want := range []string{matrix.DefaultVersion, "10"} {
		h.rooms.defaultVersion = want
		room := h.create(Creation{Creator: alice})
		if got := h.head(room).Version.ID; got != want || h.rooms.DefaultVersion() != want {
			t.Errorf("version %s, want %s", got, want)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		creation Creation
		kind     error
	}{
		"unknown version": {Creation{Version: "99"}, ErrUnsupportedVersion},
		"no power for a name": {Creation{
			Version: "11", Name: "x", PowerOverride: []byte(`{"users":{},"state_default":50}`),
		}, ErrInvalidRoomState},
		"create in initial_state": {Creation{
			Initial: []InitialEvent{{Type: "m.room.create", Content: []byte(`{}`)}},
		}, ErrBadEvent},
		"creators that are no users": {Creation{Content: []byte(`{"additional_creators":["bob"]}`)}, ErrBadEvent},
		"invite to another server":   {Creation{Invite: []matrix.UserID{"@eve:elsewhere.example"}}, ErrForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			tc.creation.Creator, tc.creation.Preset = alice, PresetPrivate
			id, err := h.rooms.Create(context.Background(), tc.creation)
			if !errors.Is(err, tc.kind) {
				t.Errorf("got room %q and error %v, want %v", id, err, tc.kind)
			}
			if pos := h.store.Position(); pos != 0 {
				t.Errorf("the refused room left the stream at %d", pos)
			}
		})
	}
}

func TestCreateTakesWhatTheClientSets(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{
		Creator: alice, Preset: PresetPublic, Name: "wins", Alias: "#pub:home.example", Publish: true,
		Initial: []InitialEvent{
			{Type: "m.room.name", Content: []byte(`{"name":"loses"}`)},
			{Type: "m.room.join_rules", Content: []byte(`{"join_rule":"invite"}`)},
			{Type: "m.room.encryption", Content: []byte(`{"algorithm":"m.megolm.v1.aes-sha2"}`)},
		},
	})
	h.must(h.store.View(func(tx *store.Tx) error {
		for typ, want := range map[string]string{
			"m.room.name": `{"name":"wins"}`, "m.room.join_rules": `{"join_rule":"invite"}`,
			"m.room.canonical_alias": `{"alias":"#pub:home.example"}`,
			"m.room.encryption":      `{"algorithm":"m.megolm.v1.aes-sha2"}`,
		} {
			ev, err := Current(tx, room, typ, "")
			if err != nil || ev == nil || string(ev.Content) != want {
				t.Errorf("%s is %v, %v; want %s", typ, ev, err, want)
			}
		}
		num, _, err := tx.Alias("#pub:home.example")
		if err != nil || tx.RoomID(num) != room || !tx.Published(num) {
			t.Errorf("the alias leads to %v, %v", num, err)
		}
		return nil
	}))
	if _, err := h.rooms.Create(context.Background(), Creation{Creator: bob, Preset: PresetPublic, Alias: "#pub:home.example"}); !errors.Is(err, ErrAliasInUse) {
		t.Errorf("a second room under the alias: %v", err)
	}
}

func TestTransactionsAndUnchangedStateMakeNoSecondEvent(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPrivate})
	draft := matrix.Draft{Room: room, Sender: alice, Type: "m.room.message", Content: []byte(`{"body":"once"}`)}
	txn := store.TxnID{User: 1, Device: "A", Endpoint: "send", ID: "1"}
	first, err := h.rooms.Send(context.Background(), txn, draft)
	h.must(err)
	again, err := h.rooms.Send(context.Background(), txn, draft)
	h.must(err)
	txn.Device = "B"
	other, err := h.rooms.Send(context.Background(), txn, draft)
	h.must(err)
	if first != again || first == other {
		t.Errorf("same transaction %s and %s, other device %s", first, again, other)
	}
	one, err := h.set(room, alice, "m.room.topic", "", `{"topic":"x"}`)
	h.must(err)
	two, err := h.set(room, alice, "m.room.topic", "", `{ "topic": "x" }`)
	h.must(err)
	if one != two {
		t.Errorf("equal state made %s and %s", one, two)
	}
}

func TestMembership(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPrivate})
	var refused *auth.Error
	if err := h.join(room, bob); !errors.As(err, &refused) {
		t.Errorf("join without an invite: %v", err)
	}
	h.must(h.change(room, alice, bob, matrix.Invite))
	h.must(h.join(room, bob))
	h.must(h.join(room, bob))
	if err := h.change(room, bob, alice, matrix.Ban); !errors.As(err, &refused) {
		t.Errorf("bob bans alice: %v", err)
	}
	if err := h.change(room, alice, carol, matrix.Leave); !errors.Is(err, ErrForbidden) {
		t.Errorf("kick of who is not there: %v", err)
	}
	h.must(h.change(room, alice, bob, matrix.Leave))
	if _, err := h.rooms.Send(context.Background(), store.TxnID{}, matrix.Draft{Room: room, Sender: bob, Type: "m.x", Content: []byte(`{}`)}); !errors.Is(err, ErrForbidden) {
		t.Errorf("send after a kick: %v", err)
	}
	h.must(h.change(room, alice, bob, matrix.Ban))
	if err := h.change(room, alice, bob, matrix.Invite); !errors.As(err, &refused) {
		t.Errorf("invite of who is banned: %v", err)
	}
	h.must(h.rooms.Unban(context.Background(), room, alice, bob, ""))
	if err := h.rooms.Unban(context.Background(), room, alice, bob, ""); !errors.Is(err, ErrForbidden) {
		t.Errorf("second unban: %v", err)
	}
	h.must(h.store.View(func(tx *store.Tx) error {
		_, head, err := Head(tx, room)
		if head.Joined != 1 || head.Invited != 0 {
			t.Errorf("%d joined, %d invited; want 1 and 0", head.Joined, head.Invited)
		}
		return err
	}))
}

// A user who blocks invites gets none by any way, and the room that was to be made
// with him is not made.
func TestInviteBlocked(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPrivate})
	config := func(content string) {
		t.Helper()
		h.must(h.store.Update(context.Background(), func(tx *store.Tx) error {
			num, err := tx.PutUserNum(bob)
			if err != nil {
				return err
			}
			return tx.PutAccountData(num, store.AccountData{Type: "m.invite_permission_config", Content: []byte(content)})
		}))
	}
	config(`{"default_action":"block"}`)
	if err := h.change(room, alice, bob, matrix.Invite); !errors.Is(err, ErrInviteBlocked) {
		t.Errorf("invite: %v", err)
	}
	if _, err := h.set(room, alice, "m.room.member", string(bob), `{"membership":"invite"}`); !errors.Is(err, ErrInviteBlocked) {
		t.Errorf("invite as state: %v", err)
	}
	if _, err := h.set(room, alice, "m.room.member", "@eve:elsewhere.example", `{"membership":"invite"}`); !errors.Is(err, ErrForbidden) {
		t.Errorf("invite to another server as state: %v", err)
	}
	before := h.store.Position()
	if _, err := h.rooms.Create(context.Background(), Creation{Creator: alice, Preset: PresetPrivate, Invite: []matrix.UserID{bob}}); !errors.Is(err, ErrInviteBlocked) {
		t.Errorf("create: %v", err)
	}
	if h.store.Position() != before {
		t.Error("a room was made")
	}
	for _, content := range []string{`{}`, `{"default_action":"unknown"}`, `{"default_action":7}`} {
		config(content)
		h.must(h.change(room, alice, bob, matrix.Invite))
	}
}

func TestInviteTwiceAtCreation(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPrivate, Invite: []matrix.UserID{bob, alice, bob}})
	if got := h.timeline(room); len(got) != 7 {
		t.Errorf("events are %v", got)
	}
}

// How far users reach: the stranger, who is in, who left, and who forgot the room.
func TestReach(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic})
	h.must(h.join(room, bob))
	h.must(h.rooms.Leave(context.Background(), room, bob, ""))
	left := h.store.Position()
	h.send(room, alice, "m.room.message", `{"body":"later"}`)
	reach := func(user matrix.UserID) string {
		var text string
		h.must(h.store.View(func(tx *store.Tx) error {
			num, head, err := Head(tx, room)
			if err != nil {
				return err
			}
			viewer, err := NewViewer(tx, num, user)
			if err != nil {
				return err
			}
			last, ok, err := viewer.Reach(head)
			text = fmt.Sprint(ok, last)
			return err
		}))
		return text
	}
	want := func(user matrix.UserID, want string) {
		t.Helper()
		if got := reach(user); got != want {
			t.Errorf("%s reaches %s, want %s", user, got, want)
		}
	}
	want(alice, "true 0")
	want(bob, fmt.Sprint(true, left))
	want(carol, "false 0")
	h.must(h.change(room, alice, bob, matrix.Ban))
	want(bob, fmt.Sprint(true, left))
	h.must(h.store.Update(context.Background(), func(tx *store.Tx) error { return tx.ForgetRoom(tx.UserNum(bob), tx.RoomNum(room)) }))
	want(bob, fmt.Sprint(false, left))
	_, err := h.set(room, alice, "m.room.history_visibility", "", `{"history_visibility":"world_readable"}`)
	h.must(err)
	want(bob, "true 0")
	want(carol, "true 0")
}

func TestRedaction(t *testing.T) {
	for _, version := range []string{"1", "3", "10", "11", "12"} {
		t.Run(version, func(t *testing.T) {
			h := newHouse(t)
			room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: version})
			h.must(h.join(room, bob))
			h.must(h.join(room, carol))
			bobs := h.send(room, bob, "m.room.message", `{"body":"oops"}`)
			redact := func(user matrix.UserID) error {
				_, err := h.rooms.Redact(context.Background(), room, user, bobs, []byte(`{"reason":"r"}`), store.TxnID{})
				return err
			}
			if err := redact(carol); !errors.Is(err, ErrForbidden) {
				t.Errorf("carol redacts bob: %v", err)
			}
			h.must(redact(bob))
			h.must(redact(alice))
			ev := h.event(bobs)
			if string(ev.Content) != `{}` || ev.RedactedBy == 0 {
				t.Errorf("the redacted event holds %s", ev.JSON())
			}
		})
	}
}

func TestReactions(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPrivate})
	parent := h.send(room, alice, "m.room.message", `{"body":"like me"}`)
	react := func(key string) error {
		content := fmt.Sprintf(`{"m.relates_to":{"rel_type":"m.annotation","event_id":%q,"key":%q}}`, parent, key)
		_, err := h.rooms.Send(context.Background(), store.TxnID{}, matrix.Draft{Room: room, Sender: alice, Type: "m.reaction", Content: []byte(content)})
		return err
	}
	h.must(react("+1"))
	h.must(react("-1"))
	if err := react("+1"); !errors.Is(err, ErrDuplicateAnnotation) {
		t.Errorf("the same reaction twice: %v", err)
	}
}

// Eight senders in one room: every event is there once, in one chain.
func TestSendersSideBySide(t *testing.T) {
	h := newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPrivate})
	before := len(h.timeline(room))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				h.send(room, alice, "m.room.message", `{"body":"x"}`)
			}
		})
	}
	wg.Wait()
	if got := len(h.timeline(room)) - before; got != 200 {
		t.Errorf("%d messages in the room, want 200", got)
	}
	h.must(h.store.View(func(tx *store.Tx) error {
		var last matrix.EventID
		return tx.Timeline(tx.RoomNum(room), 0, func(ev *store.StoredEvent) (bool, error) {
			if last != "" && !slices.Equal(ev.PrevEvents, []matrix.EventID{last}) {
				t.Errorf("%s stands on %v, want %s", ev.ID, ev.PrevEvents, last)
			}
			last = ev.ID
			return true, nil
		})
	}))
}

func TestSpreadProfile(t *testing.T) {
	h := newHouse(t)
	one := h.create(Creation{Creator: alice, Preset: PresetPrivate})
	two := h.create(Creation{Creator: alice, Preset: PresetPrivate})
	h.must(h.store.Update(context.Background(), func(tx *store.Tx) error {
		num, err := tx.PutUserNum(alice)
		if err != nil {
			return err
		}
		return tx.PutProfileField(num, "displayname", []byte(`"Alice"`))
	}))
	h.must(h.rooms.SpreadProfile(context.Background(), alice))
	h.must(h.rooms.SpreadProfile(context.Background(), alice))
	for _, room := range []matrix.RoomID{one, two} {
		h.must(h.store.View(func(tx *store.Tx) error {
			ev, err := Current(tx, room, "m.room.member", string(alice))
			if err != nil {
				return err
			}
			if member, err := ev.Member(); err != nil || member.DisplayName == nil || *member.DisplayName != "Alice" {
				t.Errorf("alice is %s in %s", ev.Content, room)
			}
			return nil
		}))
		if got := h.timeline(room); len(got) != 7 {
			t.Errorf("%v: the second spreading changed something", got)
		}
	}
}
