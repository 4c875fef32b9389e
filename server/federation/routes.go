package federation

import (
	"net/http"
	"slices"

	"hearth/server/api"
	"hearth/state/matrix"
)

// access says whose requests an endpoint takes.
type access uint8

const (
	// signed endpoints need the signature of another server.
	signed access = iota
	// open endpoints look at none; from is "".
	open
)

// handler answers a request that the server from has signed. It returns what goes
// wrong; package api makes the response of it. The body is read and within the
// bound of its route; api.ReadJSON gives it to the handler.
type handler = func(s *Server, w http.ResponseWriter, r *http.Request, from matrix.ServerName) error

// route is one endpoint: "METHOD /path/{param}", who may ask, the most that its
// body may have in bytes, and the answer. The handler's name is the operationId of
// the specification.
type route struct {
	pattern string
	access  access
	body    int64 // 0: maxBody
	handle  handler
}

// maxBody bounds the body of a request where its route says nothing else.
const maxBody = 256 << 10

// routes are all endpoints.
var routes = slices.Concat(
	serverRoutes,
	transactionRoutes,
	membershipRoutes,
	historyRoutes,
	queryRoutes,
	deviceRoutes,
	mediaRoutes,
)

// serverRoutes are about the server itself and keys.
var serverRoutes = []route{
	{"GET /.well-known/matrix/server", open, 0, (*Server).getWellKnown},
	{"GET /_matrix/federation/v1/version", open, 0, (*Server).getVersion},
	{"GET /_matrix/key/v2/server/{keyID?}", open, 0, (*Server).getServerKey},
	{"GET /_matrix/key/v2/query/{serverName}", open, 0, (*Server).perspectivesKeyQuery},
	{"GET /_matrix/key/v2/query/{serverName}/{keyID}", open, 0, (*Server).perspectivesKeyQuery},
	{"POST /_matrix/key/v2/query", open, 0, (*Server).bulkPerspectivesKeyQuery},
}

// transactionRoutes take events in.
var transactionRoutes = []route{
	{"PUT /_matrix/federation/v1/send/{txnID}", signed, maxTransactionBytes, (*Server).sendTransaction},
}

// membershipRoutes are joins, knocks, leaves and invites.
var membershipRoutes = []route{
	{"GET /_matrix/federation/v1/make_join/{roomID}/{userID}", signed, 0, (*Server).makeJoin},
	{"PUT /_matrix/federation/v1/send_join/{roomID}/{eventID}", signed, 0, (*Server).sendJoinV1},
	{"PUT /_matrix/federation/v2/send_join/{roomID}/{eventID}", signed, 0, (*Server).sendJoinV2},
	{"GET /_matrix/federation/v1/make_knock/{roomID}/{userID}", signed, 0, (*Server).makeKnock},
	{"PUT /_matrix/federation/v1/send_knock/{roomID}/{eventID}", signed, 0, (*Server).sendKnock},
	{"GET /_matrix/federation/v1/make_leave/{roomID}/{userID}", signed, 0, (*Server).makeLeave},
	{"PUT /_matrix/federation/v1/send_leave/{roomID}/{eventID}", signed, 0, (*Server).sendLeaveV1},
	{"PUT /_matrix/federation/v2/send_leave/{roomID}/{eventID}", signed, 0, (*Server).sendLeaveV2},
	{"PUT /_matrix/federation/v1/invite/{roomID}/{eventID}", signed, maxInviteBytes, (*Server).sendInviteV1},
	{"PUT /_matrix/federation/v2/invite/{roomID}/{eventID}", signed, maxInviteBytes, (*Server).sendInviteV2},
	{"PUT /_matrix/federation/v1/exchange_third_party_invite/{roomID}", signed, 0, (*Server).exchangeThirdPartyInvite},
	{"PUT /_matrix/federation/v1/3pid/onbind", open, 0, (*Server).onBindThirdPartyIdentifier},
}

// historyRoutes give events, state and auth chains away.
var historyRoutes = []route{
	{"GET /_matrix/federation/v1/event/{eventID}", signed, 0, (*Server).getEvent},
	{"GET /_matrix/federation/v1/state/{roomID}", signed, 0, (*Server).getRoomState},
	{"GET /_matrix/federation/v1/state_ids/{roomID}", signed, 0, (*Server).getRoomStateIds},
	{"GET /_matrix/federation/v1/event_auth/{roomID}/{eventID}", signed, 0, (*Server).getEventAuth},
	{"GET /_matrix/federation/v1/backfill/{roomID}", signed, 0, (*Server).backfillRoom},
	{"POST /_matrix/federation/v1/get_missing_events/{roomID}", signed, 0, (*Server).getMissingPreviousEvents},
	{"GET /_matrix/federation/v1/timestamp_to_event/{roomID}", signed, 0, (*Server).getEventByTimestamp},
}

// queryRoutes are directories, profiles, hierarchies and OpenID.
var queryRoutes = []route{
	{"GET /_matrix/federation/v1/query/directory", signed, 0, (*Server).queryRoomDirectory},
	{"GET /_matrix/federation/v1/query/profile", signed, 0, (*Server).queryProfile},
	{"GET /_matrix/federation/v1/query/{queryType}", signed, 0, (*Server).queryInfo},
	{"GET /_matrix/federation/v1/publicRooms", signed, 0, (*Server).getPublicRooms},
	{"POST /_matrix/federation/v1/publicRooms", signed, 0, (*Server).queryPublicRooms},
	{"GET /_matrix/federation/v1/hierarchy/{roomID}", signed, 0, (*Server).getSpaceHierarchy},
	{"GET /_matrix/federation/v1/openid/userinfo", open, 0, (*Server).exchangeOpenIdToken},
}

// deviceRoutes are devices and their keys.
var deviceRoutes = []route{
	{"GET /_matrix/federation/v1/user/devices/{userID}", signed, 0, (*Server).getUserDevices},
	{"POST /_matrix/federation/v1/user/keys/claim", signed, 0, (*Server).claimUserEncryptionKeys},
	{"POST /_matrix/federation/v1/user/keys/query", signed, 0, (*Server).queryUserEncryptionKeys},
}

// mediaRoutes give files away.
var mediaRoutes = []route{
	{"GET /_matrix/federation/v1/media/download/{mediaID}", signed, 0, (*Server).getContent},
	{"GET /_matrix/federation/v1/media/thumbnail/{mediaID}", signed, 0, (*Server).getContentThumbnail},
}

// Routes returns all endpoints, for a router.
func (s *Server) Routes() []api.Route {
	all := make([]api.Route, 0, len(routes))
	for _, rt := range routes {
		all = append(all, s.endpoint(rt))
	}
	return all
}

// endpoint returns a route for a router: its handler runs when the request is
// authenticated.
func (s *Server) endpoint(rt route) api.Route {
	return api.Route{Pattern: rt.pattern, Handle: func(w http.ResponseWriter, r *http.Request) error {
		from, release, err := s.authenticate(r, rt)
		defer release()
		if err != nil {
			return err
		}
		return rt.handle(s, w, r, from)
	}}
}
