package client

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/remote"
	"hearth/state"
	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// farHouse is another server with a room that a user of ours came to late, and how it
// is asked for the room's past.
type farHouse struct {
	*testing.T
	store  *store.Store
	rooms  *state.Rooms
	clock  time.Time
	room   matrix.RoomID
	ours   *testServer
	token  string
	key    matrix.SigningKey // of both servers: nobody checks signatures here
	mu     sync.Mutex        // guards what is below
	asked  int               // for history
	silent error             // it does not answer so
	more   []*matrix.Event   // that it says come first
	hold   chan struct{}     // answers wait for it, if not nil
}

const (
	farName  matrix.ServerName = "far.test"
	farAlice matrix.UserID     = "@alice:far.test"
	ourBob   matrix.UserID     = "@bob:hearth.test"
)

// newFarHouse makes the room, in which were n messages, a minute apart, before bob came,
// and of which ours was told only the beginning and bob's coming.
func newFarHouse(t *testing.T, n int) *farHouse {
	t.Helper()
	return newFarHouseWith(t, func(e *farHouse) {
		for i := range n {
			e.clock = e.clock.Add(time.Minute)
			e.say(fmt.Sprint(i))
		}
	})
}

// newFarHouseWith is newFarHouse where live says what happened before bob came.
func newFarHouseWith(t *testing.T, live func(*farHouse)) *farHouse {
	t.Helper()
	st, err := store.Open(t.TempDir(), farName, store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	e := &farHouse{T: t, store: st, clock: time.UnixMilli(1_600_000_000_000), ours: newTestServer(t, Config{})}
	e.token = e.ours.account(t, "bob", "secret bob")
	e.must(st.View(func(tx *store.Tx) (err error) { e.key, err = tx.SigningKey(); return err }))
	e.rooms = state.New(state.Config{Store: st, Server: farName, Key: e.key, Now: func() time.Time { return e.clock }})
	e.room, err = e.rooms.Create(t.Context(), state.Creation{Creator: farAlice, Preset: state.PresetPublic, Version: "11"})
	e.must(err)
	begun := len(e.events())
	live(e)
	e.clock = e.clock.Add(time.Minute)
	e.enter(ourBob)
	events := e.events()
	_, err = e.ours.rooms.AcceptAll(t.Context(), events[:begun])
	e.must(err)
	_, err = e.ours.rooms.AcceptFrom(t.Context(), events[len(events)-1:], e.source("11"))
	e.must(err)
	e.ours.fills.past = &pastSource{
		backfill: e.backfill, byTime: e.byTime,
		source: func(*matrix.Version, ...matrix.ServerName) state.Source { return e.source("11") },
	}
	return e
}

func (e *farHouse) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *farHouse) say(body string) matrix.EventID {
	e.Helper()
	return e.send(fmt.Sprintf(`{"msgtype":"m.text","body":%q}`, body))
}

// reply sends a message into the thread at a root.
func (e *farHouse) reply(root matrix.EventID) matrix.EventID {
	e.Helper()
	return e.send(fmt.Sprintf(`{"msgtype":"m.text","body":"re","m.relates_to":{"rel_type":"m.thread","event_id":%q}}`, root))
}

func (e *farHouse) send(content string) matrix.EventID {
	e.Helper()
	id, err := e.rooms.Send(e.Context(), store.TxnID{}, matrix.Draft{
		Room: e.room, Sender: farAlice, Type: "m.room.message", Content: []byte(content),
	})
	e.must(err)
	return id
}

func (e *farHouse) events() (events []*matrix.Event) {
	e.Helper()
	e.must(e.store.View(func(tx *store.Tx) error {
		return tx.Timeline(tx.RoomNum(e.room), 0, func(ev *store.StoredEvent) (bool, error) {
			events = append(events, ev.Event)
			return true, nil
		})
	}))
	return events
}

// enter has a user of another server come into the room.
func (e *farHouse) enter(user matrix.UserID) {
	e.Helper()
	key := string(user)
	draft := matrix.Draft{Room: e.room, Sender: user, Type: "m.room.member", StateKey: &key, Content: jsontext.Value(`{"membership":"join"}`)}
	draft.OriginServerTS = e.clock.UnixMilli()
	var ev *matrix.Event
	e.must(e.store.View(func(tx *store.Tx) error {
		num, head, err := state.Head(tx, e.room)
		if err != nil {
			return err
		}
		newest, err := tx.EventID(num, head.Latest)
		if err != nil {
			return err
		}
		placing := matrix.Placing{Prev: []matrix.EventID{newest}, Depth: head.Depth + 1}
		for _, need := range auth.Needed(head.Version, draft.Type, draft.Sender, draft.StateKey, draft.Content) {
			cited, err := state.EventAt(tx, num, head.Current, need.Type, need.StateKey)
			if err != nil {
				return err
			}
			if cited != nil {
				placing.Auth = append(placing.Auth, cited.ID)
			}
		}
		ev, err = draft.Build(head.Version, placing, user.Server(), e.key)
		return err
	}))
	_, err := e.rooms.Accept(e.Context(), ev)
	e.must(err)
}

func (e *farHouse) find(ids ...matrix.EventID) (events []*matrix.Event, err error) {
	err = e.store.View(func(tx *store.Tx) error {
		for _, id := range ids {
			if room, num, here := tx.EventByID(id); here {
				ev, err := tx.Event(room, num)
				if err != nil {
					return err
				}
				events = append(events, ev.Event)
			}
		}
		return nil
	})
	return events, err
}

// answer waits until the server may answer, if it does.
func (e *farHouse) answer(ctx context.Context) error {
	e.mu.Lock()
	e.asked++
	silent, hold := e.silent, e.hold
	e.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return silent
}

func (e *farHouse) backfill(ctx context.Context, _ *matrix.Version, dest matrix.ServerName, room matrix.RoomID, at matrix.EventID, limit int, take func(*matrix.Event) error) error {
	if err := e.answer(ctx); err != nil || dest != farName {
		return err
	}
	events := slices.Clone(e.more)
	err := e.store.View(func(tx *store.Tx) error {
		found, err := state.Ancestors(tx, tx.RoomNum(room), []matrix.EventID{at}, limit)
		for _, ev := range found {
			events = append(events, ev.Event)
		}
		return err
	})
	for _, ev := range events {
		if err == nil {
			err = take(ev)
		}
	}
	return err
}

func (e *farHouse) byTime(ctx context.Context, _ matrix.ServerName, room matrix.RoomID, ts int64, back bool) (matrix.EventID, int64, error) {
	if err := e.answer(ctx); err != nil {
		return "", 0, err
	}
	var found state.TimeAnswer
	err := e.store.View(func(tx *store.Tx) (err error) {
		found, err = state.NearestEvent(tx, state.TimeQuery{
			Room: tx.RoomNum(room), TS: ts, Back: back, Upto: tx.Position(),
			Shows: func(*store.StoredEvent) (bool, error) { return true, nil },
		})
		return err
	})
	if err != nil || found.Event == nil {
		return "", 0, cmp.Or(err, remote.ErrUnreachable)
	}
	return found.Event.ID, found.Event.OriginServerTS, nil
}

// belowJoin is how many events that were before the join come with it: the one that is
// told of the gap below it, and the one below that, by which the state comes.
const belowJoin = 2

func (e *farHouse) source(string) state.Source {
	return state.Source{
		Missing: func(_ context.Context, _ state.MissingEvents, take func(*matrix.Event) error) error {
			events := e.events()
			return take(events[len(events)-2])
		},
		Events: func(_ context.Context, _ matrix.RoomID, ids []matrix.EventID, take func(*matrix.Event) error) error {
			events, err := e.find(ids...)
			for _, ev := range events {
				if err == nil {
					err = take(ev)
				}
			}
			return err
		},
		StateIDs: func(ctx context.Context, room matrix.RoomID, before matrix.EventID, take func(matrix.EventID) error) error {
			r, err := state.NewEventReader(e.store, room)
			if err != nil {
				return err
			}
			var snap store.SnapshotID
			err = e.store.View(func(tx *store.Tx) error {
				_, num, _ := tx.EventByID(before)
				ev, err := tx.Event(tx.RoomNum(room), num)
				if err == nil {
					snap = ev.Before
				}
				return err
			})
			if err != nil {
				return err
			}
			nums, err := r.State(ctx, snap)
			if err != nil {
				return err
			}
			return r.IDs(ctx, nums, take)
		},
	}
}

// pageOf is a page as clients read it.
type pageOf struct {
	Start, End string
	Chunk      []struct {
		ID matrix.EventID `json:"event_id"`
	}
}

// page asks for a page.
func (e *farHouse) page(query url.Values) (page pageOf) {
	e.Helper()
	res := e.ours.do("GET", "/_matrix/client/v3/rooms/"+url.PathEscape(string(e.room))+"/messages?"+query.Encode(), e.token, "")
	if res.Code != http.StatusOK {
		e.Fatalf("%d %s", res.Code, res.Body)
	}
	e.must(json.Unmarshal(res.Body.Bytes(), &page, json.MatchCaseInsensitiveNames(true)))
	return page
}

// all pages through the room in one direction.
func (e *farHouse) all(dir, from string, limit int) (ids []matrix.EventID, end string) {
	e.Helper()
	for range 1000 {
		query := url.Values{"dir": {dir}, "limit": {fmt.Sprint(limit)}}
		if from != "" {
			query.Set("from", from)
		}
		page := e.page(query)
		for _, ev := range page.Chunk {
			ids = append(ids, ev.ID)
		}
		if page.End == "" {
			return ids, from
		}
		from = page.End
	}
	e.Fatal("pages without end")
	return nil, ""
}

func eventIDsOf(events []*matrix.Event) (ids []matrix.EventID) {
	for _, ev := range events {
		ids = append(ids, ev.ID)
	}
	return ids
}

// A user who pages back comes to all that was before he came, with pages of any size,
// and forth again by the tokens that he got; what is here is asked for nowhere.
func TestPagesReachTheBeginning(t *testing.T) {
	for _, limit := range []int{7, 100, 1000} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			e := newFarHouse(t, 230)
			want := eventIDsOf(e.events())
			back, oldest := e.all("b", "", limit)
			slices.Reverse(back)
			if !slices.Equal(back, want) {
				t.Fatalf("%d events going back, want %d", len(back), len(want))
			}
			asked := e.asked
			if asked == 0 || asked > 5 {
				t.Errorf("asked %d times", asked)
			}
			if forth, _ := e.all("f", "", limit); !slices.Equal(forth, want) {
				t.Errorf("%d events going forth, want %d", len(forth), len(want))
			}
			if again, end := e.all("b", "", limit); len(again) != len(want) || end != oldest {
				t.Errorf("%d events the second time, to %s and not %s", len(again), end, oldest)
			}
			if e.asked != asked {
				t.Errorf("asked %d times more", e.asked-asked)
			}
		})
	}
}

// Every token stands between the same two events, whichever way one goes from it.
func TestTokensOfThePast(t *testing.T) {
	e := newFarHouse(t, 40)
	want := eventIDsOf(e.events())
	e.all("b", "", 100)
	for from, at := "", len(want); at > 0; {
		query := url.Values{"dir": {"b"}, "limit": {"3"}}
		if from != "" {
			query.Set("from", from)
		}
		page := e.page(query)
		at -= len(page.Chunk)
		if page.End == "" {
			break
		}
		from = page.End
		forth, _ := e.all("f", from, 5)
		if !slices.Equal(forth, want[at:]) {
			t.Fatalf("from %s: %d events forth, want %d", from, len(forth), len(want)-at)
		}
	}
}

// Where nobody answers the page goes on over what is here, at once the next time, and
// says that there is more. Who was only away is asked again soon.
func TestPagesWithoutAnswer(t *testing.T) {
	for _, tt := range []struct {
		silent error
		again  time.Duration
	}{
		{&remote.Error{Server: farName, Status: 403}, fillForget},
		{fmt.Errorf("backfill: %w", remote.ErrUnreachable), fillAgain},
	} {
		e := newFarHouse(t, 20)
		e.silent = tt.silent
		first := e.page(url.Values{"dir": {"b"}, "limit": {"100"}})
		asked := e.asked
		if len(first.Chunk) != len(e.events())-20+belowJoin || asked != 1 {
			t.Errorf("%v: %d events, asked %d times", tt.silent, len(first.Chunk), asked)
		}
		e.silent = nil
		e.ours.clock.Advance(tt.again - time.Second)
		e.page(url.Values{"dir": {"b"}, "limit": {"100"}})
		if e.asked != asked {
			t.Errorf("%v: asked again at once", tt.silent)
		}
		e.ours.clock.Advance(time.Second)
		if page := e.page(url.Values{"dir": {"b"}, "limit": {"100"}}); len(page.Chunk) != len(e.events()) {
			t.Errorf("%v: %d events later", tt.silent, len(page.Chunk))
		}
	}
}

// Many who come to the same gap wait for one answer.
func TestOneAnswerForMany(t *testing.T) {
	e := newFarHouse(t, 20)
	e.hold = make(chan struct{})
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if page := e.page(url.Values{"dir": {"b"}, "limit": {"100"}}); len(page.Chunk) != len(e.events()) {
				t.Errorf("%d events", len(page.Chunk))
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	close(e.hold)
	group.Wait()
	if e.asked > 2 {
		t.Errorf("asked %d times", e.asked)
	}
}

// /timestamp_to_event finds what only others have, and /context and /messages go on from
// there.
func TestJumpToWhatIsFar(t *testing.T) {
	e := newFarHouse(t, 300)
	events := e.events()
	target := events[100]
	for _, dir := range []string{"f", "b"} {
		path := "/_matrix/client/v1/rooms/" + url.PathEscape(string(e.room)) + "/timestamp_to_event?dir=" + dir + "&ts=" + fmt.Sprint(target.OriginServerTS)
		if res := e.ours.do("GET", path, e.token, ""); res.Code != http.StatusOK || !strings.Contains(res.Body.String(), string(target.ID)) {
			t.Fatalf("%s: %d %s, want %s", dir, res.Code, res.Body, target.ID)
		}
	}
	res := e.ours.do("GET", "/_matrix/client/v3/rooms/"+url.PathEscape(string(e.room))+"/context/"+url.PathEscape(string(target.ID))+"?limit=0", e.token, "")
	var around struct{ Start, End string }
	e.must(json.Unmarshal(res.Body.Bytes(), &around, json.MatchCaseInsensitiveNames(true)))
	page := e.page(url.Values{"dir": {"b"}, "limit": {"10"}, "from": {around.Start}})
	if len(page.Chunk) != 10 || page.Chunk[0].ID != events[99].ID {
		t.Errorf("before it: %d events", len(page.Chunk))
	}
	page = e.page(url.Values{"dir": {"b"}, "limit": {"300"}, "from": {around.End}})
	if !slices.ContainsFunc(page.Chunk, func(ev struct {
		ID matrix.EventID `json:"event_id"`
	}) bool {
		return ev.ID == target.ID
	}) {
		t.Errorf("not before what is behind it")
	}
	all, _ := e.all("b", "", 50)
	slices.Reverse(all)
	if !slices.Equal(all, eventIDsOf(events)) {
		t.Errorf("%d events in the end, want %d", len(all), len(events))
	}
}

// Who names an event of another room, of another time than it says, or in the wrong
// direction, is not believed: the answer is what is here, and nothing more is kept.
func TestLyingTimes(t *testing.T) {
	e := newFarHouse(t, 100)
	events := e.events()
	early, target := events[len(events)-80], events[len(events)-50]
	other, err := e.rooms.Create(t.Context(), state.Creation{Creator: farAlice, Preset: state.PresetPublic, Version: "11"})
	e.must(err)
	var foreign *matrix.Event
	e.must(e.store.View(func(tx *store.Tx) error {
		return tx.Timeline(tx.RoomNum(other), 0, func(ev *store.StoredEvent) (bool, error) {
			foreign = ev.Event
			return true, nil
		})
	}))
	jump := func() string {
		path := "/_matrix/client/v1/rooms/" + url.PathEscape(string(e.room)) + "/timestamp_to_event?dir=f&ts=" + fmt.Sprint(target.OriginServerTS)
		res := e.ours.do("GET", path, e.token, "")
		return fmt.Sprint(res.Code, " ", res.Body)
	}
	e.silent = remote.ErrUnreachable
	want := jump()
	e.silent = nil
	for name, lie := range map[string]struct {
		id matrix.EventID
		ts int64
	}{
		"an event of another room":        {foreign.ID, target.OriginServerTS},
		"an event of another time":        {early.ID, target.OriginServerTS},
		"an event that nobody has":        {"$nothing", target.OriginServerTS},
		"in the wrong direction":          {early.ID, early.OriginServerTS},
		"a time that cannot be":           {target.ID, math.MinInt64},
		"farther than what is here":       {target.ID, math.MaxInt64},
		"what is no later than was asked": {target.ID, target.OriginServerTS - 1},
	} {
		e.ours.fills.past.byTime = func(context.Context, matrix.ServerName, matrix.RoomID, int64, bool) (matrix.EventID, int64, error) {
			return lie.id, lie.ts, nil
		}
		position := e.ours.store.Position()
		if got := jump(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		if e.ours.store.Position() != position {
			t.Errorf("%s: the stream has grown", name)
		}
		e.must(e.ours.store.View(func(tx *store.Tx) error {
			if _, _, here := tx.EventByID(lie.id); here {
				t.Errorf("%s: the event is kept", name)
			}
			return nil
		}))
	}
	e.ours.fills.past.byTime = e.byTime
	if got := jump(); !strings.Contains(got, string(target.ID)) {
		t.Errorf("honestly: %s", got)
	}
}

// More than was asked for, and what has nothing to do with it, is not taken.
func TestHostileHistory(t *testing.T) {
	e := newFarHouse(t, 20)
	other, err := e.rooms.Create(t.Context(), state.Creation{Creator: farAlice, Preset: state.PresetPublic, Version: "11"})
	e.must(err)
	e.must(e.store.View(func(tx *store.Tx) error {
		return tx.Timeline(tx.RoomNum(other), 0, func(ev *store.StoredEvent) (bool, error) {
			for range 30 {
				e.more = append(e.more, ev.Event)
			}
			return true, nil
		})
	}))
	all, _ := e.all("b", "", 50)
	if len(all) != len(e.events())-20+belowJoin {
		t.Errorf("%d events", len(all))
	}
}

func FuzzStreamToken(f *testing.F) {
	for _, seed := range []string{"s12", "s12_3_7", "h12_-3_7", "h0_0_1", "h1__", "h9223372036854775807_9223372036854775807_1", "h1_2_3_4"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := parseToken("from", text)
		if err != nil {
			return
		}
		if again, err := parseToken("from", token.String()); err != nil || again != token {
			t.Errorf("%q is %+v, and then %+v: %v", text, token, again, err)
		}
	})
}
