package remote

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
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
	text, err := json.Marshal(a, answerOptions)
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
