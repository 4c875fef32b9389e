package state

import (
	"cmp"
	"slices"

	"hearth/state/matrix"
	"hearth/store"
)

// maxInviters bounds the servers that [Rooms.InviterServers] names.
const maxInviters = 16

// InviterServers returns other servers that have a joined member with the power to
// invite, who may let somebody into a restricted room, those with the most power
// first. Where everybody may invite it is any server of the room.
//
// Spec: SS Restricted rooms.
func (r *Rooms) InviterServers(id matrix.RoomID) (servers []matrix.ServerName, err error) {
	err = r.store.View(func(tx *store.Tx) error {
		rm, err := r.open(tx, id)
		if err != nil {
			return err
		}
		create, levels, err := rm.powers()
		if err != nil {
			return err
		}
		users := create.Creators()
		for user := range levels.Users {
			users = append(users, user)
		}
		users = slices.DeleteFunc(users, func(user matrix.UserID) bool { return !levels.holds(create, user, levels.Invite) })
		slices.SortFunc(users, func(a, b matrix.UserID) int {
			return cmp.Or(cmp.Compare(levels.Users[b], levels.Users[a]), cmp.Compare(a, b))
		})
		for _, user := range users {
			server := user.Server()
			if len(servers) == maxInviters || server == r.server || slices.Contains(servers, server) {
				continue
			}
			if m, err := rm.membership(user); err != nil {
				return err
			} else if m == matrix.Join {
				servers = append(servers, server)
			}
		}
		if levels.UsersDefault < levels.Invite {
			return nil
		}
		return tx.RoomServers(rm.num, func(num store.ServerNum, _ uint64) (bool, error) {
			if server := tx.ServerName(num); !slices.Contains(servers, server) {
				servers = append(servers, server)
			}
			return len(servers) < maxInviters, nil
		})
	})
	return servers, err
}
