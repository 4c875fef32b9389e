package federation

import (
	"net/http"

	"hearth/server/api"
	"hearth/server/remote"
	"hearth/state/matrix"
)

// queryRoomDirectory answers GET /query/directory: where an alias of this server leads.
//
// Spec: SS query.yaml.
func (s *Server) queryRoomDirectory(w http.ResponseWriter, r *http.Request, _ matrix.ServerName) error {
	text := r.URL.Query().Get("room_alias")
	if text == "" {
		return api.MissingParam("room_alias")
	}
	alias, err := matrix.ParseRoomAlias(text)
	if err != nil {
		return api.InvalidParam("room_alias", err)
	}
	if alias.Server() != s.store.Server() {
		return api.ErrInvalidParam.Because("%s is no alias of %s", alias, s.store.Server())
	}
	room, servers, err := s.rooms.AliasTarget(alias)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, struct {
		Room    matrix.RoomID       `json:"room_id"`
		Servers []matrix.ServerName `json:"servers"`
	}{room, servers})
}

// queryProfile answers GET /query/profile: the profile of a user of this server, or
// one field of it.
//
// Spec: SS query.yaml.
func (s *Server) queryProfile(w http.ResponseWriter, r *http.Request, _ matrix.ServerName) error {
	q := r.URL.Query()
	if q.Get("user_id") == "" {
		return api.MissingParam("user_id")
	}
	user, err := matrix.ParseUserID(q.Get("user_id"))
	if err != nil {
		return api.InvalidParam("user_id", err)
	}
	if user.Server() != s.store.Server() {
		return api.ErrInvalidParam.Because("%s is no user of %s", user, s.store.Server())
	}
	profile, err := s.config.Profile(user)
	if err != nil {
		return err
	}
	// "If specified, the server MUST only return the given field in the response."
	if name := q.Get("field"); name != "" {
		value, found := profile[name]
		profile = remote.Profile{}
		if found {
			profile[name] = value
		}
	}
	return api.WriteJSON(w, profile)
}

// queryInfo answers GET /query/{queryType} for queries that nobody has defined.
//
// Spec: SS query.yaml.
func (s *Server) queryInfo(http.ResponseWriter, *http.Request, matrix.ServerName) error {
	return api.ErrUnrecognized.Because("There is no such query")
}
