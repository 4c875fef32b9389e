package store

import (
	"encoding/binary"
	"fmt"
	"time"

	"hearth/state/matrix"
)

// Host is what is known about where another server is. The zero Host is that of a
// server about which nothing is.
//
// Spec: SS Resolving server names.
type Host struct {
	// Delegated is what its well-known document names; "": it has none.
	Delegated matrix.ServerName
	// DelegatedUntil is when that is to be asked again. If zero, it never was.
	DelegatedUntil time.Time
	// Failures is how often in a row there was no document.
	Failures int
	// Targets are what its SRV records name, in the order to be tried.
	Targets []HostTarget
	// TargetsUntil is when they are to be looked up again. If zero, they never were.
	TargetsUntil time.Time
}

// HostTarget is a host and a port that answer for a server.
type HostTarget struct {
	Name string
	Port uint16
}

// Host returns what is known about where a server is.
func (tx *Tx) Host(server matrix.ServerName) (Host, error) {
	v := tx.get(bucketRemote, remoteServerKey(remoteHost, server))
	if v == nil {
		return Host{}, nil
	}
	return readHost(server, v)
}

// PutHost stores where a server is.
func (tx *Tx) PutHost(server matrix.ServerName, h Host) error {
	v := appendString(nil, string(h.Delegated))
	v = appendTime(v, h.DelegatedUntil)
	v = binary.AppendUvarint(v, uint64(h.Failures))
	v = appendTime(v, h.TargetsUntil)
	v = binary.AppendUvarint(v, uint64(len(h.Targets)))
	for _, t := range h.Targets {
		v = binary.AppendUvarint(appendString(v, t.Name), uint64(t.Port))
	}
	return tx.put(bucketRemote, remoteServerKey(remoteHost, server), v)
}

// OldHosts returns servers that have been found anew last before a time, at most
// limit of them.
func (tx *Tx) OldHosts(before time.Time, limit int) ([]matrix.ServerName, error) {
	var old []matrix.ServerName
	err := tx.scan(bucketRemote, []byte{remoteHost}, nil, func(name, v []byte) (bool, error) {
		h, err := readHost(matrix.ServerName(name), v)
		if err == nil && h.DelegatedUntil.Before(before) && h.TargetsUntil.Before(before) {
			old = append(old, matrix.ServerName(name))
		}
		return len(old) < limit, err
	})
	return old, err
}

// DeleteHost removes where a server is.
func (tx *Tx) DeleteHost(server matrix.ServerName) error {
	return tx.delete(bucketRemote, remoteServerKey(remoteHost, server))
}

func readHost(server matrix.ServerName, v []byte) (Host, error) {
	r := reader{b: v}
	h := Host{Delegated: matrix.ServerName(r.string()), DelegatedUntil: r.time(), Failures: int(r.uvarint()), TargetsUntil: r.time()}
	for n := r.uvarint(); n > 0 && r.err == nil; n-- {
		h.Targets = append(h.Targets, HostTarget{Name: r.string(), Port: uint16(r.uvarint())})
	}
	if r.err != nil || len(r.b) > 0 {
		return Host{}, fmt.Errorf("host of %s: %w", server, ErrDamaged)
	}
	return h, nil
}

// remoteServerKey is the key of what is known about a server by its name.
func remoteServerKey(kind byte, server matrix.ServerName) []byte {
	return append([]byte{kind}, server...)
}

// appendTime appends a time in milliseconds; the zero time is 0.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.AppendUvarint(b, 0)
	}
	return binary.AppendUvarint(b, uint64(max(1, t.UnixMilli())))
}

// time reads what appendTime wrote.
func (r *reader) time() time.Time {
	ms := r.uvarint()
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms))
}

// checkHosts reads every record of where a server is.
func checkHosts(c *checker) error {
	return c.each(bucketRemote, []byte{remoteHost}, func(name, v []byte) {
		server, err := matrix.ParseServerName(string(name))
		if err != nil {
			c.faultf("host: %v", err)
			return
		}
		if _, err := readHost(server, v); err != nil {
			c.faultf("%v", err)
		}
	})
}
