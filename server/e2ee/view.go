// Package e2ee shows the public keys of users: of their devices, and those that sign
// them. It knows the form of keys and signatures, and who may see which signature.
// Clients and other servers are shown keys by it, and what other servers say of
// their users' keys is held to their form by it. It never changes a key and never
// talks to anyone.
//
// Spec: CS End-to-End Encryption.
package e2ee

import (
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// A View is what one user, or another server, may see of keys and signatures,
// within one View of the store.
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
// signed about it oneself. User-signing keys sign other users' keys alone. Another
// server sees what the owner has signed: what its users sign, they tell it.
//
// Spec: CS Key and signature security.
type View struct {
	Tx     *store.Tx
	Viewer store.UserNum // who looks; 0: another server
}

// Keys are what is shown of one user.
type Keys struct {
	Devices                          map[matrix.DeviceID]jsontext.Value
	Master, SelfSigning, UserSigning jsontext.Value // nil where there is none to see
}

// User returns the keys of a user, local or not, as far as the view goes: of all
// devices that have keys, or of those that are named.
func (v View) User(user store.UserNum, named []matrix.DeviceID) (k Keys, err error) {
	if k.Devices, err = v.devices(user, named); err != nil {
		return k, err
	}
	for _, kind := range []struct {
		usage store.Usage
		to    *jsontext.Value
	}{
		{store.UsageMaster, &k.Master},
		{store.UsageSelfSigning, &k.SelfSigning},
		{store.UsageUserSigning, &k.UserSigning},
	} {
		if *kind.to, err = v.CrossSigning(user, kind.usage); err != nil {
			return k, err
		}
	}
	return k, nil
}

// devices returns the keys of a user's devices.
func (v View) devices(user store.UserNum, named []matrix.DeviceID) (map[matrix.DeviceID]jsontext.Value, error) {
	if !v.Tx.IsLocal(user) {
		return v.remoteDevices(user, named)
	}
	all := make(map[matrix.DeviceID]jsontext.Value)
	add := func(d store.Device) error {
		keys, err := v.Device(user, d)
		if keys != nil {
			all[d.ID] = keys
		}
		return err
	}
	if len(named) == 0 {
		return all, v.Tx.Devices(user, func(d store.Device) (bool, error) { return true, add(d) })
	}
	for _, id := range named {
		d, err := v.Tx.Device(user, id)
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

// remoteDevices is devices for the user of another server, as far as the list is
// kept here.
func (v View) remoteDevices(user store.UserNum, named []matrix.DeviceID) (map[matrix.DeviceID]jsontext.Value, error) {
	wanted := make(map[matrix.DeviceID]bool, len(named))
	for _, id := range named {
		wanted[id] = true
	}
	all := make(map[matrix.DeviceID]jsontext.Value)
	err := v.Tx.RemoteDevices(user, func(d store.RemoteDevice) (bool, error) {
		if d.Keys == nil || len(named) > 0 && !wanted[d.ID] {
			return true, nil
		}
		object, err := ShowDevice(d)
		all[d.ID] = object
		return true, err
	})
	return all, err
}

// ShowDevice returns the keys of another server's user's device with its name.
func ShowDevice(d store.RemoteDevice) (jsontext.Value, error) {
	unsigned, err := nameOf(d.Name)
	if err != nil {
		return nil, err
	}
	return WithSignatures(d.Keys, nil, unsigned)
}

// Device returns the keys of a local user's device with its name and the signatures
// about them, nil where it has none.
func (v View) Device(user store.UserNum, d store.Device) (jsontext.Value, error) {
	keys, err := v.Tx.DeviceKeys(user, d.ID)
	if err != nil {
		return nil, unlessNotFound(err)
	}
	unsigned, err := nameOf(d.Name)
	if err != nil {
		return nil, err
	}
	return v.sign(keys, user, string(d.ID), unsigned)
}

// nameOf returns what stands unsigned in a device's keys.
func nameOf(name string) (jsontext.Value, error) {
	var unsigned struct {
		Name string `json:"device_display_name,omitzero"`
	}
	unsigned.Name = name
	return json.Marshal(unsigned)
}

// CrossSigning returns a user's cross-signing key with the signatures about it,
// nil where there is none to see: the user-signing key is its owner's business.
func (v View) CrossSigning(user store.UserNum, usage store.Usage) (jsontext.Value, error) {
	if usage == store.UsageUserSigning && (user != v.Viewer || user == 0) {
		return nil, nil
	}
	key, err := v.Tx.CrossSigningKey(user, usage)
	if err != nil {
		return nil, unlessNotFound(err)
	}
	return v.sign(key.JSON, user, key.Public, nil)
}

// Sign returns a cross-signing key of a user, which is not kept here, with what the
// viewer has signed about it.
func (v View) Sign(object jsontext.Value, owner store.UserNum) (jsontext.Value, error) {
	public, err := PublicPart(object)
	if err != nil || owner == 0 || v.Viewer == 0 {
		return object, nil
	}
	return v.sign(object, owner, public, nil)
}

// sign returns a key's object with the signatures about it that were uploaded
// later, and with another unsigned.
func (v View) sign(object jsontext.Value, owner store.UserNum, name string, unsigned jsontext.Value) (jsontext.Value, error) {
	added := make(Signatures)
	signers := []store.UserNum{owner}
	if v.Viewer != 0 && owner != v.Viewer {
		signers = append(signers, v.Viewer)
	}
	for _, signer := range signers {
		id := v.Tx.UserID(signer)
		err := v.Tx.KeySignatures(signer, owner, name, func(s store.KeySignature) (bool, error) {
			added.Put(id, s.KeyID, s.Signature)
			return true, nil
		})
		if err != nil {
			return nil, err
		}
	}
	return WithSignatures(object, added, unsigned)
}

// unlessNotFound returns an error unless it says that something is not there.
func unlessNotFound(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
