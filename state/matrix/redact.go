package matrix

import "fmt"

// redaction is what redacting leaves of an event. Specification: room versions,
// "Redactions".
type redaction struct {
	event   []string            // members of the event
	content map[string][]string // members of the content, by event type

	// wholeCreate: m.room.create keeps all its content.
	wholeCreate bool
	// signedInvite: m.room.member keeps signed of third_party_invite.
	signedInvite bool
}

var (
	redactedEventV1 = []string{
		"event_id", "type", "room_id", "sender", "state_key", "content", "hashes", "signatures",
		"depth", "prev_events", "prev_state", "auth_events", "origin", "origin_server_ts", "membership",
	}
	redactedEventV11 = []string{
		"event_id", "type", "room_id", "sender", "state_key", "content", "hashes", "signatures",
		"depth", "prev_events", "auth_events", "origin_server_ts",
	}
	redactedLevelsV1 = []string{
		"ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default",
	}
	redactedLevelsV11 = []string{
		"ban", "events", "events_default", "invite", "kick", "redact", "state_default", "users",
		"users_default",
	}
)

// The redaction algorithms, named for the version that brought them.
var (
	redactionV1 = &redaction{
		event: redactedEventV1,
		content: map[string][]string{
			"m.room.member":             {"membership"},
			"m.room.create":             {"creator"},
			"m.room.join_rules":         {"join_rule"},
			"m.room.power_levels":       redactedLevelsV1,
			"m.room.aliases":            {"aliases"},
			"m.room.history_visibility": {"history_visibility"},
		},
	}
	redactionV6 = &redaction{
		event: redactedEventV1,
		content: map[string][]string{
			"m.room.member":             {"membership"},
			"m.room.create":             {"creator"},
			"m.room.join_rules":         {"join_rule"},
			"m.room.power_levels":       redactedLevelsV1,
			"m.room.history_visibility": {"history_visibility"},
		},
	}
	redactionV8 = &redaction{
		event: redactedEventV1,
		content: map[string][]string{
			"m.room.member":             {"membership"},
			"m.room.create":             {"creator"},
			"m.room.join_rules":         {"join_rule", "allow"},
			"m.room.power_levels":       redactedLevelsV1,
			"m.room.history_visibility": {"history_visibility"},
		},
	}
	redactionV9 = &redaction{
		event: redactedEventV1,
		content: map[string][]string{
			"m.room.member":             {"membership", "join_authorised_via_users_server"},
			"m.room.create":             {"creator"},
			"m.room.join_rules":         {"join_rule", "allow"},
			"m.room.power_levels":       redactedLevelsV1,
			"m.room.history_visibility": {"history_visibility"},
		},
	}
	redactionV11 = &redaction{
		event: redactedEventV11,
		content: map[string][]string{
			"m.room.member":             {"membership", "join_authorised_via_users_server"},
			"m.room.join_rules":         {"join_rule", "allow"},
			"m.room.power_levels":       redactedLevelsV11,
			"m.room.history_visibility": {"history_visibility"},
			"m.room.redaction":          {"redacts"},
		},
		wholeCreate: true, signedInvite: true,
	}
)

// Redact strips a PDU to what redaction leaves of it in version v, as canonical
// JSON. Redacting twice is redacting once, and keeps the event's ID and signatures.
func Redact(v *Version, pdu []byte) ([]byte, error) {
	d, err := readObject(pdu, numbersOf(v))
	if err != nil {
		return nil, fmt.Errorf("redact event: %w", err)
	}
	defer d.free()
	redacted, err := d.appendRedacted(make([]byte, 0, len(pdu)), v)
	if err != nil {
		return nil, fmt.Errorf("redact event: %w", err)
	}
	return redacted, nil
}

// RedactedCopy is the event as redaction leaves it, under the same ID.
func (e *Event) RedactedCopy() (*Event, error) {
	pdu, err := Redact(e.Version, e.pdu)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.ID, err)
	}
	redacted, err := ParseTrusted(e.Version, pdu, e.ID)
	if err == nil {
		redacted.Unchecked = e.Unchecked
	}
	return redacted, err
}

// appendRedacted writes the document, a PDU, as redaction leaves it, without the
// members in drop.
func (d *document) appendRedacted(dst []byte, v *Version, drop ...string) ([]byte, error) {
	content := d.member(root, "content")
	if d.nodes[content].kind != '{' {
		return nil, fmt.Errorf("%w: content is no object", ErrBadJSON)
	}
	typ, err := d.stringAt(d.member(root, "type"))
	if err != nil {
		return nil, fmt.Errorf("type: %w", err)
	}
	dst = append(dst, '{')
	for m := d.nodes[root].first; m != 0; m = d.nodes[m].next {
		name := d.text(m)
		switch {
		case !contains(v.redaction.event, name) || contains(drop, name):
		case m+1 == content:
			dst = d.appendRedactedContent(d.appendName(dst, m), content, v.redaction, typ)
		default:
			dst = d.appendMember(dst, m)
		}
	}
	return append(dst, '}'), nil
}

func (d *document) appendRedactedContent(dst []byte, content int32, r *redaction, typ string) []byte {
	if r.wholeCreate && typ == "m.room.create" {
		return d.appendValue(dst, content)
	}
	keep := r.content[typ]
	signedInvite := r.signedInvite && typ == "m.room.member"
	dst = append(dst, '{')
	for m := d.nodes[content].first; m != 0; m = d.nodes[m].next {
		name := d.text(m)
		switch {
		case contains(keep, name):
			dst = d.appendMember(dst, m)
		case signedInvite && string(name) == "third_party_invite" && d.nodes[m+1].kind == '{':
			// Without signed the invite stays as an empty object: the text leaves it
			// open, and this is what the other servers hash.
			dst = append(d.appendName(dst, m), '{')
			if signed := d.member(m+1, "signed"); signed != 0 {
				dst = d.appendMember(dst, signed-1)
			}
			dst = append(dst, '}')
		}
	}
	return append(dst, '}')
}
