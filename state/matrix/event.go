package matrix

import (
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits on an event. Specification: client-server API, "Size limits"; room
// versions, "Event format".
const (
	MaxEventBytes = 65536 // of the whole PDU as canonical JSON, without unsigned
	MaxPrevEvents = 20
	MaxAuthEvents = 10
)

// maxPDUBytes bounds a PDU before it is read: white space and escapes can make it
// longer than its canonical form, within reason.
const maxPDUBytes = 8 * MaxEventBytes

// Event is a PDU whose form was checked. It does not change once it is made; its
// slices and pointers must not be changed either.
type Event struct {
	ID       EventID
	Room     RoomID // from version 12 on, the create event's is derived from its hash
	Sender   UserID
	Type     string
	StateKey *string // nil: not a state event
	// Content is an object, raw; it aliases the PDU's bytes.
	Content jsontext.Value
	// PrevEvents are the event's parents in the graph of the room.
	PrevEvents []EventID
	// AuthEvents are the events that its sender says allow it. From version 12 on
	// the create event is not among them, as the room's ID implies it.
	AuthEvents []EventID
	// Depth is the greatest depth of the parents plus one, or so its server says.
	Depth int64
	// OriginServerTS is in milliseconds since 1970 by the clock of its server.
	OriginServerTS int64
	// Redacts is the target of an m.room.redaction, from where the version keeps
	// it. It is empty for other types and when there is no valid ID in that place.
	Redacts EventID
	Version *Version
	// Unchecked: its signatures could not be checked, it is used on the word of a server
	// that gave it, until they can be. It is the caller's to say.
	Unchecked bool

	pdu []byte
}

// Parse checks a PDU from anywhere, but for its hashes, signatures and the
// authorization rules, and computes its ID. It keeps pdu, which must not change
// afterwards. Errors wrap [ErrNotJSON], [ErrBadJSON] or [ErrTooLarge].
func Parse(v *Version, pdu []byte) (*Event, error) {
	return parse(v, pdu, "")
}

// ParseTrusted makes an Event of a PDU that Parse accepted before and that is
// known to have that ID: it spares the hashing. It keeps pdu.
func ParseTrusted(v *Version, pdu []byte, id EventID) (*Event, error) {
	if e, ok := readTrusted(v, pdu, id); ok {
		return e, nil
	}
	e, err := parse(v, pdu, id)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", id, err)
	}
	return e, nil
}

// JSON is the PDU as it came, but without unsigned. A PDU that came with so much
// white space or so many escapes that it exceeds [MaxEventBytes] is in its
// canonical form. Do not change it.
func (e *Event) JSON() []byte { return e.pdu }

// IsState reports whether this is a state event.
func (e *Event) IsState() bool { return e.StateKey != nil }

// Is reports whether this is the state event of that type and state key.
func (e *Event) Is(typ, stateKey string) bool {
	return e.StateKey != nil && e.Type == typ && *e.StateKey == stateKey
}
