package matrix

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
)

// Hash is a SHA-256 digest: an event's content hash or reference hash.
type Hash [sha256.Size]byte

// ContentHash covers all of a PDU but unsigned, signatures and hashes: what its
// hashes member must say. Specification: server-server API, "Calculating the
// content hash for an event".
func ContentHash(v *Version, pdu []byte) (Hash, error) {
	d, err := readObject(pdu, numbersOf(v))
	if err != nil {
		return Hash{}, fmt.Errorf("content hash: %w", err)
	}
	defer d.free()
	return d.contentHash(), nil
}

// ReferenceHash covers what redaction leaves of a PDU, but signatures and unsigned:
// the event's ID from version 3 on. Specification: server-server API, "Calculating
// the reference hash for an event".
func ReferenceHash(v *Version, pdu []byte) (Hash, error) {
	d, err := readObject(pdu, numbersOf(v))
	if err != nil {
		return Hash{}, fmt.Errorf("reference hash: %w", err)
	}
	defer d.free()
	hash, err := d.referenceHash(v)
	if err != nil {
		return Hash{}, fmt.Errorf("reference hash: %w", err)
	}
	return hash, nil
}

// ReferenceHash is the event's reference hash, which in versions 1 and 2 stands
// beside its ID in the prev_events and auth_events of others.
func (e *Event) ReferenceHash() (Hash, error) {
	return ReferenceHash(e.Version, e.pdu)
}

// VerifyContentHash reports whether the event is whole. One whose hash does not
// fit is used in its redacted form (server-server API, "Validating hashes and
// signatures on received events").
func (e *Event) VerifyContentHash() bool {
	d, err := readObject(e.pdu, numbersOf(e.Version))
	if err != nil {
		return false
	}
	defer d.free()
	text, err := d.stringAt(d.member(d.member(root, "hashes"), "sha256"))
	if err != nil {
		return false
	}
	claimed, err := decodeBase64(text)
	if err != nil {
		return false
	}
	actual := d.contentHash()
	return string(claimed) == string(actual[:])
}

func (d *document) contentHash() Hash {
	d.out = d.appendWithout(d.out[:0], root, "unsigned", "signatures", "hashes")
	return sha256.Sum256(d.out)
}

func (d *document) referenceHash(v *Version) (Hash, error) {
	if err := d.setSignedText(v); err != nil {
		return Hash{}, err
	}
	return sha256.Sum256(d.out), nil
}

// setSignedText puts into d.out the text of a PDU that is signed, and hashed for
// its reference hash. (Redaction drops unsigned too.)
func (d *document) setSignedText(v *Version) error {
	out, err := d.appendRedacted(d.out[:0], v, "signatures")
	if err != nil {
		return err
	}
	d.out = out
	return nil
}

// eventID is the ID of the event with that reference hash, in versions that
// derive it.
func (h Hash) eventID(format EventIDFormat) EventID {
	encoding := base64.RawURLEncoding
	if format == EventIDHash {
		encoding = base64.RawStdEncoding
	}
	return EventID(encoding.AppendEncode([]byte{'$'}, h[:]))
}

// encodeBase64 writes unpadded base64 (appendices, "Unpadded Base64").
func encodeBase64(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

// decodeBase64 reads base64 with or without padding. Line breaks, which Go's
// decoder would skip, are refused.
func decodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, fmt.Errorf("%w: line break in base64", ErrBadJSON)
	}
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadJSON, err)
	}
	return b, nil
}
