package remote

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// SignedRequest is what the signature of a request covers.
//
// Spec: SS Request Authentication, step 1.
type SignedRequest struct {
	Method      string
	URI         string // path and query, exactly as sent
	Origin      matrix.ServerName
	Destination matrix.ServerName // "": not part of it, as with old servers
	Content     jsontext.Value    // nil: the request has no body
}

// loose is how the first room versions read JSON: their events, which a request may
// carry, have numbers of any kind.
var loose = matrix.Versions()[0]

// text returns the JSON that is signed, around the content as it is given.
func (q SignedRequest) text(content []byte) ([]byte, error) {
	rest, err := json.Marshal(struct {
		Destination matrix.ServerName `json:"destination,omitempty"`
		Method      string            `json:"method"`
		Origin      matrix.ServerName `json:"origin"`
		URI         string            `json:"uri"`
	}{q.Destination, q.Method, q.Origin, q.URI})
	if err == nil {
		rest, err = matrix.Canonical(rest)
	}
	if err != nil || content == nil {
		return rest, err
	}
	// "content" comes before the other names.
	text := make([]byte, 0, len(content)+len(rest)+16)
	text = append(append(text, `{"content":`...), content...)
	return append(append(text, ','), rest[1:]...), nil
}

// canonical returns the canonical JSON that is signed.
func (q SignedRequest) canonical() ([]byte, error) {
	if q.Content == nil {
		return q.text(nil)
	}
	content, err := matrix.CanonicalFor(loose, q.Content)
	if err != nil {
		return nil, err
	}
	return q.text(content)
}

// whole is canonical with numbers that are written with exponents or fractions and are
// whole as whole numbers, as the appendices say.
func (q SignedRequest) whole() ([]byte, error) {
	content, err := matrix.Canonical(q.Content)
	if err != nil {
		return nil, err
	}
	return q.text(content)
}

// written returns the JSON that is signed with the content as it was written, but for
// blanks. That is what nearly all servers sign. It serves for content that has no
// canonical form, too, or one that another server does not write as we do: names that
// come twice, fractions, text that is no Unicode. One such event must not spoil a
// transaction; whoever sends it writes what he signs.
func (q SignedRequest) written() ([]byte, error) {
	text, err := q.text(q.Content)
	if err != nil || q.Content == nil {
		return text, err
	}
	// What is no single value would say something else of the request than its headers.
	if !q.Content.IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) {
		return nil, matrix.ErrNotJSON
	}
	blank := func(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }
	kept, quoted := text[:0], false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quoted && c == '\\' && i+1 < len(text):
			kept = append(kept, c)
			i++
			c = text[i]
		case c == '"':
			quoted = !quoted
		case !quoted && blank(c):
			continue
		}
		kept = append(kept, c)
	}
	return kept, nil
}

const (
	// smallContent is so little that how many requests there may be bounds it.
	smallContent = 128 << 10
	// nodesWeight is what the values of a document may take beside its text, for each
	// byte of that and at most. See matrix.Canonical.
	nodesWeight    = 15
	maxNodesWeight = 16 << 20
)

// verifyRequest checks a signature on a request: on what was written first, and on its
// canonical forms if that does not fit. These take much memory, which comes from the
// budget: whoever sends the request has signed nothing yet.
func (n *Network) verifyRequest(ctx context.Context, q SignedRequest, public ed25519.PublicKey, signature string) error {
	size := int64(len(q.Content))
	err := n.weighed(ctx, q, size, func() error { return q.verify(public, signature, q.written) })
	if !errors.Is(err, matrix.ErrBadSignature) || q.Content == nil {
		return err
	}
	weight := 2*size + min(nodesWeight*size, maxNodesWeight)
	return n.weighed(ctx, q, weight, func() error { return q.verify(public, signature, q.canonical, q.whole) })
}

// weighed runs fn with so many bytes of the budget, unless the request is small.
func (n *Network) weighed(ctx context.Context, q SignedRequest, bytes int64, fn func() error) error {
	if len(q.Content) > smallContent {
		release, err := n.config.Budget(ctx, bytes)
		if err != nil {
			return err
		}
		defer release()
	}
	return fn()
}

// signature returns the request's signature with a key, in unpadded base64.
func (q SignedRequest) signature(key matrix.SigningKey) (string, error) {
	text, err := q.canonical()
	if err != nil {
		return "", fmt.Errorf("sign a request: %w", err)
	}
	return base64.RawStdEncoding.EncodeToString(ed25519.Sign(key.Private, text)), nil
}

// verify checks a signature on one of some forms of the request. One that it does not
// have is passed over, but that its content is no JSON is an error.
func (q SignedRequest) verify(public ed25519.PublicKey, signature string, forms ...func() ([]byte, error)) error {
	sig, err := decodeBase64(signature)
	if err != nil || len(public) != ed25519.PublicKeySize {
		return fmt.Errorf("a request of %s: %w", q.Origin, matrix.ErrBadSignature)
	}
	for _, form := range forms {
		text, err := form()
		if errors.Is(err, matrix.ErrNotJSON) {
			return fmt.Errorf("a request of %s: %w", q.Origin, err)
		}
		if err == nil && ed25519.Verify(public, text, sig) {
			return nil
		}
	}
	return fmt.Errorf("a request of %s: %w", q.Origin, matrix.ErrBadSignature)
}

// authorization returns the header of a request that we sign.
//
// Spec: SS Request Authentication, step 2, in the form for old servers.
func (n *Network) authorization(q SignedRequest) (string, error) {
	key := n.config.Key()
	sig, err := q.signature(key)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`X-Matrix origin="%s",destination="%s",key="%s",sig="%s"`, q.Origin, q.Destination, key.ID, sig), nil
}

// encodeBody returns the JSON of a body in canonical form, which is what the
// signature covers.
func encodeBody(body any) (jsontext.Value, error) {
	if body == nil {
		return nil, nil
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode the body: %w", err)
	}
	return matrix.CanonicalFor(loose, text)
}

// errNotBase64 is wrapped where a key or signature is not written as it should be.
var errNotBase64 = errors.New("not base64")

// decodeBase64 reads base64, with or without padding (appendices, "Unpadded
// Base64").
func decodeBase64(s string) ([]byte, error) {
	b, err := base64.RawStdEncoding.DecodeString(string(bytes.TrimRight([]byte(s), "=")))
	if err != nil {
		return nil, errNotBase64
	}
	return b, nil
}
