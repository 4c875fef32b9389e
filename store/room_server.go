package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"hearth/state/matrix"
)

// Which other servers are in a room is kept beside its state: for each server
// how many members of it have joined by the current state, and for each server
// the rooms that it is in. Our own server is never among them: whether it is in
// a room is said by [Tx.LocalMembers]. So the servers of a room are those that
// its events go to.

// PutRoomServer sets how many members of another server have joined a room; 0
// takes the server out of it. It is for who counts a whole state at once, as a
// join does; a change of state is counted by [Tx.CountRoomServer]. A server that
// was not in the room is in it from this write on.
func (tx *Tx) PutRoomServer(room RoomNum, server ServerNum, joined uint64) error {
	was, err := tx.roomServer(room, server)
	if err != nil {
		return err
	}
	if joined == 0 {
		if was.joined > 0 {
			err = tx.noteLeft(room, server, was.since)
		}
		return errors.Join(err, tx.takeOut(room, server))
	}
	since := was.since
	if was.joined == 0 {
		since = tx.Position()
	}
	v := binary.AppendUvarint(nil, joined)
	err = tx.put(bucketRoom, roomServerKey(room, server), binary.AppendUvarint(v, uint64(since)))
	if err != nil || was.joined > 0 {
		return err
	}
	return tx.put(bucketRemote, serverRoomKey(server, room), nil)
}

// takeOut removes that a server is in a room.
func (tx *Tx) takeOut(room RoomNum, server ServerNum) error {
	if err := tx.delete(bucketRoom, roomServerKey(room, server)); err != nil {
		return err
	}
	return tx.delete(bucketRemote, serverRoomKey(server, room))
}

// CountRoomServer adds n, which may be negative, to how many members of a server
// have joined a room. Our own server is not counted.
func (tx *Tx) CountRoomServer(room RoomNum, server matrix.ServerName, n int64) error {
	if n == 0 || server == tx.store.server {
		return nil
	}
	num, err := tx.PutServerNum(server)
	if err != nil {
		return err
	}
	was, err := tx.roomServer(room, num)
	if err != nil {
		return err
	}
	if n += int64(was.joined); n < 0 {
		return fmt.Errorf("members of %s in room %d: %w", server, room, ErrDamaged)
	}
	return tx.PutRoomServer(room, num, uint64(n))
}

// RoomServers calls fn for each other server that is in a room, with how many
// of its users have joined, until fn returns false or an error. fn must not
// change them.
func (tx *Tx) RoomServers(room RoomNum, fn func(server ServerNum, joined uint64) (bool, error)) error {
	return tx.eachRoomServer(room, func(server ServerNum, is inRoom) (bool, error) { return fn(server, is.joined) })
}

// RoomServersAt calls fn for each other server that is in a room and has been
// there without a break since a position: what has happened then is for it.
func (tx *Tx) RoomServersAt(room RoomNum, pos Position, fn func(ServerNum) (bool, error)) error {
	return tx.eachRoomServer(room, func(server ServerNum, is inRoom) (bool, error) {
		if is.since > pos {
			return true, nil
		}
		return fn(server)
	})
}

func (tx *Tx) eachRoomServer(room RoomNum, fn func(ServerNum, inRoom) (bool, error)) error {
	return tx.scan(bucketRoom, keyOf(uint32(room), roomServer), nil, func(rest, v []byte) (bool, error) {
		is, err := readRoomServer(v)
		if len(rest) != 4 || err != nil {
			return false, fmt.Errorf("server %x of room %d: %w", rest, room, ErrDamaged)
		}
		return fn(ServerNum(u32(rest)), is)
	})
}

// ServerRooms calls fn for each room that another server is in, until fn returns
// false or an error. A room that is being purged may be among them. fn must not
// change them.
func (tx *Tx) ServerRooms(server ServerNum, fn func(RoomNum) (bool, error)) error {
	return tx.scan(bucketRemote, remoteKey(remoteRoom, server), nil, func(rest, _ []byte) (bool, error) {
		if len(rest) != 4 {
			return false, fmt.Errorf("room %x of server %d: %w", rest, server, ErrDamaged)
		}
		return fn(RoomNum(u32(rest)))
	})
}

// ServerInRoom says whether another server is in a room: a user of it has joined.
func (tx *Tx) ServerInRoom(room RoomNum, server ServerNum) bool {
	return tx.get(bucketRoom, roomServerKey(room, server)) != nil
}

// ServerInRoomSince is ServerInRoom for who has been there without a break since a
// position.
func (tx *Tx) ServerInRoomSince(room RoomNum, server ServerNum, pos Position) (bool, error) {
	is, err := tx.roomServer(room, server)
	return is.joined > 0 && is.since <= pos, err
}

// ServerInRoomAt says whether another server was in a room at a position: it is and has
// been without a break since, or its last stay there was then.
func (tx *Tx) ServerInRoomAt(room RoomNum, server ServerNum, pos Position) (bool, error) {
	if is, err := tx.ServerInRoomSince(room, server, pos); is || err != nil {
		return is, err
	}
	return tx.stayedAt(room, server, pos)
}

// inRoom is what is noted of a server in a room.
type inRoom struct {
	joined uint64   // how many of its users have joined; 0: the server is not in the room
	since  Position // where the stream stood when it came
}

func (tx *Tx) roomServer(room RoomNum, server ServerNum) (inRoom, error) {
	v := tx.get(bucketRoom, roomServerKey(room, server))
	if v == nil {
		return inRoom{}, nil
	}
	is, err := readRoomServer(v)
	if err != nil {
		return inRoom{}, fmt.Errorf("server %d of room %d: %w", server, room, err)
	}
	return is, nil
}

func readRoomServer(v []byte) (inRoom, error) {
	r := reader{b: v}
	is := inRoom{joined: r.uvarint(), since: Position(r.uvarint())}
	if r.err != nil || len(r.b) > 0 || is.joined == 0 {
		return inRoom{}, ErrDamaged
	}
	return is, nil
}

// purgeServers takes servers out of a room that is being purged.
func (tx *Tx) purgeServers(room RoomNum) (removed int, err error) {
	var servers []ServerNum
	err = tx.scan(bucketRoom, keyOf(uint32(room), roomServer), nil, func(rest, _ []byte) (bool, error) {
		servers = append(servers, ServerNum(u32(rest)))
		return len(servers) < purgeKeys/2, nil
	})
	for _, server := range servers {
		if err == nil {
			err = tx.takeOut(room, server)
		}
	}
	return len(servers), err
}

// countServers counts the servers of all rooms: the upgrade from format 3, whose
// rooms had hardly a member of another server, so that few writes come of it.
func (tx *Tx) countServers() error {
	return tx.Rooms(func(room RoomNum, h Head) (bool, error) {
		servers, err := tx.stateServers(room, h.Current)
		for server, joined := range servers {
			if err != nil {
				break
			}
			err = tx.CountRoomServer(room, server, int64(joined))
		}
		return err == nil, err
	})
}

// stateServers counts the joined members of a state by their server, ours left out.
func (tx *Tx) stateServers(room RoomNum, snap SnapshotID) (map[matrix.ServerName]uint64, error) {
	servers := make(map[matrix.ServerName]uint64)
	err := tx.WalkState(room, snap, StateMembers, func(_ Slot, num EventNum) (bool, error) {
		ev, err := tx.Event(room, num)
		if err != nil {
			return false, err
		}
		if server, joined := ev.JoinedServer(); joined && server != tx.store.server {
			servers[server]++
		}
		return true, nil
	})
	return servers, err
}

// JoinedServer returns the server whose user the event makes a joined member of
// the room; joined is false of any other event.
func (ev *StoredEvent) JoinedServer() (server matrix.ServerName, joined bool) {
	if ev.Type != memberType || ev.StateKey == nil {
		return "", false
	}
	user, err := matrix.ParseUserID(*ev.StateKey)
	if err != nil {
		return "", false
	}
	content, err := ev.Member()
	if err != nil || content.Membership != matrix.Join {
		return "", false
	}
	return user.Server(), true
}

func roomServerKey(room RoomNum, server ServerNum) []byte {
	return appendU32(keyOf(uint32(room), roomServer), uint32(server))
}

func serverRoomKey(server ServerNum, room RoomNum) []byte {
	return appendU32(remoteKey(remoteRoom, server), uint32(room))
}

// remoteKey starts a key of bucket remote that is about a server.
func remoteKey(kind byte, server ServerNum) []byte {
	return appendU32([]byte{kind}, uint32(server))
}

// checkRoomServers holds the servers of each room to the members of its current
// state, and each server's rooms to those.
func checkRoomServers(c *checker) error {
	err := c.Rooms(func(room RoomNum, h Head) (bool, error) {
		want, err := c.stateServers(room, h.Current)
		if err != nil {
			c.faultf("servers of room %d: %v", room, err)
			return true, c.ctx.Err()
		}
		err = c.RoomServers(room, func(num ServerNum, joined uint64) (bool, error) {
			server := c.ServerName(num)
			if want[server] != joined {
				c.faultf("room %d: %d members of %s are counted, the state has %d", room, joined, server, want[server])
			}
			if c.get(bucketRemote, serverRoomKey(num, room)) == nil {
				c.faultf("room %d: %s is in it, and it is not among that server's", room, server)
			}
			delete(want, server)
			return true, nil
		})
		for server, joined := range want {
			c.faultf("room %d: %s is not among its servers, the state has %d of its members", room, server, joined)
		}
		if err != nil {
			c.faultf("%v", err)
		}
		return true, c.ctx.Err()
	})
	if err != nil {
		return err
	}
	err = c.each(bucketRemote, []byte{remoteRoom}, func(rest, _ []byte) {
		if len(rest) != 8 || !c.ServerInRoom(RoomNum(u32(rest[4:])), ServerNum(u32(rest))) {
			c.faultf("server and room %x: the server is not in that room", rest)
		}
	})
	if err != nil {
		return err
	}
	return c.eachOf(bucketRoom, roomServer, func(room uint32, rest, _ []byte) {
		if c.get(bucketEvent, regionKey(RoomNum(room), regionHead)) == nil {
			c.faultf("room %d: it has a server %x and no head", room, rest)
		}
	})
}
