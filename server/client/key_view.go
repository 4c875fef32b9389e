package client

import (
	"bytes"
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// keyView is what one user may see of keys and signatures, within one View.
//
// "To avoid leaking of social graphs, servers will only allow users to see:
// signatures made by the user's own master signing, self-signing or user-signing
// keys, signatures made by the user's own devices about their own master key,
// signatures made by other users' self-signing keys about their respective
// devices, signatures made by other users' master signing keys about their
// respective self-signing key, or signatures made by other users' devices about
// their respective master signing keys."
//
// So one sees of a key what its owner has signed about it and what one has
// signed about it oneself. User-signing keys sign other users' keys alone.
//
// Spec: CS Key and signature security.
type keyView struct {
	tx  *store.Tx
	who session
}

// devices returns the keys of a local user's devices: of all that have keys, or
// of those that are named.
func (v keyView) devices(user store.UserNum, named []matrix.DeviceID) (map[matrix.DeviceID]jsontext.Value, error) {
	all := make(map[matrix.DeviceID]jsontext.Value)
	add := func(d store.Device) error {
		keys, err := v.device(user, d)
		if keys != nil {
			all[d.ID] = keys
		}
		return err
	}
	if len(named) == 0 {
		return all, v.tx.Devices(user, func(d store.Device) (bool, error) { return true, add(d) })
	}
	for _, id := range named {
		d, err := v.tx.Device(user, id)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err == nil {
			err = add(d)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// device returns the keys of a device with its name and the signatures about
// them, nil where it has none.
func (v keyView) device(user store.UserNum, d store.Device) (jsontext.Value, error) {
	keys, err := v.tx.DeviceKeys(user, d.ID)
	if err != nil {
		return nil, unlessNotFound(err)
	}
	var unsigned struct {
		Name string `json:"device_display_name,omitzero"`
	}
	unsigned.Name = d.Name
	text, err := json.Marshal(unsigned)
	if err != nil {
		return nil, err
	}
	return v.sign(keys, user, string(d.ID), text)
}

// crossSigning returns a user's cross-signing key with the signatures about it,
// nil where there is none to see: the user-signing key is its owner's business.
func (v keyView) crossSigning(user store.UserNum, usage store.Usage) (jsontext.Value, error) {
	if usage == store.UsageUserSigning && user != v.who.num {
		return nil, nil
	}
	key, err := v.tx.CrossSigningKey(user, usage)
	if err != nil {
		return nil, unlessNotFound(err)
	}
	return v.sign(key.JSON, user, key.Public, nil)
}

// sign returns a key's object with the signatures about it that were uploaded
// later, and with another unsigned.
func (v keyView) sign(object jsontext.Value, owner store.UserNum, name string, unsigned jsontext.Value) (jsontext.Value, error) {
	added := make(keySignatures)
	signers := []store.UserNum{owner}
	if owner != v.who.num {
		signers = append(signers, v.who.num)
	}
	for _, signer := range signers {
		id := v.tx.UserID(signer)
		err := v.tx.KeySignatures(signer, owner, name, func(s store.KeySignature) (bool, error) {
			added.put(id, s.KeyID, s.Signature)
			return true, nil
		})
		if err != nil {
			return nil, err
		}
	}
	return withSignatures(object, added, unsigned)
}

func (s keySignatures) put(user matrix.UserID, keyID, signature string) {
	if s[user] == nil {
		s[user] = make(map[string]string)
	}
	s[user][keyID] = signature
}

// withSignatures returns an object with more signatures, and with another
// unsigned, or none. All else stays as it is, byte by byte.
func withSignatures(object jsontext.Value, added keySignatures, unsigned jsontext.Value) (jsontext.Value, error) {
	var out bytes.Buffer
	dec, enc := jsontext.NewDecoder(bytes.NewReader(object)), jsontext.NewEncoder(&out)
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	signatures := make(keySignatures)
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
			signatures.put(user, keyID, signature)
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

// unlessNotFound returns an error unless it says that something is not there.
func unlessNotFound(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
