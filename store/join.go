package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"hearth/state/matrix"
)

// A RoomJoin is a join of a local user to a room at another server, under way: what
// must be known to go on with it after a restart. There is one for a room at a time.
// While it is there, events of the room can be stored and read although the room has
// no head yet, so that nobody finds it.
type RoomJoin struct {
	Room    RoomNum
	Serial  Position // tells the joins of a room apart, set by PutJoin where it is 0
	Version *matrix.Version
	User    matrix.UserID
	Event   []byte              // the member event, signed by this server
	Server  matrix.ServerName   // that was asked for it, and gets it
	Others  []matrix.ServerName // that may be in the room, too
	// Arrived: the other server's answer is here, whole, in a file beside the
	// database.
	Arrived bool
}

// maxJoinServers bounds the servers that a record may name.
const maxJoinServers = 64

// PutJoin stores a join under way. The error wraps ErrPurging for a room of which a
// purge has yet to remove what was there before, and ErrExists where another join is
// there.
func (tx *Tx) PutJoin(j *RoomJoin) error {
	if _, purging := tx.purgedVersion(j.Room); purging {
		return fmt.Errorf("join to room %d: %w", j.Room, ErrPurging)
	}
	old, err := tx.Join(j.Room)
	switch {
	case errors.Is(err, ErrNotFound) && j.Serial == 0:
		if j.Serial, err = tx.nextPosition(); err != nil {
			return err
		}
	case err != nil:
		return err
	case old.Serial != j.Serial:
		return fmt.Errorf("join to room %d: %w", j.Room, ErrExists)
	}
	delete(tx.rooms, j.Room)
	return tx.put(bucketRemote, joinKey(j.Room), packJoin(j))
}

// Join returns the join to a room that is under way. The error wraps ErrNotFound
// where there is none.
func (tx *Tx) Join(room RoomNum) (RoomJoin, error) {
	v := tx.get(bucketRemote, joinKey(room))
	if v == nil {
		return RoomJoin{}, fmt.Errorf("join to room %d: %w", room, ErrNotFound)
	}
	j, err := readJoin(room, v)
	if err != nil {
		return RoomJoin{}, fmt.Errorf("join to room %d: %w", room, err)
	}
	return j, nil
}

// Joins calls fn for each join under way, by room number, until fn returns false or
// an error.
func (tx *Tx) Joins(fn func(RoomJoin) (bool, error)) error {
	return tx.scan(bucketRemote, []byte{remoteJoin}, nil, func(rest, v []byte) (bool, error) {
		if len(rest) != 4 {
			return false, fmt.Errorf("key of a join: %w", ErrDamaged)
		}
		j, err := readJoin(RoomNum(u32(rest)), v)
		if err != nil {
			return false, fmt.Errorf("join to room %d: %w", u32(rest), err)
		}
		return fn(j)
	})
}

// EndJoin removes the record of a join that has come to its end. What it stored of a
// room that has no head is to be purged then, as by [Tx.BeginPurge]; purge says so.
func (tx *Tx) EndJoin(room RoomNum) (purge bool, err error) {
	j, err := tx.Join(room)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if tx.get(bucketEvent, regionKey(room, regionHead)) == nil {
		purge = true
		err = tx.put(bucketRoom, purgedKey(room), []byte(j.Version.ID))
	}
	delete(tx.rooms, room)
	return purge, errors.Join(err, tx.delete(bucketRemote, joinKey(room)))
}

// joining returns the version of a room whose join is under way.
func (tx *Tx) joining(room RoomNum) (v *matrix.Version, ok bool) {
	record := tx.get(bucketRemote, joinKey(room))
	if record == nil {
		return nil, false
	}
	j, err := readJoin(room, record)
	return j.Version, err == nil
}

func joinKey(room RoomNum) []byte { return appendU32([]byte{remoteJoin}, uint32(room)) }

// joinArrived is the flag of a join whose answer is here.
const joinArrived = 1

func packJoin(j *RoomJoin) []byte {
	v := make([]byte, 0, 128+len(j.Event))
	v = binary.AppendUvarint(v, bitIf(j.Arrived, joinArrived))
	v = binary.AppendUvarint(v, uint64(j.Serial))
	v = appendString(v, j.Version.ID)
	v = appendString(v, string(j.User))
	v = appendString(v, string(j.Server))
	others := j.Others[:min(len(j.Others), maxJoinServers)]
	v = binary.AppendUvarint(v, uint64(len(others)))
	for _, server := range others {
		v = appendString(v, string(server))
	}
	return append(v, j.Event...)
}

func readJoin(room RoomNum, v []byte) (RoomJoin, error) {
	r := reader{b: v}
	j := RoomJoin{Room: room}
	j.Arrived = r.uvarint()&joinArrived != 0
	j.Serial = Position(r.uvarint())
	version := r.string()
	j.User = matrix.UserID(r.string())
	j.Server = matrix.ServerName(r.string())
	n := r.uvarint()
	if n > maxJoinServers {
		r.fail()
		n = 0
	}
	for range n {
		j.Others = append(j.Others, matrix.ServerName(r.string()))
	}
	var known bool
	if j.Version, known = matrix.VersionByID(version); !known || r.err != nil || j.Serial == 0 {
		return RoomJoin{}, fmt.Errorf("version %q: %w", version, ErrDamaged)
	}
	j.Event = append([]byte(nil), r.b...)
	return j, nil
}

// checkJoins holds each join under way to its room and its event.
func checkJoins(c *checker) error {
	return c.each(bucketRemote, []byte{remoteJoin}, func(rest, value []byte) {
		if len(rest) != 4 {
			c.faultf("join %x", rest)
			return
		}
		room := RoomNum(u32(rest))
		j, err := readJoin(room, value)
		if err != nil {
			c.faultf("join to room %d: %v", room, err)
			return
		}
		ev, err := matrix.Parse(j.Version, j.Event)
		switch {
		case err != nil:
			c.faultf("join to room %d: its event: %v", room, err)
		case ev.Room != c.RoomID(room) || !ev.Is(memberType, string(j.User)):
			c.faultf("join to room %d: its event is a %s of %s", room, ev.Type, ev.Room)
		case c.purging(room):
			c.faultf("join to room %d: the room is being purged", room)
		}
		if j.Serial > c.Tx.Position() {
			c.faultf("join to room %d: its serial %d lies beyond the newest position", room, j.Serial)
		}
	})
}
