package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// A Reservation is a media ID of this server that a user was given before there is
// a file.
//
// Spec: CS POST /_matrix/media/v1/create.
type Reservation struct {
	ID      MediaID
	User    UserNum
	Expires time.Time // with milliseconds
}

// Expired says whether the file may come no more.
func (r Reservation) Expired(now time.Time) bool { return !now.Before(r.Expires) }

// Reservation returns what a media ID was reserved for. The error wraps ErrNotFound
// where it was not, or the file is here.
func (tx *Tx) Reservation(id MediaID) (Reservation, error) {
	v := tx.get(bucketMedia, reservationKey(id))
	if v == nil {
		return Reservation{}, fmt.Errorf("reserved media %s: %w", id, ErrNotFound)
	}
	r := reader{b: v}
	res := Reservation{ID: id, User: UserNum(r.uvarint()), Expires: time.UnixMilli(r.varint())}
	if r.err != nil {
		return Reservation{}, fmt.Errorf("reserved media %s: %w", id, r.err)
	}
	return res, nil
}

// Reserve stores a reservation. The error wraps ErrExists where the ID is taken.
func (tx *Tx) Reserve(r Reservation) error {
	if tx.get(bucketMedia, reservationKey(r.ID)) != nil || tx.get(bucketMedia, tx.mediaKey(tx.store.server, r.ID)) != nil {
		return fmt.Errorf("reserve media %s: %w", r.ID, ErrExists)
	}
	v := binary.AppendUvarint(nil, uint64(r.User))
	v = binary.AppendVarint(v, r.Expires.UnixMilli())
	err := errors.Join(
		tx.put(bucketMedia, reservationKey(r.ID), v),
		tx.put(bucketMedia, reservedByKey(r), []byte{}),
	)
	if err != nil {
		return fmt.Errorf("reserve media %s: %w", r.ID, err)
	}
	return nil
}

// Reservations returns the reservations of a user.
func (tx *Tx) Reservations(user UserNum) ([]Reservation, error) {
	var all []Reservation
	prefix := appendU32([]byte{mediaReservedBy}, uint32(user))
	err := tx.scan(bucketMedia, prefix, nil, func(rest, _ []byte) (bool, error) {
		r, err := tx.Reservation(MediaID(rest))
		all = append(all, r)
		return true, err
	})
	if err != nil {
		return nil, fmt.Errorf("reserved media of user %d: %w", user, err)
	}
	return all, nil
}

// ExpiredReservations returns at most limit reservations whose time is over.
func (tx *Tx) ExpiredReservations(now time.Time, limit int) ([]Reservation, error) {
	var all []Reservation
	err := tx.scan(bucketMedia, []byte{mediaReserved}, nil, func(rest, _ []byte) (bool, error) {
		r, err := tx.Reservation(MediaID(rest))
		if err == nil && r.Expired(now) {
			all = append(all, r)
		}
		return len(all) < limit, err
	})
	return all, err
}

// DeleteReservation removes a reservation: its time is over, or PutMedia stores the
// file in the same write.
func (tx *Tx) DeleteReservation(r Reservation) error {
	return errors.Join(tx.delete(bucketMedia, reservationKey(r.ID)), tx.delete(bucketMedia, reservedByKey(r)))
}

func reservationKey(id MediaID) []byte { return append([]byte{mediaReserved}, id...) }

func reservedByKey(r Reservation) []byte {
	return append(appendU32([]byte{mediaReservedBy}, uint32(r.User)), r.ID...)
}

func (c *checker) checkReservation(id MediaID) {
	r, err := c.Reservation(id)
	if err != nil {
		c.faultf("%v", err)
		return
	}
	if _, err := ParseMediaID(string(id)); err != nil {
		c.faultf("reserved media %q: %v", id, err)
	}
	if !c.IsLocal(r.User) {
		c.faultf("reserved media %s: user %d has no account", id, r.User)
	}
	if !c.has(reservedByKey(r)) {
		c.faultf("reserved media %s: user %d does not lead there", id, r.User)
	}
	if c.has(c.mediaKey(c.store.server, id)) {
		c.faultf("reserved media %s: there is a file", id)
	}
}

func (c *checker) checkReservedBy(rest []byte) {
	if len(rest) <= 4 {
		c.faultf("reserved media: key %x is cut short", rest)
		return
	}
	if r, err := c.Reservation(MediaID(rest[4:])); err != nil || r.User != UserNum(u32(rest)) {
		c.faultf("reserved media %q: not reserved by user %d: %v", rest[4:], u32(rest), err)
	}
}
