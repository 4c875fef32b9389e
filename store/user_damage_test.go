package store

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
)

// Check finds each of these damages to what users keep in rooms.
func TestCheckFindsDamagedUserData(t *testing.T) {
	for name, damage := range map[string]struct {
		want string
		do   func(tx *Tx, room RoomNum, user UserNum) error
	}{
		"account data that is no JSON": {"cannot be read", func(tx *Tx, room RoomNum, user UserNum) error {
			key := accountDataKey(user, room, "m.x")
			return tx.put(bucketUser, key, bytes.Clone(tx.get(bucketUser, key)[:9]))
		}},
		"account data without a place": {"not in the index", func(tx *Tx, room RoomNum, user UserNum) error {
			return tx.delete(bucketUser, accountDataAtKey(user, tx.AccountDataPosition(user, room, "m.x")))
		}},
		"place without account data": {"in the index", func(tx *Tx, room RoomNum, user UserNum) error {
			return tx.delete(bucketUser, accountDataKey(user, room, "m.x"))
		}},
		"receipt without a place": {"not in the index", func(tx *Tx, room RoomNum, _ UserNum) error {
			key, _ := first(tx, bucketRoom, keyOf(uint32(room), roomReceiptAt))
			return tx.delete(bucketRoom, key)
		}},
		"place without a receipt": {"in the index", func(tx *Tx, room RoomNum, _ UserNum) error {
			key, _ := first(tx, bucketRoom, keyOf(uint32(room), roomReceipt))
			return tx.delete(bucketRoom, key)
		}},
		"receipt that cannot be read": {"receipt", func(tx *Tx, room RoomNum, _ UserNum) error {
			key, _ := first(tx, bucketRoom, keyOf(uint32(room), roomReceipt))
			return tx.put(bucketRoom, key, []byte{0xff})
		}},
		"receipt key that is cut": {"too short", func(tx *Tx, room RoomNum, _ UserNum) error {
			return tx.put(bucketRoom, keyOf(uint32(room), roomReceipt), []byte{1})
		}},
		"unread events that cannot be read": {"unread events", func(tx *Tx, room RoomNum, user UserNum) error {
			return tx.put(bucketRoom, unreadKey(user, room), []byte{1, 2, 0xff})
		}},
		"unread event of no thread": {"unread events", func(tx *Tx, room RoomNum, user UserNum) error {
			return tx.put(bucketRoom, unreadKey(user, room), []byte{0, 2, 0, 4, 2})
		}},
		"unread events of nobody": {"key", func(tx *Tx, room RoomNum, _ UserNum) error {
			return tx.put(bucketRoom, append(keyOf(uint32(room), roomUnread), 1), []byte{0, 0, 0})
		}},
		"alias of no room": {"does not know it", func(tx *Tx, _ RoomNum, _ UserNum) error {
			return tx.put(bucketRoom, append(keyOf(0, aliasRoom), "#x:hearth.test"...), []byte{1})
		}},
		"alias that leads nowhere": {"leads to room", func(tx *Tx, _ RoomNum, _ UserNum) error {
			return tx.delete(bucketRoom, append(keyOf(0, aliasRoom), "#room:hearth.test"...))
		}},
		"unknown room in the directory": {"published directory", func(tx *Tx, _ RoomNum, _ UserNum) error {
			return tx.PutPublished(999, true)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := openDir(t, t.TempDir())
			defer closeStore(t, s)
			r := putTestRoom(t, s, "12", alice, bob)
			update(t, s, func(tx *Tx) error {
				user := tx.UserNum(bob)
				_, err := tx.PutReceipt(r.num, Receipt{User: user, Type: ReceiptRead, Event: "$event", Num: 2})
				return errors.Join(err,
					tx.PutAccountData(user, AccountData{Room: r.num, Type: "m.x", Content: []byte(`{}`)}),
					tx.PutUnread(user, r.num, Unread{Upto: 4, Events: []UnreadEvent{{Num: 4}}}),
					tx.PutAlias("#room:hearth.test", r.num, user), tx.PutPublished(r.num, true))
			})
			checkStore(t, s)
			update(t, s, func(tx *Tx) error { return damage.do(tx, r.num, tx.UserNum(bob)) })
			var faults []string
			if err := s.Check(context.Background(), func(fault string) { faults = append(faults, fault) }); err != nil {
				faults = append(faults, err.Error())
			}
			if all := strings.Join(faults, "\n"); !strings.Contains(all, damage.want) {
				t.Errorf("found %q, want %q", all, damage.want)
			}
		})
	}
}
