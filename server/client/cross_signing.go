package client

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// maxCrossSigningBytes bounds an upload of cross-signing keys.
const maxCrossSigningBytes = 64 << 10

// signingKeyPrefix begins the names of keys that sign.
const signingKeyPrefix = "ed25519:"

type crossSigningRequest struct {
	Master      jsontext.Value `json:"master_key"`
	SelfSigning jsontext.Value `json:"self_signing_key"`
	UserSigning jsontext.Value `json:"user_signing_key"`
}

// crossSigningKeys are checked keys by usage.
type crossSigningKeys map[store.Usage]store.CrossSigningKey

// errMustProve says that an upload changes keys, for which the user must
// authenticate.
var errMustProve = errors.New("the change of cross-signing keys needs authentication")

// uploadCrossSigningKeys answers POST /keys/device_signing/upload.
//
// "User-Interactive Authentication MUST be performed for regular clients, except
// in these cases: there is no existing master signing key uploaded to the
// homeserver, OR there is an existing master signing key and it exactly matches
// the master signing key provided in the request body. If there are any
// additional keys provided in the request (self-signing key, user-signing key)
// they MUST also match the existing keys stored on the server."
//
// Spec: CS Cross-signing.
func (s *Server) uploadCrossSigningKeys(w http.ResponseWriter, r *http.Request, who session) error {
	if err := s.limits.Take(api.LimitKeys, string(who.user)); err != nil {
		return err
	}
	in, err := s.interact(r, who, maxCrossSigningBytes, passwordFlows)
	if err != nil {
		return err
	}
	keys, err := readCrossSigning(in.body, who)
	if err != nil {
		s.finish(in)
		return err
	}
	put := func(proven bool) error {
		return s.store.Update(r.Context(), func(tx *store.Tx) error { return keys.put(tx, who, proven) })
	}
	if err = put(false); errors.Is(err, errMustProve) {
		if _, err := s.prove(r.Context(), in); err != nil {
			return err
		}
		err = put(true)
	}
	s.finish(in)
	switch {
	case errors.Is(err, store.ErrExists):
		return api.ErrForbidden.Because("One of your devices has the public key as its ID")
	case err != nil:
		return fmt.Errorf("upload cross-signing keys of %s: %w", who.user, err)
	}
	return api.WriteEmpty(w)
}

// readCrossSigning reads the keys of an upload and holds each to its form.
func readCrossSigning(body jsontext.Value, who session) (crossSigningKeys, error) {
	var req crossSigningRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, api.ErrBadJSON
	}
	keys := make(crossSigningKeys)
	for _, k := range []struct {
		name   string
		usage  store.Usage
		object jsontext.Value
	}{
		{"master_key", store.UsageMaster, req.Master},
		{"self_signing_key", store.UsageSelfSigning, req.SelfSigning},
		{"user_signing_key", store.UsageUserSigning, req.UserSigning},
	} {
		if !given(k.object) {
			continue
		}
		public, err := checkCrossSigningKey(k.object, k.usage, who)
		if err != nil {
			return nil, api.InvalidParam(k.name, err)
		}
		keys[k.usage] = store.CrossSigningKey{Public: public, JSON: k.object}
	}
	return keys, nil
}

// checkCrossSigningKey holds a key to its form and returns its public part.
//
// Spec: definitions/cross_signing_key.yaml.
func checkCrossSigningKey(object jsontext.Value, usage store.Usage, who session) (public string, err error) {
	var key struct {
		UserID     matrix.UserID     `json:"user_id"`
		Usage      []store.Usage     `json:"usage"`
		Keys       map[string]string `json:"keys"`
		Signatures keySignatures     `json:"signatures"`
	}
	if object.Kind() != '{' || json.Unmarshal(object, &key) != nil {
		return "", errors.New("it does not have the form of a cross-signing key")
	}
	switch {
	case key.UserID != who.user:
		return "", errors.New("user_id is not yours")
	case !slices.Contains(key.Usage, usage):
		return "", fmt.Errorf("usage must have %s", usage)
	case len(key.Keys) != 1:
		return "", errors.New("keys must have exactly one key")
	}
	for name, value := range key.Keys {
		if name != signingKeyPrefix+value {
			return "", errors.New("the key's name must be ed25519: and the key")
		}
		if _, err := publicKey(value); err != nil {
			return "", err
		}
		public = value
	}
	return public, nil
}

// publicKey reads a public ed25519 key from unpadded base64.
func publicKey(text string) (ed25519.PublicKey, error) {
	key, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, errors.New("the key is no ed25519 key in unpadded base64")
	}
	return key, nil
}

// put stores the keys, if that may be. It returns errMustProve, and has changed
// nothing, where the user has not proven who they are and must.
func (keys crossSigningKeys) put(tx *store.Tx, who session, proven bool) error {
	existing := make(crossSigningKeys)
	for _, usage := range store.Usages {
		key, err := tx.CrossSigningKey(who.num, usage)
		if err == nil {
			existing[usage] = key
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	if err := keys.checkSigned(existing, who); err != nil {
		return err
	}
	if _, first := existing[store.UsageMaster]; first && keys.in(existing) {
		return nil
	}
	if _, has := existing[store.UsageMaster]; has && !proven {
		return errMustProve
	}
	return tx.PutCrossSigningKeys(who.num, keys)
}

// in says whether all keys are among others, apart from signatures.
func (keys crossSigningKeys) in(others crossSigningKeys) bool {
	for usage, key := range keys {
		other, has := others[usage]
		if !has || !store.SameKeys(key.JSON, other.JSON) {
			return false
		}
	}
	return true
}

// checkSigned holds the self-signing and user-signing keys to a signature of the
// master key that comes with them, or of the one that is there.
func (keys crossSigningKeys) checkSigned(existing crossSigningKeys, who session) error {
	master, has := keys[store.UsageMaster]
	if !has {
		master, has = existing[store.UsageMaster]
	}
	if !has {
		return api.MissingParam("master_key")
	}
	for usage, key := range keys {
		if usage == store.UsageMaster {
			continue
		}
		if err := verifyKey(key.JSON, who.user, master.Public, master.Public); err != nil {
			return api.ErrInvalidSignature.Because("The %s key is not signed by the master key", strings.ReplaceAll(string(usage), "_", "-"))
		}
	}
	return nil
}

// verifyKey checks the signature that a user's key, of that name and that public
// part, has made about an object.
func verifyKey(object jsontext.Value, signer matrix.UserID, name, public string) error {
	key, err := publicKey(public)
	if err != nil {
		return err
	}
	return matrix.VerifyJSON(object, string(signer), signingKeyPrefix+name, key)
}
