package remote

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// keyOfServer is the key of a server of these tests.
func keyOfServer(server matrix.ServerName) matrix.SigningKey {
	seed := sha256.Sum256([]byte(server))
	return matrix.SigningKey{ID: "ed25519:1", Private: ed25519.NewKeyFromSeed(seed[:])}
}

// verifyAll checks the signatures of events by the keys of these tests.
func verifyAll(_ context.Context, events []*matrix.Event) []error {
	errs := make([]error, len(events))
	for i, ev := range events {
		for _, server := range ev.RequiredSigners() {
			key := keyOfServer(server)
			errs[i] = errors.Join(errs[i], ev.VerifySignature(server, key.ID, key.Private.Public().(ed25519.PublicKey)))
		}
	}
	return errs
}

// homestead is a server of these tests: one that joins, or one that is in a room.
type homestead struct {
	testing.TB
	name  matrix.ServerName
	dir   string
	store *store.Store
	rooms *state.Rooms

	change  func(*residentAnswer) // what it makes of its answers, for a resident that lies
	refuse  *Error                // what it answers to everything
	oldOnly bool                  // it knows version 1 of the endpoints alone
	stop    func(io.Reader) io.Reader
	asked   atomic.Int32
	sent    atomic.Int32
	left    atomic.Int32
}

// residentAnswer is the answer to send_join before it is written.
type residentAnswer struct {
	State []jsontext.Value `json:"state"`
	Auth  []jsontext.Value `json:"auth_chain"`
	Event jsontext.Value   `json:"event,omitzero"`
	More  jsontext.Value   `json:",embed"`
}

func newHomestead(tb testing.TB, name matrix.ServerName) *homestead {
	tb.Helper()
	h := &homestead{TB: tb, name: name, dir: tb.TempDir()}
	h.open()
	tb.Cleanup(h.close)
	return h
}

func (h *homestead) open() {
	st, err := store.Open(h.dir, h.name, store.Options{NoSync: true})
	if err != nil {
		h.Fatal(err)
	}
	h.store = st
	h.rooms = state.New(state.Config{Store: st, Server: h.name, Key: keyOfServer(h.name)})
}

func (h *homestead) close() {
	err := h.store.Check(context.Background(), func(fault string) { h.Errorf("%s: %s", h.name, fault) })
	if err := errors.Join(err, h.store.Close()); err != nil {
		h.Error(err)
	}
}

func (h *homestead) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// create makes a room with some members.
func (h *homestead) create(version string, members int) matrix.RoomID {
	h.Helper()
	ctx := context.Background()
	creator := matrix.UserID("@alice:" + h.name)
	room, err := h.rooms.Create(ctx, state.Creation{Creator: creator, Preset: state.PresetPublic, Version: version, Name: "room"})
	h.must(err)
	for i := range members {
		h.must(h.rooms.Join(ctx, state.Join{Room: room, User: matrix.UserID(fmt.Sprintf("@m%d:%s", i, h.name))}))
	}
	return room
}

func (h *homestead) send(room matrix.RoomID, typ string, key *string, content string) {
	h.Helper()
	_, err := h.rooms.Send(context.Background(), store.TxnID{}, matrix.Draft{
		Room: room, Sender: matrix.UserID("@alice:" + h.name), Type: typ, StateKey: key, Content: jsontext.Value(content),
	})
	h.must(err)
}

// current returns the current state of a room by type and state key.
func (h *homestead) current(room matrix.RoomID) map[auth.Key]matrix.EventID {
	h.Helper()
	found := make(map[auth.Key]matrix.EventID)
	h.must(h.store.View(func(tx *store.Tx) error {
		num, head, err := state.Head(tx, room)
		if err != nil {
			return err
		}
		return tx.WalkState(num, head.Current, store.StateAll, func(_ store.Slot, at store.EventNum) (bool, error) {
			ev, err := tx.Event(num, at)
			if err == nil {
				found[auth.Key{Type: ev.Type, StateKey: *ev.StateKey}] = ev.ID
			}
			return true, err
		})
	}))
	return found
}

func (h *homestead) membership(user matrix.UserID, room matrix.RoomID) (m store.LocalMembership) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) (err error) {
		m, _, err = tx.LocalMembership(tx.UserNum(user), tx.RoomNum(room))
		return err
	}))
	return m
}

// serve answers as the resident server of a room.
func (h *homestead) serve(q Request) (io.Reader, error) {
	h.asked.Add(1)
	if h.refuse != nil {
		return nil, h.refuse
	}
	path, query, _ := strings.Cut(q.Path, "?")
	parts := strings.Split(path, "/")
	room, _ := url.PathUnescape(parts[5])
	last, _ := url.PathUnescape(parts[6])
	switch parts[3] + "/" + parts[4] {
	case "v1/make_join":
		return h.template(matrix.RoomID(room), matrix.UserID(last), matrix.Join)
	case "v1/make_leave":
		return h.template(matrix.RoomID(room), matrix.UserID(last), matrix.Leave)
	case "v1/make_knock":
		return h.template(matrix.RoomID(room), matrix.UserID(last), matrix.Knock)
	case "v2/send_join", "v1/send_join":
		return h.sendJoin(matrix.RoomID(room), q.Body.(jsontext.Value), parts[3] == "v1", query)
	case "v2/send_leave", "v1/send_leave":
		h.left.Add(1)
		h.take(matrix.RoomID(room), q.Body.(jsontext.Value))
		return strings.NewReader("{}"), nil
	case "v1/send_knock":
		ev := h.take(matrix.RoomID(room), q.Body.(jsontext.Value))
		var list []jsontext.Value
		h.must(h.store.View(func(tx *store.Tx) error {
			num, head, err := state.Head(tx, ev.Room)
			if err != nil {
				return err
			}
			events, err := state.StrippedEvents(tx, num, head.Current, ev.Sender, ev.Sender)
			for _, ev := range events {
				list = append(list, ev.JSON())
			}
			return err
		}))
		text, err := json.Marshal(struct {
			State []jsontext.Value `json:"knock_room_state"`
		}{list})
		return bytes.NewReader(text), err
	}
	return nil, &Error{Server: h.name, Status: 404, Code: "M_UNRECOGNIZED"}
}

func (h *homestead) template(room matrix.RoomID, user matrix.UserID, to matrix.Membership) (io.Reader, error) {
	var text []byte
	err := h.store.View(func(tx *store.Tx) error {
		num, head, err := state.Head(tx, room)
		if err != nil {
			return err
		}
		content := jsontext.Value(fmt.Sprintf(`{"membership":%q}`, to))
		rules, err := state.Current(tx, room, "m.room.join_rules", "")
		if err != nil {
			return err
		}
		if rule, _, _ := rules.JoinRule(); rule == "restricted" && to == matrix.Join {
			content = jsontext.Value(fmt.Sprintf(`{"membership":%q,"join_authorised_via_users_server":"@alice:%s"}`, to, h.name))
		}
		key := string(user)
		var prev, cited []matrix.EventID
		for _, at := range head.Extremities {
			id, err := tx.EventID(num, at)
			if err != nil {
				return err
			}
			prev = append(prev, id)
		}
		for _, need := range auth.Needed(head.Version, "m.room.member", user, &key, content) {
			ev, err := state.Current(tx, room, need.Type, need.StateKey)
			if err != nil {
				return err
			}
			if ev != nil {
				cited = append(cited, ev.ID)
			}
		}
		text, err = json.Marshal(map[string]any{
			"room_version": head.Version.ID,
			"event": map[string]any{
				"room_id": room, "type": "m.room.member", "sender": user, "state_key": user, "content": content,
				"prev_events": citedAs(head.Version, prev), "auth_events": citedAs(head.Version, cited), "depth": head.Depth + 1, "origin": h.name, "hashes": map[string]string{"sha256": "x"},
			},
		})
		return err
	})
	if errors.Is(err, state.ErrUnknownRoom) {
		return nil, &Error{Server: h.name, Status: 404, Code: "M_NOT_FOUND", Text: "no such room"}
	}
	return bytes.NewReader(text), err
}

// citedAs writes a list of events as a version has it: with hashes that nobody looks at,
// or without.
func citedAs(v *matrix.Version, ids []matrix.EventID) any {
	if v.EventIDs != matrix.EventIDGiven {
		return ids
	}
	pairs := make([][2]any, 0, len(ids))
	for _, id := range ids {
		pairs = append(pairs, [2]any{id, map[string]string{"sha256": base64.RawStdEncoding.EncodeToString(make([]byte, sha256.Size))}})
	}
	return pairs
}

// take accepts a member event of another server.
func (h *homestead) take(room matrix.RoomID, pdu jsontext.Value) *matrix.Event {
	var ev *matrix.Event
	h.must(h.store.View(func(tx *store.Tx) error {
		_, head, err := state.Head(tx, room)
		if err != nil {
			return err
		}
		ev, err = matrix.Parse(head.Version, slices.Clone(pdu))
		return err
	}))
	if len(ev.RequiredSigners()) > 1 {
		signed, err := matrix.SignEvent(ev.Version, ev.JSON(), h.name, keyOfServer(h.name))
		h.must(err)
		ev, err = matrix.Parse(ev.Version, signed)
		h.must(err)
	}
	verdict, err := h.rooms.Accept(context.Background(), ev)
	h.must(err)
	if verdict != state.Accepted && verdict != state.Known {
		h.Errorf("%s takes %s: verdict %d", h.name, ev.ID, verdict)
	}
	return ev
}

func (h *homestead) sendJoin(room matrix.RoomID, pdu jsontext.Value, old bool, query string) (io.Reader, error) {
	if h.oldOnly && !old {
		return nil, &Error{Server: h.name, Status: 404, Code: "M_UNRECOGNIZED"}
	}
	h.sent.Add(1)
	var a residentAnswer
	seen := make(map[matrix.EventID]bool)
	h.must(h.store.View(func(tx *store.Tx) error {
		num, head, err := state.Head(tx, room)
		if err != nil {
			return err
		}
		var open []matrix.EventID
		err = tx.WalkState(num, head.Current, store.StateAll, func(_ store.Slot, at store.EventNum) (bool, error) {
			ev, err := tx.Event(num, at)
			if err == nil {
				a.State = append(a.State, ev.JSON())
				open = append(open, ev.AuthEvents...)
			}
			return true, err
		})
		for ; len(open) > 0 && err == nil; open = open[1:] {
			if seen[open[0]] {
				continue
			}
			seen[open[0]] = true
			_, at, _ := tx.EventByID(open[0])
			var ev *store.StoredEvent
			if ev, err = tx.Event(num, at); err == nil {
				a.Auth = append(a.Auth, ev.JSON())
				open = append(open, ev.AuthEvents...)
			}
		}
		return err
	}))
	ev := h.take(room, pdu)
	a.Event = ev.JSON()
	if h.change != nil {
		h.change(&a)
	}
	text, err := json.Marshal(a)
	h.must(err)
	if old {
		text = append(append([]byte("[200,"), text...), ']')
	}
	var r io.Reader = bytes.NewReader(text)
	if h.stop != nil {
		r = h.stop(r)
	}
	return r, nil
}

// world is the servers of a test by their names.
type world map[matrix.ServerName]*homestead

func (w world) stream(ctx context.Context, dest matrix.ServerName, q Request) (*http.Response, error) {
	h := w[dest]
	if h == nil {
		return nil, fmt.Errorf("%s: %w", dest, ErrUnreachable)
	}
	body, err := h.serve(q)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(io.LimitReader(body, q.MaxBytes))}, ctx.Err()
}

func (w world) ask(ctx context.Context, dest matrix.ServerName, q Request, answer any) error {
	q.MaxBytes = max(q.MaxBytes, 1<<20)
	response, err := w.stream(ctx, dest, q)
	if err != nil || answer == nil {
		return err
	}
	return json.UnmarshalRead(response.Body, answer)
}

// joiner returns the joiner of a server, which runs until the test ends or stop is
// called.
func (w world) joiner(h *homestead) (j *Joiner, stop func()) {
	j = newJoiner(JoinerConfig{
		Store: h.store, Rooms: h.rooms, Dir: filepath.Join(h.dir, "joins"), Log: slog.New(slog.NewTextHandler(testLog{h.TB}, nil)),
	})
	j.ask, j.stream, j.verify = w.ask, w.stream, verifyAll
	j.source = func(v *matrix.Version, servers ...matrix.ServerName) state.Source { return state.Source{} }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = j.Run(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	h.Cleanup(stop)
	return j, stop
}

// testLog writes a log to a test's.
type testLog struct{ testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// sameRoom compares the state of a room here and there.
func sameRoom(t *testing.T, room matrix.RoomID, here, there *homestead) {
	t.Helper()
	got, want := here.current(room), there.current(room)
	for key, id := range want {
		if got[key] != id {
			t.Errorf("%s %q is %q, there %q", key.Type, key.StateKey, got[key], id)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d pieces of state, there %d", len(got), len(want))
	}
}

// nothingLeft says that a join has left nothing behind.
func nothingLeft(t *testing.T, h *homestead, room matrix.RoomID, known bool) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(h.dir, "joins", "*"))
	if len(files) > 0 {
		t.Errorf("files are left: %v", files)
	}
	h.must(h.store.View(func(tx *store.Tx) error {
		num := tx.RoomNum(room)
		if _, err := tx.Join(num); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the join is still there: %v", err)
		}
		if records, err := tx.StateRecords(num); !known && (records > 0 || err != nil) {
			t.Errorf("%d records of state are left, %v", records, err)
		}
		if _, err := tx.Head(num); known == errors.Is(err, store.ErrNotFound) {
			t.Errorf("the room's head: %v", err)
		}
		return nil
	}))
}

const (
	here  = matrix.ServerName("here.test")
	there = matrix.ServerName("there.test")
	erin  = matrix.UserID("@erin:here.test")
)

// Rooms of all versions are joined, and have the state that the others have.
func TestJoinVersions(t *testing.T) {
	for _, v := range matrix.Versions() {
		t.Run(v.ID, func(t *testing.T) {
			w := world{here: newHomestead(t, here), there: newHomestead(t, there)}
			room := w[there].create(v.ID, 30)
			j, _ := w.joiner(w[here])
			err := j.Join(t.Context(), state.Join{Room: room, User: erin, Reason: "why not"}, []matrix.ServerName{there})
			if err != nil {
				t.Fatal(err)
			}
			sameRoom(t, room, w[here], w[there])
			nothingLeft(t, w[here], room, true)
			if m := w[here].membership(erin, room); m.Membership != matrix.Join {
				t.Errorf("the user is %q", m.Membership)
			}
			w[there].send(room, "m.room.topic", new(string), `{"topic":"x"}`)
		})
	}
}

// Servers are tried in their order, and an answer that cannot be is none.
func TestJoinFailOver(t *testing.T) {
	w := world{
		here: newHomestead(t, here), there: newHomestead(t, there),
		"no.test": newHomestead(t, "no.test"), "evil.test": newHomestead(t, "evil.test"),
	}
	room := w[there].create("10", 3)
	w["no.test"].refuse = &Error{Server: "no.test", Status: 403, Code: "M_FORBIDDEN", Text: "no"}
	j, _ := w.joiner(w[here])
	join := state.Join{Room: room, User: erin}
	err := j.Join(t.Context(), join, []matrix.ServerName{"gone.test", "evil.test", "no.test"})
	var answer *Error
	if !errors.As(err, &answer) || answer.Code != "M_FORBIDDEN" {
		t.Errorf("nobody lets him in: %v", err)
	}
	nothingLeft(t, w[here], room, false)
	if err := j.Join(t.Context(), join, []matrix.ServerName{"gone.test", here, "no.test", "evil.test", there}); err != nil {
		t.Error(err)
	}
	sameRoom(t, room, w[here], w[there])
	if err := j.Join(t.Context(), state.Join{Room: "!x:gone.test", User: erin}, nil); !errors.Is(err, ErrNoServer) {
		t.Errorf("no server: %v", err)
	}
}

// A server that knows version 1 of the endpoints alone is joined by way of that.
func TestJoinOldServer(t *testing.T) {
	w := world{here: newHomestead(t, here), there: newHomestead(t, there)}
	room := w[there].create("9", 3)
	w[there].oldOnly = true
	j, _ := w.joiner(w[here])
	if err := j.Join(t.Context(), state.Join{Room: room, User: erin}, []matrix.ServerName{there}); err != nil {
		t.Fatal(err)
	}
	sameRoom(t, room, w[here], w[there])
}

// The signature of who lets a user into a restricted room comes with the answer.
func TestJoinRestricted(t *testing.T) {
	w := world{here: newHomestead(t, here), there: newHomestead(t, there)}
	room := w[there].create("10", 1)
	w[there].send(room, "m.room.join_rules", new(string), `{"join_rule":"restricted","allow":[]}`)
	for name, change := range map[string]func(*residentAnswer){
		"no event":      func(a *residentAnswer) { a.Event = nil },
		"another event": func(a *residentAnswer) { a.Event = a.State[0] },
		"no signature": func(a *residentAnswer) {
			a.Event = bytes.ReplaceAll(a.Event, []byte(`"there.test":{`), []byte(`"thera.test":{`))
		},
		"other content": func(a *residentAnswer) {
			a.Event = bytes.ReplaceAll(a.Event, []byte(`"reason":"a"`), []byte(`"reason":"b"`))
		},
	} {
		w[there].change = change
		j, stop := w.joiner(w[here])
		err := j.Join(t.Context(), state.Join{Room: room, User: erin, Reason: "a"}, []matrix.ServerName{there})
		if err == nil {
			t.Fatalf("%s: joined", name)
		}
		nothingLeft(t, w[here], room, false)
		stop()
	}
	w[there].change = nil
	j, _ := w.joiner(w[here])
	if err := j.Join(t.Context(), state.Join{Room: room, User: erin}, []matrix.ServerName{there}); err != nil {
		t.Fatal(err)
	}
	sameRoom(t, room, w[here], w[there])
}

// What others make of an answer is an error, or left out, and nothing stays behind.
func TestJoinHostileAnswers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*residentAnswer)
		joins  bool
	}{
		{"as it is", func(*residentAnswer) {}, true},
		{"no create", func(a *residentAnswer) {
			a.State, a.Auth = without(a.State, "m.room.create"), without(a.Auth, "m.room.create")
		}, false},
		{"create in the chain alone", func(a *residentAnswer) { a.State = without(a.State, "m.room.create") }, false},
		{"no state", func(a *residentAnswer) { a.State = nil }, false},
		{"no join rules", func(a *residentAnswer) {
			a.State, a.Auth = without(a.State, "m.room.join_rules"), without(a.Auth, "m.room.join_rules")
		}, false},
		{"no name", func(a *residentAnswer) { a.State = without(a.State, "m.room.name") }, true},
		{"all twice", func(a *residentAnswer) { a.State, a.Auth = append(a.State, a.State...), append(a.Auth, a.Auth...) }, true},
		{"no chain", func(a *residentAnswer) { a.Auth = []jsontext.Value{} }, true},
		{"unsigned name", func(a *residentAnswer) { spoil(a.State, "m.room.name", `"there.test":{`, `"thera.test":{`) }, true},
		{"changed name", func(a *residentAnswer) { spoil(a.State, "m.room.name", `"name":"room"`, `"name":"rome"`) }, true},
		{"unsigned create", func(a *residentAnswer) {
			spoil(a.State, "m.room.create", `"there.test":{`, `"thera.test":{`)
			spoil(a.Auth, "m.room.create", `"there.test":{`, `"thera.test":{`)
		}, false},
		{"another room", func(a *residentAnswer) { spoil(a.State, "m.room.name", `"!`, `"!x`) }, true},
		{"no objects", func(a *residentAnswer) {
			a.State = append(a.State, []byte("7"), []byte("[]"), []byte(`"x"`), []byte("{}"))
		}, true},
		{"huge event", func(a *residentAnswer) {
			a.State = append(a.State, []byte(`{"x":"`+strings.Repeat("x", 1<<20)+`"}`))
		}, false},
		{"deep event", func(a *residentAnswer) {
			a.State = append(a.State, []byte(strings.Repeat("[", 5000)+strings.Repeat("]", 5000)))
		}, true},
		{"long junk", func(a *residentAnswer) {
			a.More = []byte(`{"junk":[` + strings.Repeat(`{"a":[1,2,3]},`, 100_000) + `1]}`)
		}, true},
		{"members omitted", func(a *residentAnswer) { a.More = []byte(`{"members_omitted":true}`) }, false},
		{"members not omitted", func(a *residentAnswer) { a.More = []byte(`{"members_omitted":false,"servers_in_room":["x"]}`) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := world{here: newHomestead(t, here), there: newHomestead(t, there)}
			room := w[there].create("10", 5)
			w[there].change = tt.change
			j, _ := w.joiner(w[here])
			err := j.Join(t.Context(), state.Join{Room: room, User: erin}, []matrix.ServerName{there})
			if (err == nil) != tt.joins {
				t.Errorf("joined: %v", err)
			}
			nothingLeft(t, w[here], room, tt.joins)
		})
	}
}

// A state with two events in one place is none; events of other rooms are left out;
// a room has begun once.
func TestJoinContradictions(t *testing.T) {
	v, _ := matrix.VersionByID("10")
	for _, tt := range []struct {
		name  string
		event func(first, other jsontext.Value, room matrix.RoomID) jsontext.Value
		joins bool
	}{
		{"two names", func(first, _ jsontext.Value, _ matrix.RoomID) jsontext.Value { return first }, false},
		{"another room's name", func(_, other jsontext.Value, _ matrix.RoomID) jsontext.Value { return other }, true},
		{"two beginnings", func(_, _ jsontext.Value, room matrix.RoomID) jsontext.Value {
			ev, err := matrix.Draft{
				Room: room, Sender: "@alice:there.test", Type: "m.room.create", StateKey: new(string),
				Content: jsontext.Value(`{"creator":"@alice:there.test","room_version":"10"}`),
			}.Build(v, matrix.Placing{Depth: 1}, there, keyOfServer(there))
			if err != nil {
				t.Fatal(err)
			}
			return ev.JSON()
		}, false},
	} {
		w := world{here: newHomestead(t, here), there: newHomestead(t, there)}
		room, another := w[there].create("10", 3), w[there].create("10", 0)
		first, other := w[there].event(room, "m.room.name"), w[there].event(another, "m.room.name")
		w[there].send(room, "m.room.name", new(string), `{"name":"new"}`)
		w[there].change = func(a *residentAnswer) { a.State = append(a.State, tt.event(first, other, room)) }
		j, _ := w.joiner(w[here])
		err := j.Join(t.Context(), state.Join{Room: room, User: erin}, []matrix.ServerName{there})
		if (err == nil) != tt.joins {
			t.Errorf("%s: joined: %v", tt.name, err)
		}
		nothingLeft(t, w[here], room, tt.joins)
	}
}

// pdu returns an event.
func (h *homestead) pdu(id matrix.EventID) (text jsontext.Value) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) error {
		room, num, _ := tx.EventByID(id)
		ev, err := tx.Event(room, num)
		if err == nil {
			text = ev.JSON()
		}
		return err
	}))
	return text
}

// event returns a piece of the current state of a room.
func (h *homestead) event(room matrix.RoomID, typ string) (text jsontext.Value) {
	h.Helper()
	h.must(h.store.View(func(tx *store.Tx) error {
		ev, err := state.Current(tx, room, typ, "")
		if err == nil {
			text = ev.JSON()
		}
		return err
	}))
	return text
}

// What cites itself by whatever way is left out, and what cites nothing comes first.
func TestJoinOrder(t *testing.T) {
	v, _ := matrix.VersionByID("1")
	x := newJoinIndex(v, "!r:x")
	for i, cites := range []string{"b", "c d", "b", "", "d b", "d", "f d", "g"} { // of a, b, ...
		ev := &matrix.Event{ID: matrix.EventID("$" + string(rune('a'+i))), Version: v, Room: "!r:x", Type: "x"}
		for _, id := range strings.Fields(cites) {
			ev.AuthEvents = append(ev.AuthEvents, matrix.EventID("$"+id))
		}
		if err := x.add(ev, false, spoolPlace(100-i)); err != nil {
			t.Fatal(err)
		}
	}
	names := make(map[uint32]string)
	for i := range 8 {
		n, _ := x.number(matrix.EventID("$" + string(rune('a'+i))))
		names[n] = string(rune('a' + i))
	}
	var got strings.Builder
	for _, n := range x.order() {
		got.WriteString(names[n])
	}
	if got.String() != "dfgh" {
		t.Errorf("%s", got.String())
	}
}

// Where events choose their IDs they can cite themselves and each other. Those are left
// out, and the room is not joined if it needs them.
func TestJoinOfCircles(t *testing.T) {
	for _, tt := range []struct {
		name  string
		typ   string         // of what there is in the room, and is made to stand in a circle
		cites matrix.EventID // beside what it cites; "": itself
		joins bool
	}{
		{"a name that cites itself", "m.room.name", "", true},
		{"a name in a circle of two", "m.room.name", "$two:there.test", true},
		{"a name upon a circle", "m.room.name", "$three:there.test", true},
		{"join rules in a circle", "m.room.join_rules", "$two:there.test", false},
		{"a member in a circle", "m.room.member", "$two:there.test", false},
		{"a create in a circle", "m.room.create", "$two:there.test", false},
	} {
		for _, version := range []string{"1", "2"} {
			t.Run(tt.name+"/"+version, func(t *testing.T) {
				w := world{here: newHomestead(t, here), there: newHomestead(t, there)}
				room := w[there].create(version, 0)
				v, _ := matrix.VersionByID(version)
				w[there].change = func(a *residentAnswer) {
					at := slices.IndexFunc(a.State, func(ev jsontext.Value) bool { return bytes.Contains(ev, []byte(`"type":"`+tt.typ+`"`)) })
					one := circular(t, v, a.State[at], "", tt.cites)
					two := circular(t, v, a.State[at], "$two:there.test", eventIDIn(t, v, one))
					three := circular(t, v, a.State[at], "$three:there.test", "")
					a.State[at], a.Auth = one, append(without(a.Auth, tt.typ), one, two, three)
				}
				j, _ := w.joiner(w[here])
				err := j.Join(t.Context(), state.Join{Room: room, User: erin}, []matrix.ServerName{there})
				if (err == nil) != tt.joins {
					t.Errorf("joined: %v", err)
				}
				nothingLeft(t, w[here], room, tt.joins)
				if tt.joins && w[here].current(room)[auth.Key{Type: tt.typ}] != "" {
					t.Error("what stands in a circle is in the state")
				}
			})
		}
	}
}

// circular makes of an event one that cites another, too, or itself; with an ID of its own
// unless that is empty.
func circular(t *testing.T, v *matrix.Version, pdu jsontext.Value, id matrix.EventID, cites matrix.EventID) jsontext.Value {
	t.Helper()
	id = cmp.Or(id, eventIDIn(t, v, pdu))
	var ev map[string]jsontext.Value
	err := json.Unmarshal(pdu, &ev)
	ev["event_id"] = jsontext.Value(strconv.Quote(string(id)))
	cited := fmt.Sprintf(`[%q,{}]`, cmp.Or(cites, id))
	if rest := strings.TrimPrefix(string(ev["auth_events"]), "["); rest != "]" {
		cited += "," + strings.TrimSuffix(rest, "]")
	}
	ev["auth_events"] = jsontext.Value("[" + cited + "]")
	delete(ev, "signatures")
	text, err2 := json.Marshal(ev)
	signed, err3 := matrix.HashAndSign(v, text, there, keyOfServer(there))
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	return signed
}

// eventIDIn returns the ID of an event.
func eventIDIn(t *testing.T, v *matrix.Version, pdu jsontext.Value) matrix.EventID {
	t.Helper()
	ev, err := matrix.Parse(v, slices.Clone(pdu))
	if err != nil {
		t.Fatal(err)
	}
	return ev.ID
}

// without leaves out the events of a type.
func without(list []jsontext.Value, typ string) []jsontext.Value {
	return slices.DeleteFunc(slices.Clone(list), func(ev jsontext.Value) bool { return bytes.Contains(ev, []byte(`"type":"`+typ+`"`)) })
}

// spoil replaces a part of the events of a type.
func spoil(list []jsontext.Value, typ, old, with string) {
	for i, ev := range list {
		if bytes.Contains(ev, []byte(`"type":"`+typ+`"`)) {
			list[i] = bytes.Replace(ev, []byte(old), []byte(with), 1)
		}
	}
}

// Whoever joins at once with others, in whatever order, is in the room.
func TestJoinTogether(t *testing.T) {
	w := world{here: newHomestead(t, here), there: newHomestead(t, there)}
	room := w[there].create("11", 10)
	j, _ := w.joiner(w[here])
	var wait sync.WaitGroup
	for i := range 9 {
		wait.Go(func() {
			user := matrix.UserID(fmt.Sprintf("@u%d:here.test", i%3))
			if err := j.Join(t.Context(), state.Join{Room: room, User: user}, []matrix.ServerName{there}); err != nil {
				t.Errorf("%s: %v", user, err)
			}
		})
	}
	wait.Wait()
	if n := w[there].sent.Load(); n != 1 {
		t.Errorf("%d joins were sent", n)
	}
	for i := range 3 {
		if m := w[here].membership(matrix.UserID(fmt.Sprintf("@u%d:here.test", i)), room); m.Membership != matrix.Join {
			t.Errorf("user %d is %q", i, m.Membership)
		}
	}
}

// Invites are rejected where they came from; who cannot be reached keeps nobody.
func TestLeaveOutside(t *testing.T) {
	for _, gone := range []bool{false, true} {
		w := world{here: newHomestead(t, here), there: newHomestead(t, there)}
		room := w[there].create("11", 2)
		w[there].send(room, "m.room.join_rules", new(string), `{"join_rule":"knock"}`)
		j, _ := w.joiner(w[here])
		knock := state.Join{Room: room, User: erin, Reason: "please"}
		if err := j.Knock(t.Context(), knock, []matrix.ServerName{"gone.test", there}); err != nil {
			t.Fatal(err)
		}
		m := w[here].membership(erin, room)
		if m.Membership != matrix.Knock || !bytes.Contains(m.Stripped, []byte("m.room.create")) || m.PDU == nil {
			t.Errorf("knocked: %+v", m)
		}
		if gone {
			delete(w, there)
		}
		if left, err := j.Leave(t.Context(), room, erin, "no"); left || err != nil {
			t.Errorf("leave: %t, %v", left, err)
		}
		if m := w[here].membership(erin, room); m.Membership != matrix.Leave || m.PDU == nil {
			t.Errorf("left: %+v", m)
		}
		if here, err := j.Leave(t.Context(), room, erin, "no"); !here || err != nil {
			t.Errorf("leave again: %t, %v", here, err)
		}
	}
}

// Proposals that are none are refused.
func TestProposals(t *testing.T) {
	good := `{"room_version":"10","event":{"room_id":"!r:x","type":"m.room.member","sender":"@u:x","state_key":"@u:x",` +
		`"content":{"membership":"join"},"prev_events":["$a"],"auth_events":["$b"],"depth":7}}`
	if p, err := state.ReadProposal(jsontext.Value(good), "!r:x", "@u:x", matrix.Join); err != nil || p.Depth != 7 {
		t.Fatal(p, err)
	}
	many := strings.Repeat(`"$a",`, 30) + `"$a"`
	for _, tt := range [][2]string{
		{`"!r:x"`, `"!q:x"`}, {`"m.room.member"`, `"m.room.name"`}, {`"sender":"@u:x"`, `"sender":"@v:x"`},
		{`"state_key":"@u:x"`, `"state_key":""`}, {`"join"`, `"leave"`}, {`"10"`, `"99"`}, {`"10"`, `"1"`}, {`["$a"]`, `[` + many + `]`},
		{`["$b"]`, `[` + many + `]`}, {`["$a"]`, `{}`}, {`["$a"]`, `["x"]`}, {`["$a"]`, `[["$a",{}]]`}, {`7`, `"7"`}, {`{"room_version"`, `[{"room_version"`},
	} {
		bad := strings.Replace(good, tt[0], tt[1], 1)
		if _, err := state.ReadProposal(jsontext.Value(bad), "!r:x", "@u:x", matrix.Join); err == nil {
			t.Errorf("%s passes", bad)
		}
	}
}
