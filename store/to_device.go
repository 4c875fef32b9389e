package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// What may wait for a device that does not sync. Beyond it the oldest messages
// make way: a device that never comes back must not fill the disk.
const (
	maxToDevice      = 20_000
	maxToDeviceBytes = 64 << 20
)

// maxToDevicePage bounds what ToDevice returns, in bytes, but for its last message.
const maxToDevicePage = 2 << 20

// maxDeviceTxns is how many transactions of a device that made no event are
// remembered.
const maxDeviceTxns = 128

// AppendToDevice puts a message, the event as its device gets it, at the end
// of a local device's queue and gives it a place in the stream. It reports
// false where there is no such device. Spec: CS Send-to-Device messaging.
func (tx *Tx) AppendToDevice(user UserNum, device matrix.DeviceID, event jsontext.Value) (bool, error) {
	if _, err := tx.Device(user, device); err != nil {
		return false, ignoreNotFound(err)
	}
	load, err := tx.toDeviceLoad(user, device)
	if err != nil {
		return false, err
	}
	pos, err := tx.appendChange(Change{Kind: streamToDevice, User: user, Name: string(device)})
	if err != nil {
		return false, fmt.Errorf("message to device %s of user %d: %w", device, user, err)
	}
	load = load.plus(event)
	for load.count > maxToDevice || load.bytes > maxToDeviceBytes {
		left, err := tx.dropToDevice(user, device, load, pos, 1)
		if err != nil {
			return false, err
		}
		if left == load {
			return false, fmt.Errorf("messages to device %s of user %d: %w", device, user, ErrDamaged)
		}
		load = left
	}
	tx.Touch(user)
	return true, errors.Join(
		tx.put(bucketUser, toDeviceKey(user, device, pos), bytes.Clone(event)),
		tx.putToDeviceLoad(user, device, load),
	)
}

// ToDevice returns the oldest messages that wait for a device, up to a position
// and at most limit of them and some 2 MiB, and the position of the last one;
// more says that others wait behind it.
func (tx *Tx) ToDevice(user UserNum, device matrix.DeviceID, upto Position, limit int) (events []jsontext.Value, last Position, more bool, err error) {
	prefix, size := toDevicePrefix(user, device), 0
	err = tx.scan(bucketUser, prefix, nil, func(rest, event []byte) (bool, error) {
		if len(rest) != 8 {
			return false, fmt.Errorf("messages to device %s of user %d: %w", device, user, ErrDamaged)
		}
		pos := Position(u64(rest))
		if pos > upto {
			return false, nil
		}
		if more = len(events) == limit || size > maxToDevicePage; more {
			return false, nil
		}
		size += len(event)
		events, last = append(events, bytes.Clone(event)), pos
		return true, nil
	})
	return events, last, more, err
}

// DeleteToDevice removes the messages to a device up to a position, as the
// device has them, at most limit of them.
func (tx *Tx) DeleteToDevice(user UserNum, device matrix.DeviceID, upto Position, limit int) error {
	load, err := tx.toDeviceLoad(user, device)
	if err != nil || load.count == 0 {
		return err
	}
	left, err := tx.dropToDevice(user, device, load, upto, limit)
	if err != nil || left == load {
		return err
	}
	return tx.putToDeviceLoad(user, device, left)
}

// dropToDevice removes the oldest messages up to a position, at most limit of
// them, and returns what is left of the load.
func (tx *Tx) dropToDevice(user UserNum, device matrix.DeviceID, load toDeviceLoad, upto Position, limit int) (toDeviceLoad, error) {
	prefix := toDevicePrefix(user, device)
	var places []Position
	err := tx.scan(bucketUser, prefix, nil, func(rest, event []byte) (bool, error) {
		if len(rest) != 8 {
			return false, fmt.Errorf("messages to device %s of user %d: %w", device, user, ErrDamaged)
		}
		if Position(u64(rest)) > upto || len(places) == limit {
			return false, nil
		}
		places = append(places, Position(u64(rest)))
		load = load.minus(event)
		return true, nil
	})
	for _, pos := range places {
		if err == nil {
			err = tx.delete(bucketUser, toDeviceKey(user, device, pos))
		}
	}
	return load, err
}

// PutTxn remembers a transaction that makes no event, and reports true where it
// is remembered already: then it has been carried out. It knows the newest 128
// of each device. Spec: CS Transaction identifiers.
func (tx *Tx) PutTxn(t TxnID) (repeated bool, err error) {
	if t.ID == "" {
		return false, nil
	}
	key := appendPart(keyOf(uint32(t.User), userTxn), string(t.Device))
	ring, hash := tx.get(bucketUser, key), u64(t.hash())
	if ringHolds(ring, hash) {
		return true, nil
	}
	return false, tx.put(bucketUser, key, ringAppend(ring, hash, maxDeviceTxns))
}

// toDeviceLoad is how much waits for a device. It is kept behind the newest
// message, so that a message writes one leaf.
type toDeviceLoad struct {
	count, bytes uint64
}

func (l toDeviceLoad) plus(event []byte) toDeviceLoad {
	return toDeviceLoad{l.count + 1, l.bytes + uint64(len(event))}
}

func (l toDeviceLoad) minus(event []byte) toDeviceLoad {
	return toDeviceLoad{l.count - min(1, l.count), l.bytes - min(uint64(len(event)), l.bytes)}
}

// toDeviceEnd is where the load stands among the positions of the messages.
const toDeviceEnd = Position(math.MaxUint64)

func (tx *Tx) toDeviceLoad(user UserNum, device matrix.DeviceID) (toDeviceLoad, error) {
	v := tx.get(bucketUser, toDeviceKey(user, device, toDeviceEnd))
	if v == nil {
		return toDeviceLoad{}, nil
	}
	r := reader{b: v}
	load := toDeviceLoad{r.uvarint(), r.uvarint()}
	if r.err != nil {
		return load, fmt.Errorf("messages to device %s of user %d: %w", device, user, r.err)
	}
	return load, nil
}

func (tx *Tx) putToDeviceLoad(user UserNum, device matrix.DeviceID, load toDeviceLoad) error {
	key := toDeviceKey(user, device, toDeviceEnd)
	if load.count == 0 {
		return tx.delete(bucketUser, key)
	}
	return tx.put(bucketUser, key, binary.AppendUvarint(binary.AppendUvarint(nil, load.count), load.bytes))
}

func toDevicePrefix(user UserNum, device matrix.DeviceID) []byte {
	return appendPart(keyOf(uint32(user), userToDevice), string(device))
}

func toDeviceKey(user UserNum, device matrix.DeviceID, pos Position) []byte {
	return appendU64(toDevicePrefix(user, device), uint64(pos))
}

// checkToDevice holds the queues to their devices and to what is noted of their
// length, and the rings of transactions to their form.
func checkToDevice(c *checker) error {
	type queue struct {
		user   uint32
		device string
	}
	var at queue
	var load toDeviceLoad
	err := c.eachOf(bucketUser, userToDevice, func(user uint32, key, v []byte) {
		device, place, ok := cutPart(key)
		if q := (queue{user, device}); q != at {
			if load.count != 0 {
				c.faultf("user %d: messages to device %s have no count", at.user, at.device)
			}
			at, load = q, toDeviceLoad{}
		}
		switch {
		case !ok || len(place) != 8 || !c.hasDevice(user, device):
			c.faultf("user %d: message %q to a device that is not there", user, key)
		case Position(u64([]byte(place))) == toDeviceEnd:
			noted, err := c.toDeviceLoad(UserNum(user), matrix.DeviceID(device))
			if err != nil || noted != load {
				c.faultf("user %d: messages to device %s: %+v are noted, %+v are there: %v", user, device, noted, load, err)
			}
			load = toDeviceLoad{}
		default:
			load = load.plus(v)
			if Position(u64([]byte(place))) > c.Position() || !jsontext.Value(v).IsValid() {
				c.faultf("user %d: message to device %s at %x cannot be read", user, device, place)
			}
		}
	})
	if load.count != 0 {
		c.faultf("user %d: messages to device %s have no count", at.user, at.device)
	}
	return errors.Join(err, c.eachOf(bucketUser, userTxn, func(user uint32, key, v []byte) {
		device, rest, ok := cutPart(key)
		if !ok || rest != "" || !c.hasDevice(user, device) || len(v)%ringHashSize != 0 || len(v) > maxDeviceTxns*ringHashSize {
			c.faultf("user %d: transactions of device %q cannot be read", user, key)
		}
	}))
}
