package remote

import (
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/e2ee"
	"hearth/state/matrix"
	"hearth/store"
)

// maxUpdates is how many changes of a user's devices another server is told of one
// by one. Who has missed more fetches the whole list.
const maxUpdates = 20

// The types of EDUs about devices.
const (
	typeDeviceUpdate = "m.device_list_update"
	typeSigningKeys  = "m.signing_key_update"
)

// edu is an EDU as it stands in a transaction.
type edu struct {
	Type    string `json:"edu_type"`
	Content any    `json:"content"`
}

// DeviceUpdates returns the EDUs, as they stand in a transaction, that tell another
// server what has changed in a local user's device list behind one position, up to
// another: m.device_list_update, each relative to the one before it and the first to
// the newest change up to after, and m.signing_key_update. A device that has changed
// more than once is told of once, as it is now. Where more than some have changed,
// only the newest are told, and the other server notices that it has missed one.
//
// Spec: SS Device Management, End-to-End Encryption.
func DeviceUpdates(tx *store.Tx, user store.UserNum, after, upto store.Position) ([]jsontext.Value, error) {
	list, err := tx.DeviceList(user)
	if err != nil {
		return nil, err
	}
	changes, prev, err := deviceChanges(tx, user, after, upto)
	if err != nil {
		return nil, err
	}
	var edus []jsontext.Value
	for _, c := range changes {
		one, err := deviceEDU(tx, user, c, prev)
		if err != nil {
			return nil, err
		}
		edus, prev = append(edus, one), c.Position
	}
	if list.CrossSigning > after && list.CrossSigning <= upto {
		one, err := signingKeysEDU(tx, user)
		if err != nil {
			return nil, err
		}
		if one != nil {
			edus = append(edus, one)
		}
	}
	return edus, nil
}

// IntroduceDevices returns the EDU that tells servers with whom a local user shares
// a room for the first time that there is a device list, nil where there is none:
// the newest change, relative to nothing. A server that knows it is told nothing new;
// another fetches the list when it needs it.
//
// Spec: SS Device Management: an update must be sent "when that user joins a room
// which contains servers which are not already receiving updates for that user's
// device list".
func IntroduceDevices(tx *store.Tx, user store.UserNum) (edu jsontext.Value, err error) {
	err = tx.DeviceChangesBack(user, func(c store.Change) (bool, error) {
		if c.Name == "" {
			return false, nil
		}
		edu, err = deviceEDU(tx, user, c, 0)
		return false, err
	})
	return edu, err
}

// deviceChanges returns the newest change of each device of a user behind one
// position, up to another, oldest first, and the change that came before all of them.
func deviceChanges(tx *store.Tx, user store.UserNum, after, upto store.Position) (changes []store.Change, prev store.Position, err error) {
	seen := make(map[string]bool)
	err = tx.DeviceChangesBack(user, func(c store.Change) (bool, error) {
		switch {
		case c.Position > upto:
			return true, nil
		case c.Position <= after:
			prev = c.Position
			return false, nil
		case c.Name == "": // of format 3, when nobody was told
			return false, nil
		case seen[c.Name]:
			return true, nil
		case len(changes) == maxUpdates: // what came before is not known to who has missed it
			prev = c.Position
			return false, nil
		}
		seen[c.Name] = true
		changes = append(changes, c)
		return true, nil
	})
	slices.Reverse(changes)
	return changes, prev, err
}

// deviceEDU tells of a change of a device what is known of the device now.
func deviceEDU(tx *store.Tx, user store.UserNum, c store.Change, prev store.Position) (jsontext.Value, error) {
	u := deviceUpdate{
		UserID: tx.UserID(user), DeviceID: matrix.DeviceID(c.Name), StreamID: int64(c.Position), PrevID: []int64{},
	}
	if prev != 0 {
		u.PrevID = append(u.PrevID, int64(prev))
	}
	d, err := tx.Device(user, u.DeviceID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		u.Deleted = true
	case err == nil:
		u.Name = d.Name
		u.Keys, err = e2ee.View{Tx: tx}.Device(user, d)
	}
	if err != nil && !u.Deleted {
		return nil, fmt.Errorf("tell of device %s of %s: %w", u.DeviceID, u.UserID, err)
	}
	return json.Marshal(edu{typeDeviceUpdate, u})
}

// signingKeysEDU tells of the cross-signing keys of a user, nil where there are none.
func signingKeysEDU(tx *store.Tx, user store.UserNum) (jsontext.Value, error) {
	view := e2ee.View{Tx: tx}
	u := signingKeyUpdate{UserID: tx.UserID(user)}
	var err error
	if u.Master, err = view.CrossSigning(user, store.UsageMaster); err != nil {
		return nil, err
	}
	if u.SelfSigning, err = view.CrossSigning(user, store.UsageSelfSigning); err != nil || u.Master == nil && u.SelfSigning == nil {
		return nil, err
	}
	return json.Marshal(edu{typeSigningKeys, u})
}
