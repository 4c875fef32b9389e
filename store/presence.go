package store

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Presence is what outlives a restart of a local user's presence.
//
// Spec: CS Presence.
type Presence struct {
	LastActive time.Time // with milliseconds; zero: never
	Status     string    // what the user says about it; "": nothing
}

// Presence returns what was stored of a local user's presence, the zero Presence
// where there is nothing.
func (tx *Tx) Presence(user UserNum) (Presence, error) {
	v := tx.get(bucketUser, keyOf(uint32(user), userPresence))
	if v == nil {
		return Presence{}, nil
	}
	return readPresence(user, v)
}

// PutPresence stores a local user's presence. It has no place in the stream. Of
// deactivated accounts nothing is stored; the error wraps ErrNotFound where there
// is no account at all.
func (tx *Tx) PutPresence(user UserNum, p Presence) error {
	a, err := tx.Account(user)
	if err != nil || a.Deactivated {
		return err
	}
	ms := uint64(0)
	if !p.LastActive.IsZero() {
		ms = uint64(max(0, p.LastActive.UnixMilli()))
	}
	v := append(binary.AppendUvarint(nil, ms), p.Status...)
	return tx.put(bucketUser, keyOf(uint32(user), userPresence), v)
}

func readPresence(user UserNum, v []byte) (p Presence, err error) {
	r := reader{b: v}
	if ms := r.uvarint(); ms != 0 {
		p.LastActive = time.UnixMilli(int64(ms))
	}
	if r.err != nil {
		return Presence{}, fmt.Errorf("presence of user %d: %w", user, r.err)
	}
	p.Status = string(r.b)
	return p, nil
}
