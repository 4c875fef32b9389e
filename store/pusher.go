package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"hearth/state/matrix"
)

// A PusherID says which of a user's pushers is meant. Neither part holds a NUL byte.
type PusherID struct {
	App string // app_id
	Key string // pushkey
}

// A Pusher sends a local user's notifications to a push gateway.
//
// Spec: CS Push Notifications, POST /_matrix/client/v3/pushers/set.
type Pusher struct {
	PusherID
	Kind       string // "http"
	AppName    string // app_display_name
	DeviceName string // device_display_name
	ProfileTag string // empty: none
	Lang       string
	Data       []byte          // a JSON object
	Device     matrix.DeviceID // that set it, and takes it along when it goes
	Updated    time.Time       // with seconds
	Cursor     Position        // notifications up to here have been sent
}

// Pusher returns a pusher of a local user, or ErrNotFound.
func (tx *Tx) Pusher(user UserNum, id PusherID) (Pusher, error) {
	v := tx.get(bucketUser, pusherKey(user, id))
	if v == nil {
		return Pusher{}, fmt.Errorf("pusher of user %d: %w", user, ErrNotFound)
	}
	return readPusher(user, id, v)
}

// Pushers returns the pushers of a local user, who has few.
func (tx *Tx) Pushers(user UserNum) ([]Pusher, error) {
	var all []Pusher
	err := tx.scan(bucketUser, keyOf(uint32(user), userPusher), nil, func(rest, value []byte) (bool, error) {
		app, key, ok := cutPart(rest)
		if !ok {
			return false, fmt.Errorf("pusher of user %d: key %x: %w", user, rest, ErrDamaged)
		}
		p, err := readPusher(user, PusherID{app, key}, value)
		all = append(all, p)
		return true, err
	})
	return all, err
}

// HasPushers says whether a user has any.
func (tx *Tx) HasPushers(user UserNum) bool {
	return tx.hasPrefix(bucketUser, keyOf(uint32(user), userPusher))
}

// AllPushers calls fn for each pusher of all users until fn returns false or an
// error.
func (tx *Tx) AllPushers(fn func(UserNum, PusherID) (bool, error)) error {
	return tx.scan(bucketUser, keyOf(0, pusherUser), nil, func(rest, _ []byte) (bool, error) {
		user, id, err := readPusherUser(rest)
		if err != nil {
			return false, err
		}
		return fn(user, id)
	})
}

// PutPusher stores a pusher, or a change of one. A new one sends what happens from
// now on, an old one goes on where it is.
func (tx *Tx) PutPusher(user UserNum, p Pusher) error {
	switch old, err := tx.Pusher(user, p.PusherID); {
	case err == nil:
		p.Cursor = old.Cursor
	case errors.Is(err, ErrNotFound):
		p.Cursor = tx.Position()
	default:
		return err
	}
	return tx.writePusher(user, p)
}

// MovePusher notes up to where a pusher has sent. One that is gone stays gone.
func (tx *Tx) MovePusher(user UserNum, id PusherID, cursor Position) error {
	p, err := tx.Pusher(user, id)
	if err != nil {
		return ignoreNotFound(err)
	}
	p.Cursor = max(p.Cursor, cursor)
	return tx.writePusher(user, p)
}

// DeletePusher removes a pusher. It is no error if there is none.
func (tx *Tx) DeletePusher(user UserNum, id PusherID) error {
	err := errors.Join(
		tx.delete(bucketUser, pusherKey(user, id)),
		tx.delete(bucketUser, pusherUserKey(user, id)),
	)
	if err != nil {
		return fmt.Errorf("delete pusher of user %d: %w", user, err)
	}
	return nil
}

// DeletePushersOfOthers removes the pushers of this name of all users but one: the
// phone has another user now.
func (tx *Tx) DeletePushersOfOthers(keep UserNum, id PusherID) error {
	var others []UserNum
	prefix := appendPart(appendPart(keyOf(0, pusherUser), id.App), id.Key)
	err := tx.scan(bucketUser, prefix, nil, func(rest, _ []byte) (bool, error) {
		if len(rest) == 4 && UserNum(u32(rest)) != keep {
			others = append(others, UserNum(u32(rest)))
		}
		return true, nil
	})
	for _, user := range others {
		err = errors.Join(err, tx.DeletePusher(user, id))
	}
	return err
}

// deleteDevicePushers removes the pushers that a device has set.
func (tx *Tx) deleteDevicePushers(user UserNum, device matrix.DeviceID) error {
	all, err := tx.Pushers(user)
	for _, p := range all {
		if p.Device == device {
			err = errors.Join(err, tx.DeletePusher(user, p.PusherID))
		}
	}
	return err
}

// writePusher writes the record and its place in the list of all.
func (tx *Tx) writePusher(user UserNum, p Pusher) error {
	v := make([]byte, 0, 96+len(p.Data))
	for _, s := range []string{p.Kind, p.AppName, p.DeviceName, p.ProfileTag, p.Lang, string(p.Device)} {
		v = appendString(v, s)
	}
	v = binary.AppendVarint(v, p.Updated.Unix())
	v = binary.AppendUvarint(v, uint64(p.Cursor))
	v = append(v, p.Data...)
	err := errors.Join(
		tx.put(bucketUser, pusherKey(user, p.PusherID), v),
		tx.put(bucketUser, pusherUserKey(user, p.PusherID), []byte{}),
	)
	if err != nil {
		return fmt.Errorf("pusher of user %d: %w", user, err)
	}
	return nil
}

func pusherKey(user UserNum, id PusherID) []byte {
	return append(appendPart(keyOf(uint32(user), userPusher), id.App), id.Key...)
}

func pusherUserKey(user UserNum, id PusherID) []byte {
	return appendU32(appendPart(appendPart(keyOf(0, pusherUser), id.App), id.Key), uint32(user))
}

// readPusherUser reads what ends a key of the list of all pushers.
func readPusherUser(rest []byte) (UserNum, PusherID, error) {
	app, rest2, ok := cutPart(rest)
	key, user, ok2 := cutPart([]byte(rest2))
	if !ok || !ok2 || len(user) != 4 {
		return 0, PusherID{}, fmt.Errorf("list of pushers: key %x: %w", rest, ErrDamaged)
	}
	return UserNum(u32([]byte(user))), PusherID{app, key}, nil
}

func readPusher(user UserNum, id PusherID, v []byte) (Pusher, error) {
	r := reader{b: v}
	p := Pusher{
		PusherID: id, Kind: r.string(), AppName: r.string(), DeviceName: r.string(), ProfileTag: r.string(),
		Lang: r.string(), Device: matrix.DeviceID(r.string()), Updated: time.Unix(r.varint(), 0), Cursor: Position(r.uvarint()),
	}
	p.Data = append([]byte(nil), r.b...)
	if r.err != nil {
		return Pusher{}, fmt.Errorf("pusher of user %d: %w", user, r.err)
	}
	return p, nil
}

// checkPushers holds every pusher to its form, its device and the list of all.
func checkPushers(c *checker) error {
	err := c.eachOf(bucketUser, userPusher, func(user uint32, rest, value []byte) {
		app, key, ok := cutPart(rest)
		p, err := readPusher(UserNum(user), PusherID{app, key}, value)
		if err != nil || !ok {
			c.faultf("pusher %q of user %d: %v", rest, user, err)
			return
		}
		if _, err := c.Device(UserNum(user), p.Device); err != nil {
			c.faultf("pusher %q of user %d: %v", rest, user, err)
		}
		if p.Cursor > c.Tx.Position() {
			c.faultf("pusher %q of user %d has sent what has not happened", rest, user)
		}
		if c.get(bucketUser, pusherUserKey(UserNum(user), p.PusherID)) == nil {
			c.faultf("pusher %q of user %d is not in the list", rest, user)
		}
	})
	if err != nil {
		return err
	}
	return c.each(bucketUser, keyOf(0, pusherUser), func(rest, _ []byte) {
		user, id, err := readPusherUser(rest)
		if err == nil {
			_, err = c.Pusher(user, id)
		}
		if err != nil {
			c.faultf("list of pushers: %v", err)
		}
	})
}
