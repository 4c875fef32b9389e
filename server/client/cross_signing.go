package client

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/server/e2ee"
	"hearth/store"
)

// maxCrossSigningBytes bounds an upload of cross-signing keys.
const maxCrossSigningBytes = 64 << 10

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
		public, err := e2ee.CheckCrossSigning(k.object, k.usage, who.user)
		if err != nil {
			return nil, api.InvalidParam(k.name, err)
		}
		keys[k.usage] = store.CrossSigningKey{Public: public, JSON: k.object}
	}
	return keys, nil
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
		if err := e2ee.Verify(key.JSON, who.user, master.Public, master.Public); err != nil {
			return api.ErrInvalidSignature.Because("The %s key is not signed by the master key", strings.ReplaceAll(string(usage), "_", "-"))
		}
	}
	return nil
}
