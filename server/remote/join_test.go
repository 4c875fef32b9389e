package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

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
