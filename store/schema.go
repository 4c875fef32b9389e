package store

// This file is the whole layout of hearth.db. Integers in keys are big-endian
// so that byte order is numeric order; integers in values are unsigned
// varints unless a width is given. Strings that end a key stand bare; a string
// that is followed by more is ended by a NUL byte, which Matrix identifiers
// cannot contain.
//
// There are few buckets on purpose: each bucket that a commit touches costs
// two to three 4 KiB pages. A message touches event, id and stream, twelve
// pages in all (49 KiB; 8 KiB each where 100 share a commit, see
// BenchmarkSend); a state event also touches state. One that comes from another
// server costs the same; that one goes to others costs nothing by itself, as how far
// they have come is written now and then (bucket remote).

// formatVersion is the version of this layout, kept under metaFormat.
// upgrade.go takes older files to it, one step at a time.
const formatVersion = 5

// bucketName is one top-level bucket.
type bucketName uint8

const (
	bucketMeta   bucketName = iota // the file itself: format, server name, secrets
	bucketNumber                   // short numbers for long names, both ways
	bucketStream                   // the one log: what happened at each position, events themselves included
	bucketEvent                    // events by room; the head of each room
	bucketID                       // hashes of event IDs to events
	bucketState                    // slots, snapshots and their nodes, by room
	bucketRoom                     // all else about a room
	bucketUser                     // all about a local account, its devices and keys
	bucketRemote                   // all about other servers and their users
	bucketMedia                    // metadata of media
	buckets                        // how many there are
)

// bucketTraits says how each bucket is named in the file and how full bbolt
// leaves the pages it splits. Logs are packed; where keys come in random order
// much more than half makes pages smaller, not fuller (0.9 leaves bucket id a
// third full).
var bucketTraits = [buckets]struct {
	name string
	fill float64
}{
	bucketMeta:   {"meta", 0.5},
	bucketNumber: {"number", 0.6},
	bucketStream: {"stream", 1.0},
	bucketEvent:  {"event", 0.7},
	bucketID:     {"id", 0.6},
	bucketState:  {"state", 0.9},
	bucketRoom:   {"room", 0.7},
	bucketUser:   {"user", 0.7},
	bucketRemote: {"remote", 0.7},
	bucketMedia:  {"media", 0.7},
}

// Keys of bucket meta are the words below.
const (
	metaFormat     = "format"      // uvarint formatVersion
	metaServerName = "server_name" // the server name this data belongs to for ever
	metaSigningKey = "signing/"    // signing/ + key ID: a private ed25519 key, see signing_key.go
	metaSecret     = "secret"      // 32 random bytes: HMAC key for opaque tokens that need no record
	metaOwner      = "owner"       // uvarint user number of the owner and administrator; absent: none yet
)

// Bucket number. A kind byte, then the name; and the kind byte in upper case,
// then the number, for the way back.
const (
	numberRoom = 'r' // 'r' roomID -> room(4); 'R' room(4) -> roomID
	numberUser = 'u' // 'u' userID -> user(4); 'U' user(4) -> userID

	numberServer = 's' // 's' server name -> server(4); 'S' server(4) -> server name
)

// Bucket stream: position(8) -> kind byte, then per kind what it is about:
//
//	streamEvent       room, then the event's record (event_record.go)
//	streamAccountData user, room (0: global), type
//	streamReceipt     room, user
//	streamToDevice    user, device ID
//	streamDevices     user (its device list or cross-signing keys changed), link, device ID (device_list.go)
//	streamMembership  user, room (a local user's own membership changed)
//	streamProfile     user
//	streamOutbox      server (something waits in its outbox)
//
// No reader depends on an entry of another kind than it knows.
const (
	streamEvent       = 'e'
	streamAccountData = 'a'
	streamReceipt     = 'r'
	streamToDevice    = 't'
	streamDevices     = 'd'
	streamMembership  = 'm'
	streamProfile     = 'p'
	streamOutbox      = 'o'
)

// Bucket event: room(4) region(1), then what is below. The events of our
// timelines themselves are in the stream, so that a group of them fills a few
// pages whatever their rooms; here is their order in each room. The head
// stands right behind a room's newest event, so that a message rewrites one
// leaf for both.
const (
	regionAside    = 1 // position(8) -> event record: events that are no part of our timeline: state at a join, auth events, rejected and soft-failed ones; where an outlier came to the timeline, its number there
	regionTimeline = 2 // position(8) -> hash(8) of the transaction that sent the event, or nothing (txn.go): the events in the order in which we accepted them, by their place in the stream
	regionHead     = 3 // -> the room's head (room.go)
)

// Bucket id: 16 bytes of SHA-256 over a kind byte and an event ID -> room,
// event number, and the number as an outlier if it was one before it came to the
// timeline. The kind byte keeps apart what else is hashed like that.
const (
	idEvent = 'e' // event ID
	idTxn   = 't' // user(4), device ID, NUL, endpoint, NUL, transaction ID: in regionTimeline
)

// Bucket state: room(4), a kind byte, then what is below. The counter stands
// right behind the newest record, so that a change of state rewrites one leaf.
const (
	stateCitation = 'c' // event number(8), event number(8) of a state event that cites it -> nothing (citation.go)
	stateSlot     = 'k' // 0, event type with its length, state key -> ordinal; for members: 1, user(4) -> ordinal (slot.go)
	stateRecord   = 'r' // number(5) -> a snapshot, or a node of the snapshots' trees (snapshot_record.go)
	stateCounter  = 's' // -> next ordinal of either kind, next record number
)

// Bucket room: room(4), a kind byte, then
const (
	roomMember    = 'm' // user(4): a local user's membership here, mirrored in userRoom
	roomReceipt   = 'r' // user(4) receipt type NUL thread -> position, event, ts (receipt.go)
	roomReceiptAt = 'R' // position(8) -> which receipt stands there: the index for sync
	roomRelation  = 'x' // 8 bytes of the parent's ID hash, child's place(8 or 24: Place.appendTurn) -> relation (relation.go); at place ^0 the thread (thread.go)
	roomThread    = 't' // newest reply's place(8 or 24), 8 bytes of the root's ID hash -> root's ID (thread.go)
	roomWords     = 'w' // number(8) of the last of some timeline events -> number of the first, filter of their words (word_block.go)
	roomRedaction = 'd' // 16 bytes of the target's ID hash -> redaction's event number, where the target was not here yet
	roomHistory   = 'h' // position(8) of the timeline event that it came before, height(8), event number(8) -> nothing: back-filled history (history.go)
	roomHistoryAt = 'H' // event number(8) -> position(8), height(8) of the above
	roomUnread    = 'n' // user(4) -> counts of unread events up to a position: a checkpoint
	roomAlias     = 'a' // alias -> creator
	roomServer    = 's' // server(4) -> how many of its users have joined, 1 or more, and since which position the server is here; other servers than ours (room_server.go)
)

// Keys of bucket room that belong to no room stand under room number 0.
const (
	aliasRoom     = 'A' // alias -> room(4)
	publishedRoom = 'P' // room(4) -> nothing: the published directory
	purgedRoom    = 'X' // room(4) -> its version: rooms that are being purged (purge.go); they have no head
)

// Bucket user: user(4), a kind byte, then
const (
	userAccount       = 'a' // -> account record (account.go)
	userDevice        = 'd' // device ID -> device record (device.go)
	userToken         = 't' // access or refresh token hash(32) -> token record: all of a user's tokens (token.go)
	userProfile       = 'p' // key name -> JSON value
	userData          = 'c' // room(4; 0: global) type -> position(8), JSON (account_data.go)
	userDataAt        = 'C' // position(8) -> room(4) type: the index for sync
	userRoom          = 'r' // room(4) -> membership record of a local user (membership.go)
	userRoomAt        = 'R' // position(8) -> room(4): own membership changes, the newest of each room
	userFilter        = 'f' // filter(8) -> JSON
	userPresence      = 'e' // -> when last active, status (presence.go)
	userDeviceKeys    = 'k' // device ID -> JSON
	userOneTimeKey    = 'o' // device ID NUL algorithm NUL order(8) -> key ID NUL JSON, oldest first
	userOneTimeKeyID  = 'O' // device ID NUL algorithm NUL key ID -> order(8)
	userGivenKeys     = 'y' // device ID NUL algorithm -> ring of the one-time keys given out last (ring.go)
	userFallbackKey   = 'b' // device ID NUL algorithm -> used flag, key ID, JSON
	userCrossSigning  = 'x' // usage -> JSON
	userSignature     = 's' // user(4) of the target, target's device ID or public key, NUL, signing key ID -> signature, made by this user
	userSignedAt      = 'z' // position(8) -> user(4): when this user last signed a key of another user, the newest of each
	userBackup        = 'v' // version(8) -> deleted flag, etag, count, algorithm, auth data; the highest stays when deleted
	userBackupKey     = 'w' // version(8) room(4) session ID -> key record (key_backup.go)
	userToDevice      = 'q' // device ID NUL position(8) -> JSON; at position ^0 how many there are and their bytes
	userTxn           = 'i' // device ID NUL -> ring of the newest transactions that made no event (ring.go)
	userPusher        = 'g' // app ID NUL pushkey -> pusher record (pusher.go)
	userDevicesAt     = 'D' // under user 0: position(8) -> user(4): newest change of each device list
	userDevicesLatest = 'L' // -> position(8) of the newest change of this user's device list
)

// Keys of bucket user that lead to an account stand under user number 0.
const (
	tokenUser         = 'T' // access or refresh token hash(32) -> user(4): finds the record above
	loginToken        = 'G' // login token hash(32) -> user, expiry (login_token.go)
	registrationToken = 'K' // token -> uses allowed and completed, times (registration_token.go)
	pusherUser        = 'H' // app ID NUL pushkey NUL user(4) -> nothing: all pushers (pusher.go)
	uiaSession        = 'S' // reserved: user-interactive authentication lives in memory
)

// Bucket remote: a kind byte, then
const (
	remoteBackoff   = 'b' // server name -> how long it has not answered, when it is tried again (backoff.go)
	remoteHost      = 'h' // server name -> where it is (host.go)
	remoteVerifyKey = 'k' // server name NUL key ID -> key, until when it counts; with an empty ID -> the server's newest answer (server_key.go)
	remoteInbox     = 'i' // room(4) order(8) -> origin, when it came, what it is to the room, PDU: events that wait for what they lack (inbox.go)
	remoteJoin      = 'j' // room(4) -> a join at another server that is under way (join.go)
	remoteTxn       = 't' // server name -> the last transactions of that server with their answers (server_txn.go)
	remoteOutbox    = 'q' // server(4) position(8) -> JSON of an EDU that must arrive there (outbox.go)
	remoteBehind    = 'c' // server(4) -> how far a server that has not got everything yet has come; server 0: who is not among these has got all up to there (destination.go)
	remoteRoom      = 'r' // server(4) room(4) -> nothing: the rooms that a server is in, the mirror of roomServer
	remoteRoomLeft  = 'R' // server(4) room(4) -> since and until which position the server was in the room the last time, where it has left (room_left.go)

	remoteDeviceList   = 'd' // user(4) -> flags, stream ID, when it was fetched: the device list of another server's user (remote_device.go)
	remoteDevice       = 'e' // user(4) device ID -> name, JSON of its keys
	remoteStaleDevices = 'D' // user(4) -> when to fetch it again, how often that failed: lists that missed a change
	remoteMessages     = 'm' // server(4) -> ring of the newest messages to devices that came from it (ring.go)
)

// Bucket media: a kind byte, then. Files of our own server stand under no origin.
const (
	mediaRecord     = 'm' // origin NUL media ID -> media record (media.go)
	mediaThumbnail  = 't' // blob(32) method(1: c or s) width(2) height(2) -> thumbnail record (media.go)
	mediaUse        = 'b' // blob(32), then 'm' and the key of a file, or 't' and that of a thumbnail, without kind -> nothing
	mediaReserved   = 'p' // media ID of ours -> user, expiry: a file that is to come (media_reservation.go)
	mediaReservedBy = 'P' // user(4) media ID -> nothing: which of those are whose
	mediaPreview    = 'u' // hash(16) of language and URL -> expiry, image, JSON (preview.go)
	mediaPreviewAt  = 'U' // expiry(8) hash(16) -> nothing: the index for expiry
	mediaFetched    = 'f' // origin NUL media ID of another server's file -> when last used in seconds, size (media_fetched.go)
	mediaFetchedAt  = 'F' // seconds(8) origin NUL media ID -> nothing: the index by last use
	mediaFetchedSum = 's' // -> bytes of all files of other servers
)
