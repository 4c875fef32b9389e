package main

// A shape is what an event of some type looks like. Words in double braces
// stand for what differs from event to event; see writer.value.
type shape struct {
	weight   int // how often it occurs
	kind     string
	stateKey *string // nil: not a state event
	content  string
}

// state is a state key, for the table below.
func state(key string) *string { return &key }

var shapes = []shape{
	{30, "m.room.encrypted", nil, `{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"{{cipher}}","device_id":"{{device}}","sender_key":"{{key}}","session_id":"{{key}}"}`},
	{12, "m.room.encrypted", nil, `{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"{{cipher}}","session_id":"{{key}}"}`},
	{6, "m.room.encrypted", nil, `{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"{{cipher}}","device_id":"{{device}}","m.relates_to":{"m.in_reply_to":{"event_id":"{{event}}"}},"sender_key":"{{key}}","session_id":"{{key}}"}`},
	{3, "m.room.encrypted", nil, `{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"{{cipher}}","device_id":"{{device}}","m.relates_to":{"event_id":"{{event}}","rel_type":"m.replace"},"sender_key":"{{key}}","session_id":"{{key}}"}`},
	{3, "m.room.encrypted", nil, `{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"{{cipher}}","device_id":"{{device}}","m.relates_to":{"event_id":"{{event}}","is_falling_back":true,"m.in_reply_to":{"event_id":"{{event}}"},"rel_type":"m.thread"},"sender_key":"{{key}}","session_id":"{{key}}"}`},

	{30, "m.room.message", nil, `{"body":"{{text}}","m.mentions":{},"msgtype":"m.text"}`},
	{15, "m.room.message", nil, `{"body":"{{text}}","msgtype":"m.text"}`},
	{5, "m.room.message", nil, `{"body":"{{text}}","format":"org.matrix.custom.html","formatted_body":"<p>{{text}} <strong>{{text}}</strong> <code>{{name}}</code></p>\n","m.mentions":{},"msgtype":"m.text"}`},
	{5, "m.room.message", nil, `{"body":"{{name}}: {{text}}","format":"org.matrix.custom.html","formatted_body":"<a href=\"https://matrix.to/#/{{user}}\">{{name}}</a>: {{text}}<br/>","m.mentions":{"user_ids":["{{user}}"]},"msgtype":"m.text"}`},
	{6, "m.room.message", nil, `{"body":"> <{{user}}> {{text}}\n\n{{text}}","format":"org.matrix.custom.html","formatted_body":"<mx-reply><blockquote><a href=\"https://matrix.to/#/{{room}}/{{event}}?via={{server}}\">In reply to</a> <a href=\"https://matrix.to/#/{{user}}\">{{user}}</a><br>{{text}}</blockquote></mx-reply>{{text}}","m.mentions":{"user_ids":["{{user}}"]},"m.relates_to":{"m.in_reply_to":{"event_id":"{{event}}"}},"msgtype":"m.text"}`},
	{6, "m.room.message", nil, `{"body":"{{text}}","m.mentions":{"user_ids":["{{user}}"]},"m.relates_to":{"m.in_reply_to":{"event_id":"{{event}}"}},"msgtype":"m.text"}`},
	{4, "m.room.message", nil, `{"body":"* {{text}}","m.mentions":{},"m.new_content":{"body":"{{text}}","m.mentions":{},"msgtype":"m.text"},"m.relates_to":{"event_id":"{{event}}","rel_type":"m.replace"},"msgtype":"m.text"}`},
	{4, "m.room.message", nil, `{"body":"{{text}}","m.mentions":{},"m.relates_to":{"event_id":"{{event}}","is_falling_back":true,"m.in_reply_to":{"event_id":"{{event}}"},"rel_type":"m.thread"},"msgtype":"m.text"}`},
	{3, "m.room.message", nil, `{"body":"{{text}}","msgtype":"m.notice"}`},
	{2, "m.room.message", nil, `{"body":"{{text}}","format":"org.matrix.custom.html","formatted_body":"<b>{{name}}</b><ul><li>{{text}}</li></ul><a href=\"https://{{server}}/\">{{text}}</a>","msgtype":"m.notice"}`},
	{1, "m.room.message", nil, `{"body":"{{text}}","msgtype":"m.emote"}`},
	{5, "m.room.message", nil, `{"body":"{{file}}.jpg","filename":"{{file}}.jpg","info":{"h":{{number}},"mimetype":"image/jpeg","size":{{number}},"thumbnail_info":{"h":600,"mimetype":"image/jpeg","size":{{number}},"w":800},"thumbnail_url":"{{media}}","w":{{number}},"xyz.amorgan.blurhash":"{{letters}}"},"m.mentions":{},"msgtype":"m.image","url":"{{media}}"}`},
	{2, "m.room.message", nil, `{"body":"{{file}}.png","info":{"h":{{number}},"mimetype":"image/png","size":{{number}},"w":{{number}}},"msgtype":"m.image","url":"{{media}}"}`},
	{2, "m.room.message", nil, `{"body":"{{file}}.jpg","file":{"hashes":{"sha256":"{{key}}"},"iv":"{{iv}}","key":{"alg":"A256CTR","ext":true,"k":"{{hash}}","key_ops":["encrypt","decrypt"],"kty":"oct"},"url":"{{media}}","v":"v2"},"info":{"h":{{number}},"mimetype":"image/jpeg","size":{{number}},"w":{{number}}},"msgtype":"m.image"}`},
	{1, "m.room.message", nil, `{"body":"{{file}}.mp4","info":{"duration":{{number}},"h":{{number}},"mimetype":"video/mp4","size":{{number}},"thumbnail_info":{"h":{{number}},"mimetype":"image/jpeg","size":{{number}},"w":{{number}}},"thumbnail_url":"{{media}}","w":{{number}}},"msgtype":"m.video","url":"{{media}}"}`},
	{1, "m.room.message", nil, `{"body":"Voice message.ogg","info":{"duration":{{number}},"mimetype":"audio/ogg","size":{{number}}},"msgtype":"m.audio","org.matrix.msc1767.audio":{"duration":{{number}},"waveform":[0,{{number}},{{number}}]},"org.matrix.msc3245.voice":{},"url":"{{media}}"}`},
	{1, "m.room.message", nil, `{"body":"{{file}}.pdf","filename":"{{file}}.pdf","info":{"mimetype":"application/pdf","size":{{number}}},"msgtype":"m.file","url":"{{media}}"}`},
	{1, "m.room.message", nil, `{"body":"{{text}}","geo_uri":"geo:5{{number}},1{{number}}","msgtype":"m.location","org.matrix.msc3488.asset":{"type":"m.self"},"org.matrix.msc3488.location":{"description":"{{text}}","uri":"geo:5{{number}}"}}`},
	{1, "m.room.message", nil, `{"body":"{{user}} is requesting to verify your key","from_device":"{{device}}","methods":["m.sas.v1","m.qr_code.show.v1","m.qr_code.scan.v1","m.reciprocate.v1"],"msgtype":"m.key.verification.request","to":"{{user}}"}`},
	{1, "m.sticker", nil, `{"body":"{{text}}","info":{"h":256,"mimetype":"image/png","size":{{number}},"w":256},"url":"{{media}}"}`},

	{14, "m.reaction", nil, `{"m.relates_to":{"event_id":"{{event}}","key":"{{emoji}}","rel_type":"m.annotation"}}`},
	{2, "m.room.redaction", nil, `{"reason":"{{text}}","redacts":"{{event}}"}`},
	{2, "m.room.redaction", nil, `{"redacts":"{{event}}"}`},

	{16, "m.room.member", state("{{user}}"), `{"avatar_url":"{{media}}","displayname":"{{name}}","membership":"join"}`},
	{5, "m.room.member", state("{{user}}"), `{"avatar_url":null,"displayname":"{{name}}","membership":"join"}`},
	{3, "m.room.member", state("{{user}}"), `{"displayname":"{{name}}","membership":"join"}`},
	{2, "m.room.member", state("{{user}}"), `{"displayname":"{{name}}","join_authorised_via_users_server":"{{user}}","membership":"join"}`},
	{3, "m.room.member", state("{{user}}"), `{"avatar_url":"{{media}}","displayname":"{{name}}","is_direct":true,"membership":"invite"}`},
	{4, "m.room.member", state("{{user}}"), `{"membership":"leave"}`},
	{1, "m.room.member", state("{{user}}"), `{"membership":"leave","reason":"{{text}}"}`},
	{1, "m.room.member", state("{{user}}"), `{"membership":"ban","reason":"{{text}}"}`},
	{1, "m.room.member", state("{{user}}"), `{"displayname":"{{name}}","membership":"knock","reason":"{{text}}"}`},

	{2, "m.room.create", state(""), `{"room_version":"12"}`},
	{1, "m.room.create", state(""), `{"additional_creators":["{{user}}"],"m.federate":true,"predecessor":{"event_id":"{{event}}","room_id":"{{room}}"},"room_version":"12"}`},
	{1, "m.room.create", state(""), `{"creator":"{{user}}","room_version":"10","type":"m.space"}`},
	{3, "m.room.power_levels", state(""), `{"ban":50,"events":{"m.room.avatar":50,"m.room.canonical_alias":50,"m.room.encryption":100,"m.room.history_visibility":100,"m.room.name":50,"m.room.power_levels":100,"m.room.server_acl":100,"m.room.tombstone":150},"events_default":0,"historical":100,"invite":0,"kick":50,"redact":50,"state_default":50,"users":{"{{user}}":100},"users_default":0}`},
	{1, "m.room.power_levels", state(""), `{"ban":50,"events":{"im.vector.modular.widgets":50,"io.element.voice_broadcast_info":50,"m.reaction":0,"m.room.name":50,"m.room.pinned_events":50,"m.room.redaction":0,"m.space.child":50,"org.matrix.msc3401.call":50,"org.matrix.msc3401.call.member":0},"events_default":0,"invite":50,"kick":50,"notifications":{"room":50},"redact":50,"state_default":50,"users":{"{{user}}":100,"{{user}}":50},"users_default":0}`},
	{2, "m.room.join_rules", state(""), `{"join_rule":"invite"}`},
	{1, "m.room.join_rules", state(""), `{"join_rule":"public"}`},
	{1, "m.room.join_rules", state(""), `{"allow":[{"room_id":"{{room}}","type":"m.room_membership"}],"join_rule":"restricted"}`},
	{2, "m.room.history_visibility", state(""), `{"history_visibility":"shared"}`},
	{2, "m.room.guest_access", state(""), `{"guest_access":"can_join"}`},
	{2, "m.room.encryption", state(""), `{"algorithm":"m.megolm.v1.aes-sha2","rotation_period_ms":604800000,"rotation_period_msgs":100}`},
	{2, "m.room.name", state(""), `{"name":"{{name}}"}`},
	{2, "m.room.topic", state(""), `{"m.topic":{"m.text":[{"body":"{{text}}","mimetype":"text/plain"}]},"topic":"{{text}}"}`},
	{1, "m.room.avatar", state(""), `{"info":{"h":512,"mimetype":"image/png","size":{{number}},"w":512},"url":"{{media}}"}`},
	{1, "m.room.canonical_alias", state(""), `{"alias":"#{{letters}}:{{server}}","alt_aliases":["#{{letters}}:{{server}}"]}`},
	{1, "m.room.pinned_events", state(""), `{"pinned":["{{event}}","{{event}}"]}`},
	{1, "m.room.server_acl", state(""), `{"allow":["*"],"allow_ip_literals":false,"deny":["{{server}}"]}`},
	{1, "m.room.tombstone", state(""), `{"body":"This room has been replaced","replacement_room":"{{room}}"}`},
	{1, "m.room.third_party_invite", state("{{letters}}"), `{"display_name":"{{name}}","key_validity_url":"https://{{server}}/_matrix/identity/v2/pubkey/isvalid","public_key":"{{key}}","public_keys":[{"key_validity_url":"https://{{server}}/_matrix/identity/v2/pubkey/ephemeral/isvalid","public_key":"{{key}}"}]}`},
	{1, "m.space.child", state("{{room}}"), `{"order":"{{letters}}","suggested":false,"via":["{{server}}","{{server}}"]}`},
	{1, "m.space.parent", state("{{room}}"), `{"canonical":true,"via":["{{server}}"]}`},

	{1, "m.call.invite", nil, `{"call_id":"{{letters}}","invitee":"{{user}}","lifetime":60000,"offer":{"sdp":"v=0\r\no=- {{number}} 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=msid-semantic: WMS\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\nc=IN IP4 0.0.0.0\r\n","type":"offer"},"party_id":"{{device}}","version":"1"}`},
	{1, "m.call.candidates", nil, `{"call_id":"{{letters}}","candidates":[{"candidate":"candidate:{{number}} 1 udp {{number}} 192.168.1.{{number}} 5{{number}} typ host generation 0 ufrag {{letters}} network-id 1","sdpMLineIndex":0,"sdpMid":"0"}],"party_id":"{{device}}","version":"1"}`},
	{1, "m.call.hangup", nil, `{"call_id":"{{letters}}","party_id":"{{device}}","reason":"user_hangup","version":"1"}`},
	{2, "org.matrix.msc3401.call.member", state("_{{user}}_{{device}}"), `{"application":"m.call","call_id":"","created_ts":{{time}},"device_id":"{{device}}","expires":7200000,"foci_preferred":[{"livekit_alias":"{{room}}","livekit_service_url":"https://livekit-jwt.{{server}}","type":"livekit"}],"focus_active":{"focus_selection":"oldest_membership","type":"livekit"},"scope":"m.room"}`},
	{1, "im.vector.modular.widgets", state("{{letters}}"), `{"creatorUserId":"{{user}}","data":{"conferenceId":"{{letters}}"},"id":"{{letters}}","name":"{{name}}","type":"m.jitsi","url":"https://{{server}}/jitsi.html#conferenceDomain=$domain&conferenceId=$conferenceId&displayName=$matrix_display_name&avatarUrl=$matrix_avatar_url&userId=$matrix_user_id","waitForIframeLoad":true}`},
	{1, "org.matrix.msc3381.poll.start", nil, `{"org.matrix.msc1767.text":"{{text}}","org.matrix.msc3381.poll.start":{"answers":[{"id":"1","org.matrix.msc1767.text":"{{name}}"},{"id":"2","org.matrix.msc1767.text":"{{name}}"}],"kind":"org.matrix.msc3381.poll.disclosed","max_selections":1,"question":{"body":"{{text}}","msgtype":"m.text","org.matrix.msc1767.text":"{{text}}"}}}`},
	{1, "org.matrix.msc3381.poll.response", nil, `{"m.relates_to":{"event_id":"{{event}}","rel_type":"m.reference"},"org.matrix.msc3381.poll.response":{"answers":["1"]}}`},
	{1, "m.key.verification.ready", nil, `{"from_device":"{{device}}","m.relates_to":{"event_id":"{{event}}","rel_type":"m.reference"},"methods":["m.sas.v1","m.reciprocate.v1"]}`},
	{1, "m.key.verification.start", nil, `{"from_device":"{{device}}","hashes":["sha256"],"key_agreement_protocols":["curve25519-hkdf-sha256"],"m.relates_to":{"event_id":"{{event}}","rel_type":"m.reference"},"message_authentication_codes":["hkdf-hmac-sha256.v2","hkdf-hmac-sha256"],"method":"m.sas.v1","short_authentication_string":["decimal","emoji"]}`},
	{1, "m.key.verification.done", nil, `{"m.relates_to":{"event_id":"{{event}}","rel_type":"m.reference"}}`},
}

// words are what people write to each other, in a few languages.
var words = []string{
	"the", "the", "a", "and", "to", "of", "is", "in", "it", "you", "that", "for", "on", "with", "I", "we", "this", "have", "not", "be",
	"are", "but", "what", "can", "will", "at", "from", "me", "my", "your", "if", "do", "so", "all", "just", "was", "there", "they",
	"one", "out", "about", "like", "know", "think", "time", "good", "yes", "no", "ok", "thanks", "thank", "please", "when", "where",
	"who", "how", "today", "tomorrow", "tonight", "morning", "evening", "work", "home", "come", "going", "back", "need", "want", "see",
	"here", "now", "then", "really", "maybe", "should", "would", "could", "some", "more", "very", "much", "also", "again", "right",
	"server", "room", "message", "phone", "picture", "link", "https", "http", "test", "update", "version", "issue", "people", "kids",
	"dinner", "train", "late", "soon", "minutes", "hour", "week", "weekend", "love", "sorry", "great", "nice", "haha", "sure", "don't",
	"ich", "und", "der", "die", "das", "nicht", "ist", "wir", "auch", "noch", "ja", "je", "les", "pas", "est", "une", "que", "pour",
	"que", "los", "una", "con", "por", "het", "een", "niet", "alice", "bob", "carol", "dave", "erin", "frank", "Anna", "Max", "Lena",
}
