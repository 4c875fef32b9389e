package client

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// Rooms on a page of the directory.
const (
	directoryPage    = 100 // where the client does not say
	maxDirectoryPage = 500
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

// publicRoomsRequest is the body of queryPublicRooms.
type publicRoomsRequest struct {
	Limit  int    `json:"limit"` // 0: the server's choice
	Since  string `json:"since"`
	Filter struct {
		Term  string     `json:"generic_search_term"`
		Types *[]*string `json:"room_types"` // null within it: rooms without a type
	} `json:"filter"`
	AllNetworks bool   `json:"include_all_networks"`
	Network     string `json:"third_party_instance_id"`
}

// getPublicRooms answers GET /publicRooms, to strangers too.
func (s *Server) getPublicRooms(w http.ResponseWriter, r *http.Request, who session) error {
	q := r.URL.Query()
	req := publicRoomsRequest{Since: q.Get("since")}
	if text := q.Get("limit"); text != "" {
		var err error
		if req.Limit, err = strconv.Atoi(text); err != nil {
			return api.ErrInvalidParam.Because("limit must be a number")
		}
	}
	return s.publicRooms(w, r, who, req)
}

// queryPublicRooms answers POST /publicRooms, the directory with a filter.
func (s *Server) queryPublicRooms(w http.ResponseWriter, r *http.Request, who session) error {
	var req publicRoomsRequest
	if err := api.ReadOptionalJSON(r, maxSmallBody, &req); err != nil {
		return err
	}
	return s.publicRooms(w, r, who, req)
}

func (s *Server) publicRooms(w http.ResponseWriter, r *http.Request, who session, req publicRoomsRequest) error {
	if err := s.ownDirectory(r.URL.Query().Get("server")); err != nil {
		return err
	}
	query, err := req.query()
	if err != nil {
		return err
	}
	if who.known() {
		if err := s.limits.Take(api.LimitSearch, string(who.user)); err != nil {
			return err
		}
	}
	var page state.DirectoryPage
	if req.Network == "" { // no application service brings networks of its own
		if page, err = s.rooms.Directory(query); err != nil {
			return err
		}
	}
	return api.WriteJSON(w, struct {
		Chunk []state.PublishedRoom `json:"chunk"`
		Next  string                `json:"next_batch,omitzero"`
		Prev  string                `json:"prev_batch,omitzero"`
		Total int                   `json:"total_room_count_estimate"`
	}{page.Rooms, directoryToken("n", page.Next), directoryToken("p", page.Prev), page.Total})
}

// ownDirectory refuses to ask another server for its directory.
func (s *Server) ownDirectory(server string) error {
	if server == "" || server == string(s.store.Server()) {
		return nil
	}
	name, err := matrix.ParseServerName(server)
	if err != nil {
		return api.InvalidParam("server", err)
	}
	return api.ErrNotFound.Because("%s cannot be asked for its rooms: this server does not federate", name)
}

// query puts the request into the terms of package state.
func (req publicRoomsRequest) query() (q state.DirectoryQuery, err error) {
	q = state.DirectoryQuery{Term: req.Filter.Term, Limit: directoryPage}
	if req.AllNetworks && req.Network != "" {
		return q, api.ErrInvalidParam.Because("include_all_networks and third_party_instance_id exclude each other")
	}
	switch {
	case req.Limit < 0:
		return q, api.ErrInvalidParam.Because("limit may not be negative")
	case req.Limit > 0:
		q.Limit = min(req.Limit, maxDirectoryPage)
	}
	if req.Filter.Types != nil {
		q.Types = []string{}
		for _, typ := range *req.Filter.Types {
			if typ == nil {
				typ = new(string)
			}
			q.Types = append(q.Types, *typ)
		}
	}
	if req.Since != "" {
		q.From, q.Back, err = parseDirectoryToken(req.Since)
	}
	return q, err
}

// directoryToken returns the token of the page behind a place ("n") or before it
// ("p"), "" where there is none. It is good for ever, and under every filter.
func directoryToken(direction string, place *state.DirectoryPlace) string {
	if place == nil {
		return ""
	}
	return fmt.Sprintf("%s%d_%d", direction, place.Joined, place.Room)
}

func parseDirectoryToken(text string) (place state.DirectoryPlace, back bool, err error) {
	rest, ahead := strings.CutPrefix(text, "n")
	if !ahead {
		rest, back = strings.CutPrefix(text, "p")
	}
	joined, room, found := strings.Cut(rest, "_")
	members, err1 := strconv.ParseUint(joined, 10, 64)
	num, err2 := strconv.ParseUint(room, 10, 32)
	if ahead == back || !found || err1 != nil || err2 != nil || members == 0 || num == 0 {
		return place, back, api.InvalidParam("since", errToken)
	}
	return state.DirectoryPlace{Joined: members, Room: store.RoomNum(num)}, back, nil
}
