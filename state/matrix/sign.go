package matrix

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
)

// SigningKey signs for this server. ID is "ed25519:" and the key's name.
type SigningKey struct {
	ID      string
	Private ed25519.PrivateKey
}

// ErrBadSignature is wrapped when a signature is missing, malformed or wrong.
var ErrBadSignature = errors.New("signature does not verify")

const signatureAlgorithm = "ed25519:"

// SignJSON adds a signature of entity to an object and returns it as canonical
// JSON. Other signatures and unsigned stay. Specification: appendices, "Signing
// Details".
func SignJSON(obj []byte, entity string, key SigningKey) ([]byte, error) {
	d, err := readObject(obj, integersRewritten)
	if err != nil {
		return nil, fmt.Errorf("sign JSON: %w", err)
	}
	defer d.free()
	d.out = d.appendWithout(d.out[:0], root, "signatures", "unsigned")
	return d.appendSigned(make([]byte, 0, len(obj)+256), entity, key), nil
}

// SignEvent adds a signature of server to a PDU and returns it as canonical JSON.
// It leaves hashes as they are: so one signs the event of another server, an
// invite or a restricted join.
func SignEvent(v *Version, pdu []byte, server ServerName, key SigningKey) ([]byte, error) {
	d, err := readObject(pdu, numbersOf(v))
	if err != nil {
		return nil, fmt.Errorf("sign event: %w", err)
	}
	defer d.free()
	if err := d.setSignedText(v); err != nil {
		return nil, fmt.Errorf("sign event: %w", err)
	}
	return d.appendSigned(make([]byte, 0, len(pdu)+256), string(server), key), nil
}

// HashAndSign makes an event of our own complete: it sets hashes and adds a
// signature of server. Specification: server-server API, "Adding hashes and
// signatures to outgoing events".
func HashAndSign(v *Version, pdu []byte, server ServerName, key SigningKey) ([]byte, error) {
	d, err := readObject(pdu, numbersOf(v))
	if err != nil {
		return nil, fmt.Errorf("hash event: %w", err)
	}
	defer d.free()
	hash := d.contentHash()
	hashed := d.appendWith(make([]byte, 0, len(pdu)+128), root, "hashes", func(dst []byte, _ int32) []byte {
		dst = append(dst, `{"sha256":`...)
		return append(appendQuoted(dst, encodeBase64(hash[:])), '}')
	})
	return SignEvent(v, hashed, server, key)
}

// VerifyJSON checks the signature of entity with that key on an object; an error
// wraps [ErrBadSignature] when the object is sound and the signature is not.
// Specification: appendices, "Checking for a Signature".
func VerifyJSON(obj []byte, entity, keyID string, public ed25519.PublicKey) error {
	d, err := readObject(obj, integersRewritten)
	if err != nil {
		return fmt.Errorf("verify JSON: %w", err)
	}
	defer d.free()
	d.out = d.appendWithout(d.out[:0], root, "signatures", "unsigned")
	if err := d.verify(entity, keyID, public); err != nil {
		return fmt.Errorf("verify JSON: %w", err)
	}
	return nil
}

// VerifySignature checks the signature of server with that key on the event; it
// holds for the whole event and for its redacted form alike.
func (e *Event) VerifySignature(server ServerName, keyID string, public ed25519.PublicKey) error {
	d, err := readObject(e.pdu, numbersOf(e.Version))
	if err != nil {
		return fmt.Errorf("verify %s: %w", e.ID, err)
	}
	defer d.free()
	if err := d.setSignedText(e.Version); err != nil {
		return fmt.Errorf("verify %s: %w", e.ID, err)
	}
	if err := d.verify(string(server), keyID, public); err != nil {
		return fmt.Errorf("verify %s: %w", e.ID, err)
	}
	return nil
}

// Signatures lists the key IDs with which each server signed, whether or not the
// signatures are good. Entities that are no server names are left out.
func (e *Event) Signatures() (map[ServerName][]string, error) {
	d, err := readObject(e.pdu, numbersOf(e.Version))
	if err != nil {
		return nil, fmt.Errorf("signatures of %s: %w", e.ID, err)
	}
	defer d.free()
	signers := make(map[ServerName][]string, 1)
	for m := d.firstMember(d.member(root, "signatures")); m != 0; m = d.nodes[m].next {
		server, err := ParseServerName(string(d.text(m)))
		if err != nil {
			continue
		}
		for key := d.firstMember(m + 1); key != 0; key = d.nodes[key].next {
			signers[server] = append(signers[server], string(d.text(key)))
		}
	}
	return signers, nil
}

// RequiredSigners lists the servers without whose signatures the event is not
// accepted: that of the sender; in versions 1 and 2 that of the event's ID; from 8
// on that of the user who authorised a restricted join, wherever a member event
// names one. A third-party invite needs none of its sender, as the invite's own
// signature is what the authorization rules check. Specification: server-server API,
// "Validating hashes and signatures on received events"; rooms, rule 4.2.1 of
// versions 8 to 11 and 5.2.1 of version 12.
func (e *Event) RequiredSigners() []ServerName {
	var member MemberContent
	if e.Type == "m.room.member" {
		member, _ = e.Member() // unreadable: the authorization rules refuse it
	}
	signers := make([]ServerName, 0, 2)
	if member.Membership != Invite || member.ThirdPartyInvite == nil {
		signers = append(signers, e.Sender.Server())
	}
	if server, ok := e.ID.Server(); ok && e.Version.EventIDs == EventIDGiven {
		signers = appendNew(signers, server)
	}
	if member.AuthorisedVia != "" {
		signers = appendNew(signers, member.AuthorisedVia.Server())
	}
	return signers
}

func appendNew(names []ServerName, name ServerName) []ServerName {
	for _, n := range names {
		if n == name {
			return names
		}
	}
	return append(names, name)
}

// appendSigned writes the document with a signature over d.out added.
func (d *document) appendSigned(dst []byte, entity string, key SigningKey) []byte {
	return d.appendSignature(dst, entity, key.ID, encodeBase64(ed25519.Sign(key.Private, d.out)))
}

// appendSignature writes the document with a signature added.
func (d *document) appendSignature(dst []byte, entity, keyID, signature string) []byte {
	return d.appendWith(dst, root, "signatures", func(dst []byte, signatures int32) []byte {
		return d.appendWith(dst, signatures, entity, func(dst []byte, keys int32) []byte {
			return d.appendWith(dst, keys, keyID, func(dst []byte, _ int32) []byte {
				return appendQuoted(dst, signature)
			})
		})
	})
}

// verify checks a signature that the document has, over d.out.
func (d *document) verify(entity, keyID string, public ed25519.PublicKey) error {
	if !strings.HasPrefix(keyID, signatureAlgorithm) || len(public) != ed25519.PublicKeySize {
		return fmt.Errorf("%w: key %q is not of ed25519", ErrBadSignature, clip(keyID))
	}
	text, err := d.stringAt(d.member(d.member(d.member(root, "signatures"), entity), keyID))
	if err != nil {
		return fmt.Errorf("%w: none of %q with key %q", ErrBadSignature, clip(entity), clip(keyID))
	}
	signature, err := decodeBase64(text)
	if err != nil || !ed25519.Verify(public, d.out, signature) {
		return fmt.Errorf("%w: of %q with key %q", ErrBadSignature, clip(entity), clip(keyID))
	}
	return nil
}
