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
	"hearth/state/matrix"
	"hearth/store"
)

// maxSignaturesBytes bounds an upload of signatures.
const maxSignaturesBytes = 512 << 10

// signedKeys are signed objects by user and by device ID or public key.
type signedKeys map[matrix.UserID]map[string]jsontext.Value

type signaturesResponse struct {
	Failures map[matrix.UserID]map[string]failure `json:"failures"`
}

// uploadCrossSigningSignatures answers POST /keys/signatures/upload. What is wrong
// with one signature is told of that one; the others are stored.
//
// Spec: CS Cross-signing.
func (s *Server) uploadCrossSigningSignatures(w http.ResponseWriter, r *http.Request, who session) error {
	if err := s.limits.Take(api.LimitKeys, string(who.user)); err != nil {
		return err
	}
	var req signedKeys
	if err := api.ReadJSON(r, maxSignaturesBytes, &req); err != nil {
		return err
	}
	var answer signaturesResponse
	err := s.store.Update(r.Context(), func(tx *store.Tx) error {
		answer.Failures = make(map[matrix.UserID]map[string]failure)
		u := signatureUpload{tx: tx, who: who}
		for user, keys := range req {
			for name, object := range keys {
				err := u.take(user, name, object)
				var refused *api.Error
				switch {
				case errors.As(err, &refused):
					answer.fail(user, name, refused)
				case err != nil:
					return err
				}
			}
		}
		return tx.PutKeySignatures(who.num, u.found)
	})
	if err != nil {
		return fmt.Errorf("upload signatures of %s: %w", who.user, err)
	}
	return api.WriteJSON(w, answer)
}

func (a *signaturesResponse) fail(user matrix.UserID, name string, err *api.Error) {
	if a.Failures[user] == nil {
		a.Failures[user] = make(map[string]failure)
	}
	a.Failures[user][name] = failed(err)
}

// signatureUpload is the work on one upload, within one write.
type signatureUpload struct {
	tx    *store.Tx
	who   session
	found []store.KeySignature // that are good and new
}

// signer is a key that may sign an object.
type signer struct {
	name   string // as in the key ID: a device ID or a public key
	public string
}

// Reasons why signatures are refused.
var (
	errNoSuchKey    = api.ErrNotFound.Because("There is no such key")
	errOtherObject  = api.ErrInvalidParam.Because("The object is not the key as it was uploaded")
	errNotSigned    = api.ErrInvalidSignature.Because("No signature here is of a key that may sign this one")
	errBadSignature = api.ErrInvalidSignature.Because("The signature is not valid")
)

// take checks the signatures that the user has made about a key of target and
// keeps those that are not there yet.
func (u *signatureUpload) take(target matrix.UserID, name string, object jsontext.Value) error {
	num := u.tx.UserNum(target)
	if num == 0 {
		return errNoSuchKey
	}
	known, signers, err := u.signers(num, name)
	if err != nil {
		return err
	}
	if object.Kind() != '{' || !store.SameKeys(known, object) {
		return errOtherObject
	}
	made, had, repeated := signaturesBy(object, u.who.user), signaturesBy(known, u.who.user), false
	for keyID, signature := range made {
		if had[keyID] == signature { // it came with the key
			repeated = true
			delete(made, keyID)
		}
	}
	var good []store.KeySignature
	for _, by := range signers {
		keyID := e2ee.SigningKeyPrefix + by.name
		signature, signed := made[keyID]
		if !signed {
			continue
		}
		if e2ee.Verify(object, u.who.user, by.name, by.public) != nil {
			return errBadSignature
		}
		good = append(good, store.KeySignature{Target: num, Key: name, KeyID: keyID, Signature: signature})
	}
	if len(good) == 0 && (len(made) > 0 || !repeated) {
		return errNotSigned
	}
	u.found = append(u.found, good...)
	return nil
}

// signers returns a key as it was uploaded, and which keys of the user may sign
// it: the self-signing key signs the user's devices, the user's devices sign the
// user's master key, and the user-signing key signs the master keys of others.
func (u *signatureUpload) signers(target store.UserNum, name string) (known jsontext.Value, signers []signer, err error) {
	master, err := u.tx.CrossSigningKey(target, store.UsageMaster)
	switch {
	case unlessNotFound(err) != nil:
		return nil, nil, err
	case err == nil && master.Public == name && target == u.who.num:
		signers, err = u.devices()
		return master.JSON, signers, err
	case err == nil && master.Public == name:
		signers, err = u.crossSigner(store.UsageUserSigning)
		return master.JSON, signers, err
	case target != u.who.num:
		return nil, nil, errNoSuchKey
	}
	known, err = u.tx.DeviceKeys(target, matrix.DeviceID(name))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, errNoSuchKey
	}
	if err != nil {
		return nil, nil, err
	}
	signers, err = u.crossSigner(store.UsageSelfSigning)
	return known, signers, err
}

// crossSigner returns the user's key for a usage, if there is one.
func (u *signatureUpload) crossSigner(usage store.Usage) ([]signer, error) {
	key, err := u.tx.CrossSigningKey(u.who.num, usage)
	if err != nil {
		return nil, unlessNotFound(err)
	}
	return []signer{{key.Public, key.Public}}, nil
}

// devices returns the signing keys of the user's devices.
func (u *signatureUpload) devices() (signers []signer, err error) {
	err = u.tx.Devices(u.who.num, func(d store.Device) (bool, error) {
		object, err := u.tx.DeviceKeys(u.who.num, d.ID)
		if err != nil {
			return true, unlessNotFound(err)
		}
		var keys e2ee.DeviceKeys
		if json.Unmarshal(object, &keys) == nil {
			name := string(d.ID)
			signers = append(signers, signer{name, keys.Keys[e2ee.SigningKeyPrefix+name]})
		}
		return true, nil
	})
	return signers, err
}

// signaturesBy returns the signatures in an object that a user made, by key ID.
func signaturesBy(object jsontext.Value, user matrix.UserID) map[string]string {
	var signed struct {
		Signatures e2ee.Signatures `json:"signatures"`
	}
	if json.Unmarshal(object, &signed) != nil {
		return nil
	}
	made := make(map[string]string)
	for keyID, signature := range signed.Signatures[user] {
		if strings.HasPrefix(keyID, e2ee.SigningKeyPrefix) {
			made[keyID] = signature
		}
	}
	return made
}
