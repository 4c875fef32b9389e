package client

import (
	"context"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
)

// maxSmallBody bounds bodies that hold a few short fields.
const maxSmallBody = 64 << 10

// joinRequest is the body of the endpoints that join. What it has beyond the
// specification goes into the member event, as clients know it from other servers.
type joinRequest struct {
	Reason string         `json:"reason"`
	Signed jsontext.Value `json:"third_party_signed"`

	Extra map[string]jsontext.Value `json:",embed"`
}

// joinRoomById answers POST /rooms/{roomID}/join.
func (s *Server) joinRoomById(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	return s.join(w, r, who, room, nil)
}

// joinRoom answers POST /join/{roomIDOrAlias}.
func (s *Server) joinRoom(w http.ResponseWriter, r *http.Request, who session) error {
	room, servers, err := s.pathRoomServers(r)
	if err != nil {
		return err
	}
	return s.join(w, r, who, room, servers)
}

// join brings a user into a room. servers may be in it.
func (s *Server) join(w http.ResponseWriter, r *http.Request, who session, room matrix.RoomID, servers []matrix.ServerName) error {
	var req joinRequest
	if err := api.ReadOptionalJSON(r, maxSmallBody, &req); err != nil {
		return err
	}
	if err := s.limits.Take(api.LimitJoin, string(who.user)); err != nil {
		return err
	}
	err := s.refuseGuestIn(room, who)
	if err != nil {
		return err
	}
	join := state.Join{Room: room, User: who.user, Reason: req.Reason, Extra: req.Extra}
	if join.Proof, err = req.proof(room, who.user); err != nil {
		return err
	}
	if err := s.joinAnywhere(r.Context(), join, servers); err != nil {
		return err
	}
	return api.WriteJSON(w, roomAnswer{room})
}

// proof reads third_party_signed, what an identity server says of whose an invite by
// address is; nil where the client has none. Whether it holds is the room's to say.
//
// Spec: CS Joining rooms.
func (req joinRequest) proof(room matrix.RoomID, user matrix.UserID) (*state.ThirdPartyProof, error) {
	if req.Signed.Kind() != '{' {
		return nil, nil
	}
	var signed struct {
		Sender string         `json:"sender"`
		User   string         `json:"mxid"`
		Token  string         `json:"token"`
		By     jsontext.Value `json:"signatures"`
	}
	if err := json.Unmarshal(req.Signed, &signed); err != nil {
		return nil, api.InvalidParam("third_party_signed", err)
	}
	if signed.Token == "" || signed.By.Kind() != '{' {
		return nil, api.ErrInvalidParam.Because("third_party_signed has no token or no signatures")
	}
	if signed.User != string(user) {
		return nil, api.ErrForbidden.Because("The proof of the invite by address is another user's")
	}
	sender, err := matrix.ParseUserID(signed.Sender)
	if err != nil {
		return nil, api.InvalidParam("third_party_signed.sender", err)
	}
	return &state.ThirdPartyProof{Room: room, Sender: sender, User: user, Signed: req.Signed}, nil
}

// joinAnywhere joins a user to a room of this server or of another one.
func (s *Server) joinAnywhere(ctx context.Context, join state.Join, servers []matrix.ServerName) error {
	if s.config.Joiner == nil {
		return s.rooms.Join(ctx, join)
	}
	servers, err := s.likelyServers(join, servers)
	if err != nil {
		return err
	}
	return remoteError(s.config.Joiner.Join(ctx, join, servers))
}

// likelyServers returns the servers that may be in a room which a user wants to enter:
// those that were named, then those from which an invite came. If there are none, it is
// the server that made the room, as long as its ID says so.
func (s *Server) likelyServers(join state.Join, servers []matrix.ServerName) ([]matrix.ServerName, error) {
	outside, err := s.config.Joiner.Outside(join.Room, join.User)
	if err != nil {
		return nil, err
	}
	servers = append(servers, outside...)
	if len(servers) > 0 {
		return servers, nil
	}
	if server, ok := join.Room.Server(); ok {
		if server, err := matrix.ParseServerName(string(server)); err == nil {
			servers = append(servers, server)
		}
	}
	return servers, nil
}

// roomAnswer is the answer of the endpoints that bring somebody into a room.
type roomAnswer struct {
	Room matrix.RoomID `json:"room_id"`
}

// pathRoomServers reads the room of a path that may name it by an alias, and returns
// the servers which may be in the room, too: those that the client names, by via and by
// its older name, server_name, then those that the alias names.
//
// Spec: CS Joining rooms.
func (s *Server) pathRoomServers(r *http.Request) (room matrix.RoomID, servers []matrix.ServerName, err error) {
	query := r.URL.Query()
	for _, name := range append(query["via"], query["server_name"]...) {
		// "The servers to attempt to join the room through": what is none is none to try.
		if server, err := matrix.ParseServerName(name); err == nil {
			servers = append(servers, server)
		}
	}
	text := r.PathValue("roomIDOrAlias")
	if !strings.HasPrefix(text, "#") {
		if room, err = matrix.ParseRoomID(text); err != nil {
			err = api.InvalidParam("roomIdOrAlias", err)
		}
		return room, servers, err
	}
	alias, err := matrix.ParseRoomAlias(text)
	if err != nil {
		return "", nil, api.InvalidParam("roomIdOrAlias", err)
	}
	room, known, err := s.resolveAlias(r.Context(), alias)
	return room, append(servers, known...), err
}

// knockRoom answers POST /knock/{roomIDOrAlias}.
func (s *Server) knockRoom(w http.ResponseWriter, r *http.Request, who session) error {
	room, servers, err := s.pathRoomServers(r)
	if err != nil {
		return err
	}
	if err := s.limits.Take(api.LimitJoin, string(who.user)); err != nil {
		return err
	}
	reason, err := readReason(r)
	if err != nil {
		return err
	}
	if err := s.knockAnywhere(r.Context(), state.Join{Room: room, User: who.user, Reason: reason}, servers); err != nil {
		return err
	}
	return api.WriteJSON(w, roomAnswer{room})
}

// knockAnywhere knocks on a room of this server or of another one.
func (s *Server) knockAnywhere(ctx context.Context, knock state.Join, servers []matrix.ServerName) error {
	if s.config.Joiner == nil {
		_, err := s.rooms.ChangeMembership(ctx, state.MembershipChange{
			Room: knock.Room, Sender: knock.User, Target: knock.User, Membership: matrix.Knock, Reason: knock.Reason,
		})
		return err
	}
	servers, err := s.likelyServers(knock, servers)
	if err != nil {
		return err
	}
	return remoteError(s.config.Joiner.Knock(ctx, knock, servers))
}
