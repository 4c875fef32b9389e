package state

import (
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// moveAliases has the local aliases of the old room lead to the new one, each with
// who made it. m.room.canonical_alias follows them: aliases of other servers still
// lead to the old room, and stay there.
func (u *upgrade) moveAliases() error {
	tx := u.old.tx
	moved, err := tx.Aliases(u.old.num)
	if err != nil {
		return err
	}
	for _, alias := range moved {
		_, creator, err := tx.Alias(alias)
		if err != nil {
			return err
		}
		if err := tx.DeleteAlias(alias); err != nil {
			return err
		}
		if err := tx.PutAlias(alias, u.fresh.num, creator); err != nil {
			return err
		}
	}
	ev, err := u.old.current("m.room.canonical_alias", "")
	if ev == nil || err != nil {
		return err
	}
	stay, follow := splitAliases(ev.Content, moved)
	if len(follow) == 0 {
		return nil
	}
	if err := u.fresh.addState(u.user, "m.room.canonical_alias", "", fitting(u.version, follow)); err != nil {
		return err
	}
	return u.ifAllowed("m.room.canonical_alias", encode(stay))
}

// splitAliases parts the content of m.room.canonical_alias: what names the aliases
// that moved, and all the rest.
func splitAliases(content jsontext.Value, moved []matrix.RoomAlias) (stay, follow map[string]jsontext.Value) {
	stay, follow = make(map[string]jsontext.Value), make(map[string]jsontext.Value)
	if readObject(content, &stay) != nil {
		return nil, nil
	}
	var alias matrix.RoomAlias
	if json.Unmarshal(stay["alias"], &alias) == nil && slices.Contains(moved, alias) {
		follow["alias"] = stay["alias"]
		delete(stay, "alias")
	}
	var others, here, there []matrix.RoomAlias
	if json.Unmarshal(stay["alt_aliases"], &others) != nil {
		return stay, follow
	}
	for _, alias := range others {
		if slices.Contains(moved, alias) {
			there = append(there, alias)
		} else {
			here = append(here, alias)
		}
	}
	if len(there) > 0 {
		follow["alt_aliases"], stay["alt_aliases"] = encode(there), encode(here)
	}
	return stay, follow
}
