package client

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
)

// maxCreateBytes bounds the body of createRoom, which may hold many events.
const maxCreateBytes = 1 << 20

// Bounds of one createRoom, all of which is one write.
const (
	maxInvites = 200
	maxInitial = 200 // events of initial_state
)

// createRoomRequest is the body of createRoom.
type createRoomRequest struct {
	Visibility      string           `json:"visibility"`
	AliasLocalpart  string           `json:"room_alias_name"`
	Name            string           `json:"name"`
	Topic           string           `json:"topic"`
	Invite          []string         `json:"invite"`
	InviteByAddress []jsontext.Value `json:"invite_3pid"`
	Version         string           `json:"room_version"`
	CreationContent jsontext.Value   `json:"creation_content"`
	InitialState    []struct {
		Type     string         `json:"type"`
		StateKey string         `json:"state_key"`
		Content  jsontext.Value `json:"content"`
	} `json:"initial_state"`
	Preset        string         `json:"preset"`
	Direct        bool           `json:"is_direct"`
	PowerOverride jsontext.Value `json:"power_level_content_override"`
}

// createRoom answers POST /createRoom.
//
// Spec: CS Creation.
func (s *Server) createRoom(w http.ResponseWriter, r *http.Request, who session) error {
	var req createRoomRequest
	if err := api.ReadJSON(r, maxCreateBytes, &req); err != nil {
		return err
	}
	c, err := s.creation(req, who)
	if err != nil {
		return err
	}
	if err := s.limits.Take(api.LimitCreateRoom, string(who.user)); err != nil {
		return err
	}
	if err := s.limits.TakeN(api.LimitInvite, string(who.user), len(c.Invite)); err != nil {
		return err
	}
	id, err := s.rooms.Create(r.Context(), c)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, struct {
		Room matrix.RoomID `json:"room_id"`
	}{id})
}

// creation checks the request and puts it into the terms of package state.
func (s *Server) creation(req createRoomRequest, who session) (state.Creation, error) {
	c := state.Creation{
		Creator: who.user, Preset: req.Preset, Version: req.Version,
		Name: req.Name, Topic: req.Topic, Direct: req.Direct, Publish: req.Visibility == "public",
	}
	switch {
	case req.Visibility != "" && req.Visibility != "public" && req.Visibility != "private":
		return c, api.ErrInvalidParam.Because("visibility must be public or private")
	case len(req.InviteByAddress) > 0:
		return c, api.ErrThreePIDDenied.Because("This server cannot invite by address: invite by user ID")
	case len(req.Invite) > maxInvites:
		return c, api.ErrInvalidParam.Because("At most %d users can be invited at once", maxInvites)
	case len(req.InitialState) > maxInitial:
		return c, api.ErrInvalidParam.Because("initial_state may have %d events at most", maxInitial)
	}
	switch req.Preset {
	case state.PresetPrivate, state.PresetTrusted, state.PresetPublic:
	case "":
		c.Preset = state.PresetPrivate
		if c.Publish {
			c.Preset = state.PresetPublic
		}
	default:
		return c, api.ErrInvalidParam.Because("There is no preset %q", req.Preset)
	}
	var err error
	if c.Content, err = optionalObject("creation_content", req.CreationContent); err != nil {
		return c, err
	}
	if c.PowerOverride, err = optionalObject("power_level_content_override", req.PowerOverride); err != nil {
		return c, err
	}
	for _, text := range req.Invite {
		user, err := matrix.ParseUserID(text)
		if err != nil {
			return c, api.InvalidParam("invite", err)
		}
		c.Invite = append(c.Invite, user)
	}
	for _, ev := range req.InitialState {
		if ev.Type == "" || ev.Content.Kind() != '{' {
			return c, api.ErrBadJSON.Because("Each of initial_state needs a type, and an object as content")
		}
		c.Initial = append(c.Initial, state.InitialEvent{Type: ev.Type, StateKey: ev.StateKey, Content: ev.Content})
	}
	if req.AliasLocalpart != "" {
		alias := "#" + req.AliasLocalpart + ":" + string(s.store.Server())
		if c.Alias, err = matrix.ParseRoomAlias(alias); err != nil {
			return c, api.InvalidParam("room_alias_name", err)
		}
		if c.Alias.Localpart() != req.AliasLocalpart {
			return c, api.ErrInvalidParam.Because("room_alias_name may not hold a colon")
		}
	}
	return c, nil
}

// optionalObject returns a value that must be an object, or nothing.
func optionalObject(name string, v jsontext.Value) (jsontext.Value, error) {
	switch v.Kind() {
	case '{':
		return v, nil
	case 'n', jsontext.KindInvalid:
		return nil, nil
	}
	return nil, api.ErrBadJSON.Because("%s must be an object", name)
}
