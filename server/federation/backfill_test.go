package federation

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// An archive is a room of bob's with ten messages, into which the peer came behind the
// fifth.
type archive struct {
	*lobby
	room     matrix.RoomID
	events   []*matrix.Event
	messages []matrix.EventID
}

func newArchive(t *testing.T, visibility string) *archive {
	t.Helper()
	return archiveAt(newLobby(t), visibility)
}

func archiveAt(l *lobby, visibility string) *archive {
	l.Helper()
	a, t := &archive{lobby: l}, l.T
	a.room = a.create(state.Creation{Version: "11", Preset: state.PresetPublic, Initial: []state.InitialEvent{
		{Type: "m.room.history_visibility", Content: fmt.Appendf(nil, `{"history_visibility":%q}`, visibility)},
	}})
	for i := range 10 {
		if i == 5 {
			key := string(alice)
			join := a.build(matrix.Draft{Room: a.room, Sender: alice, Type: "m.room.member", StateKey: &key, Content: jsontext.Value(`{"membership":"join"}`)})
			_, err := a.rooms.Accept(t.Context(), join)
			a.must(err)
		}
		id, err := a.rooms.Send(t.Context(), store.TxnID{}, matrix.Draft{
			Room: a.room, Sender: bob, Type: "m.room.message", Content: fmt.Appendf(nil, `{"body":"secret %d"}`, i),
		})
		a.must(err)
		a.messages = append(a.messages, id)
	}
	a.events = a.timeline(a.room)
	return a
}

// answer asks, and reads the answer.
func (a *archive) answer(h handler, path []string, query, body string) (answer map[string]jsontext.Value) {
	a.Helper()
	code, text := a.ask(h, peer, path, query, body)
	if code != http.StatusOK {
		a.Fatalf("%d %s", code, text)
	}
	a.must(json.Unmarshal([]byte(text), &answer))
	return answer
}

// ids returns the IDs of a list of events, or of a list of IDs.
func (a *archive) ids(list jsontext.Value) (ids []matrix.EventID) {
	a.Helper()
	if json.Unmarshal(list, &ids) == nil {
		return ids
	}
	var pdus []jsontext.Value
	a.must(json.Unmarshal(list, &pdus))
	ids = nil
	for _, pdu := range pdus {
		ev, err := matrix.Parse(a.events[0].Version, pdu)
		a.must(err)
		ids = append(ids, ev.ID)
	}
	return ids
}

func (a *archive) newest() matrix.EventID { return a.events[len(a.events)-1].ID }

func (a *archive) idsOf(events []*matrix.Event) (ids []matrix.EventID) {
	for _, ev := range events {
		ids = append(ids, ev.ID)
	}
	return ids
}

func TestBackfillRoom(t *testing.T) {
	a := newArchive(t, "joined")
	got := a.answer((*Server).backfillRoom, []string{string(a.room)}, "limit=1000&v=$none&v="+url.QueryEscape(string(a.newest())), "")
	want := a.idsOf(a.events)
	slices.Reverse(want)
	if ids := a.ids(got["pdus"]); !slices.Equal(ids, want) || string(got["origin"]) != `"here.test"` {
		t.Errorf("%s: %s, want %s", got["origin"], ids, want)
	}
	// "joined": what was said before the peer came is redacted.
	for i := range 10 {
		if told := strings.Contains(string(got["pdus"]), fmt.Sprintf("secret %d", i)); told != (i >= 5) {
			t.Errorf("message %d is told: %t", i, told)
		}
	}
	got = a.answer((*Server).backfillRoom, []string{string(a.room)}, "limit=3&v="+url.QueryEscape(string(a.newest())), "")
	if ids := a.ids(got["pdus"]); !slices.Equal(ids, want[:3]) {
		t.Errorf("%s, want %s", ids, want[:3])
	}
	for query, code := range map[string]int{"v=$x": 400, "limit=3": 400, "limit=x&v=$x": 400, "limit=-1&v=$x": 400, "limit=0&v=$x": 200} {
		if got, _ := a.ask((*Server).backfillRoom, peer, []string{string(a.room)}, query, ""); got != code {
			t.Errorf("%s: %d, want %d", query, got, code)
		}
	}
}

func TestGetMissingPreviousEvents(t *testing.T) {
	a := newArchive(t, "shared")
	n := len(a.events)
	for body, want := range map[string][]*matrix.Event{
		fmt.Sprintf(`{"earliest_events":[%q],"latest_events":[%q]}`, a.events[n-4].ID, a.newest()):                 a.events[n-3 : n-1],
		fmt.Sprintf(`{"earliest_events":[],"latest_events":[%q]}`, a.newest()):                                     a.events[n-11 : n-1],
		fmt.Sprintf(`{"earliest_events":[],"latest_events":[%q],"limit":2}`, a.newest()):                           a.events[n-3 : n-1],
		fmt.Sprintf(`{"earliest_events":[],"latest_events":[%q],"limit":1000000}`, a.newest()):                     a.events[max(0, n-21) : n-1],
		fmt.Sprintf(`{"earliest_events":[],"latest_events":[%q],"min_depth":%d}`, a.newest(), a.events[n-3].Depth): a.events[n-3 : n-1],
		`{"earliest_events":["no ID",""],"latest_events":["$none","..."],"limit":5}`:                               nil,
		fmt.Sprintf(`{"earliest_events":[],"latest_events":[%q],"limit":-5}`, a.newest()):                          nil,
	} {
		got := a.answer((*Server).getMissingPreviousEvents, []string{string(a.room)}, "", body)
		if ids := a.ids(got["events"]); !slices.Equal(ids, a.idsOf(want)) {
			t.Errorf("%s: %s, want %s", body, ids, a.idsOf(want))
		}
	}
}

func TestGetEvent(t *testing.T) {
	a := newArchive(t, "joined")
	topic := a.events[0].ID // a state event from before the peer came
	for id, want := range map[matrix.EventID]int{a.messages[7]: 200, a.messages[2]: 404, "$none": 404, topic: 200, "none": 400} {
		if code, text := a.ask((*Server).getEvent, peer, []string{"", string(id)}, "", ""); code != want {
			t.Errorf("%s: %d %s, want %d", id, code, text, want)
		}
	}
	got := a.answer((*Server).getEvent, []string{"", string(a.messages[7])}, "", "")
	if ids := a.ids(got["pdus"]); !slices.Equal(ids, a.messages[7:8]) {
		t.Errorf("%s, want %s", ids, a.messages[7])
	}
}

// A state and its auth chain are what the events say, as events and as IDs.
func TestGetRoomState(t *testing.T) {
	a := newArchive(t, "shared")
	query := "event_id=" + url.QueryEscape(string(a.messages[3]))
	whole := a.answer((*Server).getRoomState, []string{string(a.room)}, query, "")
	ids := a.answer((*Server).getRoomStateIds, []string{string(a.room)}, query, "")
	state, chain := a.ids(ids["pdu_ids"]), a.ids(ids["auth_chain_ids"])
	if !slices.Equal(a.ids(whole["pdus"]), state) || !slices.Equal(a.ids(whole["auth_chain"]), chain) {
		t.Errorf("as events %s, as IDs %s", whole, ids)
	}
	want := make(map[matrix.EventID]bool)
	members := 0
	for _, ev := range a.events {
		if !slices.Contains(state, ev.ID) {
			continue
		}
		if ev.Type == "m.room.member" {
			members++
		}
		for _, cited := range ev.AuthEvents {
			want[cited] = true
		}
	}
	for id := range want {
		if !slices.Contains(chain, id) {
			t.Errorf("%s is not in the auth chain", id)
		}
	}
	if members != 1 || len(chain) != len(want) {
		t.Errorf("%d members, %d events in the auth chain, want 1 and %d", members, len(chain), len(want))
	}
	auth := a.answer((*Server).getEventAuth, []string{string(a.room), string(a.messages[3])}, "", "")
	if got := a.ids(auth["auth_chain"]); len(got) != 3 { // m.room.create, bob's join, the power levels
		t.Errorf("the auth chain of a message is %s", got)
	}
	for query, want := range map[string]int{"": 400, "event_id=$none": 404} {
		if code, _ := a.ask((*Server).getRoomStateIds, peer, []string{string(a.room)}, query, ""); code != want {
			t.Errorf("%q: %d, want %d", query, code, want)
		}
	}
}

func TestGetEventByTimestamp(t *testing.T) {
	a := newArchive(t, "joined")
	find := func(ev matrix.EventID, dir string) string {
		return fmt.Sprintf("ts=%d&dir=%s", a.find(ev).OriginServerTS, dir)
	}
	code, text := a.ask((*Server).getEventByTimestamp, peer, []string{string(a.room)}, find(a.messages[9], "b"), "")
	if code != 200 || !strings.Contains(text, string(a.messages[9])) {
		t.Errorf("%d %s, want %s", code, text, a.messages[9])
	}
	// Before the peer came there is nothing that it may see.
	if code, text = a.ask((*Server).getEventByTimestamp, peer, []string{string(a.room)}, "ts=1&dir=b", ""); code != 404 {
		t.Errorf("%d %s", code, text)
	}
	code, text = a.ask((*Server).getEventByTimestamp, peer, []string{string(a.room)}, "ts=1&dir=f", "")
	if code != 200 || slices.ContainsFunc(a.messages[:5], func(id matrix.EventID) bool { return strings.Contains(text, string(id)) }) {
		t.Errorf("%d %s", code, text)
	}
	for _, query := range []string{"", "ts=1", "dir=f", "ts=x&dir=f", "ts=1&dir=x"} {
		if code, _ := a.ask((*Server).getEventByTimestamp, peer, []string{string(a.room)}, query, ""); code != 400 {
			t.Errorf("%q: %d", query, code)
		}
	}
}

// historyHandlers are all that give away what was in a room.
var historyHandlers = []handler{
	(*Server).backfillRoom, (*Server).getMissingPreviousEvents, (*Server).getEvent, (*Server).getRoomState,
	(*Server).getRoomStateIds, (*Server).getEventAuth, (*Server).getEventByTimestamp,
}

// eventHandler is the place of getEvent among them, whose request names no room.
const eventHandler = 2

// An answer with a large state takes the memory for it, and gives it back.
func TestStateIsWeighed(t *testing.T) {
	a := newArchive(t, "shared")
	taken, full := int64(0), false
	a.server.config.Take = func(_ context.Context, bytes int64) (func(), error) {
		if full {
			return nil, errBusy
		}
		taken += bytes
		return func() { full = true }, nil
	}
	query := "event_id=" + url.QueryEscape(string(a.newest()))
	path := []string{string(a.room), string(a.newest())}
	a.answer((*Server).getRoomStateIds, path, query, "")
	if taken != 0 {
		t.Errorf("a small state takes %d bytes", taken)
	}
	a.must(a.store.Update(t.Context(), func(tx *store.Tx) error {
		for i := range smallState {
			if _, err := tx.PutSlot(tx.RoomNum(a.room), "org.example", fmt.Sprint(i)); err != nil {
				return err
			}
		}
		return nil
	}))
	for i, h := range []handler{(*Server).getRoomStateIds, (*Server).getRoomState, (*Server).getEventAuth} {
		taken, full = 0, false
		a.answer(h, path, query, "")
		if taken < smallState*stateWeight || !full {
			t.Errorf("handler %d takes %d bytes, and gives them back: %t", i, taken, full)
		}
		if code, text := a.ask(h, peer, path, query, ""); code != http.StatusTooManyRequests {
			t.Errorf("handler %d without memory: %d %s", i, code, text)
		}
	}
}

// Strangers and those who are barred get nothing from any of them.
func TestHistoryIsForTheRoomAlone(t *testing.T) {
	a := newArchive(t, "world_readable")
	id := string(a.newest())
	query := "limit=5&v=" + url.QueryEscape(id) + "&event_id=" + url.QueryEscape(id) + "&ts=1&dir=f"
	body := fmt.Sprintf(`{"earliest_events":[],"latest_events":[%q]}`, id)
	ask := func(from matrix.ServerName, want int) {
		t.Helper()
		for i, h := range historyHandlers {
			want := want
			if i == eventHandler && from != peer {
				want = http.StatusNotFound
			}
			if code, text := a.ask(h, from, []string{string(a.room), id}, query, body); code != want {
				t.Errorf("handler %d for %s: %d %s, want %d", i, from, code, text, want)
			}
		}
	}
	ask(peer, http.StatusOK)
	ask("stranger.test", http.StatusForbidden)
	// Who asks for an event without a room does not learn that it is here.
	for _, event := range []string{id, "$none"} {
		if code, text := a.ask((*Server).getEvent, "stranger.test", []string{"", event}, "", ""); code != http.StatusNotFound {
			t.Errorf("%s for a stranger: %d %s", event, code, text)
		}
	}
	_, err := a.rooms.Send(t.Context(), store.TxnID{}, matrix.Draft{
		Room: a.room, Sender: bob, Type: "m.room.server_acl", StateKey: new(string), Content: jsontext.Value(`{"allow":["*"],"deny":["peer.test"]}`),
	})
	a.must(err)
	ask(peer, http.StatusForbidden)
}

// Whatever is asked for, nothing breaks.
func FuzzHistory(f *testing.F) {
	f.Add(uint8(0), "limit=5&v=$a&v=b", "$a", "")
	f.Add(uint8(2), "", "", `{"earliest_events":["$a"],"latest_events":["$b"],"limit":3,"min_depth":-1}`)
	f.Add(uint8(6), "event_id=$a", "$a", "")
	f.Add(uint8(12), "ts=-9223372036854775808&dir=b", "", "")
	dir := f.TempDir()
	var a *archive // it stays, as to make one takes longer than a thousand requests
	f.Cleanup(func() {
		if a != nil {
			if err := a.store.Close(); err != nil {
				f.Error(err)
			}
		}
	})
	f.Fuzz(func(t *testing.T, which uint8, query, id, body string) {
		if a == nil {
			l := &lobby{house: openHouse(t, here, dir)}
			l.server = New(Config{Store: l.store, Rooms: l.rooms, Network: remote.NewNetwork(remote.NetworkConfig{Store: l.store})})
			a = archiveAt(l, "joined")
		}
		a.T = t
		if _, err := url.ParseRequestURI("/?" + query); err != nil || strings.ContainsAny(query, " \r\n#") {
			t.Skip()
		}
		room := []string{string(a.room), id}[which%2]
		if id == "" {
			id = string(a.newest())
		}
		h := historyHandlers[int(which/2)%len(historyHandlers)]
		if code, text := a.ask(h, peer, []string{room, id}, query, body); code >= 500 {
			t.Errorf("%d %s", code, text)
		}
	})
}
