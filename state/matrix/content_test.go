package matrix

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// state is a state event of @alice:example.org with that content.
func state(t testing.TB, v *Version, typ, content string) *Event {
	t.Helper()
	key := ""
	return build(t, v, Draft{Type: typ, StateKey: &key, Content: []byte(content)})
}

func TestMember(t *testing.T) {
	text := func(s string) *string { return &s }
	for _, tt := range []struct {
		version, content string
		want             MemberContent
		err              error
	}{
		{"12", `{"membership":"join","displayname":"A","avatar_url":"mxc://a/b","is_direct":true,"reason":"r"}`,
			MemberContent{Membership: Join, DisplayName: text("A"), AvatarURL: text("mxc://a/b"), IsDirect: true, Reason: "r"}, nil},
		{"12", `{"membership":"knock","displayname":null,"avatar_url":1,"is_direct":"yes","reason":{}}`, MemberContent{Membership: Knock}, nil},
		{"1", `{"membership":"strange"}`, MemberContent{Membership: "strange"}, nil},
		{"8", `{"membership":"join","join_authorised_via_users_server":"@b:c"}`, MemberContent{Membership: Join, AuthorisedVia: "@b:c"}, nil},
		{"7", `{"membership":"join","join_authorised_via_users_server":1}`, MemberContent{Membership: Join}, nil},
		{"8", `{"membership":"join","join_authorised_via_users_server":"b"}`, MemberContent{}, ErrBadJSON},
		{"12", `{"membership":"invite","third_party_invite":[1]}`,
			MemberContent{Membership: Invite, ThirdPartyInvite: jsontext.Value(`[1]`)}, nil},
		{"12", `{"displayname":"A"}`, MemberContent{}, ErrBadJSON},
		{"12", `{"membership":1}`, MemberContent{}, ErrBadJSON},
		{"12", `{"membership":""}`, MemberContent{}, ErrBadJSON},
	} {
		got, err := state(t, version(t, tt.version), "m.room.member", tt.content).Member()
		if !reflect.DeepEqual(got, tt.want) || !errors.Is(err, tt.err) {
			t.Errorf("version %s, %s: %+v, %v", tt.version, tt.content, got, err)
		}
	}
}

func TestJoinRule(t *testing.T) {
	for _, tt := range []struct {
		content, rule string
		allow         []RoomID
		err           error
	}{
		{`{"join_rule":"public"}`, "public", nil, nil},
		{`{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":"!a"},{"type":"other","room_id":"!b"},
			{"type":"m.room_membership"},7,{"type":"m.room_membership","room_id":"!c:d"}]}`, "restricted", []RoomID{"!a", "!c:d"}, nil},
		{`{"join_rule":"restricted","allow":{"type":"m.room_membership"}}`, "restricted", nil, nil},
		{`{}`, "", nil, ErrBadJSON},
		{`{"join_rule":1}`, "", nil, ErrBadJSON},
	} {
		rule, allow, err := state(t, version(t, "12"), "m.room.join_rules", tt.content).JoinRule()
		if rule != tt.rule || !slices.Equal(allow, tt.allow) || !errors.Is(err, tt.err) {
			t.Errorf("%s: %q, %v, %v", tt.content, rule, allow, err)
		}
	}
}

func TestHistoryVisibility(t *testing.T) {
	for content, want := range map[string]string{
		`{"history_visibility":"world_readable"}`: "world_readable",
		`{"history_visibility":"shared"}`:         "shared",
		`{"history_visibility":"invited"}`:        "invited",
		`{"history_visibility":"joined"}`:         "joined",
		`{"history_visibility":"other"}`:          "shared",
		`{"history_visibility":1}`:                "shared",
		`{}`:                                      "shared",
	} {
		if got := state(t, version(t, "12"), "m.room.history_visibility", content).HistoryVisibility(); got != want {
			t.Errorf("%s: %q", content, got)
		}
	}
}

func TestCreateContent(t *testing.T) {
	for _, tt := range []struct {
		version, content string
		want             CreateContent
		err              error
		creators         []UserID
	}{
		{"10", `{"creator":"@c:d","room_version":"10","type":"m.space","m.federate":false,"predecessor":{"room_id":"!a:b","event_id":"$e"}}`,
			CreateContent{RoomVersion: "10", Type: "m.space", HasCreator: true, Creator: "@c:d", Predecessor: &Predecessor{"!a:b", "$e"}}, nil,
			[]UserID{"@c:d"}},
		{"1", `{}`, CreateContent{RoomVersion: "1", Federate: true}, nil, nil},
		{"1", `{"creator":"c"}`, CreateContent{RoomVersion: "1", Federate: true, HasCreator: true}, nil, nil},
		{"11", `{"room_version":"11","m.federate":"no","predecessor":{"room_id":1},"additional_creators":["@e:f"]}`,
			CreateContent{RoomVersion: "11", Federate: true}, nil, []UserID{"@alice:example.org"}},
		{"12", `{"room_version":"12","additional_creators":["@e:f","@g:h"],"predecessor":{"room_id":"!a"}}`,
			CreateContent{RoomVersion: "12", Federate: true, AdditionalCreators: []UserID{"@e:f", "@g:h"}, Predecessor: &Predecessor{Room: "!a"}}, nil,
			[]UserID{"@alice:example.org", "@e:f", "@g:h"}},
		{"12", `{"additional_creators":["e"]}`, CreateContent{}, ErrBadJSON, nil},
		{"12", `{"additional_creators":{}}`, CreateContent{}, ErrBadJSON, nil},
		{"12", `{"room_version":12}`, CreateContent{}, ErrBadJSON, nil},
	} {
		e := state(t, version(t, tt.version), "m.room.create", tt.content)
		got, err := e.CreateContent()
		if !reflect.DeepEqual(got, tt.want) || !errors.Is(err, tt.err) {
			t.Errorf("version %s, %s: %+v, %v", tt.version, tt.content, got, err)
		}
		if creators := e.Creators(); !slices.Equal(creators, tt.creators) {
			t.Errorf("version %s, %s: creators %v", tt.version, tt.content, creators)
		}
	}
}
