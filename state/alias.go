package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// A Keeper is a local user who changes how a room is found: by which aliases, and
// whether in the published directory.
type Keeper struct {
	User  matrix.UserID
	Admin bool // an administrator of this server, who needs no power in the room
}

// maxAliases is how many aliases of this server may lead to one room.
const maxAliases = 500

// errMoved says that an alias leads to another room than a moment before.
var errMoved = errors.New("the alias has moved")

// AliasRoom returns the room that an alias of this server leads to;
// ErrUnknownAlias where it leads nowhere.
func (r *Rooms) AliasRoom(alias matrix.RoomAlias) (id matrix.RoomID, err error) {
	err = r.store.View(func(tx *store.Tx) error {
		num, _, err := tx.Alias(alias)
		if err == nil {
			_, err = tx.Head(num) // there is none while the room is purged
			id = tx.RoomID(num)
		}
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return "", refuse(ErrUnknownAlias, "The alias %s leads nowhere", alias)
	}
	return id, err
}

// maxAliasServers is how many servers are told to who asks where an alias leads.
const maxAliasServers = 50

// AliasTarget returns the room that an alias of this server leads to, with servers
// that are in it: this one if it is, then those with the most members. An alias that
// leads nowhere is ErrUnknownAlias. Spec: SS query/directory.
func (r *Rooms) AliasTarget(alias matrix.RoomAlias) (id matrix.RoomID, servers []matrix.ServerName, err error) {
	id, err = r.AliasRoom(alias)
	if err != nil {
		return "", nil, err
	}
	type server struct {
		num    store.ServerNum
		joined uint64
	}
	err = r.store.View(func(tx *store.Tx) error {
		num := tx.RoomNum(id)
		var all []server
		err := tx.RoomServers(num, func(s store.ServerNum, joined uint64) (bool, error) {
			all = append(all, server{s, joined})
			return true, nil
		})
		if err != nil {
			return err
		}
		slices.SortFunc(all, func(a, b server) int { return cmp.Or(-cmp.Compare(a.joined, b.joined), cmp.Compare(a.num, b.num)) })
		servers = []matrix.ServerName{}
		if inside, err := Resident(tx, num); err != nil {
			return err
		} else if inside || len(all) == 0 {
			servers = append(servers, r.server)
		}
		for _, s := range all[:min(len(all), maxAliasServers-len(servers))] {
			servers = append(servers, tx.ServerName(s.num))
		}
		return nil
	})
	return id, servers, err
}

// AddAlias has an alias of this server lead to a room, whose members may do so.
// An alias that is taken is [store.ErrExists].
func (r *Rooms) AddAlias(ctx context.Context, alias matrix.RoomAlias, id matrix.RoomID, by Keeper) error {
	change := r.changeAsMember
	if by.Admin {
		change = r.change
	}
	return change(ctx, id, func(rm *room) error {
		if !by.Admin {
			if err := rm.requireMember(by.User); err != nil {
				return err
			}
		}
		all, err := rm.tx.Aliases(rm.num)
		if err != nil {
			return err
		}
		if len(all) >= maxAliases {
			return refuse(ErrForbidden, "This room has %d aliases already", len(all))
		}
		creator, err := rm.tx.PutUserNum(by.User)
		if err != nil {
			return err
		}
		return rm.tx.PutAlias(alias, rm.num, creator)
	})
}

// DeleteAlias removes an alias of this server. Who made it may do so, and who may
// send m.room.canonical_alias in the room. Where that event names the alias, it is
// taken out, unless the keeper may not: then the event is left as it is. An alias
// that leads nowhere is ErrUnknownAlias.
//
// Spec: CS Room aliases, directory.yaml.
func (r *Rooms) DeleteAlias(ctx context.Context, alias matrix.RoomAlias, by Keeper) error {
	for {
		id, err := r.AliasRoom(alias)
		if err != nil {
			return err
		}
		asked, err := r.produce(ctx, id, func(rm *room) (matrix.EventID, error) { return "", rm.deleteAlias(alias, by) })
		switch {
		case errors.Is(err, errMoved):
		case err != nil || asked == "":
			return err
		}
		// A policy server had to sign m.room.canonical_alias first; the rest is still to do.
	}
}

func (rm *room) deleteAlias(alias matrix.RoomAlias, by Keeper) error {
	num, creator, err := rm.tx.Alias(alias)
	if errors.Is(err, store.ErrNotFound) || err == nil && num != rm.num {
		return errMoved
	}
	if err != nil {
		return err
	}
	if creator != rm.tx.UserNum(by.User) {
		if err := rm.requireKeeper(by); err != nil {
			return err
		}
	}
	if err := rm.tx.DeleteAlias(alias); err != nil {
		return err
	}
	return rm.dropCanonical(alias, by.User)
}

// requireKeeper refuses who may not say how the room is found: who neither runs
// this server nor may send m.room.canonical_alias.
func (rm *room) requireKeeper(by Keeper) error {
	if by.Admin {
		return nil
	}
	if err := rm.requireMember(by.User); err != nil {
		return err
	}
	create, levels, err := rm.powers()
	if err != nil {
		return err
	}
	if level := levels.Send("m.room.canonical_alias", true); !levels.holds(create, by.User, level) {
		return refuse(ErrForbidden, "You need power level %d for this", level)
	}
	return nil
}

// dropCanonical takes an alias out of the room's m.room.canonical_alias, in the
// name of a user. What he may not send is not sent.
func (rm *room) dropCanonical(alias matrix.RoomAlias, user matrix.UserID) error {
	ev, err := rm.current("m.room.canonical_alias", "")
	if ev == nil || err != nil {
		return err
	}
	stay, gone := splitAliases(ev.Content, []matrix.RoomAlias{alias})
	if len(gone) == 0 {
		return nil
	}
	if string(stay["alt_aliases"]) == "[]" {
		delete(stay, "alt_aliases")
	}
	err = rm.addState(user, "m.room.canonical_alias", "", fitting(rm.head.Version, stay))
	if _, refused := errors.AsType[*auth.Error](err); refused {
		return nil
	}
	if err != nil {
		return fmt.Errorf("take %s out of m.room.canonical_alias: %w", alias, err)
	}
	return nil
}

// Publish puts a room into the published directory, or takes it out, for who may
// send m.room.canonical_alias there. Spec: CS Published room directory.
func (r *Rooms) Publish(ctx context.Context, id matrix.RoomID, by Keeper, published bool) error {
	return r.change(ctx, id, func(rm *room) error {
		if err := rm.requireKeeper(by); err != nil {
			return err
		}
		return rm.tx.PutPublished(rm.num, published)
	})
}
