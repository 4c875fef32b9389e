package federation

import (
	"context"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// invite is an invite by the peer to a room of its own, with what tells of the room.
func (l *lobby) invite(version string) (body map[string]jsontext.Value, ev *matrix.Event) {
	l.Helper()
	there := openHouse(l.T, peer, l.TempDir())
	l.Cleanup(there.close)
	room, err := there.rooms.Create(context.Background(), state.Creation{Creator: alice, Version: version, Name: "Kitchen"})
	l.must(err)
	key := string(bob)
	draft := matrix.Draft{Room: room, Sender: alice, Type: "m.room.member", StateKey: &key, Content: []byte(`{"membership":"invite"}`)}
	v, _ := matrix.VersionByID(version)
	if v.EventIDs == matrix.EventIDGiven {
		draft.OriginServerTS = 1
		ev, err = draft.Build(v, matrix.Placing{Depth: 9}, peer, there.key)
		l.must(err)
	} else {
		ev = there.build(draft)
	}
	var known []jsontext.Value
	l.must(there.store.View(func(tx *store.Tx) error {
		num, head, err := state.Head(tx, room)
		if err != nil {
			return err
		}
		events, err := state.StrippedEvents(tx, num, head.Current, alice, bob)
		for _, ev := range events {
			known = append(known, ev.JSON())
		}
		return err
	}))
	list, err := json.Marshal(known)
	l.must(err)
	return map[string]jsontext.Value{
		"room_version": jsontext.Value(`"` + version + `"`), "event": ev.JSON(), "invite_room_state": list,
	}, ev
}

func (l *lobby) sendInvite(body map[string]jsontext.Value, ev *matrix.Event, from matrix.ServerName) (int, string) {
	l.Helper()
	raw, err := json.Marshal(body)
	l.must(err)
	return l.ask((*Server).sendInviteV2, from, []string{string(ev.Room), string(ev.ID)}, "", string(raw))
}

// An invite comes back signed, and stands for the user until it is taken back.
func TestSendInvite(t *testing.T) {
	for _, version := range matrix.Versions() {
		t.Run(version.ID, func(t *testing.T) {
			l := newLobby(t)
			body, ev := l.invite(version.ID)
			code, answer := l.sendInvite(body, ev, peer)
			var a inviteAnswer
			if code != 200 || json.Unmarshal([]byte(answer), &a) != nil {
				t.Fatalf("%d %s", code, answer)
			}
			back, err := matrix.Parse(version, a.Event)
			if err != nil || back.ID != ev.ID || len(back.SignaturesOf(here)) != 1 || len(back.SignaturesOf(peer)) != 1 {
				t.Errorf("signed %s: %v", a.Event, err)
			}
			var m store.LocalMembership
			l.must(l.store.View(func(tx *store.Tx) (err error) {
				m, _, err = tx.LocalMembership(tx.UserNum(bob), tx.RoomNum(ev.Room))
				return err
			}))
			if m.Membership != matrix.Invite || !strings.Contains(string(m.Stripped), "Kitchen") {
				t.Errorf("the room is to him %+v", m)
			}
			key := string(bob)
			leave, err := matrix.Draft{
				Room: ev.Room, Sender: alice, Type: "m.room.member", StateKey: &key, Content: []byte(`{"membership":"leave"}`),
			}.Build(version, matrix.Placing{Depth: 10}, peer, l.key)
			l.must(err)
			results := make(pduResults)
			_, err = l.server.receiveRoom(t.Context(), peer, ev.Room, []jsontext.Value{leave.JSON()}, results)
			l.must(err)
			l.must(l.store.View(func(tx *store.Tx) (err error) {
				m, _, err = tx.LocalMembership(tx.UserNum(bob), tx.RoomNum(ev.Room))
				return err
			}))
			if m.Membership != matrix.Leave {
				t.Errorf("after the leave the room is to him %+v", m)
			}
		})
	}
}

// Old servers send an invite alone, with what tells of the room in its unsigned.
func TestSendInviteV1(t *testing.T) {
	l := newLobby(t)
	body, ev := l.invite("1")
	var pdu map[string]jsontext.Value
	l.must(json.Unmarshal(ev.JSON(), &pdu))
	pdu["unsigned"] = jsontext.Value(`{"invite_room_state":` + string(body["invite_room_state"]) + `}`)
	raw, err := json.Marshal(pdu)
	l.must(err)
	code, answer := l.ask((*Server).sendInviteV1, peer, []string{string(ev.Room), string(ev.ID)}, "", string(raw))
	var a []jsontext.Value
	if code != 200 || json.Unmarshal([]byte(answer), &a) != nil || len(a) != 2 || string(a[0]) != "200" || a[1].Kind() != '{' {
		t.Errorf("%d %s", code, answer)
	}
}

// What is no invite for a user here is not signed.
func TestSendInviteRefuses(t *testing.T) {
	l := newLobby(t)
	body, ev := l.invite("12")
	with := func(key, value string) map[string]jsontext.Value {
		changed := map[string]jsontext.Value{}
		for k, v := range body {
			changed[k] = v
		}
		changed[key] = jsontext.Value(value)
		return changed
	}
	for _, tt := range []struct {
		what  string
		body  map[string]jsontext.Value
		from  matrix.ServerName
		code  int
		errno string
	}{
		{"of an unknown version", with("room_version", `"99"`), peer, 400, "M_INCOMPATIBLE_ROOM_VERSION"},
		{"of no version", with("room_version", `""`), peer, 400, "M_MISSING_PARAM"},
		{"of another server", body, "other.test", 400, "M_INVALID_PARAM"},
		{"that tells nothing of the room", with("invite_room_state", `[]`), peer, 400, "M_INVALID_PARAM"},
		{"that is none", with("event", `{}`), peer, 400, "M_BAD_JSON"},
	} {
		if code, answer := l.sendInvite(tt.body, ev, tt.from); code != tt.code || answer != tt.errno {
			t.Errorf("an invite %s: %d %s, want %d %s", tt.what, code, answer, tt.code, tt.errno)
		}
	}
	l.must(l.store.Update(t.Context(), func(tx *store.Tx) error {
		return tx.PutAccountData(tx.UserNum(bob), store.AccountData{Type: "m.invite_permission_config", Content: []byte(`{"default_action":"block"}`)})
	}))
	if code, answer := l.sendInvite(body, ev, peer); code != 403 || answer != "M_INVITE_BLOCKED" {
		t.Errorf("an invite for who wants none: %d %s", code, answer)
	}
}
