package client

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"hearth/server/api"
)

// access says whose requests an endpoint takes.
type access uint8

const (
	// open endpoints look at no token; their session is the zero session.
	open access = iota
	// optional endpoints take a good token or none; a bad one is refused.
	optional
	// device endpoints need a token.
	device
	// active endpoints need a token of an account that is not suspended.
	active
	// always endpoints need a token, and work for locked accounts too.
	always
)

// handler answers a request of who. It returns what goes wrong; package api makes
// the response of it.
type handler = func(s *Server, w http.ResponseWriter, r *http.Request, who session) error

// route is one endpoint: "METHOD /path/{param}", who may ask, and the answer. The
// handler's name is the operationId of the specification.
type route struct {
	pattern string
	access  access
	handle  handler
}

// routes are all endpoints. Paths under /_matrix/client/v3 and /_matrix/media/v3
// are served under r0 as well, which clients used before version 1.1 of the
// specification.
var routes = slices.Concat(
	accountRoutes,
	roomRoutes,
	directoryRoutes,
	dataRoutes,
	keyRoutes,
	mediaRoutes,
)

// accountRoutes are about the server itself, accounts, logins and devices.
var accountRoutes = []route{
	{"GET /.well-known/matrix/client", open, (*Server).getWellknown},
	{"GET /.well-known/matrix/support", open, (*Server).getWellknownSupport},
	{"GET /_matrix/client/versions", optional, (*Server).getVersions},
	{"GET /_matrix/client/v3/capabilities", device, (*Server).getCapabilities},

	{"GET /_matrix/client/v3/login", open, (*Server).getLoginFlows},
	{"POST /_matrix/client/v3/login", open, (*Server).login},
	{"POST /_matrix/client/v1/login/get_token", device, (*Server).generateLoginToken},
	{"POST /_matrix/client/v3/refresh", open, (*Server).refresh},
	{"POST /_matrix/client/v3/logout", always, (*Server).logout},
	{"POST /_matrix/client/v3/logout/all", always, (*Server).logoutAll},

	{"POST /_matrix/client/v3/register", open, (*Server).register},
	{"GET /_matrix/client/v3/register/available", open, (*Server).checkUsernameAvailability},
	{"GET /_matrix/client/v1/register/m.login.registration_token/validity", open, (*Server).registrationTokenValidity},
	{"GET /_synapse/admin/v1/register", open, (*Server).getRegisterNonce},
	{"POST /_synapse/admin/v1/register", open, (*Server).registerBySecret},
	{"GET /_matrix/client/v3/auth/{type}/fallback/web", open, (*Server).getFallbackPage},
	{"POST /_matrix/client/v3/auth/{type}/fallback/web", open, (*Server).submitFallbackPage},

	{"GET /_matrix/client/v3/admin/whois/{userID}", device, (*Server).getWhoIs},
	{"GET /_matrix/client/v1/admin/lock/{userID}", device, (*Server).getAdminLockUser},
	{"PUT /_matrix/client/v1/admin/lock/{userID}", device, (*Server).setAdminLockUser},
	{"GET /_matrix/client/v1/admin/suspend/{userID}", device, (*Server).getAdminSuspendUser},
	{"PUT /_matrix/client/v1/admin/suspend/{userID}", device, (*Server).setAdminSuspendUser},
	{"POST /_synapse/admin/v1/send_server_notice", device, (*Server).sendServerNotice},
	{"PUT /_synapse/admin/v1/send_server_notice/{txnID}", device, (*Server).sendServerNotice},

	{"GET /_matrix/client/v3/account/whoami", device, (*Server).getTokenOwner},
	{"POST /_matrix/client/v3/account/password", optional, (*Server).changePassword},
	{"POST /_matrix/client/v3/account/deactivate", optional, (*Server).deactivateAccount},

	{"GET /_matrix/client/v3/account/3pid", device, (*Server).getAccount3PIDs},
	{"POST /_matrix/client/v3/account/3pid", device, (*Server).post3PIDs},
	{"POST /_matrix/client/v3/account/3pid/add", device, (*Server).add3PID},
	{"POST /_matrix/client/v3/account/3pid/bind", device, (*Server).bind3PID},
	{"POST /_matrix/client/v3/account/3pid/delete", device, (*Server).delete3pidFromAccount},
	{"POST /_matrix/client/v3/account/3pid/unbind", device, (*Server).unbind3pidFromAccount},
	{"POST /_matrix/client/v3/account/3pid/email/requestToken", open, (*Server).requestTokenTo3PIDEmail},
	{"POST /_matrix/client/v3/account/3pid/msisdn/requestToken", open, (*Server).requestTokenTo3PIDMSISDN},
	{"POST /_matrix/client/v3/account/password/email/requestToken", open, (*Server).requestTokenToResetPasswordEmail},
	{"POST /_matrix/client/v3/account/password/msisdn/requestToken", open, (*Server).requestTokenToResetPasswordMSISDN},
	{"POST /_matrix/client/v3/register/email/requestToken", open, (*Server).requestTokenToRegisterEmail},
	{"POST /_matrix/client/v3/register/msisdn/requestToken", open, (*Server).requestTokenToRegisterMSISDN},

	{"GET /_matrix/client/v3/devices", device, (*Server).getDevices},
	{"GET /_matrix/client/v3/devices/{deviceID}", device, (*Server).getDevice},
	{"PUT /_matrix/client/v3/devices/{deviceID}", device, (*Server).updateDevice},
	{"DELETE /_matrix/client/v3/devices/{deviceID}", device, (*Server).deleteDevice},
	{"POST /_matrix/client/v3/delete_devices", device, (*Server).deleteDevices},

	{"GET /_matrix/client/v3/profile/{userID}", open, (*Server).getUserProfile},
	{"GET /_matrix/client/v3/profile/{userID}/{keyName}", open, (*Server).getProfileField},
	{"PUT /_matrix/client/v3/profile/{userID}/{keyName}", active, (*Server).setProfileField},
	{"GET /_matrix/client/unstable/uk.tcpip.msc4133/profile/{userID}/{keyName}", open, (*Server).getProfileField},
	{"PUT /_matrix/client/unstable/uk.tcpip.msc4133/profile/{userID}/{keyName}", active, (*Server).setProfileField},
	{"DELETE /_matrix/client/unstable/uk.tcpip.msc4133/profile/{userID}/{keyName}", active, (*Server).deleteProfileField},
	{"DELETE /_matrix/client/v3/profile/{userID}/{keyName}", active, (*Server).deleteProfileField},

	{"POST /_matrix/client/v3/user/{userID}/openid/request_token", device, (*Server).requestOpenIdToken},

	{"POST /_matrix/client/v3/rooms/{roomID}/report", device, (*Server).reportRoom},
	{"POST /_matrix/client/v3/rooms/{roomID}/report/{eventID}", device, (*Server).reportEvent},
	{"POST /_matrix/client/v3/users/{userID}/report", device, (*Server).reportUser},

	{"GET /_matrix/client/v3/voip/turnServer", device, (*Server).getTurnServer},
	{"GET /_matrix/client/v3/thirdparty/protocols", device, (*Server).getProtocols},
	{"GET /_matrix/client/v3/thirdparty/protocol/{protocol}", device, (*Server).getProtocolMetadata},
	{"GET /_matrix/client/v3/thirdparty/location", device, (*Server).queryLocationByAlias},
	{"GET /_matrix/client/v3/thirdparty/location/{protocol}", device, (*Server).queryLocationByProtocol},
	{"GET /_matrix/client/v3/thirdparty/user", device, (*Server).queryUserByID},
	{"GET /_matrix/client/v3/thirdparty/user/{protocol}", device, (*Server).queryUserByProtocol},

	{"POST /_matrix/client/v3/user/{userID}/filter", device, (*Server).defineFilter},
	{"GET /_matrix/client/v3/user/{userID}/filter/{filterID}", device, (*Server).getFilter},
}

// roomRoutes are about rooms and what happens in them.
var roomRoutes = []route{
	{"GET /_matrix/client/v3/sync", device, (*Server).sync},

	{"POST /_matrix/client/v3/createRoom", active, (*Server).createRoom},
	{"GET /_matrix/client/v3/joined_rooms", device, (*Server).getJoinedRooms},
	{"POST /_matrix/client/v3/join/{roomIDOrAlias}", active, (*Server).joinRoom},
	{"POST /_matrix/client/v3/knock/{roomIDOrAlias}", active, (*Server).knockRoom},
	{"POST /_matrix/client/v3/rooms/{roomID}/join", active, (*Server).joinRoomById},
	{"POST /_matrix/client/v3/rooms/{roomID}/invite", active, (*Server).inviteUser},
	{"POST /_matrix/client/v3/rooms/{roomID}/leave", device, (*Server).leaveRoom},
	{"POST /_matrix/client/v3/rooms/{roomID}/forget", device, (*Server).forgetRoom},
	{"POST /_matrix/client/v3/rooms/{roomID}/kick", active, (*Server).kick},
	{"POST /_matrix/client/v3/rooms/{roomID}/ban", active, (*Server).ban},
	{"POST /_matrix/client/v3/rooms/{roomID}/unban", active, (*Server).unban},
	{"POST /_matrix/client/v3/rooms/{roomID}/upgrade", active, (*Server).upgradeRoom},

	{"PUT /_matrix/client/v3/rooms/{roomID}/send/{eventType}/{txnID}", device, (*Server).sendMessage},
	{"PUT /_matrix/client/v3/rooms/{roomID}/redact/{eventID}/{txnID}", device, (*Server).redactEvent},
	{"GET /_matrix/client/v3/rooms/{roomID}/state", device, (*Server).getRoomState},
	{"GET /_matrix/client/v3/rooms/{roomID}/state/{eventType}/{stateKey?}", device, (*Server).getRoomStateWithKey},
	{"PUT /_matrix/client/v3/rooms/{roomID}/state/{eventType}/{stateKey?}", active, (*Server).setRoomStateWithKey},

	{"GET /_matrix/client/v3/rooms/{roomID}/messages", device, (*Server).getRoomEvents},
	{"GET /_matrix/client/v3/rooms/{roomID}/event/{eventID}", device, (*Server).getOneRoomEvent},
	{"GET /_matrix/client/v1/rooms/{roomID}/relations/{eventID}", device, (*Server).getRelatingEvents},
	{"GET /_matrix/client/v1/rooms/{roomID}/relations/{eventID}/{relType}", device, (*Server).getRelatingEventsWithRelType},
	{"GET /_matrix/client/v1/rooms/{roomID}/relations/{eventID}/{relType}/{eventType}", device, (*Server).getRelatingEventsWithRelTypeAndEventType},
	{"GET /_matrix/client/v3/rooms/{roomID}/context/{eventID}", device, (*Server).getEventContext},
	{"GET /_matrix/client/v1/rooms/{roomID}/threads", device, (*Server).getThreadRoots},
	{"GET /_matrix/client/v1/rooms/{roomID}/timestamp_to_event", device, (*Server).getEventByTimestamp},
	{"POST /_matrix/client/v3/search", device, (*Server).search},
	{"GET /_matrix/client/v3/events", device, (*Server).getEvents},
	{"GET /_matrix/client/v3/events/{eventID}", device, (*Server).getOneEvent},
	{"GET /_matrix/client/v3/initialSync", device, (*Server).initialSync},
	{"GET /_matrix/client/v3/rooms/{roomID}/initialSync", device, (*Server).roomInitialSync},
	{"GET /_matrix/client/v3/rooms/{roomID}/members", device, (*Server).getMembersByRoom},
	{"GET /_matrix/client/v3/rooms/{roomID}/joined_members", device, (*Server).getJoinedMembersByRoom},
}

// directoryRoutes are about how rooms are found.
var directoryRoutes = []route{
	{"GET /_matrix/client/v3/directory/room/{roomAlias}", optional, (*Server).getRoomIdByAlias},
	{"PUT /_matrix/client/v3/directory/room/{roomAlias}", active, (*Server).setRoomAlias},
	{"DELETE /_matrix/client/v3/directory/room/{roomAlias}", active, (*Server).deleteRoomAlias},
	{"GET /_matrix/client/v3/rooms/{roomID}/aliases", device, (*Server).getLocalAliases},

	{"GET /_matrix/client/v3/directory/list/room/{roomID}", optional, (*Server).getRoomVisibilityOnDirectory},
	{"PUT /_matrix/client/v3/directory/list/room/{roomID}", active, (*Server).setRoomVisibilityOnDirectory},
	{"GET /_matrix/client/v3/publicRooms", optional, (*Server).getPublicRooms},
	{"POST /_matrix/client/v3/publicRooms", device, (*Server).queryPublicRooms},

	{"GET /_matrix/client/v1/room_summary/{roomIDOrAlias}", optional, (*Server).getRoomSummary},
	{"GET /_matrix/client/unstable/im.nheko.summary/summary/{roomIDOrAlias}", optional, (*Server).getRoomSummary},
	{"GET /_matrix/client/unstable/im.nheko.summary/rooms/{roomIDOrAlias}/summary", optional, (*Server).getRoomSummary},
	{"GET /_matrix/client/v1/rooms/{roomID}/hierarchy", device, (*Server).getSpaceHierarchy},
	{"GET /_matrix/client/v1/mutual_rooms", device, (*Server).getMutualRooms},
}

// dataRoutes are about what users keep for themselves, and what they have read.
var dataRoutes = []route{
	{"GET /_matrix/client/v3/user/{userID}/account_data/{type}", device, (*Server).getAccountData},
	{"PUT /_matrix/client/v3/user/{userID}/account_data/{type}", device, (*Server).setAccountData},
	{"GET /_matrix/client/v3/user/{userID}/rooms/{roomID}/account_data/{type}", device, (*Server).getAccountDataPerRoom},
	{"PUT /_matrix/client/v3/user/{userID}/rooms/{roomID}/account_data/{type}", device, (*Server).setAccountDataPerRoom},
	{"GET /_matrix/client/v3/user/{userID}/rooms/{roomID}/tags", device, (*Server).getRoomTags},
	{"PUT /_matrix/client/v3/user/{userID}/rooms/{roomID}/tags/{tag}", device, (*Server).setRoomTag},
	{"DELETE /_matrix/client/v3/user/{userID}/rooms/{roomID}/tags/{tag}", device, (*Server).deleteRoomTag},

	{"POST /_matrix/client/v3/rooms/{roomID}/receipt/{receiptType}/{eventID}", device, (*Server).postReceipt},
	{"POST /_matrix/client/v3/rooms/{roomID}/read_markers", device, (*Server).setReadMarker},
	{"PUT /_matrix/client/v3/rooms/{roomID}/typing/{userID}", device, (*Server).setTyping},
	{"GET /_matrix/client/v3/presence/{userID}/status", device, (*Server).getPresence},
	{"PUT /_matrix/client/v3/presence/{userID}/status", device, (*Server).setPresence},
	{"POST /_matrix/client/v3/user_directory/search", device, (*Server).searchUserDirectory},

	{"GET /_matrix/client/v3/pushrules", device, (*Server).getPushRules},
	{"GET /_matrix/client/v3/pushers", device, (*Server).getPushers},
	{"POST /_matrix/client/v3/pushers/set", device, (*Server).postPusher},
	{"GET /_matrix/client/v3/notifications", device, (*Server).getNotifications},
	{"GET /_matrix/client/v3/pushrules/", device, (*Server).getPushRules},
	{"GET /_matrix/client/v3/pushrules/global", device, (*Server).getPushRulesGlobal},
	{"GET /_matrix/client/v3/pushrules/global/", device, (*Server).getPushRulesGlobal},
	{"GET /_matrix/client/v3/pushrules/global/{kind}/{ruleID}", device, (*Server).getPushRule},
	{"PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleID}", device, (*Server).setPushRule},
	{"DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleID}", device, (*Server).deletePushRule},
	{"GET /_matrix/client/v3/pushrules/global/{kind}/{ruleID}/enabled", device, (*Server).isPushRuleEnabled},
	{"PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleID}/enabled", device, (*Server).setPushRuleEnabled},
	{"GET /_matrix/client/v3/pushrules/global/{kind}/{ruleID}/actions", device, (*Server).getPushRuleActions},
	{"PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleID}/actions", device, (*Server).setPushRuleActions},
}

// mediaRoutes are about files.
var mediaRoutes = []route{
	{"POST /_matrix/media/v1/create", active, (*Server).createContent},
	{"PUT /_matrix/media/v3/upload/{serverName}/{mediaID}", active, (*Server).uploadContentToMXC},
	{"POST /_matrix/media/v3/upload", active, (*Server).uploadContent},
	{"GET /_matrix/client/v1/media/config", device, (*Server).getConfigAuthed},
	{"GET /_matrix/client/v1/media/download/{serverName}/{mediaID}", device, (*Server).getContentAuthed},
	{"GET /_matrix/client/v1/media/download/{serverName}/{mediaID}/{fileName}", device, (*Server).getContentOverrideNameAuthed},
	{"GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaID}", device, (*Server).getContentThumbnailAuthed},
	{"GET /_matrix/client/v1/media/preview_url", device, (*Server).getUrlPreviewAuthed},
	{"GET /_matrix/media/v3/preview_url", device, (*Server).getUrlPreview},
	{"GET /_matrix/media/v3/config", device, (*Server).getConfig},
	{"GET /_matrix/media/v3/download/{serverName}/{mediaID}", optional, (*Server).getContent},
	{"GET /_matrix/media/v3/download/{serverName}/{mediaID}/{fileName}", optional, (*Server).getContentOverrideName},
	{"GET /_matrix/media/v3/thumbnail/{serverName}/{mediaID}", optional, (*Server).getContentThumbnail},
}

// keyRoutes are about end-to-end encryption: keys, their backup and messages to
// devices.
var keyRoutes = []route{
	{"POST /_matrix/client/v3/keys/upload", device, (*Server).uploadKeys},
	{"POST /_matrix/client/v3/keys/query", device, (*Server).queryKeys},
	{"POST /_matrix/client/v3/keys/claim", device, (*Server).claimKeys},
	{"GET /_matrix/client/v3/keys/changes", device, (*Server).getKeysChanges},
	{"POST /_matrix/client/v3/keys/device_signing/upload", device, (*Server).uploadCrossSigningKeys},
	{"POST /_matrix/client/v3/keys/signatures/upload", device, (*Server).uploadCrossSigningSignatures},
	{"PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnID}", device, (*Server).sendToDevice},

	{"POST /_matrix/client/v3/room_keys/version", device, (*Server).postRoomKeysVersion},
	{"GET /_matrix/client/v3/room_keys/version", device, (*Server).getRoomKeysVersionCurrent},
	{"GET /_matrix/client/v3/room_keys/version/{version}", device, (*Server).getRoomKeysVersion},
	{"PUT /_matrix/client/v3/room_keys/version/{version}", device, (*Server).putRoomKeysVersion},
	{"DELETE /_matrix/client/v3/room_keys/version/{version}", device, (*Server).deleteRoomKeysVersion},
	{"GET /_matrix/client/v3/room_keys/keys", device, (*Server).getRoomKeys},
	{"PUT /_matrix/client/v3/room_keys/keys", device, (*Server).putRoomKeys},
	{"DELETE /_matrix/client/v3/room_keys/keys", device, (*Server).deleteRoomKeys},
	{"GET /_matrix/client/v3/room_keys/keys/{roomID}", device, (*Server).getRoomKeysByRoomId},
	{"PUT /_matrix/client/v3/room_keys/keys/{roomID}", device, (*Server).putRoomKeysByRoomId},
	{"DELETE /_matrix/client/v3/room_keys/keys/{roomID}", device, (*Server).deleteRoomKeysByRoomId},
	{"GET /_matrix/client/v3/room_keys/keys/{roomID}/{sessionID}", device, (*Server).getRoomKeyBySessionId},
	{"PUT /_matrix/client/v3/room_keys/keys/{roomID}/{sessionID}", device, (*Server).putRoomKeyBySessionId},
	{"DELETE /_matrix/client/v3/room_keys/keys/{roomID}/{sessionID}", device, (*Server).deleteRoomKeyBySessionId},
}

// oldPrefixes are the paths whose endpoints have an older name.
var oldPrefixes = []struct{ now, then string }{
	{"/_matrix/client/v3/", "/_matrix/client/r0/"},
	{"/_matrix/media/v3/", "/_matrix/media/r0/"},
}

// Routes returns the endpoints for api's router.
func (s *Server) Routes() []api.Route {
	all := make([]api.Route, 0, 2*len(routes))
	for _, rt := range routes {
		handle := s.handle(rt)
		all = append(all, api.Route{Pattern: rt.pattern, Handle: handle})
		method, path, _ := strings.Cut(rt.pattern, " ")
		for _, old := range oldPrefixes {
			if rest, found := strings.CutPrefix(path, old.now); found {
				all = append(all, api.Route{Pattern: method + " " + old.then + rest, Handle: handle})
			}
		}
	}
	return all
}

// handle returns what api calls for a route: it finds out who asks, calls the
// handler and writes the one answer that is no standard error, the 401 that asks
// for user-interactive authentication.
func (s *Server) handle(rt route) api.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		who, err := s.session(r, rt.access)
		if err != nil {
			return err
		}
		if err := who.refuseGuest(rt.pattern); err != nil {
			return err
		}
		err = remoteError(rt.handle(s, w, r, who))
		var ask *challenge
		if errors.As(err, &ask) {
			return api.WriteJSONStatus(w, http.StatusUnauthorized, ask)
		}
		return err
	}
}
