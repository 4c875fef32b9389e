package client

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// keeper is who asks, as one who changes how rooms are found.
func (who session) keeper() state.Keeper {
	return state.Keeper{User: who.user, Admin: who.admin}
}

// pathAlias reads the alias of a path.
func pathAlias(r *http.Request) (matrix.RoomAlias, error) {
	alias, err := matrix.ParseRoomAlias(r.PathValue("roomAlias"))
	if err != nil {
		return "", api.InvalidParam("roomAlias", err)
	}
	return alias, nil
}

// pathOwnAlias is pathAlias for what can be done with this server's aliases only.
func (s *Server) pathOwnAlias(r *http.Request) (matrix.RoomAlias, error) {
	alias, err := pathAlias(r)
	if err == nil && alias.Server() != s.store.Server() {
		err = api.ErrInvalidParam.Because("Only %s can change the alias %s", alias.Server(), alias)
	}
	return alias, err
}

// getRoomIdByAlias answers GET /directory/room/{roomAlias}: the room that an alias
// leads to. Strangers may ask, too.
//
// Spec: CS Room aliases.
func (s *Server) getRoomIdByAlias(w http.ResponseWriter, r *http.Request, who session) error {
	alias, err := pathAlias(r)
	if err == nil {
		err = s.limitAsking(r, who, alias.Server())
	}
	if err != nil {
		return err
	}
	room, servers, err := s.resolveAlias(r.Context(), alias)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, struct {
		Room    matrix.RoomID       `json:"room_id"`
		Servers []matrix.ServerName `json:"servers"`
	}{room, servers})
}

// resolveAlias returns the room that an alias leads to, and servers that are in the
// room, the likeliest to help with a join first. Where it is another server's, that is
// asked. The error is M_NOT_FOUND where the alias leads nowhere, and 502 or 504 where
// the other server does not say.
func (s *Server) resolveAlias(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error) {
	if alias.Server() == s.store.Server() {
		return s.rooms.AliasTarget(alias)
	}
	if s.config.Network == nil {
		return "", nil, api.ErrNotFound.Because("%s cannot be asked where %s leads: this server does not federate", alias.Server(), alias)
	}
	room, servers, err := s.config.Network.Alias(ctx, alias)
	return room, slices.Clone(servers), remoteError(err)
}

// limitAsking counts a request for which a server may have to be asked, unless that is
// this one.
func (s *Server) limitAsking(r *http.Request, who session, server matrix.ServerName) error {
	switch {
	case server == s.store.Server():
		return nil
	case who.known():
		return s.limits.Take(api.LimitElsewhere, string(who.user))
	}
	return s.limits.TakeIP(api.LimitElsewhere, api.ClientIP(r))
}

// setRoomAlias answers PUT /directory/room/{roomAlias}: a member of a room gives it
// one more alias.
func (s *Server) setRoomAlias(w http.ResponseWriter, r *http.Request, who session) error {
	alias, err := s.pathOwnAlias(r)
	if err != nil {
		return err
	}
	var req struct {
		Room string `json:"room_id"`
	}
	if err := api.ReadJSON(r, maxSmallBody, &req); err != nil {
		return err
	}
	if req.Room == "" {
		return api.MissingParam("room_id")
	}
	room, err := matrix.ParseRoomID(req.Room)
	if err != nil {
		return api.InvalidParam("room_id", err)
	}
	if err := s.limits.Take(api.LimitSend, string(who.user)); err != nil {
		return err
	}
	err = s.rooms.AddAlias(r.Context(), alias, room, who.keeper())
	if errors.Is(err, store.ErrExists) {
		return api.ErrUnknown.WithStatus(http.StatusConflict).Because("The alias %s leads to a room already", alias)
	}
	if err != nil {
		return err
	}
	return api.WriteEmpty(w)
}

// deleteRoomAlias answers DELETE /directory/room/{roomAlias}.
func (s *Server) deleteRoomAlias(w http.ResponseWriter, r *http.Request, who session) error {
	alias, err := s.pathOwnAlias(r)
	if err != nil {
		return err
	}
	if err := s.limits.Take(api.LimitSend, string(who.user)); err != nil {
		return err
	}
	if err := s.rooms.DeleteAlias(r.Context(), alias, who.keeper()); err != nil {
		return err
	}
	return api.WriteEmpty(w)
}

// getLocalAliases answers GET /rooms/{roomID}/aliases for who is in the room, and
// for everybody where it is world readable.
func (s *Server) getLocalAliases(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	var aliases []matrix.RoomAlias
	err = s.store.View(func(tx *store.Tx) error {
		num, head, err := state.Head(tx, room)
		if err != nil {
			return errNotMember
		}
		viewer, err := state.NewViewer(tx, num, who.user)
		if err != nil {
			return err
		}
		last, may, err := viewer.Reach(head)
		if err != nil {
			return err
		}
		if !may || last != 0 { // who has left reads what was then, not what is now
			return errNotMember
		}
		aliases, err = tx.Aliases(num)
		return err
	})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, struct {
		Aliases []matrix.RoomAlias `json:"aliases"`
	}{aliases})
}
