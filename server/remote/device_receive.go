package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/e2ee"
	"hearth/state/matrix"
	"hearth/store"
)

// ErrBadEDU is wrapped where another server's EDU does not have the form of its type,
// or is about what is not that server's.
var ErrBadEDU = errors.New("the EDU is not in order")

// maxPrevIDs bounds what a change of a device list is relative to.
const maxPrevIDs = 100

// deviceUpdate is the content of m.device_list_update.
type deviceUpdate struct {
	UserID   matrix.UserID   `json:"user_id"`
	DeviceID matrix.DeviceID `json:"device_id"`
	Name     string          `json:"device_display_name,omitzero"`
	StreamID int64           `json:"stream_id"`
	PrevID   []int64         `json:"prev_id"`
	Deleted  bool            `json:"deleted,omitzero"`
	Keys     jsontext.Value  `json:"keys,omitzero"`
}

// readDeviceUpdate holds a change to its form.
func readDeviceUpdate(origin matrix.ServerName, content jsontext.Value) (u deviceUpdate, err error) {
	if err := json.Unmarshal(content, &u); err != nil {
		return u, fmt.Errorf("m.device_list_update: %w: %w", ErrBadEDU, err)
	}
	if _, err := matrix.ParseUserID(string(u.UserID)); err != nil || u.UserID.Server() != origin {
		return u, fmt.Errorf("m.device_list_update: the user is not one of %s: %w", origin, ErrBadEDU)
	}
	if !isDeviceID(u.DeviceID) || u.StreamID < 0 || len(u.PrevID) > maxPrevIDs {
		return u, fmt.Errorf("m.device_list_update of %s: %w", u.UserID, ErrBadEDU)
	}
	return u, nil
}

// Receive takes an m.device_list_update from another server. A change that follows
// the newest one that is known is made here; else a change was missed, and the list
// is fetched again. Of a list that is not kept here, who shares a room with the user
// learns that it has changed, but for the first that a server says of a user.
//
// Spec: SS Device Management.
func (l *DeviceLists) Receive(ctx context.Context, origin matrix.ServerName, content jsontext.Value) error {
	u, err := readDeviceUpdate(origin, content)
	if err != nil {
		return err
	}
	missed := false
	err = l.change(ctx, u.UserID, func(tx *store.Tx, num store.UserNum, list store.RemoteDeviceList, known bool) (bool, error) {
		switch {
		case !known:
			return len(u.PrevID) > 0, nil
		case list.Stale, list.Stream == u.StreamID:
			return false, nil
		case list.Stream == store.UnknownStream || !slices.Contains(u.PrevID, list.Stream) || !u.fits(tx, num):
			list.Stale, missed = true, true
			return false, tx.PutRemoteDeviceList(num, list, l.config.Now())
		}
		list.Stream = u.StreamID
		changed, err := u.put(tx, num)
		return changed, errors.Join(err, tx.PutRemoteDeviceList(num, list, l.config.Now()))
	})
	if err != nil {
		return fmt.Errorf("change of device %s of %s: %w", u.DeviceID, u.UserID, err)
	}
	if missed {
		l.wakeUp()
	}
	return nil
}

// fits says whether a list has room for a device that may be new.
func (u *deviceUpdate) fits(tx *store.Tx, user store.UserNum) bool {
	if u.Deleted || tx.HasRemoteDevice(user, u.DeviceID) {
		return true
	}
	n := 0
	err := tx.RemoteDevices(user, func(store.RemoteDevice) (bool, error) {
		n++
		return n < maxUserDevices, nil
	})
	return err == nil && n < maxUserDevices
}

// put makes the change, and says whether it changes anything.
func (u *deviceUpdate) put(tx *store.Tx, user store.UserNum) (changed bool, err error) {
	if u.Deleted {
		return tx.DeleteRemoteDevice(user, u.DeviceID)
	}
	d := store.RemoteDevice{ID: u.DeviceID, Name: cutName(u.Name)}
	if e2ee.CheckDeviceKeys(u.Keys, u.UserID, u.DeviceID) == nil {
		d.Keys = u.Keys
		if d.Name == "" {
			d.Name = cutName(nameIn(u.Keys))
		}
	}
	return tx.PutRemoteDevice(user, d)
}

// signingKeyUpdate is the content of m.signing_key_update.
type signingKeyUpdate struct {
	UserID      matrix.UserID  `json:"user_id"`
	Master      jsontext.Value `json:"master_key,omitzero"`
	SelfSigning jsontext.Value `json:"self_signing_key,omitzero"`
}

// ReceiveSigningKeys takes an m.signing_key_update from another server. Keys of users
// who share no room with ours are not kept.
//
// Spec: SS End-to-End Encryption.
func (l *DeviceLists) ReceiveSigningKeys(ctx context.Context, origin matrix.ServerName, content jsontext.Value) error {
	var u signingKeyUpdate
	if err := json.Unmarshal(content, &u); err != nil {
		return fmt.Errorf("m.signing_key_update: %w: %w", ErrBadEDU, err)
	}
	if _, err := matrix.ParseUserID(string(u.UserID)); err != nil || u.UserID.Server() != origin {
		return fmt.Errorf("m.signing_key_update: the user is not one of %s: %w", origin, ErrBadEDU)
	}
	keys := crossSigningOf(u.UserID, u.Master, u.SelfSigning)
	if len(keys) == 0 {
		return fmt.Errorf("m.signing_key_update of %s: no key: %w", u.UserID, ErrBadEDU)
	}
	err := l.change(ctx, u.UserID, func(tx *store.Tx, num store.UserNum, _ store.RemoteDeviceList, known bool) (changed bool, err error) {
		if !known {
			return true, nil
		}
		for usage, key := range keys {
			one, err := tx.PutRemoteCrossSigningKey(num, usage, key)
			if err != nil {
				return false, err
			}
			changed = changed || one
		}
		return changed, nil
	})
	if err != nil {
		return fmt.Errorf("signing keys of %s: %w", u.UserID, err)
	}
	return nil
}

// change makes a change of a user's list in one write, and tells those who share a
// room with the user where fn says that it is news. Who shares none is nobody's
// business, and nothing is written.
func (l *DeviceLists) change(ctx context.Context, user matrix.UserID,
	fn func(tx *store.Tx, num store.UserNum, list store.RemoteDeviceList, known bool) (news bool, err error),
) error {
	var together share
	err := l.store.View(func(tx *store.Tx) (err error) {
		together, err = shareOf(tx, user)
		return err
	})
	if err != nil || !together.ok() {
		return err
	}
	l.touch(user)
	return l.store.Update(ctx, func(tx *store.Tx) error {
		num := tx.UserNum(user)
		list, known, err := tx.RemoteDeviceList(num)
		if err != nil {
			return err
		}
		news, err := fn(tx, num, list, known)
		if err != nil || !news {
			return err
		}
		return tx.RemoteDevicesChanged(num, together.locals)
	})
}
