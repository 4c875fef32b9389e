package matrix

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// Draft is an event before it has a place in its room.
type Draft struct {
	// Room is ignored for the create event of a version that derives it.
	Room     RoomID
	Sender   UserID
	Type     string
	StateKey *string // nil: not a state event
	// Content is an object. In versions from 6 on its numbers must be canonical.
	Content jsontext.Value
	// Redacts is the target of an m.room.redaction; it is put where the version
	// has it. Empty for other types.
	Redacts EventID
	// OriginServerTS is in milliseconds since 1970.
	OriginServerTS int64
}

// Placing is an event's place in its room.
type Placing struct {
	Prev, Auth []EventID
	// PrevHashes and AuthHashes are the reference hashes of Prev and Auth, in the
	// same order, for versions 1 and 2; other versions ignore them.
	PrevHashes, AuthHashes []Hash
	Depth                  int64 // more than the version's maximum becomes the maximum
}

// Build makes the event: canonical, with hashes, the signature of server and its
// ID. In versions 1 and 2 the ID is made of the draft and the name of server. Errors wrap
// [ErrNotJSON], [ErrBadJSON] or [ErrTooLarge] when the draft is at fault.
func (d Draft) Build(v *Version, p Placing, server ServerName, key SigningKey) (*Event, error) {
	pdu, err := d.pdu(v, p, server)
	if err != nil {
		return nil, fmt.Errorf("build %s event: %w", clip(d.Type), err)
	}
	pdu, err = HashAndSign(v, pdu, server, key)
	if err != nil {
		return nil, fmt.Errorf("build %s event: %w", clip(d.Type), err)
	}
	e, err := Parse(v, pdu)
	if err != nil {
		return nil, fmt.Errorf("build %s event: %w", clip(d.Type), err)
	}
	return e, nil
}

// pdu writes the event without hashes and signatures, its members in order.
func (d Draft) pdu(v *Version, p Placing, server ServerName) ([]byte, error) {
	if len(d.Type) > MaxIDBytes || d.StateKey != nil && len(*d.StateKey) > MaxIDBytes {
		return nil, fmt.Errorf("%w: a type or state key of more than %d bytes", ErrTooLarge, MaxIDBytes)
	}
	content, err := d.content(v)
	if err != nil {
		return nil, fmt.Errorf("content: %w", err)
	}
	dst := make([]byte, 0, len(content)+1024)
	dst = appendIDs(append(dst, `{"auth_events":`...), v, p.Auth, p.AuthHashes)
	dst = append(append(dst, `,"content":`...), content...)
	dst = strconv.AppendInt(append(dst, `,"depth":`...), min(p.Depth, v.MaxDepth), 10)
	behindDepth := len(dst)
	dst = strconv.AppendInt(append(dst, `,"origin_server_ts":`...), d.OriginServerTS, 10)
	dst = appendIDs(append(dst, `,"prev_events":`...), v, p.Prev, p.PrevHashes)
	if d.Redacts != "" && !v.RedactsInContent {
		dst = appendQuoted(append(dst, `,"redacts":`...), string(d.Redacts))
	}
	if !v.RoomIDIsHash || d.Type != "m.room.create" {
		dst = appendQuoted(append(dst, `,"room_id":`...), string(d.Room))
	}
	dst = appendQuoted(append(dst, `,"sender":`...), string(d.Sender))
	if d.StateKey != nil {
		dst = appendQuoted(append(dst, `,"state_key":`...), *d.StateKey)
	}
	dst = append(appendQuoted(append(dst, `,"type":`...), d.Type), '}')
	if v.EventIDs == EventIDGiven {
		id := appendQuoted([]byte(`,"event_id":`), string(givenEventID(dst, server)))
		dst = slices.Insert(dst, behindDepth, id...)
	}
	return dst, nil
}

// content is the draft's content in canonical form, with redacts if it goes there.
func (d Draft) content(v *Version) ([]byte, error) {
	doc, err := readObject(d.Content, numbersOf(v))
	if err != nil {
		return nil, err
	}
	defer doc.free()
	dst := make([]byte, 0, len(d.Content)+MaxIDBytes)
	if d.Redacts == "" || !v.RedactsInContent {
		return doc.appendValue(dst, root), nil
	}
	return doc.appendWith(dst, root, "redacts", func(dst []byte, _ int32) []byte {
		return appendQuoted(dst, string(d.Redacts))
	}), nil
}

// appendIDs writes prev_events or auth_events: IDs, or pairs of an ID and hashes
// where the version has them.
func appendIDs(dst []byte, v *Version, ids []EventID, hashes []Hash) []byte {
	dst = append(dst, '[')
	for i, id := range ids {
		if i > 0 {
			dst = append(dst, ',')
		}
		if v.EventIDs != EventIDGiven {
			dst = appendQuoted(dst, string(id))
			continue
		}
		dst = append(appendQuoted(append(dst, '['), string(id)), `,{`...)
		if i < len(hashes) {
			dst = appendQuoted(append(dst, `"sha256":`...), encodeBase64(hashes[i][:]))
		}
		dst = append(dst, `}]`...)
	}
	return append(dst, ']')
}

// givenEventID makes the ID of an event of versions 1 and 2 from all else that the event
// says: the same draft has the same ID each time, and no other one has it.
func givenEventID(pdu []byte, server ServerName) EventID {
	sum := sha256.Sum256(pdu)
	return EventID("$" + base64.RawURLEncoding.EncodeToString(sum[:18]) + ":" + string(server))
}
