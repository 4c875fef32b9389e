package client

import (
	"bytes"
	"image"
	"image/png"
)

// What valid requests hold, by parts of paths and by endpoint. $names stand for
// what badInput knows, $n for a number that is not used twice.

// furniture is what is made before requests, in this order: a member of the answer
// becomes the value of the name.
var furniture = []struct {
	method, path, user, body, name, member string
	once, mayFail                          bool
}{
	// Or alice is soon in hundreds of rooms.
	{method: "POST", path: "/_matrix/client/v3/rooms/$room/leave", user: "alice", body: `{}`, mayFail: true},
	{method: "POST", path: "/_matrix/client/v3/createRoom", user: "alice", body: `{"preset":"public_chat","room_alias_name":"room$n","room_version":"11"}`, name: "room", member: "room_id"},
	{method: "POST", path: "/_matrix/client/v3/rooms/$room/join", user: "bob", body: `{}`},
	{method: "PUT", path: "/_matrix/client/v3/rooms/$room/send/m.room.message/first", user: "bob", body: `{"body":"hello"}`, name: "event", member: "event_id"},
	{method: "POST", path: "/_matrix/client/v3/createRoom", user: "bob", body: `{}`, name: "foreign", member: "room_id", once: true},
	{method: "PUT", path: "/_matrix/client/v3/rooms/$foreign/send/m.room.message/first", user: "bob", body: `{"body":"hello"}`, name: "other_event", member: "event_id", once: true},
	{method: "PUT", path: "/_matrix/client/v3/pushrules/global/override/mine", user: "alice", body: `{"actions":[]}`},
	{method: "PUT", path: "/_matrix/client/v3/profile/$alice/displayname", user: "alice", body: `{"displayname":"Alice"}`},
	{method: "PUT", path: "/_matrix/client/v3/user/$alice/account_data/org.example.x", user: "alice", body: `{}`},
	{method: "PUT", path: "/_matrix/client/v3/user/$alice/rooms/$room/account_data/org.example.x", user: "alice", body: `{}`},
	{method: "DELETE", path: "/_matrix/client/v3/room_keys/version/$version", user: "alice", mayFail: true},
	{method: "POST", path: "/_matrix/client/v3/room_keys/version", user: "alice", body: `{"algorithm":"m.megolm_backup.v1.curve25519-aes-sha2","auth_data":{}}`, name: "version", member: "version", mayFail: true},
	{method: "POST", path: "/_matrix/media/v3/upload", user: "alice", body: picturePNG(), name: "picture", member: "content_uri", once: true},
	{method: "POST", path: "/_matrix/client/v3/user/$alice/filter", user: "alice", body: `{}`, name: "filter", member: "filter_id", once: true},
	{method: "GET", path: "/_matrix/client/v3/sync?filter={%22room%22:{%22rooms%22:[]}}", user: "alice", name: "since", member: "next_batch"},
}

// picturePNG is a small picture.
func picturePNG() string {
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 64, 64))); err != nil {
		panic(err)
	}
	return b.String()
}

var pathSamples = map[string]string{
	"{userID}": "$alice", "{roomID}": "$room", "{roomIDOrAlias}": "$alias", "{eventID}": "$event", "{eventType}": "m.room.message",
	"{txnID}": "t$n", "{stateKey?}": "", "{deviceID}": "ALICE", "{keyName}": "displayname", "{filterID}": "$filter", "{type}": "org.example.x",
	"{tag}": "m.favourite", "{receiptType}": "m.read", "{kind}": "override", "{ruleID}": "mine", "{serverName}": "$server", "{mediaID}": "$picture",
	"{fileName}": "file.png", "{roomAlias}": "$alias", "{protocol}": "irc", "{relType}": "m.thread", "{version}": "$version", "{sessionID}": "session",
}

// stateSamples are state events that are read by the server itself, too.
var stateSamples = []struct{ typ, content string }{
	{"m.room.name", `{"name":"Kitchen"}`},
	{"m.room.topic", `{"topic":"Food","m.topic":{"m.text":[{"body":"Food"}]}}`},
	{"m.room.power_levels", `{"users":{"$alice":100,"$bob":100},"users_default":0,"events":{"m.room.name":50},"state_default":50,"events_default":0,"ban":50,"kick":50,"invite":0,"redact":50,"notifications":{"room":50}}`},
	{"m.room.join_rules", `{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":"$room"}]}`},
	{"m.room.history_visibility", `{"history_visibility":"shared"}`},
	{"m.room.canonical_alias", `{"alias":"$alias","alt_aliases":["$alias"]}`},
	{"m.room.encryption", `{"algorithm":"m.megolm.v1.aes-sha2"}`},
	{"m.room.guest_access", `{"guest_access":"forbidden"}`},
	{"m.room.tombstone", `{"body":"moved","replacement_room":"$foreign"}`},
	{"m.room.server_acl", `{"allow":["*"],"deny":[],"allow_ip_literals":false}`},
}

const (
	passwordOf = `"auth":{"type":"m.login.password","identifier":{"type":"m.id.user","user":"`
	andSecret  = `"},"password":"secret"}`
	threePID   = `{"client_secret":"abc","email":"a@b.example","country":"GB","phone_number":"1","send_attempt":1,"sid":"x","medium":"email","address":"a@b.example","id_server":"x","id_access_token":"y","three_pid_creds":{"client_secret":"abc","sid":"x"}}`
	target     = `{"user_id":"$bob","reason":"because"}`
	crossKey   = `{"user_id":"$alice","usage":["master"],"keys":{"ed25519:nqOvzeuGWT/sRx3h7+MHoInYj3Uk2LD/unI9kDYcHwk":"nqOvzeuGWT/sRx3h7+MHoInYj3Uk2LD/unI9kDYcHwk"}}`
	roomKeyOne = `{"first_message_index":0,"forwarded_count":0,"is_verified":false,"session_data":{"ephemeral":"a","ciphertext":"b","mac":"c"}}`
)

// sacrifices are the endpoints that end the session that uses them: each time
// another account pays for it.
var sacrifices = map[string]bool{
	"POST /_matrix/client/v3/logout":               true,
	"POST /_matrix/client/v3/logout/all":           true,
	"POST /_matrix/client/v3/account/password":     true,
	"POST /_matrix/client/v3/account/deactivate":   true,
	"DELETE /_matrix/client/v3/devices/{deviceID}": true,
	"POST /_matrix/client/v3/delete_devices":       true,
}

var bodySamples = map[string]string{
	"POST /_matrix/client/v3/login":                `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"alice"},"password":"secret","device_id":"D$n","initial_device_display_name":"x","refresh_token":true}`,
	"POST /_matrix/client/v1/login/get_token":      `{` + passwordOf + `alice` + andSecret + `}`,
	"POST /_matrix/client/v3/refresh":              `{"refresh_token":"unknown"}`,
	"POST /_matrix/client/v3/register":             `{"username":"user$n","password":"secret","device_id":"D","initial_device_display_name":"x","inhibit_login":false,"refresh_token":true,"auth":{"type":"m.login.dummy"}}`,
	"POST /_synapse/admin/v1/register":             `{"nonce":"unknown","username":"u$n","displayname":"x","password":"secret","admin":false,"user_type":null,"mac":"00"}`,
	"POST /_matrix/client/v3/account/password":     `{"new_password":"secret","logout_devices":true,` + passwordOf + `$victim` + andSecret + `}`,
	"POST /_matrix/client/v3/account/deactivate":   `{"erase":true,"id_server":"x",` + passwordOf + `$victim` + andSecret + `}`,
	"DELETE /_matrix/client/v3/devices/{deviceID}": `{` + passwordOf + `$victim` + andSecret + `}`,
	"POST /_matrix/client/v3/delete_devices":       `{"devices":["ALICE","X"],` + passwordOf + `$victim` + andSecret + `}`,

	"POST /_matrix/client/v3/account/3pid":                                    threePID,
	"POST /_matrix/client/v3/account/3pid/add":                                threePID,
	"POST /_matrix/client/v3/account/3pid/bind":                               threePID,
	"POST /_matrix/client/v3/account/3pid/delete":                             threePID,
	"POST /_matrix/client/v3/account/3pid/unbind":                             threePID,
	"POST /_matrix/client/v3/account/3pid/email/requestToken":                 threePID,
	"POST /_matrix/client/v3/account/3pid/msisdn/requestToken":                threePID,
	"POST /_matrix/client/v3/account/password/email/requestToken":             threePID,
	"POST /_matrix/client/v3/account/password/msisdn/requestToken":            threePID,
	"POST /_matrix/client/v3/register/email/requestToken":                     threePID,
	"POST /_matrix/client/v3/register/msisdn/requestToken":                    threePID,
	"PUT /_matrix/client/v3/devices/{deviceID}":                               `{"display_name":"Phone"}`,
	"PUT /_matrix/client/v3/profile/{userID}/{keyName}":                       `{"displayname":"Alice $n"}`,
	"PUT /_matrix/client/v3/presence/{userID}/status":                         `{"presence":"unavailable","status_msg":"at sea"}`,
	"POST /_matrix/client/v3/user_directory/search":                           `{"search_term":"bob","limit":$n}`,
	"POST /_matrix/client/v3/user/{userID}/filter":                            `{"event_fields":["type","content.body"],"event_format":"client","presence":{"types":[]},"account_data":{"not_types":["*"]},"room":{"rooms":["$room"],"not_rooms":[],"include_leave":true,"ephemeral":{"types":["m.typing"]},"state":{"lazy_load_members":true},"timeline":{"limit":$n,"senders":["$alice"],"contains_url":false}}}`,
	"POST /_matrix/client/v3/createRoom":                                      `{"visibility":"private","preset":"private_chat","name":"x","topic":"y","room_alias_name":"a$n","room_version":"12","invite":["$bob"],"is_direct":true,"creation_content":{"m.federate":false},"initial_state":[{"type":"m.room.encryption","state_key":"","content":{"algorithm":"m.megolm.v1.aes-sha2"}}],"power_level_content_override":{"events_default":0}}`,
	"POST /_matrix/client/v3/join/{roomIDOrAlias}":                            `{"reason":"x","third_party_signed":{"sender":"$bob","mxid":"$alice","token":"x","signatures":{"x":{"ed25519:0":"y"}}}}`,
	"POST /_matrix/client/v3/knock/{roomIDOrAlias}":                           `{"reason":"x"}`,
	"POST /_matrix/client/v3/rooms/{roomID}/join":                             `{"reason":"x"}`,
	"POST /_matrix/client/v3/rooms/{roomID}/invite":                           `{"user_id":"$carol","reason":"because"}`,
	"POST /_matrix/client/v3/rooms/{roomID}/kick":                             target,
	"POST /_matrix/client/v3/rooms/{roomID}/ban":                              target,
	"POST /_matrix/client/v3/rooms/{roomID}/unban":                            target,
	"POST /_matrix/client/v3/rooms/{roomID}/leave":                            `{"reason":"x"}`,
	"POST /_matrix/client/v3/rooms/{roomID}/upgrade":                          `{"new_version":"11"}`,
	"PUT /_matrix/client/v3/rooms/{roomID}/send/{eventType}/{txnID}":          `{"body":"hi","msgtype":"m.text","m.mentions":{"user_ids":["$bob"],"room":true},"m.relates_to":{"rel_type":"m.thread","event_id":"$event","is_falling_back":true,"m.in_reply_to":{"event_id":"$event"}}}`,
	"PUT /_matrix/client/v3/rooms/{roomID}/redact/{eventID}/{txnID}":          `{"reason":"x"}`,
	"PUT /_matrix/client/v3/user/{userID}/account_data/{type}":                `{"ignored_users":{"@eve:hearth.test":{}},"default_action":"allow","a":{"b":[1,2]}}`,
	"PUT /_matrix/client/v3/user/{userID}/rooms/{roomID}/account_data/{type}": `{"unread":true,"tags":{"x":{"order":0.1}}}`,
	"PUT /_matrix/client/v3/user/{userID}/rooms/{roomID}/tags/{tag}":          `{"order":0.5}`,
	"POST /_matrix/client/v3/rooms/{roomID}/receipt/{receiptType}/{eventID}":  `{"thread_id":"main"}`,
	"POST /_matrix/client/v3/rooms/{roomID}/read_markers":                     `{"m.fully_read":"$event","m.read":"$event","m.read.private":"$event"}`,
	"PUT /_matrix/client/v3/rooms/{roomID}/typing/{userID}":                   `{"typing":true,"timeout":3000}`,
	"PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleID}":                 `{"pattern":"cake*lie?","actions":["notify",{"set_tweak":"sound","value":"default"}],"conditions":[{"kind":"event_match","key":"content.body","pattern":"x"},{"kind":"room_member_count","is":">=2"},{"kind":"event_property_is","key":"content.a\\.b","value":null}]}`,
	"PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleID}/enabled":         `{"enabled":true}`,
	"PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleID}/actions":         `{"actions":["notify",{"set_tweak":"highlight"}]}`,
	"POST /_matrix/media/v3/upload":                                           "\x89PNG\r\n\x1a\nnot really a picture",
	"POST /_matrix/client/v3/keys/upload":                                     `{"device_keys":{"user_id":"$alice","device_id":"ALICE","algorithms":["m.olm.v1.curve25519-aes-sha2"],"keys":{"curve25519:ALICE":"a","ed25519:ALICE":"b"},"signatures":{"$alice":{"ed25519:ALICE":"c"}}},"one_time_keys":{"signed_curve25519:K$n":{"key":"x","signatures":{"$alice":{"ed25519:ALICE":"c"}}}},"fallback_keys":{"signed_curve25519:F":{"key":"x","fallback":true,"signatures":{}}}}`,
	"POST /_matrix/client/v3/keys/query":                                      `{"timeout":10,"device_keys":{"$alice":[],"$bob":["BOB"]}}`,
	"POST /_matrix/client/v3/keys/claim":                                      `{"timeout":10,"one_time_keys":{"$alice":{"ALICE":"signed_curve25519"}}}`,
	"POST /_matrix/client/v3/keys/device_signing/upload":                      `{"master_key":` + crossKey + `,` + passwordOf + `alice` + andSecret + `}`,
	"POST /_matrix/client/v3/keys/signatures/upload":                          `{"$alice":{"ALICE":{"user_id":"$alice","device_id":"ALICE","algorithms":[],"keys":{},"signatures":{"$alice":{"ed25519:x":"y"}}}}}`,
	"PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnID}":                 `{"messages":{"$bob":{"*":{"a":1},"BOB":{"b":2}}}}`,
	"POST /_matrix/client/v3/room_keys/version":                               `{"algorithm":"m.megolm_backup.v1.curve25519-aes-sha2","auth_data":{"public_key":"x","signatures":{"$alice":{"ed25519:x":"y"}}}}`,
	"PUT /_matrix/client/v3/room_keys/version/{version}":                      `{"version":"$version","algorithm":"m.megolm_backup.v1.curve25519-aes-sha2","auth_data":{"public_key":"y"}}`,
	"PUT /_matrix/client/v3/room_keys/keys":                                   `{"rooms":{"$room":{"sessions":{"session":` + roomKeyOne + `}}}}`,
	"PUT /_matrix/client/v3/room_keys/keys/{roomID}":                          `{"sessions":{"session":` + roomKeyOne + `}}`,
	"PUT /_matrix/client/v3/room_keys/keys/{roomID}/{sessionID}":              roomKeyOne,
	"POST /_matrix/client/v3/auth/{type}/fallback/web":                        `session=x&token=y`,

	"PUT /_matrix/client/v1/admin/lock/{userID}":                               `{"locked":false}`,
	"PUT /_matrix/client/v1/admin/suspend/{userID}":                            `{"suspended":false}`,
	"POST /_synapse/admin/v1/send_server_notice":                               `{"user_id":"$bob","content":{"msgtype":"m.text","body":"hello"}}`,
	"PUT /_synapse/admin/v1/send_server_notice/{txnID}":                        `{"user_id":"$bob","type":"m.room.message","content":{"msgtype":"m.text","body":"hello"}}`,
	"PUT /_matrix/client/unstable/uk.tcpip.msc4133/profile/{userID}/{keyName}": `{"displayname":"Alice $n"}`,
	"POST /_matrix/client/v3/rooms/{roomID}/report":                            `{"reason":"rude"}`,
	"POST /_matrix/client/v3/rooms/{roomID}/report/{eventID}":                  `{"reason":"rude","score":-100}`,
	"POST /_matrix/client/v3/users/{userID}/report":                            `{"reason":"rude"}`,
	"POST /_matrix/client/v3/search":                                           `{"search_categories":{"room_events":{"search_term":"hello","keys":["content.body"],"filter":{"rooms":["$room"],"limit":5},"order_by":"recent","event_context":{"before_limit":1,"after_limit":1,"include_profile":true},"include_state":true,"groupings":{"group_by":[{"key":"room_id"},{"key":"sender"}]}}}}`,
	"PUT /_matrix/client/v3/directory/room/{roomAlias}":                        `{"room_id":"$room"}`,
	"PUT /_matrix/client/v3/directory/list/room/{roomID}":                      `{"visibility":"public"}`,
	"POST /_matrix/client/v3/publicRooms":                                      `{"limit":5,"filter":{"generic_search_term":"x","room_types":[null,"m.space"]},"include_all_networks":true}`,
	"POST /_matrix/client/v3/pushers/set":                                      `{"pushkey":"k","app_id":"a","kind":"http","app_display_name":"A","device_display_name":"D","lang":"en","append":true,"data":{"url":"https://push.example/_matrix/push/v1/notify","format":"event_id_only"}}`,
}

var querySamples = map[string]string{
	"DELETE /_matrix/client/v3/room_keys/keys":                                        `version=$version`,
	"DELETE /_matrix/client/v3/room_keys/keys/{roomID}":                               `version=$version`,
	"DELETE /_matrix/client/v3/room_keys/keys/{roomID}/{sessionID}":                   `version=$version`,
	"GET /_matrix/client/v3/sync":                                                     `since=$since&timeout=0&full_state=false&use_state_after=true&set_presence=offline&filter={"room":{"timeline":{"limit":5},"state":{"lazy_load_members":true}}}`,
	"GET /_matrix/client/v3/rooms/{roomID}/messages":                                  `dir=b&limit=5&from=$since&to=s1&filter={"lazy_load_members":true,"types":["m.room.*"]}`,
	"GET /_matrix/client/v3/rooms/{roomID}/members":                                   `at=$since&membership=join&not_membership=ban`,
	"GET /_matrix/client/v3/rooms/{roomID}/state/{eventType}/{stateKey?}":             `format=event`,
	"GET /_matrix/client/v1/rooms/{roomID}/relations/{eventID}":                       `dir=b&limit=5&recurse=true`,
	"GET /_matrix/client/v1/rooms/{roomID}/relations/{eventID}/{relType}":             `dir=f&limit=5&from=s1`,
	"GET /_matrix/client/v1/rooms/{roomID}/relations/{eventID}/{relType}/{eventType}": `limit=5&to=s1`,
	"GET /_matrix/client/v3/keys/changes":                                             `from=s1&to=$since`,
	"GET /_matrix/client/v3/register/available":                                       `username=user$n`,
	"GET /_matrix/client/v1/register/m.login.registration_token/validity":             `token=x`,
	"GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaID}":                   `width=32&height=32&method=crop&animated=false`,
	"GET /_matrix/media/v3/thumbnail/{serverName}/{mediaID}":                          `width=32&height=32&method=scale`,
	"POST /_matrix/media/v3/upload":                                                   `filename=x.png`,
	"GET /_matrix/client/v3/room_keys/keys":                                           `version=$version`,
	"PUT /_matrix/client/v3/room_keys/keys":                                           `version=$version`,
	"GET /_matrix/client/v3/room_keys/keys/{roomID}":                                  `version=$version`,
	"PUT /_matrix/client/v3/room_keys/keys/{roomID}":                                  `version=$version`,
	"GET /_matrix/client/v3/room_keys/keys/{roomID}/{sessionID}":                      `version=$version`,
	"PUT /_matrix/client/v3/room_keys/keys/{roomID}/{sessionID}":                      `version=$version`,
	"POST /_matrix/client/v3/join/{roomIDOrAlias}":                                    `via=hearth.test&server_name=x`,
	"GET /_matrix/client/v3/auth/{type}/fallback/web":                                 `session=x`,
	"GET /_matrix/client/v3/rooms/{roomID}/context/{eventID}":                         `limit=4&filter={"lazy_load_members":true}`,
	"GET /_matrix/client/v1/rooms/{roomID}/timestamp_to_event":                        `ts=1&dir=f`,
	"GET /_matrix/client/v1/rooms/{roomID}/threads":                                   `include=all&limit=5`,
	"GET /_matrix/client/v1/rooms/{roomID}/hierarchy":                                 `limit=5&max_depth=2&suggested_only=false`,
	"GET /_matrix/client/v3/events":                                                   `from=s1&timeout=0`,
	"GET /_matrix/client/v3/initialSync":                                              `limit=2&archived=true`,
	"GET /_matrix/client/v3/rooms/{roomID}/initialSync":                               `limit=2`,
	"GET /_matrix/client/v3/publicRooms":                                              `limit=5&server=hearth.test`,
	"GET /_matrix/client/v3/notifications":                                            `limit=5&only=highlight`,
	"GET /_matrix/client/v1/mutual_rooms":                                             `user_id=$bob`,
	"GET /_matrix/client/v3/thirdparty/location":                                      `alias=$alias`,
	"GET /_matrix/client/v3/thirdparty/user":                                          `userid=$bob`,
}
