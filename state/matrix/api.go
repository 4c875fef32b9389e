// Package matrix is the vocabulary of the server: identifiers, room versions and
// events, and the pure functions over them.
package matrix

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"

	"github.com/go-json-experiment/json/jsontext"
)

var (
	ErrNotJSON  = errors.New("not JSON")
	ErrBadJSON  = errors.New("bad JSON")
	ErrTooLarge = errors.New("too large")
)

type redaction struct{}

var redactionV1, redactionV6, redactionV8, redactionV9, redactionV11 *redaction

func Canonical(src []byte) ([]byte, error)                { return src, nil }
func CanonicalFor(v *Version, src []byte) ([]byte, error) { return src, nil }

type Event struct {
	ID                     EventID
	Room                   RoomID
	Sender                 UserID
	Type                   string
	StateKey               *string
	Content                jsontext.Value
	PrevEvents, AuthEvents []EventID
	Depth, OriginServerTS  int64
	Redacts                EventID
	Version                *Version
	pdu                    []byte
}

const MaxEventBytes = 65536

func Parse(v *Version, pdu []byte) (*Event, error)                    { return nil, ErrBadJSON }
func ParseTrusted(v *Version, pdu []byte, id EventID) (*Event, error) { return nil, ErrBadJSON }
func (e *Event) JSON() []byte                                         { return e.pdu }
func (e *Event) Is(typ, stateKey string) bool {
	return e.Type == typ && e.StateKey != nil && *e.StateKey == stateKey
}
func (e *Event) IsState() bool { return e.StateKey != nil }

type Membership string

const (
	Join   Membership = "join"
	Invite Membership = "invite"
	Leave  Membership = "leave"
	Ban    Membership = "ban"
	Knock  Membership = "knock"
)

type MemberContent struct {
	Membership             Membership
	DisplayName, AvatarURL *string
	AuthorisedVia          UserID         // empty when the key is not there
	ThirdPartyInvite       jsontext.Value // raw, nil when the key is not there
	IsDirect               bool
	Reason                 string
}

func (e *Event) Member() (MemberContent, error) { return MemberContent{}, ErrBadJSON }

// PowerField is one of the seven plain levels of m.room.power_levels.
type PowerField uint8

const (
	UsersDefault PowerField = iota
	EventsDefault
	StateDefault
	BanLevel
	RedactLevel
	KickLevel
	InviteLevel
	powerFields
)

// PowerLevels: the fields hold defaults where the content has none; Given tells.
type PowerLevels struct {
	Users         map[UserID]int64
	Events        map[string]int64
	Notifications map[string]int64
	UsersDefault, EventsDefault, StateDefault,
	Ban, Kick, Redact, Invite int64
	given uint8
}

func (e *Event) PowerLevels() (*PowerLevels, error) { return nil, ErrBadJSON }

// PowerLevelsFor reads as PowerLevels and checks everything, but keeps only the entries of these
// users and of that event type: cheap in rooms with many users.
func (e *Event) PowerLevelsFor(typ string, users ...UserID) (*PowerLevels, error) {
	return nil, ErrBadJSON
}

// DefaultPowerLevels is what holds in a room without m.room.power_levels; create may be nil.
func DefaultPowerLevels(create *Event) *PowerLevels { return nil }

// Field is the level and whether the content gives it (false: it is the default).
func (p *PowerLevels) Field(f PowerField) (level int64, given bool) { return 0, false }

// User is the level of that user: of users, else users_default.
func (p *PowerLevels) User(u UserID) int64 { return 0 }

// Send is the level needed to send an event of that type.
func (p *PowerLevels) Send(typ string, state bool) int64 { return 0 }

func (e *Event) JoinRule() (rule string, allow []RoomID, err error) { return "", nil, ErrBadJSON }
func (e *Event) HistoryVisibility() string                          { return "shared" }
func (e *Event) Creators() []UserID                                 { return nil }

type CreateContent struct {
	RoomVersion        string // "1" when the key is not there
	Type               string
	Federate           bool
	Predecessor        *Predecessor
	Creator            UserID
	AdditionalCreators []UserID
}

type Predecessor struct {
	Room  RoomID
	Event EventID
}

func (e *Event) CreateContent() (CreateContent, error) { return CreateContent{}, ErrBadJSON }

type Hash = [sha256.Size]byte

func ContentHash(v *Version, pdu []byte) (Hash, error)   { return Hash{}, ErrBadJSON }
func ReferenceHash(v *Version, pdu []byte) (Hash, error) { return Hash{}, ErrBadJSON }
func (e *Event) VerifyContentHash() bool                 { return false }
func (e *Event) ReferenceHash() (Hash, error)            { return ReferenceHash(e.Version, e.pdu) }
func Redact(v *Version, pdu []byte) ([]byte, error)      { return nil, ErrBadJSON }
func (e *Event) RedactedCopy() (*Event, error)           { return nil, ErrBadJSON }

type SigningKey struct {
	ID      string // "ed25519:abc"
	Private ed25519.PrivateKey
}

// SignEvent adds a signature and nothing else (no hashes): invites that we countersign.
func SignEvent(v *Version, pdu []byte, server ServerName, key SigningKey) ([]byte, error) {
	return nil, ErrBadJSON
}

// HashAndSign sets hashes and adds a signature: a filled make_join template becomes an event.
func HashAndSign(v *Version, pdu []byte, server ServerName, key SigningKey) ([]byte, error) {
	return nil, ErrBadJSON
}
func SignJSON(obj []byte, entity string, key SigningKey) ([]byte, error) { return nil, ErrBadJSON }

var ErrBadSignature = errors.New("bad signature")

func VerifyJSON(obj []byte, entity, keyID string, public ed25519.PublicKey) error {
	return ErrBadSignature
}
func (e *Event) VerifySignature(server ServerName, keyID string, public ed25519.PublicKey) error {
	return ErrBadSignature
}
func (e *Event) Signatures() (map[ServerName][]string, error) { return nil, ErrBadJSON }
func (e *Event) RequiredSigners() []ServerName                { return nil }

type Draft struct {
	Room           RoomID
	Sender         UserID
	Type           string
	StateKey       *string
	Content        jsontext.Value
	Redacts        EventID
	OriginServerTS int64
}

// Placing: PrevHashes and AuthHashes are the reference hashes of Prev and Auth, for versions 1 and 2 only.
type Placing struct {
	Prev, Auth             []EventID
	PrevHashes, AuthHashes []Hash
	Depth                  int64
}

func (d Draft) Build(v *Version, p Placing, server ServerName, key SigningKey) (*Event, error) {
	return nil, ErrBadJSON
}
