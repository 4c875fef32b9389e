package store

import (
	"bytes"
	"errors"
	"fmt"

	"hearth/state/matrix"
)

// PutAlias makes an alias of this server lead to a room; creator may delete it
// again. ErrExists: it leads somewhere already.
func (tx *Tx) PutAlias(alias matrix.RoomAlias, room RoomNum, creator UserNum) error {
	key := append(keyOf(0, aliasRoom), alias...)
	if tx.get(bucketRoom, key) != nil {
		return fmt.Errorf("alias %s: %w", alias, ErrExists)
	}
	if err := tx.put(bucketRoom, key, appendU32(nil, uint32(room))); err != nil {
		return err
	}
	return tx.put(bucketRoom, aliasKey(room, alias), appendU32(nil, uint32(creator)))
}

// DeleteAlias removes an alias; ErrNotFound: there is none.
func (tx *Tx) DeleteAlias(alias matrix.RoomAlias) error {
	room, _, err := tx.Alias(alias)
	if err != nil {
		return err
	}
	if err := tx.delete(bucketRoom, append(keyOf(0, aliasRoom), alias...)); err != nil {
		return err
	}
	return tx.delete(bucketRoom, aliasKey(room, alias))
}

// Alias returns the room that an alias of this server leads to, and who made
// it. ErrNotFound: it leads nowhere.
func (tx *Tx) Alias(alias matrix.RoomAlias) (RoomNum, UserNum, error) {
	v := tx.get(bucketRoom, append(keyOf(0, aliasRoom), alias...))
	if len(v) != 4 {
		return 0, 0, fmt.Errorf("alias %s: %w", alias, ErrNotFound)
	}
	room := RoomNum(u32(v))
	creator := tx.get(bucketRoom, aliasKey(room, alias))
	if len(creator) != 4 {
		return 0, 0, fmt.Errorf("alias %s: %w", alias, ErrDamaged)
	}
	return room, UserNum(u32(creator)), nil
}

// Aliases returns the aliases of this server that lead to a room, in order.
func (tx *Tx) Aliases(room RoomNum) ([]matrix.RoomAlias, error) {
	var all []matrix.RoomAlias
	err := tx.scan(bucketRoom, keyOf(uint32(room), roomAlias), nil, func(key, _ []byte) (bool, error) {
		all = append(all, matrix.RoomAlias(bytes.Clone(key)))
		return true, nil
	})
	return all, err
}

// PutPublished puts a room into this server's published directory, or takes
// it out. Spec: CS Published room directory.
func (tx *Tx) PutPublished(room RoomNum, published bool) error {
	key := appendU32(keyOf(0, publishedRoom), uint32(room))
	if !published {
		return tx.delete(bucketRoom, key)
	}
	return tx.put(bucketRoom, key, []byte{1})
}

// Published says whether a room is in the published directory.
func (tx *Tx) Published(room RoomNum) bool {
	return tx.get(bucketRoom, appendU32(keyOf(0, publishedRoom), uint32(room))) != nil
}

// PublishedRooms calls fn for each room of the published directory, from the
// one behind after, until fn returns false or an error.
func (tx *Tx) PublishedRooms(after RoomNum, fn func(RoomNum) (bool, error)) error {
	if after == 1<<32-1 {
		return nil
	}
	prefix := keyOf(0, publishedRoom)
	start := appendU32(keyOf(0, publishedRoom), uint32(after)+1)
	return tx.scan(bucketRoom, prefix, start, func(key, _ []byte) (bool, error) {
		if len(key) != 4 {
			return false, fmt.Errorf("published room: %w", ErrDamaged)
		}
		return fn(RoomNum(u32(key)))
	})
}

func aliasKey(room RoomNum, alias matrix.RoomAlias) []byte {
	return append(keyOf(uint32(room), roomAlias), alias...)
}

// checkAliases leads each alias to its room and back, and holds the published
// directory to rooms.
func checkAliases(c *checker) error {
	return errors.Join(
		c.each(bucketRoom, keyOf(0, aliasRoom), func(alias, v []byte) {
			if len(v) != 4 || len(c.get(bucketRoom, aliasKey(RoomNum(u32(v)), matrix.RoomAlias(alias)))) != 4 {
				c.faultf("alias %s leads to room %x, which does not know it", alias, v)
			}
		}),
		c.eachOf(bucketRoom, roomAlias, func(room uint32, alias, _ []byte) {
			if v := c.get(bucketRoom, append(keyOf(0, aliasRoom), alias...)); len(v) != 4 || u32(v) != room {
				c.faultf("alias %s of room %d leads to room %x", alias, room, v)
			}
		}),
		c.each(bucketRoom, keyOf(0, publishedRoom), func(room, _ []byte) {
			if len(room) != 4 || c.RoomID(RoomNum(u32(room))) == "" {
				c.faultf("published directory: room %x is unknown", room)
			}
		}),
	)
}
