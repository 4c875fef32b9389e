package federation

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/server/media"
	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// What another server looks up, and what it is told.
func TestQueries(t *testing.T) {
	h := openHouse(t, peer, t.TempDir())
	defer h.close()
	ctx := context.Background()
	h.must(h.store.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.CreateAccount(alice, store.Account{Created: time.Now()})
		return err
	}))
	create := func(c state.Creation) matrix.RoomID {
		c.Creator = alice
		id, err := h.rooms.Create(ctx, c)
		h.must(err)
		return id
	}
	space := create(state.Creation{Preset: state.PresetPublic, Name: "Space", Alias: "#space:peer.test", Publish: true, Content: jsontext.Value(`{"type":"m.space"}`)})
	child := create(state.Creation{Preset: state.PresetPublic, Name: "Child"})
	secret := create(state.Creation{Preset: state.PresetPrivate, Name: "Secret"})
	h.set(space, "m.space.child", string(child), `{"via":["peer.test"],"suggested":true}`)
	h.set(space, "m.space.child", string(secret), `{"via":["peer.test"]}`)
	network := remote.NewNetwork(remote.NetworkConfig{Store: h.store, Key: func() matrix.SigningKey { return h.key }})
	s := New(Config{
		Store: h.store, Rooms: h.rooms, Network: network, Media: media.New(h.store, media.Config{}),
		Profile: func(user matrix.UserID) (remote.Profile, error) {
			if user != alice {
				return nil, api.ErrNotFound
			}
			return remote.Profile{"displayname": jsontext.Value(`"Alice"`), "m.tz": jsontext.Value(`"UTC"`)}, nil
		},
		OpenIDUser: func(token string) (matrix.UserID, error) {
			if token != "good" {
				return "", api.ErrUnknownToken
			}
			return alice, nil
		},
	})
	for _, tt := range []struct {
		path   string
		status int
		want   string // parts of the answer or the code, apart by a blank
		not    string // what must not stand there
	}{
		{"query/directory?room_alias=" + url.QueryEscape("#space:peer.test"), 200, `"room_id":"` + string(space) + `" "servers":["peer.test"]`, ""},
		{"query/directory?room_alias=" + url.QueryEscape("#none:peer.test"), 404, "M_NOT_FOUND", ""},
		{"query/directory?room_alias=" + url.QueryEscape("#space:here.test"), 400, "M_INVALID_PARAM", ""},
		{"query/directory?room_alias=x", 400, "M_INVALID_PARAM", ""},
		{"query/directory", 400, "M_MISSING_PARAM", ""},
		{"query/profile?user_id=@alice:peer.test", 200, `"displayname":"Alice" "m.tz":"UTC"`, ""},
		{"query/profile?user_id=@alice:peer.test&field=m.tz", 200, `{"m.tz":"UTC"}`, "Alice"},
		{"query/profile?user_id=@alice:peer.test&field=avatar_url", 200, `{}`, "Alice"},
		{"query/profile?user_id=@none:peer.test", 404, "M_NOT_FOUND", ""},
		{"query/profile?user_id=@bob:here.test", 400, "M_INVALID_PARAM", ""},
		{"query/profile?user_id=@user1:localhost:http", 400, "M_INVALID_PARAM", ""},
		{"query/profile", 400, "M_MISSING_PARAM", ""},
		{"query/other", 404, "M_UNRECOGNIZED", ""},
		{"publicRooms", 200, `"room_id":"` + string(space) + `" "total_room_count_estimate":1`, "Child"},
		{"publicRooms?limit=x", 400, "M_INVALID_PARAM", ""},
		{"publicRooms?since=x", 400, "M_INVALID_PARAM", ""},
		{"publicRooms?third_party_instance_id=irc", 200, `"chunk":[]`, ""},
		{"hierarchy/" + string(space), 200, `"name":"Space" "name":"Child" "inaccessible_children":["` + string(secret) + `"] "children_state":[{`, "Secret"},
		{"hierarchy/" + string(space) + "?suggested_only=true", 200, `"name":"Child" "inaccessible_children":[]`, string(secret)},
		{"hierarchy/" + string(space) + "?suggested_only=7", 400, "M_INVALID_PARAM", ""},
		{"hierarchy/" + string(child), 200, `"children_state":[] "children":[]`, ""},
		{"hierarchy/" + string(secret), 404, "M_NOT_FOUND", ""},
		{"hierarchy/!none:peer.test", 404, "M_NOT_FOUND", ""},
		{"hierarchy/none", 400, "M_INVALID_PARAM", ""},
		{"openid/userinfo?access_token=good", 200, `{"sub":"@alice:peer.test"}`, ""},
		{"openid/userinfo?access_token=bad", 401, "M_UNKNOWN_TOKEN", ""},
		{"openid/userinfo", 401, "M_MISSING_TOKEN", ""},
		{"media/download/none", 404, "M_NOT_FOUND", ""},
		{"media/download/" + url.PathEscape("../x"), 400, "M_INVALID_PARAM", ""},
		{"media/thumbnail/none?width=1", 400, "M_MISSING_PARAM", ""},
		{"media/thumbnail/none?width=1&height=1&timeout_ms=1", 404, "M_NOT_FOUND", ""},
	} {
		status, body := ask(t, s, tt.path)
		for _, part := range strings.Fields(tt.want) {
			if !strings.Contains(body, part) {
				t.Errorf("%s: %s lacks %s", tt.path, body, part)
			}
		}
		if status != tt.status || tt.not != "" && strings.Contains(body, tt.not) {
			t.Errorf("%s: %d %s, want %d", tt.path, status, body, tt.status)
		}
	}
}

// ask has the handler of a path answer a server.
func ask(t *testing.T, s *Server, path string) (status int, body string) {
	t.Helper()
	mux := http.NewServeMux()
	for _, rt := range append(queryRoutes, mediaRoutes...) {
		mux.HandleFunc(rt.pattern, func(w http.ResponseWriter, r *http.Request) {
			refused := new(api.Error)
			switch err := rt.handle(s, w, r, here); {
			case errors.As(err, &refused):
				w.WriteHeader(refused.Status)
				_, _ = w.Write([]byte(refused.Code))
			case errors.Is(err, state.ErrUnknownAlias):
				w.WriteHeader(http.StatusNotFound)
				_, _ = w.Write([]byte("M_NOT_FOUND"))
			case err != nil:
				t.Errorf("%s: %v", path, err)
			}
		})
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/_matrix/federation/v1/"+path, nil))
	return w.Code, w.Body.String()
}
