package remote

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// PublicRoomsRequest asks for a page of a server's published room directory. Clients
// ask their server like that, and servers each other.
// Spec: CS list_public_rooms.yaml; SS public_rooms.yaml.
type PublicRoomsRequest struct {
	Limit       int               `json:"limit,omitzero"` // 0: the server's choice
	Since       string            `json:"since,omitzero"`
	Filter      PublicRoomsFilter `json:"filter,omitzero"`
	AllNetworks bool              `json:"include_all_networks,omitzero"`
	Network     string            `json:"third_party_instance_id,omitzero"`
}

// PublicRoomsFilter says which rooms are asked for.
type PublicRoomsFilter struct {
	Term  string     `json:"generic_search_term,omitzero"`
	Types *[]*string `json:"room_types,omitzero"` // null within it: rooms without a type
}

// PublicRooms is a page of a published room directory.
type PublicRooms struct {
	Chunk []state.PublishedRoom `json:"chunk"`
	Next  string                `json:"next_batch,omitzero"`
	Prev  string                `json:"prev_batch,omitzero"`
	Total int                   `json:"total_room_count_estimate"`
}

// Rooms on a page of the directory.
const (
	directoryPage    = 100 // where the one who asks does not say
	maxDirectoryPage = 500
	maxDirectoryBody = 4 << 20 // bytes of another server's page
	maxSince         = 4 << 10 // bytes of another server's token
)

// ReadPublicRoomsQuery reads the request of the GET endpoints.
func ReadPublicRoomsQuery(q url.Values) (PublicRoomsRequest, error) {
	req := PublicRoomsRequest{
		Since: q.Get("since"), Network: q.Get("third_party_instance_id"), AllNetworks: q.Get("include_all_networks") == "true",
	}
	if text := q.Get("limit"); text != "" {
		var err error
		if req.Limit, err = strconv.Atoi(text); err != nil {
			return req, api.ErrInvalidParam.Because("limit must be a number")
		}
	}
	return req, nil
}

// check refuses what nobody may ask.
func (req PublicRoomsRequest) check() error {
	if req.AllNetworks && req.Network != "" {
		return api.ErrInvalidParam.Because("include_all_networks and third_party_instance_id exclude each other")
	}
	if req.Limit < 0 {
		return api.ErrInvalidParam.Because("limit may not be negative")
	}
	return nil
}

// OwnPublicRooms returns a page of this server's directory. The error is
// M_INVALID_PARAM for a request that cannot be.
func OwnPublicRooms(rooms *state.Rooms, req PublicRoomsRequest) (PublicRooms, error) {
	query, err := req.query()
	if err != nil {
		return PublicRooms{}, err
	}
	page := state.DirectoryPage{Rooms: []state.PublishedRoom{}}
	if req.Network == "" { // no application service brings networks of its own
		if page, err = rooms.Directory(query); err != nil {
			return PublicRooms{}, err
		}
	}
	return PublicRooms{page.Rooms, directoryToken("n", page.Next), directoryToken("p", page.Prev), page.Total}, nil
}

// query puts the request into the terms of package state.
func (req PublicRoomsRequest) query() (q state.DirectoryQuery, err error) {
	q = state.DirectoryQuery{Term: req.Filter.Term, Limit: directoryPage}
	if err := req.check(); err != nil {
		return q, err
	}
	if req.Limit > 0 {
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
		return place, back, api.ErrInvalidParam.Because("since: not a token of this server")
	}
	return state.DirectoryPlace{Joined: members, Room: store.RoomNum(num)}, back, nil
}

// PublicRooms asks another server for a page of its directory. The errors are those
// of [Network.Do], and M_INVALID_PARAM for a request that cannot be.
// Spec: SS GET and POST /_matrix/federation/v1/publicRooms.
func (n *Network) PublicRooms(ctx context.Context, server matrix.ServerName, req PublicRoomsRequest) (PublicRooms, error) {
	if err := req.check(); err != nil {
		return PublicRooms{}, err
	}
	req.Limit = min(req.Limit, maxDirectoryPage)
	if req.Limit == 0 {
		req.Limit = directoryPage
	}
	q := Request{
		Method: http.MethodPost, Path: "/_matrix/federation/v1/publicRooms", Body: req,
		MaxBytes: maxDirectoryBody, Timeout: askTimeout, Insist: true,
	}
	if req.Filter == (PublicRoomsFilter{}) { // which servers from before the filter answer, too
		q.Method, q.Path, q.Body = http.MethodGet, q.Path+"?"+req.values().Encode(), nil
	}
	var body jsontext.Value
	if err := n.Do(ctx, server, q, &body); err != nil {
		return PublicRooms{}, err
	}
	page, ok := readPublicRooms(body)
	if !ok {
		return PublicRooms{}, badAnswer(server, "published rooms")
	}
	return page, nil
}

// values are the parameters of a request without filter.
func (req PublicRoomsRequest) values() url.Values {
	v := url.Values{"limit": {strconv.Itoa(req.Limit)}}
	if req.Since != "" {
		v.Set("since", req.Since)
	}
	if req.AllNetworks {
		v.Set("include_all_networks", "true")
	}
	if req.Network != "" {
		v.Set("third_party_instance_id", req.Network)
	}
	return v
}

// readPublicRooms reads an answer, without the rooms that are not told of as they
// should be.
func readPublicRooms(body []byte) (PublicRooms, bool) {
	var answer struct {
		Chunk few[jsontext.Value] `json:"chunk"`
		Next  jsontext.Value      `json:"next_batch"`
		Prev  jsontext.Value      `json:"prev_batch"`
		Total jsontext.Value      `json:"total_room_count_estimate"`
	}
	if json.Unmarshal(body, &answer, answerOptions) != nil {
		return PublicRooms{}, false
	}
	page := PublicRooms{Chunk: []state.PublishedRoom{}, Next: tokenOf(answer.Next), Prev: tokenOf(answer.Prev)}
	for _, value := range answer.Chunk {
		var room state.PublishedRoom
		if json.Unmarshal(value, &room, answerOptions) != nil {
			continue
		}
		if _, err := matrix.ParseRoomID(string(room.Room)); err != nil {
			continue
		}
		if room.JoinRule == "" { // "When not present, the room is assumed to be public."
			room.JoinRule = "public"
		}
		if page.Chunk = append(page.Chunk, room); len(page.Chunk) == maxDirectoryPage {
			break
		}
	}
	if json.Unmarshal(answer.Total, &page.Total, answerOptions) != nil || page.Total < 0 {
		page.Total = len(page.Chunk)
	}
	return page, true
}

// tokenOf reads a token of a page.
func tokenOf(value jsontext.Value) string {
	var text string
	if json.Unmarshal(value, &text, answerOptions) != nil || len(text) > maxSince {
		return ""
	}
	return text
}
