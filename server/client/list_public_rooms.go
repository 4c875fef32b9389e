package client

import (
	"net/http"

	"hearth/server/api"
	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// getRoomVisibilityOnDirectory answers GET /directory/list/room/{roomID}: whether a
// room is published.
//
// Spec: CS Published room directory.
func (s *Server) getRoomVisibilityOnDirectory(w http.ResponseWriter, r *http.Request, _ session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	visibility := "private"
	err = s.store.View(func(tx *store.Tx) error {
		num, _, err := state.Head(tx, room)
		if err == nil && tx.Published(num) {
			visibility = "public"
		}
		return err
	})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, struct {
		Visibility string `json:"visibility"`
	}{visibility})
}

// setRoomVisibilityOnDirectory answers PUT /directory/list/room/{roomID}: it
// publishes a room, or does so no longer.
func (s *Server) setRoomVisibilityOnDirectory(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	req := struct {
		Visibility string `json:"visibility"`
	}{"public"}
	if err := api.ReadOptionalJSON(r, maxSmallBody, &req); err != nil {
		return err
	}
	if req.Visibility != "public" && req.Visibility != "private" {
		return api.ErrInvalidParam.Because("visibility must be public or private")
	}
	if err := s.limits.Take(api.LimitSend, string(who.user)); err != nil {
		return err
	}
	if err := s.rooms.Publish(r.Context(), room, who.keeper(), req.Visibility == "public"); err != nil {
		return err
	}
	return api.WriteEmpty(w)
}

// getPublicRooms answers GET /publicRooms, to strangers too.
func (s *Server) getPublicRooms(w http.ResponseWriter, r *http.Request, who session) error {
	req, err := remote.ReadPublicRoomsQuery(r.URL.Query())
	if err != nil {
		return err
	}
	return s.publicRooms(w, r, who, req)
}

// queryPublicRooms answers POST /publicRooms, the directory with a filter.
func (s *Server) queryPublicRooms(w http.ResponseWriter, r *http.Request, who session) error {
	var req remote.PublicRoomsRequest
	if err := api.ReadOptionalJSON(r, maxSmallBody, &req); err != nil {
		return err
	}
	return s.publicRooms(w, r, who, req)
}

// publicRooms answers with a page of this server's directory, or of another's.
func (s *Server) publicRooms(w http.ResponseWriter, r *http.Request, who session, req remote.PublicRoomsRequest) error {
	server := s.store.Server()
	if text := r.URL.Query().Get("server"); text != "" {
		var err error
		if server, err = matrix.ParseServerName(text); err != nil {
			return api.InvalidParam("server", err)
		}
	}
	if who.known() {
		if err := s.limits.Take(api.LimitSearch, string(who.user)); err != nil {
			return err
		}
	}
	page, err := s.directoryOf(r, who, server, req)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, page)
}

// directoryOf returns a page of a server's directory.
func (s *Server) directoryOf(r *http.Request, who session, server matrix.ServerName, req remote.PublicRoomsRequest) (remote.PublicRooms, error) {
	if server == s.store.Server() {
		return remote.OwnPublicRooms(s.rooms, req)
	}
	if s.config.Network == nil {
		return remote.PublicRooms{}, api.ErrNotFound.Because("%s cannot be asked for its rooms: this server does not federate", server)
	}
	if err := s.limitAsking(r, who, server); err != nil {
		return remote.PublicRooms{}, err
	}
	page, err := s.config.Network.PublicRooms(r.Context(), server, req)
	return page, remoteError(err)
}
