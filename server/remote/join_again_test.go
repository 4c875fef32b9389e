package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// A join goes on when nobody waits any more.
func TestJoinOutlivesItsRequest(t *testing.T) {
	w := world{here: newHomestead(t, here), there: newHomestead(t, there)}
	room := w[there].create("11", 10)
	let := make(chan struct{})
	w[there].stop = func(r io.Reader) io.Reader { <-let; return r }
	j, _ := w.joiner(w[here])
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	join := state.Join{Room: room, User: erin}
	if err := j.Join(ctx, join, []matrix.ServerName{there}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("gave up: %v", err)
	}
	close(let)
	if err := j.Join(t.Context(), join, []matrix.ServerName{there}); err != nil {
		t.Error(err)
	}
	sameRoom(t, room, w[here], w[there])
}

// A join that a restart cuts short at whatever place is gone on with.
func TestJoinIsResumed(t *testing.T) {
	for _, cut := range []struct {
		name string
		at   func(stop func()) func(*homestead, *Joiner)
	}{
		{"answer", func(stop func()) func(*homestead, *Joiner) {
			return func(h *homestead, j *Joiner) {
				h.stop = func(r io.Reader) io.Reader { h.stop = nil; return &cutReader{r, 3000, stop} }
			}
		}},
		{"first keys", func(stop func()) func(*homestead, *Joiner) { return cutVerify(stop, 1) }},
		{"second keys", func(stop func()) func(*homestead, *Joiner) { return cutVerify(stop, 2) }},
		{"fifth keys", func(stop func()) func(*homestead, *Joiner) { return cutVerify(stop, 5) }},
		{"last keys", func(stop func()) func(*homestead, *Joiner) { return cutVerify(stop, 11) }},
	} {
		t.Run(cut.name, func(t *testing.T) {
			w := world{here: newHomestead(t, here), there: newHomestead(t, there)}
			room := w[there].create("11", 100)
			j, stop := w.joiner(w[here])
			j.step = 10
			cut.at(func() { go stop(); time.Sleep(50 * time.Millisecond) })(w[there], j)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			_ = j.Join(ctx, state.Join{Room: room, User: erin}, []matrix.ServerName{there})
			cancel()
			stop()
			if m := w[here].membership(erin, room); m.Membership == matrix.Join {
				t.Fatal("it was not cut short")
			}
			w[here].close()
			w[here].open()
			again, _ := w.joiner(w[here])
			for began := time.Now(); w[here].membership(erin, room).Membership != matrix.Join; time.Sleep(5 * time.Millisecond) {
				if time.Since(began) > time.Minute {
					t.Fatal("it is not gone on with")
				}
			}
			if err := again.Join(t.Context(), state.Join{Room: room, User: erin}, nil); err != nil {
				t.Error(err)
			}
			sameRoom(t, room, w[here], w[there])
			nothingLeft(t, w[here], room, true)
		})
	}
}

// cutVerify stops everything at the nth check of signatures.
func cutVerify(stop func(), n int) func(*homestead, *Joiner) {
	return func(_ *homestead, j *Joiner) {
		j.verify = func(ctx context.Context, events []*matrix.Event) []error {
			if n--; n == 0 {
				stop()
			}
			return verifyAll(ctx, events)
		}
	}
}

// cutReader calls stop when it has given some bytes.
type cutReader struct {
	io.Reader
	left int
	stop func()
}

func (r *cutReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		r.stop()
		return 0, io.ErrUnexpectedEOF
	}
	n, err := r.Reader.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// leftRoom is a room of another server, of so many members there, in which erin was.
func leftRoom(t *testing.T, version string, members int) (w world, j *Joiner, again state.Join) {
	t.Helper()
	w = world{here: newHomestead(t, here), there: newHomestead(t, there)}
	again = state.Join{Room: w[there].create(version, members), User: erin}
	j, _ = w.joiner(w[here])
	w[there].must(j.Join(t.Context(), again, []matrix.ServerName{there}))
	left, err := w[here].rooms.ChangeMembership(t.Context(), state.MembershipChange{Room: again.Room, Sender: erin, Target: erin, Membership: matrix.Leave})
	w[here].must(err)
	w[there].take(again.Room, w[here].pdu(left))
	return w, j, again
}

// Who comes back to a room that all have left finds it as it is now.
func TestRejoin(t *testing.T) {
	w, j, join := leftRoom(t, "11", 20)
	room := join.Room
	for i := range 10 {
		user := matrix.UserID(fmt.Sprintf("@m%d:there.test", i))
		w[there].must(w[there].rooms.Leave(t.Context(), room, user, ""))
	}
	w[there].send(room, "m.room.name", new(string), `{"name":"new"}`)
	w[there].must(j.Join(t.Context(), join, nil))
	sameRoom(t, room, w[here], w[there])
	nothingLeft(t, w[here], room, true)
}

// Who was sent away from a room knows whom to ask when he knocks: its ID need not say.
func TestKnockAgain(t *testing.T) {
	w, j, join := leftRoom(t, "12", 2)
	room := join.Room
	w[there].send(room, "m.room.join_rules", new(string), `{"join_rule":"knock"}`)
	if err := j.Knock(t.Context(), join, nil); err != nil {
		t.Error(err)
	}
	if m := w[here].membership(erin, room); m.Membership != matrix.Knock {
		t.Errorf("%+v", m)
	}
}

// A room that all have left as far as we know is gone on with by way of who is named, and
// here where that one is not in it, or not there.
func TestRejoinOfAnEmptyRoom(t *testing.T) {
	for _, tc := range []struct {
		name string
		gone bool // the other server has left, too
		via  []matrix.ServerName
		here bool // the join is made here
	}{
		{"it has gone on there", false, []matrix.ServerName{there}, false},
		{"it is empty there", true, []matrix.ServerName{there}, true},
		{"nobody is there", false, []matrix.ServerName{"nowhere.test"}, true},
		{"nobody is named", false, nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := world{here: newHomestead(t, here), there: newHomestead(t, there)}
			room, maker := w[here].create("11", 0), matrix.UserID("@alice:here.test")
			j, _ := w.joiner(w[there])
			w[there].must(j.Join(t.Context(), state.Join{Room: room, User: "@m0:there.test"}, []matrix.ServerName{here}))
			// Here we hear that the other left, and nothing of what came then.
			leave := func(h *homestead, user matrix.UserID) jsontext.Value {
				id, err := h.rooms.ChangeMembership(t.Context(), state.MembershipChange{Room: room, Sender: user, Target: user, Membership: matrix.Leave})
				h.must(err)
				return h.pdu(id)
			}
			w[here].take(room, leave(w[there], "@m0:there.test"))
			leave(w[here], maker)
			if tc.gone {
				w[there].refuse = &Error{Server: there, Status: http.StatusNotFound, Code: "M_NOT_FOUND"}
			} else {
				w[there].must(w[there].rooms.Join(t.Context(), state.Join{Room: room, User: "@m0:there.test"}))
			}
			back, _ := w.joiner(w[here])
			w[here].must(back.Join(t.Context(), state.Join{Room: room, User: maker}, tc.via))
			w[here].must(w[here].store.View(func(tx *store.Tx) error {
				_, head, err := state.Head(tx, room)
				if made := head.Entered == 0; made != tc.here {
					t.Errorf("the join was made here: %v", made)
				}
				return err
			}))
		})
	}
}

// Members of servers that are away and have never told us their keys are taken into the
// state, and nothing else that cannot be checked. All of it is kept for later.
func TestJoinOnTrust(t *testing.T) {
	w := world{here: newHomestead(t, here), there: newHomestead(t, there)}
	room := w[there].create("11", 0)
	for _, user := range []matrix.UserID{"@a:untold.test", "@b:away.test", "@c:untold.test", "@d:unasked.test", "@e:here.test", "@f:never.test"} {
		w[there].visitors(room, user)
	}
	asked := 0
	j, _ := w.joiner(w[here])
	var kept int
	j.leftOut = func(_ context.Context, _ store.RoomNum, _ matrix.ServerName, pdus []jsontext.Value, _ bool) (int, error) {
		kept += len(pdus)
		for i, pdu := range pdus {
			if bytes.Contains(pdu, []byte("@c:untold.test")) {
				return i, nil
			}
		}
		return len(pdus), nil
	}
	j.verify = func(_ context.Context, events []*matrix.Event) []error {
		errs := make([]error, len(events))
		for i, ev := range events {
			switch {
			case ev.Sender.Server() == "untold.test", ev.Type == "m.room.name", ev.Sender == "@e:here.test":
				errs[i] = fmt.Errorf("%w: %w", ErrKeyLater, ErrKeyUntold)
			case ev.Sender.Server() == "unasked.test" && asked < 5, ev.Sender.Server() == "never.test":
				if ev.Sender.Server() == "unasked.test" {
					asked++
				}
				errs[i] = fmt.Errorf("%w: %w", ErrKeyLater, ErrKeyUnasked)
			case ev.Sender.Server() == "away.test":
				errs[i] = ErrKeyLater
			}
		}
		return errs
	}
	w[here].must(j.Join(t.Context(), state.Join{Room: room, User: erin}, []matrix.ServerName{there}))
	current := w[here].current(room)
	for key, want := range map[auth.Key]bool{
		{Type: "m.room.member", StateKey: "@a:untold.test"}: true, {Type: "m.room.member", StateKey: "@b:away.test"}: false, {Type: "m.room.name"}: false,
		{Type: "m.room.member", StateKey: "@c:untold.test"}:  false, // for which there was no room
		{Type: "m.room.member", StateKey: "@d:unasked.test"}: true,  // who was asked in the end
		{Type: "m.room.member", StateKey: "@e:here.test"}:    false, // who would be one of ours
		{Type: "m.room.member", StateKey: "@f:never.test"}:   false, // who could not be asked
	} {
		if got := current[key] != ""; got != want {
			t.Errorf("%v is in the state: %v", key, got)
		}
	}
	if kept != 6 {
		t.Errorf("%d events are kept for later", kept)
	}

	// What was used on trust is checked when the room is joined anew.
	w[here].must(w[here].rooms.Leave(t.Context(), room, erin, ""))
	checked := make(map[matrix.UserID]bool)
	j.verify = func(_ context.Context, events []*matrix.Event) []error {
		errs := make([]error, len(events))
		for i, ev := range events {
			if checked[ev.Sender] = true; ev.Sender == "@a:untold.test" {
				errs[i] = matrix.ErrBadSignature
			}
		}
		return errs
	}
	w[here].must(j.Join(t.Context(), state.Join{Room: room, User: erin}, []matrix.ServerName{there}))
	if !checked["@a:untold.test"] || checked["@d:unasked.test"] {
		t.Errorf("checked are %v", checked)
	}
	if id := w[here].current(room)[auth.Key{Type: "m.room.member", StateKey: "@a:untold.test"}]; id != "" {
		t.Error("who is not signed is in the state again")
	}
}
