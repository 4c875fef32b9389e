package client

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"hearth/server/api"
	"hearth/state"
)

// Bounds of a space's hierarchy.
const (
	hierarchyPage     = 50 // rooms of a page, at most
	maxHierarchyDepth = 50 // below the space; also where the client does not say
)

// getSpaceHierarchy answers GET /rooms/{roomID}/hierarchy: a page of the rooms in a
// space and in the spaces within it. Rooms that this server is not in are those that
// other servers tell of.
//
// Spec: CS Discovering rooms within spaces.
func (s *Server) getSpaceHierarchy(w http.ResponseWriter, r *http.Request, who session) error {
	query, err := readHierarchy(r, who)
	if err != nil {
		return err
	}
	if err := s.limits.Take(api.LimitSearch, string(who.user)); err != nil {
		return err
	}
	if s.config.Network != nil {
		query.Ask = s.config.Network.Space
		if query.Via, err = s.serversOf(query.Root, who, nil); err != nil {
			return err
		}
	}
	page, err := s.rooms.Hierarchy(r.Context(), query)
	if err != nil {
		return err
	}
	next := ""
	if page.Next != "" {
		next = hierarchyToken(query) + page.Next
	}
	return api.WriteJSON(w, struct {
		Rooms []state.SpaceRoom `json:"rooms"`
		Next  string            `json:"next_batch,omitzero"`
	}{page.Rooms, next})
}

// readHierarchy reads the request.
func readHierarchy(r *http.Request, who session) (q state.HierarchyQuery, err error) {
	q = state.HierarchyQuery{User: who.num, Limit: hierarchyPage, MaxDepth: maxHierarchyDepth}
	if q.Root, err = pathRoom(r); err != nil {
		return q, err
	}
	params := r.URL.Query()
	switch params.Get("suggested_only") {
	case "", "false":
	case "true":
		q.SuggestedOnly = true
	default:
		return q, api.ErrInvalidParam.Because("suggested_only must be true or false")
	}
	if q.Limit, err = boundedParam(params, "limit", 1, q.Limit); err != nil {
		return q, err
	}
	if q.MaxDepth, err = boundedParam(params, "max_depth", 0, q.MaxDepth); err != nil {
		return q, err
	}
	if from := params.Get("from"); from != "" {
		var same bool
		if q.After, same = strings.CutPrefix(from, hierarchyToken(q)); !same || q.After == "" {
			return q, api.ErrInvalidParam.Because("from is no token that this server gave for these suggested_only and max_depth")
		}
	}
	return q, nil
}

// boundedParam reads a whole number of a query: least or more, and at most most,
// which is also what it is where it is not given.
func boundedParam(params url.Values, name string, least, most int) (int, error) {
	text := params.Get(name)
	if text == "" {
		return most, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least {
		return 0, api.ErrInvalidParam.Because("%s must be a whole number from %d on", name, least)
	}
	return min(n, most), nil
}

// hierarchyToken is what the tokens of one request's pages begin with, since they
// are good with its parameters only: "If specified, `max_depth` and
// `suggested_only` cannot be changed from the first request."
func hierarchyToken(q state.HierarchyQuery) string {
	kind := "a"
	if q.SuggestedOnly {
		kind = "s"
	}
	return fmt.Sprintf("%s%d.", kind, q.MaxDepth)
}
