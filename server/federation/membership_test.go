package federation

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// A lobby is a server that a peer asks to let its users in.
type lobby struct {
	*house
	server *Server
}

func newLobby(t *testing.T) *lobby {
	t.Helper()
	l := openLobby(t, t.TempDir())
	t.Cleanup(l.close)
	return l
}

func openLobby(t *testing.T, dir string) *lobby {
	t.Helper()
	l := &lobby{house: openHouse(t, here, dir)}
	network := remote.NewNetwork(remote.NetworkConfig{Store: l.store, Key: func() matrix.SigningKey { return l.key }})
	l.server = New(Config{Store: l.store, Rooms: l.rooms, Network: network})
	l.server.check = checkForm
	l.must(l.store.Update(context.Background(), func(tx *store.Tx) error {
		_, err := tx.CreateOpenAccount(bob, store.Account{Created: time.Now()})
		return err
	}))
	return l
}

func (l *lobby) create(c state.Creation) matrix.RoomID {
	l.Helper()
	c.Creator = bob
	room, err := l.rooms.Create(context.Background(), c)
	l.must(err)
	return room
}

// ask calls a handler as a server does. path is the parts of the path behind the
// endpoint: the room, then the user or the event.
func (l *lobby) ask(h handler, from matrix.ServerName, path []string, query, body string) (int, string) {
	l.Helper()
	r := httptest.NewRequest("PUT", "/?"+query, strings.NewReader(body))
	for i, part := range path {
		r.SetPathValue("roomID", path[0])
		if i > 0 {
			r.SetPathValue("userID", part)
			r.SetPathValue("eventID", part)
		}
	}
	w := httptest.NewRecorder()
	if err := h(l.server, w, r, from); err != nil {
		e := api.AsError(err)
		return e.Status, e.Code
	}
	return w.Code, w.Body.String()
}

// made is the event that the peer makes of a template.
func (l *lobby) made(answer string, change map[string]string) *matrix.Event {
	l.Helper()
	return l.madeAs(answer, change, matrix.EventID("$made"+rand.Text()+":peer.test"))
}

// madeAs is made with an ID, in versions whose events name themselves.
func (l *lobby) madeAs(answer string, change map[string]string, id matrix.EventID) *matrix.Event {
	l.Helper()
	var t template
	l.must(json.Unmarshal([]byte(answer), &t))
	for key, value := range change {
		t.Event[key] = jsontext.Value(value)
	}
	v, ok := matrix.VersionByID(t.Version)
	if !ok {
		l.Fatalf("version %q", t.Version)
	}
	if v.EventIDs == matrix.EventIDGiven {
		t.Event["event_id"] = jsontext.Value(`"` + string(id) + `"`)
	}
	raw, err := json.Marshal(t.Event)
	l.must(err)
	pdu, err := matrix.HashAndSign(v, raw, peer, l.key)
	l.must(err)
	ev, err := matrix.Parse(v, pdu)
	l.must(err)
	return ev
}

// template asks for a template that is given.
func (l *lobby) template(h handler, room matrix.RoomID, version string) string {
	l.Helper()
	code, answer := l.ask(h, peer, []string{string(room), string(alice)}, "ver="+version, "")
	if code != 200 {
		l.Fatalf("no template: %d %s", code, answer)
	}
	return answer
}

func (l *lobby) send(h handler, ev *matrix.Event, query string) (int, string) {
	l.Helper()
	return l.ask(h, peer, []string{string(ev.Room), string(ev.ID)}, query, string(ev.JSON()))
}

// joined is the answer to a join.
type joined struct {
	Event   jsontext.Value   `json:"event"`
	Omitted bool             `json:"members_omitted"`
	Origin  string           `json:"origin"`
	Servers []string         `json:"servers_in_room"`
	Chain   []jsontext.Value `json:"auth_chain"`
	State   []jsontext.Value `json:"state"`
}

// keys are the types and state keys of events, in order.
func (l *lobby) keys(v *matrix.Version, pdus []jsontext.Value) (keys []string) {
	l.Helper()
	for _, pdu := range pdus {
		ev, err := matrix.Parse(v, pdu)
		l.must(err)
		keys = append(keys, strings.TrimPrefix(ev.Type, "m.room.")+" "+*ev.StateKey)
	}
	slices.Sort(keys)
	return keys
}

// A join is answered with the room before it, whole or without the members.
func TestSendJoin(t *testing.T) {
	for _, version := range matrix.Versions() {
		t.Run(version.ID, func(t *testing.T) {
			l := newLobby(t)
			creation := state.Creation{Preset: state.PresetPublic, Version: version.ID}
			want := []string{"create ", "history_visibility ", "join_rules "}
			for i := range fewMembers {
				user := matrix.UserID(fmt.Sprintf("@%03d:here.test", i))
				creation.Invite = append(creation.Invite, user)
				want = append(want, "member "+string(user))
			}
			want = append(want, "member "+string(bob), "power_levels ")
			room := l.create(creation)
			_, err := l.rooms.Send(t.Context(), store.TxnID{}, matrix.Draft{Room: room, Sender: bob, Type: "m.room.message", Content: []byte(`{}`)})
			l.must(err)
			ev := l.made(l.template((*Server).makeJoin, room, version.ID), nil)
			for _, omit := range []bool{false, true, false} {
				query := ""
				if omit {
					query = "omit_members=true"
				}
				code, answer := l.send((*Server).sendJoinV2, ev, query)
				var a joined
				if code != 200 || json.Unmarshal([]byte(answer), &a) != nil {
					t.Fatalf("%d %s", code, answer)
				}
				want := slices.Clone(want)
				if omit { // all but those that the room is named after
					want = slices.Delete(want, 7, 3+fewMembers)
				}
				if got := l.keys(version, a.State); !slices.Equal(got, want) {
					t.Errorf("omit %t: state %q, want %q", omit, got, want)
				}
				chain := l.keys(version, a.Chain)
				if omit && (len(chain) > 0 || !a.Omitted || !slices.Equal(a.Servers, []string{"here.test"})) {
					t.Errorf("without members: chain %q, %+v", chain, a.Servers)
				}
				if !omit && (!slices.Contains(chain, "member @bob:here.test") || a.Omitted || a.Origin != "here.test") {
					t.Errorf("whole: chain %q, %+v", chain, a)
				}
				if back, err := matrix.Parse(version, a.Event); err != nil || back.ID != ev.ID {
					t.Errorf("the event is %s: %v", a.Event, err)
				}
			}
			code, answer := l.send((*Server).sendJoinV1, ev, "")
			var old []jsontext.Value
			if code != 200 || json.Unmarshal([]byte(answer), &old) != nil || len(old) != 2 || string(old[0]) != "200" {
				t.Errorf("by v1: %d %s", code, answer)
			}
			small := l.made(l.template((*Server).makeJoin, l.create(state.Creation{Preset: state.PresetPublic, Version: version.ID}), version.ID), nil)
			if code, answer := l.send((*Server).sendJoinV2, small, "omit_members=true"); code != 200 || strings.Contains(answer, `"members_omitted":true`) {
				t.Errorf("a small room: %d %s", code, answer)
			}
			leave := l.made(l.template((*Server).makeLeave, room, version.ID), nil)
			if code, answer := l.send((*Server).sendLeaveV1, leave, ""); code != 200 || answer != "[200,{}]" {
				t.Errorf("a leave by v1: %d %s", code, answer)
			}
			if code, answer := l.send((*Server).sendLeaveV2, leave, ""); code != 200 || answer != "{}" {
				t.Errorf("the leave again: %d %s", code, answer)
			}
		})
	}
}

// A knock is answered with what who knocks may know.
func TestSendKnock(t *testing.T) {
	l := newLobby(t)
	room := l.create(state.Creation{Version: "11", Name: "Kitchen", Initial: []state.InitialEvent{
		{Type: "m.room.join_rules", Content: []byte(`{"join_rule":"knock"}`)},
	}})
	knock := l.made(l.template((*Server).makeKnock, room, "11"), nil)
	code, answer := l.send((*Server).sendKnock, knock, "")
	var a struct {
		Known []jsontext.Value `json:"knock_room_state"`
	}
	if code != 200 || json.Unmarshal([]byte(answer), &a) != nil {
		t.Fatalf("%d %s", code, answer)
	}
	if got, want := l.keys(knock.Version, a.Known), []string{"create ", "join_rules ", "name "}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	if code, answer := l.ask((*Server).makeKnock, peer, []string{string(room), string(alice)}, "", ""); code != 400 {
		t.Errorf("a knock of no version: %d %s", code, answer)
	}
}

// In versions whose events name themselves, a join under the ID of another event lets
// nobody in, and tells nothing of the room that the other one is of.
func TestSendJoinUnderTakenID(t *testing.T) {
	for _, version := range []string{"1", "2"} {
		l := newLobby(t)
		secret := l.create(state.Creation{Version: version, Name: "Secret"})
		room := l.create(state.Creation{Preset: state.PresetPublic, Version: version})
		made := l.template((*Server).makeJoin, room, version)
		for _, of := range []matrix.RoomID{secret, room} {
			taken := l.timeline(of)[1].ID
			ev := l.madeAs(made, nil, taken)
			if code, answer := l.send((*Server).sendJoinV2, ev, ""); code != 403 || l.is(room, alice) != "" {
				t.Errorf("version %s: %d %s, she is %q", version, code, answer, l.is(room, alice))
			}
		}
	}
}

// What is no join is no join, whoever sends it.
func TestSendJoinRefuses(t *testing.T) {
	l := newLobby(t)
	room := l.create(state.Creation{Preset: state.PresetPublic})
	made := l.template((*Server).makeJoin, room, "12")
	eve := `"@eve:peer.test"`
	for _, tt := range []struct {
		what   string
		change map[string]string
		code   int
		errno  string
	}{
		{"a message", map[string]string{"type": `"m.room.message"`}, 400, "M_INVALID_PARAM"},
		{"a leave", map[string]string{"content": `{"membership":"leave"}`}, 400, "M_INVALID_PARAM"},
		{"no membership", map[string]string{"content": `{}`}, 400, "M_INVALID_PARAM"},
		{"for another", map[string]string{"state_key": eve}, 400, "M_INVALID_PARAM"},
		{"of another server", map[string]string{"state_key": `"@a:other.test"`, "sender": `"@a:other.test"`}, 400, "M_INVALID_PARAM"},
		{"of another room", map[string]string{"room_id": `"!other"`}, 400, "M_INVALID_PARAM"},
		{"with no sender", map[string]string{"sender": `7`}, 400, ""},
		{"on what nobody has", map[string]string{"prev_events": `["$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg"]`}, 400, "M_INVALID_PARAM"},
		{"with rights of nobody", map[string]string{"auth_events": `[]`}, 403, "M_FORBIDDEN"},
	} {
		var ev *matrix.Event
		if tt.errno != "" {
			ev = l.made(made, tt.change)
		} else {
			code, answer := l.ask((*Server).sendJoinV2, peer, []string{string(room), "$x"}, "", `{"sender":7}`)
			if code != tt.code {
				t.Errorf("%s: %d %s", tt.what, code, answer)
			}
			continue
		}
		code, answer := l.ask((*Server).sendJoinV2, peer, []string{string(room), string(ev.ID)}, "", string(ev.JSON()))
		if code != tt.code || answer != tt.errno {
			t.Errorf("%s: %d %s, want %d %s", tt.what, code, answer, tt.code, tt.errno)
		}
	}
	ev := l.made(made, nil)
	for _, tt := range []struct {
		what string
		from matrix.ServerName
		room matrix.RoomID
		id   matrix.EventID
		code int
	}{
		{"by another server", "other.test", room, ev.ID, 400},
		{"under another ID", peer, room, "$other", 400},
		{"in a room that is not here", peer, "!elsewhere", ev.ID, 404},
		{"in no room", peer, "room", ev.ID, 400},
	} {
		code, answer := l.ask((*Server).sendJoinV2, tt.from, []string{string(tt.room), string(tt.id)}, "", string(ev.JSON()))
		if code != tt.code {
			t.Errorf("%s: %d %s, want %d", tt.what, code, answer, tt.code)
		}
	}
	for _, tt := range []struct {
		what, user, query string
		from              matrix.ServerName
		code              int
		errno             string
	}{
		{"of another server", string(alice), "ver=12", "other.test", 403, "M_FORBIDDEN"},
		{"of no version", string(alice), "", peer, 400, "M_INCOMPATIBLE_ROOM_VERSION"},
		{"of other versions", string(alice), "ver=1&ver=11", peer, 400, "M_INCOMPATIBLE_ROOM_VERSION"},
		{"of no user", "alice", "ver=12", peer, 400, "M_INVALID_PARAM"},
	} {
		code, answer := l.ask((*Server).makeJoin, tt.from, []string{string(room), tt.user}, tt.query, "")
		if code != tt.code || answer != tt.errno {
			t.Errorf("a template %s: %d %s, want %d %s", tt.what, code, answer, tt.code, tt.errno)
		}
	}
	key := ""
	_, err := l.rooms.Send(t.Context(), store.TxnID{}, matrix.Draft{
		Room: room, Sender: bob, Type: "m.room.server_acl", StateKey: &key, Content: []byte(`{"allow":["*"],"deny":["peer.test"]}`),
	})
	l.must(err)
	if code, answer := l.send((*Server).sendJoinV2, ev, ""); code != 403 {
		t.Errorf("a server that the room bars: %d %s", code, answer)
	}
	if code, answer := l.ask((*Server).makeJoin, peer, []string{string(room), string(alice)}, "ver=12", ""); code != 403 {
		t.Errorf("a template for it: %d %s", code, answer)
	}
}
