package federation

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
)

// No body of a membership request brings the server down, or fails by its fault.
func FuzzMembership(f *testing.F) {
	handlers := []handler{
		(*Server).sendJoinV1, (*Server).sendJoinV2, (*Server).sendKnock, (*Server).sendLeaveV1, (*Server).sendLeaveV2,
		(*Server).sendInviteV1, (*Server).sendInviteV2, (*Server).exchangeThirdPartyInvite, (*Server).onBindThirdPartyIdentifier,
	}
	f.Add(0, `{}`)
	f.Add(1, `{"type":"m.room.member","state_key":"@alice:peer.test","sender":"@alice:peer.test","content":{"membership":"join","join_authorised_via_users_server":"@bob:here.test"},"prev_events":[],"auth_events":[],"depth":1,"origin_server_ts":1,"hashes":{},"signatures":{},"room_id":"!room"}`)
	f.Add(5, `{"unsigned":{"invite_room_state":[7,{}]}}`)
	f.Add(6, `{"room_version":"12","event":{"type":"m.room.member"},"invite_room_state":[null]}`)
	f.Add(7, `{"type":"m.room.member","room_id":"!room","sender":"@bob:here.test","state_key":"@alice:peer.test","content":{"membership":"invite","third_party_invite":{"signed":{"token":"t"}}}}`)
	f.Add(8, `{"mxid":"@bob:here.test","invites":[{"room_id":"!x","sender":"@a:b","signed":{}}]}`)
	version, _ := matrix.VersionByID("11")
	var (
		dir  = f.TempDir()
		l    *lobby // one for all of a process, whose calls come one by one
		room matrix.RoomID
	)
	f.Cleanup(func() {
		if l != nil {
			_ = l.store.Close()
		}
	})
	f.Fuzz(func(t *testing.T, which int, body string) {
		if which < 0 || which >= len(handlers) {
			t.Skip()
		}
		if l == nil {
			l = openLobby(t, dir)
			room = l.create(state.Creation{Preset: state.PresetPublic, Version: "11"})
		}
		l.T = t
		id := matrix.EventID("$x")
		for _, pdu := range pdusIn(body) { // what is of another room goes no further
			if ev, err := matrix.Parse(version, inRoomOf(room, pdu)); err == nil {
				id, body = ev.ID, strings.Replace(body, string(pdu), string(ev.JSON()), 1)
			}
		}
		code, answer := l.ask(handlers[which], peer, []string{string(room), string(id)}, "", body)
		if code >= 500 && code != 502 {
			t.Errorf("%d %s", code, answer)
		}
	})
}

// pdusIn returns what may be an event in a body: the body itself, or its event.
func pdusIn(body string) []jsontext.Value {
	var wrapped struct {
		Event jsontext.Value `json:"event"`
	}
	if json.Unmarshal([]byte(body), &wrapped) == nil && wrapped.Event != nil {
		return []jsontext.Value{wrapped.Event}
	}
	return []jsontext.Value{jsontext.Value(body)}
}

// inRoomOf is an event moved to a room.
func inRoomOf(room matrix.RoomID, pdu jsontext.Value) []byte {
	var members map[string]jsontext.Value
	if json.Unmarshal(pdu, &members) != nil || members == nil {
		return nil
	}
	members["room_id"] = jsontext.Value(`"` + string(room) + `"`)
	raw, err := json.Marshal(members)
	if err != nil {
		return nil
	}
	return raw
}
