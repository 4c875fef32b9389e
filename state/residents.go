package state

import (
	"cmp"
	"slices"

	"hearth/state/matrix"
	"hearth/store"
)

// maxResidentsSeen is how many servers of a room are looked at for those to ask.
const maxResidentsSeen = 1 << 12

// Residents returns other servers that are in a room, the best to ask first, no more
// than most: those that are named and that of who made the room, as far as they are in
// it, then those with the most users.
func (r *Rooms) Residents(tx *store.Tx, id matrix.RoomID, most int, named ...matrix.ServerName) ([]matrix.ServerName, error) {
	num, head, err := Head(tx, id)
	if err != nil {
		return nil, err
	}
	if create, err := EventAt(tx, num, head.Current, "m.room.create", ""); err != nil {
		return nil, err
	} else if create != nil {
		named = append(slices.Clip(named), create.Sender.Server())
	}
	var servers []matrix.ServerName
	for _, name := range named {
		if name != r.server && tx.ServerInRoom(num, tx.ServerNum(name)) && !slices.Contains(servers, name) {
			servers = append(servers, name)
		}
	}
	type resident struct {
		server store.ServerNum
		joined uint64
	}
	var others []resident
	seen := 0
	err = tx.RoomServers(num, func(server store.ServerNum, joined uint64) (bool, error) {
		at, _ := slices.BinarySearchFunc(others, joined, func(o resident, joined uint64) int { return cmp.Compare(joined, o.joined) })
		if at <= most {
			others = slices.Insert(others, at, resident{server, joined})
			others = others[:min(len(others), most+1)] // one of them may be ours
		}
		seen++
		return seen < maxResidentsSeen, nil
	})
	for _, other := range others {
		if name := tx.ServerName(other.server); name != r.server && !slices.Contains(servers, name) {
			servers = append(servers, name)
		}
	}
	return servers[:min(len(servers), most)], err
}
