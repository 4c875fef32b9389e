package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"hearth/state/matrix"
)

// ErrPurging is wrapped where a room shall begin again before all of it is gone.
var ErrPurging = errors.New("the room is being purged")

// Bounds of one write of a purge.
const (
	purgeKeys     = 512 // keys that stand side by side
	purgeEvents   = 128 // events: three keys each, of which one stands anywhere
	purgePatience = 20 * time.Millisecond
)

// BeginPurge makes a room unknown, so that [Store.PurgeRoom] can remove it
// while the server runs on. Of a local user's membership it leaves that the room
// was left and is forgotten, for the devices that have yet to be told. It is
// bounded work: while more is true there is some left, the room stands as it was,
// and BeginPurge is to be called in another write, before anybody may enter the
// room again.
//
// The error wraps ErrNotFound when the room has no head and is not being purged.
func (tx *Tx) BeginPurge(room RoomNum) (more bool, err error) {
	if _, purging := tx.purgedVersion(room); purging {
		return false, nil
	}
	head, err := tx.Head(room)
	if err != nil {
		return false, fmt.Errorf("purge: %w", err)
	}
	if more, err = tx.strike(room); more || err != nil {
		return more, err
	}
	delete(tx.rooms, room)
	return false, errors.Join(
		tx.PutPublished(room, false),
		tx.delete(bucketRemote, joinKey(room)),
		tx.put(bucketRoom, purgedKey(room), []byte(head.Version.ID)),
		tx.delete(bucketEvent, regionKey(room, regionHead)),
	)
}

// strike removes what local users have of a room, but for the note that they
// have left it. more is true when it has done all that one write may.
func (tx *Tx) strike(room RoomNum) (more bool, err error) {
	var users []UserNum
	err = tx.LocalMembers(room, func(user UserNum, _ matrix.Membership) (bool, error) {
		users = append(users, user)
		return true, nil
	})
	done := 0
	for _, user := range users {
		if err != nil || done >= purgeKeys {
			return true, err
		}
		var n int
		if n, err = tx.deleteRoomData(user, room, purgeKeys-done); err == nil {
			done += n
			n, err = tx.strikeMember(user, room)
			done += n
		}
	}
	return done >= purgeKeys, err
}

// strikeMember leaves of a membership that it has ended, and says how many keys
// it had to write.
func (tx *Tx) strikeMember(user UserNum, room RoomNum) (int, error) {
	m, known, err := tx.LocalMembership(user, room)
	if err != nil || !known {
		return 0, err
	}
	left := LocalMembership{Room: room, Membership: matrix.Leave, Position: m.Position, Forgotten: true}
	if bytes.Equal(packMembership(m), packMembership(left)) {
		return 0, nil
	}
	return 3, tx.writeMembership(user, left)
}

// deleteRoomData removes a user's account data about a room, at most limit
// pieces of it.
func (tx *Tx) deleteRoomData(user UserNum, room RoomNum, limit int) (n int, err error) {
	var all []AccountData
	err = tx.AllAccountData(user, room, func(d AccountData) (bool, error) {
		all = append(all, AccountData{Type: d.Type, Position: d.Position})
		return len(all) < limit, nil
	})
	for _, d := range all {
		if err == nil {
			err = errors.Join(
				tx.delete(bucketUser, accountDataKey(user, room, d.Type)),
				tx.delete(bucketUser, accountDataAtKey(user, d.Position)),
			)
		}
	}
	return len(all), err
}

// PurgeRoom removes all of a room that BeginPurge has made unknown, in many
// small patient writes, and calls progress, which may be nil, after each with
// the number of records removed so far. What was cut short, by ctx or a crash,
// is gone on with by another call; see [Tx.Purges]. A room that is not being
// purged is left alone. What stays of a room is its number, that our users have
// left it, their backups of its keys, and the places of its changes in the
// stream, other than events.
//
// Until it returns, nothing may collect the room's snapshots.
func (s *Store) PurgeRoom(ctx context.Context, room RoomNum, progress func(removed int)) error {
	removed := 0
	for {
		var n int
		var done bool
		err := s.Reclaim(ctx, purgePatience, func(tx *Tx) (err error) {
			n, done, err = tx.purgeStep(room)
			return err
		})
		if err != nil {
			return fmt.Errorf("purge room %d: %w", room, err)
		}
		removed += n
		if progress != nil {
			progress(removed)
		}
		if done {
			return nil
		}
	}
}

// Purges calls fn for each room whose purge has begun and not ended, until fn
// returns false or an error.
func (tx *Tx) Purges(fn func(RoomNum) (bool, error)) error {
	return tx.scan(bucketRoom, keyOf(0, purgedRoom), nil, func(key, _ []byte) (bool, error) {
		if len(key) != 4 {
			return false, fmt.Errorf("purged room: %w", ErrDamaged)
		}
		return fn(RoomNum(u32(key)))
	})
}

// purgeStep removes as much of a room as one write may. What refers to
// something goes before it, so that a purge that was cut short leaves nothing
// that leads nowhere.
func (tx *Tx) purgeStep(room RoomNum) (removed int, done bool, err error) {
	version, purging := tx.purgedVersion(room)
	if !purging {
		return 0, true, nil
	}
	for _, remove := range []func() (int, error){
		func() (int, error) { return tx.purgeAliases(room) },
		func() (int, error) { return tx.purgeServers(room) },
		func() (int, error) { return tx.purgeStays(room) },
		func() (int, error) { return tx.purgeInbox(room) },
		func() (int, error) { return tx.purgeRecords(room) },
		func() (int, error) { return tx.deleteAll(bucketState, appendU32(nil, uint32(room)), purgeKeys) },
		func() (int, error) { return tx.purgeRegion(room, regionTimeline, version) },
		func() (int, error) { return tx.purgeRegion(room, regionAside, version) },
	} {
		if removed, err = remove(); removed > 0 || err != nil {
			return removed, false, err
		}
	}
	return 0, true, tx.delete(bucketRoom, purgedKey(room))
}

func (tx *Tx) purgeAliases(room RoomNum) (removed int, err error) {
	var aliases []matrix.RoomAlias
	err = tx.scan(bucketRoom, keyOf(uint32(room), roomAlias), nil, func(alias, _ []byte) (bool, error) {
		aliases = append(aliases, matrix.RoomAlias(alias))
		return len(aliases) < purgeKeys, nil
	})
	for _, alias := range aliases {
		if to, _, aliasErr := tx.Alias(alias); err == nil && aliasErr == nil && to == room {
			err = tx.DeleteAlias(alias)
		} else if err == nil {
			err = tx.delete(bucketRoom, aliasKey(room, alias))
		}
	}
	return len(aliases), err
}

// purgeRecords removes what bucket room has of a room, but for the memberships.
func (tx *Tx) purgeRecords(room RoomNum) (removed int, err error) {
	for _, kind := range []byte{
		roomReceipt, roomReceiptAt, roomRelation, roomThread, roomWords, roomRedaction, roomHistory, roomHistoryAt, roomUnread,
	} {
		removed, err = tx.deleteAll(bucketRoom, keyOf(uint32(room), kind), purgeKeys)
		if removed > 0 || err != nil {
			return removed, err
		}
	}
	return 0, nil
}

// purgeRegion removes events: their IDs, records and places in the room. A
// damaged record does not keep a room; nobody can tell what ID it had.
func (tx *Tx) purgeRegion(room RoomNum, region byte, version *matrix.Version) (removed int, err error) {
	var nums []EventNum
	err = tx.scan(bucketEvent, regionKey(room, region), nil, func(key, _ []byte) (bool, error) {
		if len(key) != 8 {
			return false, fmt.Errorf("event key of room %d: %w", room, ErrDamaged)
		}
		num := timelineNum(Position(u64(key)))
		if region == regionAside {
			num = asideNum(num.Position())
		}
		nums = append(nums, num)
		return len(nums) < purgeEvents, nil
	})
	for _, num := range nums {
		if err == nil {
			err = tx.purgeEvent(room, num, version)
		}
	}
	return len(nums), err
}

func (tx *Tx) purgeEvent(room RoomNum, num EventNum, version *matrix.Version) error {
	_, v, err := tx.eventRecord(room, num)
	if err == nil {
		r := reader{b: v}
		id := new(StoredEvent).readHead(&r, version)
		if r.err == nil {
			if err := tx.delete(bucketID, eventIDKey(id)); err != nil {
				return err
			}
		}
		if !num.Aside() {
			if err := tx.delete(bucketStream, appendU64(nil, uint64(num.Position()))); err != nil {
				return err
			}
		}
	}
	return tx.delete(bucketEvent, eventKey(room, num))
}

// purgedVersion returns the version of a room that is being purged; ok is false
// for any other room.
func (tx *Tx) purgedVersion(room RoomNum) (v *matrix.Version, ok bool) {
	id := tx.get(bucketRoom, purgedKey(room))
	if id == nil {
		return nil, false
	}
	return matrix.VersionByID(string(id))
}

func purgedKey(room RoomNum) []byte { return appendU32(keyOf(0, purgedRoom), uint32(room)) }

// checkPurges holds each room that is being purged to what it must not have.
func checkPurges(c *checker) error {
	return c.each(bucketRoom, keyOf(0, purgedRoom), func(key, value []byte) {
		if _, known := matrix.VersionByID(string(value)); len(key) != 4 || !known {
			c.faultf("purged room %x: version %q", key, value)
		} else if c.get(bucketEvent, regionKey(RoomNum(u32(key)), regionHead)) != nil {
			c.faultf("room %d: it is being purged and has a head", u32(key))
		}
	})
}

// purging says whether a room is half gone, which Check must allow for.
func (c *checker) purging(room RoomNum) bool {
	_, purging := c.purgedVersion(room)
	return purging
}
