package matrix

// EventIDFormat says where an event's ID comes from.
type EventIDFormat uint8

// The formats of event IDs.
const (
	// EventIDGiven: the event carries its ID in event_id, and prev_events and
	// auth_events are pairs of an ID and hashes (versions 1 and 2).
	EventIDGiven EventIDFormat = iota + 1
	// EventIDHash: '$' and the reference hash in standard base64 (version 3).
	EventIDHash
	// EventIDURLSafeHash: '$' and the reference hash in URL-safe base64.
	EventIDURLSafeHash
)

// StateResolution names an algorithm for resolving forks of a room's state.
type StateResolution uint8

// The algorithms of state resolution.
const (
	// StateResolutionV1 goes by depth and SHA-1 of the event ID (version 1).
	StateResolutionV1 StateResolution = iota + 1
	// StateResolutionV2 orders by power and mainline (versions 2 to 11).
	StateResolutionV2
	// StateResolutionV21 also starts from the empty state and replays the
	// conflicted state subgraph (version 12).
	StateResolutionV21
)

// AuthRules names a text of authorization rules, and so the numbers of its rules.
type AuthRules uint8

// The texts of the authorization rules, named for the version that brought them.
const (
	AuthRulesV1  AuthRules = iota + 1 // versions 1 and 2
	AuthRulesV3                       // versions 3 to 5
	AuthRulesV6                       // version 6
	AuthRulesV7                       // version 7
	AuthRulesV8                       // versions 8 and 9
	AuthRulesV10                      // version 10
	AuthRulesV11                      // version 11
	AuthRulesV12                      // version 12
)

// Version is a room version: what holds for the events of its rooms. The values
// are those of the one table below; compare pointers or ask a field, never
// compare IDs. Specification: room versions.
type Version struct {
	ID     string // as in m.room.create
	Stable bool   // said to clients in /capabilities

	EventIDs        EventIDFormat
	StateResolution StateResolution
	AuthRules       AuthRules

	// StrictJSON: events must be canonical JSON; anything else is refused (6 on).
	StrictJSON bool
	// KeyValidity: the signing key must have been valid at origin_server_ts (5 on).
	KeyValidity bool
	// IntegerPowerLevels: power levels are integers, not strings or floats (10 on).
	IntegerPowerLevels bool
	// AliasesAuthorized: m.room.aliases has an authorization rule of its own (to 5).
	AliasesAuthorized bool
	// RedactionsAuthorized: whether a redaction may redact its target is a question
	// of the authorization rules (1 and 2); from 3 on it is asked when the
	// redaction is applied.
	RedactionsAuthorized bool
	// NotificationLevels: changes of notifications in m.room.power_levels are
	// authorized (6 on).
	NotificationLevels bool
	// Knocking: membership and join rule knock exist (7 on).
	Knocking bool
	// RestrictedJoins: join rule restricted exists (8 on).
	RestrictedJoins bool
	// KnockRestricted: join rule knock_restricted exists (10 on).
	KnockRestricted bool
	// CreatorInContent: content.creator of m.room.create is required and names the
	// room's creator (to 10); afterwards it is the sender.
	CreatorInContent bool
	// RedactsInContent: the target of a redaction is in its content (11 on).
	RedactsInContent bool
	// RoomIDIsHash: the room ID is the create event's reference hash; the create
	// event has no room_id and is in nobody's auth_events (12 on).
	RoomIDIsHash bool
	// PrivilegedCreators: sender and additional_creators of the create event have
	// infinite power and are no users of m.room.power_levels (12 on).
	PrivilegedCreators bool
	// LongKeys: the type and the state key of an event that comes from elsewhere may
	// have 255 characters instead of 255 bytes (to 10). The specification has bytes in
	// all versions ("state_key MUST NOT exceed 255 bytes", CS Size limits), but servers
	// have counted characters for years: such events are in the history of rooms, which
	// would end for us where others stand on them. What is made here keeps to the bytes.
	LongKeys bool
	// MaxDepth is the highest depth of an event; deeper ones stay at it.
	MaxDepth int64

	redaction *redaction
}

// DefaultVersion is the version of rooms made here, unless the owner or the client
// asks for another.
const DefaultVersion = "12"

// maxSafeInteger is 2^53-1, the largest integer of canonical JSON.
const maxSafeInteger = 1<<53 - 1

const maxInt64 = 1<<63 - 1

// versions is the table of all room versions, each row complete in itself.
var versions = []*Version{
	{
		ID: "1", Stable: true,
		EventIDs: EventIDGiven, StateResolution: StateResolutionV1, AuthRules: AuthRulesV1,
		AliasesAuthorized: true, RedactionsAuthorized: true, CreatorInContent: true,
		LongKeys: true, MaxDepth: maxInt64, redaction: redactionV1,
	},
	{
		ID: "2", Stable: true,
		EventIDs: EventIDGiven, StateResolution: StateResolutionV2, AuthRules: AuthRulesV1,
		AliasesAuthorized: true, RedactionsAuthorized: true, CreatorInContent: true,
		LongKeys: true, MaxDepth: maxInt64, redaction: redactionV1,
	},
	{
		ID: "3", Stable: true,
		EventIDs: EventIDHash, StateResolution: StateResolutionV2, AuthRules: AuthRulesV3,
		AliasesAuthorized: true, CreatorInContent: true,
		LongKeys: true, MaxDepth: maxInt64, redaction: redactionV1,
	},
	{
		ID: "4", Stable: true,
		EventIDs: EventIDURLSafeHash, StateResolution: StateResolutionV2, AuthRules: AuthRulesV3,
		AliasesAuthorized: true, CreatorInContent: true,
		LongKeys: true, MaxDepth: maxInt64, redaction: redactionV1,
	},
	{
		ID: "5", Stable: true,
		EventIDs: EventIDURLSafeHash, StateResolution: StateResolutionV2, AuthRules: AuthRulesV3,
		KeyValidity: true, AliasesAuthorized: true, CreatorInContent: true,
		LongKeys: true, MaxDepth: maxInt64, redaction: redactionV1,
	},
	{
		ID: "6", Stable: true,
		EventIDs: EventIDURLSafeHash, StateResolution: StateResolutionV2, AuthRules: AuthRulesV6,
		StrictJSON: true, KeyValidity: true, NotificationLevels: true, CreatorInContent: true,
		LongKeys: true, MaxDepth: maxSafeInteger, redaction: redactionV6,
	},
	{
		ID: "7", Stable: true,
		EventIDs: EventIDURLSafeHash, StateResolution: StateResolutionV2, AuthRules: AuthRulesV7,
		StrictJSON: true, KeyValidity: true, NotificationLevels: true, Knocking: true,
		CreatorInContent: true,
		LongKeys:         true, MaxDepth: maxSafeInteger, redaction: redactionV6,
	},
	{
		ID: "8", Stable: true,
		EventIDs: EventIDURLSafeHash, StateResolution: StateResolutionV2, AuthRules: AuthRulesV8,
		StrictJSON: true, KeyValidity: true, NotificationLevels: true, Knocking: true,
		RestrictedJoins: true, CreatorInContent: true,
		LongKeys: true, MaxDepth: maxSafeInteger, redaction: redactionV8,
	},
	{
		ID: "9", Stable: true,
		EventIDs: EventIDURLSafeHash, StateResolution: StateResolutionV2, AuthRules: AuthRulesV8,
		StrictJSON: true, KeyValidity: true, NotificationLevels: true, Knocking: true,
		RestrictedJoins: true, CreatorInContent: true,
		LongKeys: true, MaxDepth: maxSafeInteger, redaction: redactionV9,
	},
	{
		ID: "10", Stable: true,
		EventIDs: EventIDURLSafeHash, StateResolution: StateResolutionV2, AuthRules: AuthRulesV10,
		StrictJSON: true, KeyValidity: true, IntegerPowerLevels: true, NotificationLevels: true,
		Knocking: true, RestrictedJoins: true, KnockRestricted: true, CreatorInContent: true,
		LongKeys: true, MaxDepth: maxSafeInteger, redaction: redactionV9,
	},
	{
		ID: "11", Stable: true,
		EventIDs: EventIDURLSafeHash, StateResolution: StateResolutionV2, AuthRules: AuthRulesV11,
		StrictJSON: true, KeyValidity: true, IntegerPowerLevels: true, NotificationLevels: true,
		Knocking: true, RestrictedJoins: true, KnockRestricted: true, RedactsInContent: true,
		MaxDepth: maxSafeInteger, redaction: redactionV11,
	},
	{
		ID: "12", Stable: true,
		EventIDs: EventIDURLSafeHash, StateResolution: StateResolutionV21, AuthRules: AuthRulesV12,
		StrictJSON: true, KeyValidity: true, IntegerPowerLevels: true, NotificationLevels: true,
		Knocking: true, RestrictedJoins: true, KnockRestricted: true, RedactsInContent: true,
		RoomIDIsHash: true, PrivilegedCreators: true,
		MaxDepth: maxSafeInteger, redaction: redactionV11,
	},
}

// VersionByID finds the version with that ID, if we know it.
func VersionByID(id string) (*Version, bool) {
	for _, v := range versions {
		if v.ID == id {
			return v, true
		}
	}
	return nil, false
}

// Versions lists all versions that we know, oldest first.
func Versions() []*Version {
	return append([]*Version(nil), versions...)
}
