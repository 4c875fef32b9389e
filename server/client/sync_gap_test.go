package client

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"hearth/state"
	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// buildEvent makes an event of @alice that another server might send, which stands on
// prev.
func buildEvent(t *testing.T, s *testServer, room string, draft matrix.Draft, prev ...matrix.EventID) (ev *matrix.Event) {
	t.Helper()
	err := s.store.View(func(tx *store.Tx) error {
		key, err := tx.SigningKey()
		if err != nil {
			return err
		}
		num, head, err := state.Head(tx, matrix.RoomID(room))
		if err != nil {
			return err
		}
		draft.Room, draft.OriginServerTS = matrix.RoomID(room), s.clock.Now().UnixMilli()
		place := matrix.Placing{Prev: prev, Depth: head.Depth + 1}
		for _, key := range auth.Needed(head.Version, draft.Type, draft.Sender, draft.StateKey, draft.Content) {
			cited, err := state.EventAt(tx, num, head.Current, key.Type, key.StateKey)
			if err != nil {
				return err
			}
			if cited != nil {
				place.Auth = append(place.Auth, cited.ID)
			}
		}
		ev, err = draft.Build(head.Version, place, draft.Sender.Server(), key)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

// Whoever syncs across a gap in the room, behind which its state is another one, gets
// that state: classic clients with a timeline that begins there, newer ones anyhow.
func TestSyncAcrossGap(t *testing.T) {
	s, alice, _, room := presenceHouse(t, Config{})
	sync := func(query string) (timeline, state, after []string, limited bool, next string) {
		var answer struct {
			Next  string `json:"next_batch"`
			Rooms struct {
				Join map[string]struct {
					Timeline struct {
						Events  []clientEvent `json:"events"`
						Limited bool          `json:"limited"`
					} `json:"timeline"`
					State struct {
						Events []clientEvent `json:"events"`
					} `json:"state"`
					After struct {
						Events []clientEvent `json:"events"`
					} `json:"state_after"`
				} `json:"join"`
			} `json:"rooms"`
		}
		w := s.do("GET", "/_matrix/client/v3/sync?"+query, alice, "")
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		r := answer.Rooms.Join[room]
		return typesOf(r.Timeline.Events), typesOf(r.State.Events), typesOf(r.After.Events), r.Timeline.Limited, answer.Next
	}
	_, _, _, _, since := sync("")
	s.do("PUT", roomPath(room, "send", "m.room.message", "1"), alice, `{"body":"1"}`)

	none := ""
	var ids []matrix.EventID
	topic := buildEvent(t, s, room, matrix.Draft{Sender: "@alice:hearth.test", Type: "m.room.topic", StateKey: &none, Content: []byte(`{"topic":"lost"}`)}, "$older")
	ev := buildEvent(t, s, room, matrix.Draft{Sender: "@alice:hearth.test", Type: "m.room.name", StateKey: &none, Content: []byte(`{"name":"new"}`)}, topic.ID)
	mid := buildEvent(t, s, room, matrix.Draft{Sender: "@alice:hearth.test", Type: "m.x", Content: []byte(`{}`)}, ev.ID)
	top := buildEvent(t, s, room, matrix.Draft{Sender: "@alice:hearth.test", Type: "m.y", Content: []byte(`{}`)}, mid.ID)
	err := s.store.View(func(tx *store.Tx) error {
		num, head, err := state.Head(tx, matrix.RoomID(room))
		if err != nil {
			return err
		}
		return tx.WalkState(num, head.Current, store.StateAll, func(_ store.Slot, n store.EventNum) (bool, error) {
			id, err := tx.EventID(num, n)
			ids = append(ids, id)
			return true, err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	verdicts, err := s.rooms.AcceptFrom(t.Context(), []*matrix.Event{top}, state.Source{
		Missing: func(_ context.Context, _ state.MissingEvents, take func(*matrix.Event) error) error { return take(mid) },
		Events: func(_ context.Context, _ matrix.RoomID, ids []matrix.EventID, take func(*matrix.Event) error) error {
			if ids[0] == ev.ID {
				return take(ev)
			}
			return take(topic)
		},
		StateIDs: func(_ context.Context, _ matrix.RoomID, _ matrix.EventID, take func(matrix.EventID) error) error {
			for _, id := range append(ids, topic.ID) {
				if err := take(id); err != nil {
					return err
				}
			}
			return nil
		},
	})
	if err != nil || !slices.Equal(verdicts, []state.Verdict{state.Accepted}) {
		t.Fatal(verdicts, err)
	}
	s.do("PUT", roomPath(room, "send", "m.room.message", "2"), alice, `{"body":"2"}`)

	timeline, before, _, limited, _ := sync("since=" + since)
	if got := fmt.Sprint(timeline, before, limited); got != "[m.room.name m.x m.y m.room.message] [m.room.topic] true" {
		t.Errorf("classic: %s", got)
	}
	timeline, _, after, limited, _ := sync("use_state_after=true&since=" + since)
	slices.Sort(after)
	if got := fmt.Sprint(timeline, after, limited); got != "[m.room.message m.room.name m.x m.y m.room.message] [m.room.name m.room.topic] false" {
		t.Errorf("with state_after: %s", got)
	}
	timeline, before, _, limited, _ = sync("")
	if got := strings.Join(timeline, " "); got != "m.room.name m.x m.y m.room.message" || !limited || !slices.Contains(before, "m.room.topic") || slices.Contains(before, "m.room.name") {
		t.Errorf("at first: %s, state %s, limited: %v", got, before, limited)
	}
}

// A timeline does not reach over a gap behind which the state is the same, either: what
// is in the gap the client gets by going back.
func TestTimelineEndsAtGap(t *testing.T) {
	s, alice, _, room := presenceHouse(t, Config{})
	var answer struct {
		Next  string `json:"next_batch"`
		Rooms struct {
			Join map[string]struct {
				Timeline struct {
					Events  []clientEvent `json:"events"`
					Limited bool          `json:"limited"`
				} `json:"timeline"`
			} `json:"join"`
		} `json:"rooms"`
	}
	sync := func(query string) {
		answer.Rooms.Join = nil
		if err := json.Unmarshal(s.do("GET", "/_matrix/client/v3/sync"+query, alice, "").Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
	}
	const far = matrix.UserID("@far:elsewhere.test")
	key := string(far)
	tip, _ := tipAndState(t, s, room)
	join := buildEvent(t, s, room, matrix.Draft{Sender: far, Type: "m.room.member", StateKey: &key, Content: []byte(`{"membership":"join"}`)}, tip)
	if verdict, err := s.rooms.Accept(t.Context(), join); err != nil || verdict != state.Accepted {
		t.Fatal(verdict, err)
	}
	sync("")
	s.do("PUT", roomPath(room, "send", "m.room.message", "1"), alice, `{"body":"1"}`)
	_, ids := tipAndState(t, s, room)
	var chain []*matrix.Event
	prev := matrix.EventID("$older")
	for _, typ := range []string{"m.a", "m.b", "m.c"} {
		chain = append(chain, buildEvent(t, s, room, matrix.Draft{Sender: far, Type: typ, Content: []byte(`{}`)}, prev))
		prev = chain[len(chain)-1].ID
	}
	verdicts, err := s.rooms.AcceptFrom(t.Context(), chain[2:], state.Source{
		Missing: func(_ context.Context, _ state.MissingEvents, take func(*matrix.Event) error) error {
			return take(chain[1])
		},
		Events: func(_ context.Context, _ matrix.RoomID, _ []matrix.EventID, take func(*matrix.Event) error) error {
			return take(chain[0])
		},
		StateIDs: func(_ context.Context, _ matrix.RoomID, _ matrix.EventID, take func(matrix.EventID) error) error {
			for _, id := range ids {
				if err := take(id); err != nil {
					return err
				}
			}
			return nil
		},
	})
	if err != nil || !slices.Equal(verdicts, []state.Verdict{state.Accepted}) {
		t.Fatal(verdicts, err)
	}
	for _, query := range []string{"?since=" + answer.Next, "?use_state_after=true&since=" + answer.Next, ""} {
		sync(query)
		timeline := answer.Rooms.Join[room].Timeline
		if got := strings.Join(typesOf(timeline.Events), " "); got != "m.a m.b m.c" || !timeline.Limited {
			t.Errorf("%q: %s, limited %t", query, got, timeline.Limited)
		}
	}
}

// tipAndState returns the newest event of a room and its current state.
func tipAndState(t *testing.T, s *testServer, room string) (tip matrix.EventID, ids []matrix.EventID) {
	t.Helper()
	err := s.store.View(func(tx *store.Tx) error {
		num, head, err := state.Head(tx, matrix.RoomID(room))
		if err != nil {
			return err
		}
		if tip, err = tx.EventID(num, head.Latest); err != nil {
			return err
		}
		return tx.WalkState(num, head.Current, store.StateAll, func(_ store.Slot, n store.EventNum) (bool, error) {
			id, err := tx.EventID(num, n)
			ids = append(ids, id)
			return true, err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return tip, ids
}

type clientEvent struct {
	Type string `json:"type"`
}

func typesOf(events []clientEvent) (types []string) {
	for _, ev := range events {
		types = append(types, ev.Type)
	}
	return types
}

// Who was banned after he had left is told so once, also where the ban had come before
// as an event that another one cites.
func TestFarewellThatWasCitedFirst(t *testing.T) {
	s, _, bob, room := presenceHouse(t, Config{})
	if w := s.do("POST", roomPath(room, "leave"), bob, `{}`); w.Code != 200 {
		t.Fatal(w.Body)
	}
	var prev matrix.EventID
	err := s.store.View(func(tx *store.Tx) error {
		num, head, err := state.Head(tx, matrix.RoomID(room))
		if err != nil {
			return err
		}
		prev, err = tx.EventID(num, head.Latest)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	key := "@bob:hearth.test"
	ban := buildEvent(t, s, room, matrix.Draft{Sender: "@alice:hearth.test", Type: "m.room.member", StateKey: &key, Content: []byte(`{"membership":"ban"}`)}, prev)
	citing, err := matrix.Draft{
		Room: ban.Room, Sender: "@alice:hearth.test", Type: "m.x", Content: []byte(`{}`), OriginServerTS: 1,
	}.Build(ban.Version, matrix.Placing{Prev: []matrix.EventID{prev}, Auth: []matrix.EventID{ban.ID}, Depth: ban.Depth}, testServerName, s.rooms.Key())
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.rooms.AcceptFrom(t.Context(), []*matrix.Event{citing}, state.Source{
		Events: func(_ context.Context, _ matrix.RoomID, _ []matrix.EventID, take func(*matrix.Event) error) error {
			return take(ban)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	farewell := func(since string) (told string, next string) {
		var answer struct {
			Next  string `json:"next_batch"`
			Rooms struct {
				Leave map[string]struct {
					Timeline struct {
						Events []struct {
							ID matrix.EventID `json:"event_id"`
						} `json:"events"`
					} `json:"timeline"`
				} `json:"leave"`
			} `json:"rooms"`
		}
		w := s.do("GET", "/_matrix/client/v3/sync?since="+since, bob, "")
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(answer.Rooms.Leave[room].Timeline.Events), answer.Next
	}
	_, since := farewell("")
	if verdict, err := s.rooms.Accept(t.Context(), ban); verdict != state.Accepted || err != nil {
		t.Fatal(verdict, err)
	}
	told, next := farewell(since)
	if want := fmt.Sprintf("[{%s}]", ban.ID); told != want {
		t.Errorf("told %s, want %s", told, want)
	}
	if told, _ = farewell(next); told != "[]" {
		t.Errorf("then told %s", told)
	}
}
