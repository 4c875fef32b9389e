package e2ee

import (
	"bytes"
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// Signatures are signatures by who signed and by the ID of the signing key.
type Signatures map[matrix.UserID]map[string]string

// Put adds one.
func (s Signatures) Put(user matrix.UserID, keyID, signature string) {
	if s[user] == nil {
		s[user] = make(map[string]string)
	}
	s[user][keyID] = signature
}

// WithSignatures returns an object with more signatures, and with another
// unsigned, or none. All else stays as it is, byte by byte.
func WithSignatures(object jsontext.Value, added Signatures, unsigned jsontext.Value) (jsontext.Value, error) {
	var out bytes.Buffer
	dec, enc := jsontext.NewDecoder(bytes.NewReader(object)), jsontext.NewEncoder(&out)
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	signatures := make(Signatures)
	fault := enc.WriteToken(jsontext.BeginObject)
	for dec.PeekKind() == '"' {
		token, nameErr := dec.ReadToken()
		name := token.String()
		value, err := dec.ReadValue()
		if err := errors.Join(nameErr, err); err != nil {
			return nil, err
		}
		switch name {
		case "signatures":
			if value.Kind() == '{' {
				fault = errors.Join(fault, json.Unmarshal(value, &signatures))
			}
		case "unsigned":
		default:
			fault = errors.Join(fault, enc.WriteToken(jsontext.String(name)), enc.WriteValue(value))
		}
	}
	for user, keys := range added {
		for keyID, signature := range keys {
			signatures.Put(user, keyID, signature)
		}
	}
	if len(signatures) > 0 {
		fault = errors.Join(fault, enc.WriteToken(jsontext.String("signatures")),
			json.MarshalEncode(enc, signatures, json.Deterministic(true)))
	}
	if unsigned != nil {
		fault = errors.Join(fault, enc.WriteToken(jsontext.String("unsigned")), enc.WriteValue(unsigned))
	}
	fault = errors.Join(fault, enc.WriteToken(jsontext.EndObject))
	return bytes.TrimSpace(out.Bytes()), fault
}
