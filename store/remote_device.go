package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// What is kept of the devices of another server's user: a list, its devices, and
// the user's cross-signing keys, which stand where those of local users do. A list
// is good while the user's server tells us of each change; one that missed a change
// is stale and stands on a to-do list until it has been fetched again.
//
// Spec: SS Device Management.

// UnknownStream is the stream ID of a list that did not come with one.
const UnknownStream = -1

// A RemoteDeviceList is the list of devices of another server's user.
type RemoteDeviceList struct {
	Stream  int64    // stream_id of the newest change in it, UnknownStream for none known
	Stale   bool     // a change was missed
	Fetched Position // when it was asked for, before the answer came
}

// A RemoteDevice is one device of another server's user.
type RemoteDevice struct {
	ID   matrix.DeviceID
	Name string         // empty: none
	Keys jsontext.Value // its identity keys; nil: none
}

// A StaleDevices is what the to-do list says of a stale list.
type StaleDevices struct {
	User  UserNum
	Due   time.Time // when it is to be fetched, with milliseconds
	Tries int       // how often that has failed
}

// RemoteDeviceList returns what is kept of the devices of another server's user;
// known is false where nothing is.
func (tx *Tx) RemoteDeviceList(user UserNum) (list RemoteDeviceList, known bool, err error) {
	v := tx.get(bucketRemote, remoteUserKey(remoteDeviceList, user))
	if v == nil {
		return RemoteDeviceList{}, false, nil
	}
	list, err = readRemoteDeviceList(v)
	if err != nil {
		return list, false, fmt.Errorf("devices of remote user %d: %w", user, err)
	}
	return list, true, nil
}

// RemoteDeviceLists calls fn for each user behind one of whose devices something
// is kept, by number, until fn returns false or an error.
func (tx *Tx) RemoteDeviceLists(after UserNum, fn func(UserNum) (bool, error)) error {
	prefix := []byte{remoteDeviceList}
	return tx.scan(bucketRemote, prefix, remoteUserKey(remoteDeviceList, after+1), func(rest, _ []byte) (bool, error) {
		return fn(UserNum(u32(rest)))
	})
}

// PutRemoteDeviceList notes how a list stands. A stale one goes on the to-do list,
// due now if it was not there; another leaves it.
func (tx *Tx) PutRemoteDeviceList(user UserNum, list RemoteDeviceList, now time.Time) error {
	v := binary.AppendVarint([]byte{byte(bit(1, list.Stale))}, list.Stream)
	v = binary.AppendUvarint(v, uint64(list.Fetched))
	if err := tx.put(bucketRemote, remoteUserKey(remoteDeviceList, user), v); err != nil {
		return fmt.Errorf("devices of remote user %d: %w", user, err)
	}
	switch todo := remoteUserKey(remoteStaleDevices, user); {
	case !list.Stale:
		return tx.delete(bucketRemote, todo)
	case tx.get(bucketRemote, todo) == nil:
		return tx.PutStaleDevices(StaleDevices{User: user, Due: now})
	}
	return nil
}

// PutStaleDevices changes what the to-do list says of a stale list.
func (tx *Tx) PutStaleDevices(s StaleDevices) error {
	v := binary.AppendUvarint(binary.AppendVarint(nil, s.Due.UnixMilli()), uint64(s.Tries))
	return tx.put(bucketRemote, remoteUserKey(remoteStaleDevices, s.User), v)
}

// StaleDevices calls fn for each entry of the to-do list, by user, until fn returns
// false or an error.
func (tx *Tx) StaleDevices(fn func(StaleDevices) (bool, error)) error {
	return tx.scan(bucketRemote, []byte{remoteStaleDevices}, nil, func(rest, v []byte) (bool, error) {
		s, err := readStaleDevices(rest, v)
		if err != nil {
			return false, err
		}
		return fn(s)
	})
}

// RemoteDevices calls fn for each device of another server's user, by ID, until fn
// returns false or an error.
func (tx *Tx) RemoteDevices(user UserNum, fn func(RemoteDevice) (bool, error)) error {
	prefix := remoteUserKey(remoteDevice, user)
	return tx.scan(bucketRemote, prefix, nil, func(id, v []byte) (bool, error) {
		d, err := readRemoteDevice(matrix.DeviceID(id), v)
		if err != nil {
			return false, fmt.Errorf("device %s of remote user %d: %w", id, user, err)
		}
		return fn(d)
	})
}

// PutRemoteDevice stores a device, and says whether that changes anything.
func (tx *Tx) PutRemoteDevice(user UserNum, d RemoteDevice) (changed bool, err error) {
	key := append(remoteUserKey(remoteDevice, user), d.ID...)
	v := append(appendString(nil, d.Name), d.Keys...)
	if old := tx.get(bucketRemote, key); old != nil && bytes.Equal(old, v) {
		return false, nil
	}
	return true, tx.put(bucketRemote, key, v)
}

// HasRemoteDevice says whether a device of another server's user is kept.
func (tx *Tx) HasRemoteDevice(user UserNum, id matrix.DeviceID) bool {
	return tx.get(bucketRemote, append(remoteUserKey(remoteDevice, user), id...)) != nil
}

// DeleteRemoteDevice removes a device, and says whether it was there.
func (tx *Tx) DeleteRemoteDevice(user UserNum, id matrix.DeviceID) (changed bool, err error) {
	if !tx.HasRemoteDevice(user, id) {
		return false, nil
	}
	return true, tx.delete(bucketRemote, append(remoteUserKey(remoteDevice, user), id...))
}

// ReplaceRemoteDevices makes devices all that another server's user has, and says
// whether that changes anything.
func (tx *Tx) ReplaceRemoteDevices(user UserNum, devices []RemoteDevice) (changed bool, err error) {
	stay := make(map[matrix.DeviceID]bool, len(devices))
	for _, d := range devices {
		stay[d.ID] = true
	}
	var gone []matrix.DeviceID
	err = tx.RemoteDevices(user, func(d RemoteDevice) (bool, error) {
		if !stay[d.ID] {
			gone = append(gone, d.ID)
		}
		return true, nil
	})
	for _, id := range gone {
		if err == nil {
			changed, err = tx.DeleteRemoteDevice(user, id)
		}
	}
	for _, d := range devices {
		if err == nil {
			var one bool
			one, err = tx.PutRemoteDevice(user, d)
			changed = changed || one
		}
	}
	return changed, err
}

// PutRemoteCrossSigningKey stores a cross-signing key of another server's user, or
// removes it where it has no JSON, and says whether that changes anything. Read it
// with [Tx.CrossSigningKey].
func (tx *Tx) PutRemoteCrossSigningKey(user UserNum, usage Usage, key CrossSigningKey) (changed bool, err error) {
	at := crossSigningKey(user, usage)
	old := tx.get(bucketUser, at)
	if key.JSON == nil {
		return old != nil, tx.delete(bucketUser, at)
	}
	v := append(appendString(nil, key.Public), key.JSON...)
	if old != nil && bytes.Equal(old, v) {
		return false, nil
	}
	return true, tx.put(bucketUser, at, v)
}

// ForgetRemoteDevices removes all that is kept of the devices and cross-signing keys
// of another server's user.
func (tx *Tx) ForgetRemoteDevices(user UserNum) error {
	_, err := tx.ReplaceRemoteDevices(user, nil)
	for _, usage := range Usages {
		err = errors.Join(err, tx.delete(bucketUser, crossSigningKey(user, usage)))
	}
	return errors.Join(err,
		tx.delete(bucketRemote, remoteUserKey(remoteDeviceList, user)),
		tx.delete(bucketRemote, remoteUserKey(remoteStaleDevices, user)),
	)
}

// maxServerMessages is how many messages to devices that came from one server are
// remembered.
const maxServerMessages = 256

// PutServerMessage remembers a message to devices that another server has sent, and
// reports true where it is remembered already: then it has been delivered. It knows
// the newest 256 of each server. Spec: SS Send-to-device messaging.
func (tx *Tx) PutServerMessage(server ServerNum, sender matrix.UserID, id string) (repeated bool, err error) {
	key := remoteKey(remoteMessages, server)
	ring, hash := tx.get(bucketRemote, key), u64(shortHash(string(remoteMessages), string(sender), "\x00", id))
	if ringHolds(ring, hash) {
		return true, nil
	}
	return false, tx.put(bucketRemote, key, ringAppend(ring, hash, maxServerMessages))
}

func remoteUserKey(kind byte, user UserNum) []byte { return appendU32([]byte{kind}, uint32(user)) }

func readRemoteDeviceList(v []byte) (RemoteDeviceList, error) {
	r := reader{b: v}
	list := RemoteDeviceList{Stale: r.byte() != 0, Stream: r.varint(), Fetched: Position(r.uvarint())}
	return list, r.err
}

func readStaleDevices(rest, v []byte) (StaleDevices, error) {
	r := reader{b: v}
	s := StaleDevices{User: UserNum(u32(rest)), Due: time.UnixMilli(r.varint()), Tries: int(min(r.uvarint(), 1<<16))}
	if r.err != nil || len(rest) != 4 {
		return s, fmt.Errorf("stale devices of remote user %x: %w", rest, ErrDamaged)
	}
	return s, nil
}

func readRemoteDevice(id matrix.DeviceID, v []byte) (RemoteDevice, error) {
	r := reader{b: v}
	d := RemoteDevice{ID: id, Name: r.string()}
	if len(r.b) > 0 {
		d.Keys = bytes.Clone(r.b)
	}
	return d, r.err
}

// checkRemoteDevices holds the devices of other servers' users to their lists, and
// the to-do list to the lists that are stale.
func checkRemoteDevices(c *checker) error {
	return errors.Join(
		c.each(bucketRemote, []byte{remoteDeviceList}, func(rest, v []byte) {
			user := UserNum(u32(rest))
			list, err := readRemoteDeviceList(v)
			if len(rest) != 4 || err != nil || c.UserID(user) == "" || c.IsLocal(user) || list.Fetched > c.Position() {
				c.faultf("list of devices of remote user %x cannot be read", rest)
			} else if stands := c.get(bucketRemote, remoteUserKey(remoteStaleDevices, user)) != nil; stands != list.Stale {
				c.faultf("devices of remote user %d: stale is %v, on the to-do list is %v", user, list.Stale, stands)
			}
		}),
		c.each(bucketRemote, []byte{remoteStaleDevices}, func(rest, v []byte) {
			if s, err := readStaleDevices(rest, v); err != nil {
				c.faultf("%v", err)
			} else if list, known, err := c.RemoteDeviceList(s.User); !known || err != nil || !list.Stale {
				c.faultf("devices of remote user %d are on the to-do list and not stale", s.User)
			}
		}),
		c.each(bucketRemote, []byte{remoteDevice}, func(rest, v []byte) {
			if len(rest) < 4 {
				c.faultf("device of remote user %x", rest)
				return
			}
			d, err := readRemoteDevice(matrix.DeviceID(rest[4:]), v)
			if err != nil || d.Keys != nil && (d.Keys.Kind() != '{' || !d.Keys.IsValid()) {
				c.faultf("device %x of a remote user cannot be read", rest)
			}
			if c.get(bucketRemote, remoteUserKey(remoteDeviceList, UserNum(u32(rest)))) == nil {
				c.faultf("device %s of remote user %d is on no list", d.ID, u32(rest))
			}
		}),
		c.eachOf(bucketUser, userCrossSigning, func(user uint32, usage, _ []byte) {
			if !c.IsLocal(UserNum(user)) && c.get(bucketRemote, remoteUserKey(remoteDeviceList, UserNum(user))) == nil {
				c.faultf("%s key of remote user %d, whose devices are not kept", usage, user)
			}
		}),
		c.each(bucketRemote, []byte{remoteMessages}, func(rest, v []byte) {
			if len(rest) != 4 || c.ServerName(ServerNum(u32(rest))) == "" || len(v)%ringHashSize != 0 || len(v) > maxServerMessages*ringHashSize {
				c.faultf("messages to devices of server %x cannot be read", rest)
			}
		}),
	)
}
