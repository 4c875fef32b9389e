package store

import (
	"context"
	"errors"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// Check finds each damage to what is stored of devices and keys.
func TestCheckFindsDamagedKeys(t *testing.T) {
	var user UserNum
	damages := []struct {
		name string
		deed func(tx *Tx) error
	}{
		{"a device that took nothing with it", func(tx *Tx) error {
			return tx.delete(bucketUser, deviceKey(user, "PHONE"))
		}},
		{"device keys that are no object", func(tx *Tx) error {
			return tx.put(bucketUser, deviceKeysKey(user, "PHONE"), []byte(`[]`))
		}},
		{"a one-time key without its ID", func(tx *Tx) error {
			return tx.delete(bucketUser, append(oneTimePrefix(user, userOneTimeKeyID, "PHONE", curve), "AAA001"...))
		}},
		{"the ID of no one-time key", func(tx *Tx) error {
			return tx.put(bucketUser, append(oneTimePrefix(user, userOneTimeKeyID, "PHONE", curve), "X"...), appendU64(nil, 99))
		}},
		{"a ring of half a hash", func(tx *Tx) error {
			return tx.put(bucketUser, givenKeysKey(user, "PHONE", curve), []byte{1, 2, 3})
		}},
		{"a fallback key cut short", func(tx *Tx) error {
			return tx.put(bucketUser, fallbackKey(user, "PHONE", curve), []byte{1})
		}},
		{"a cross-signing key called like a device", func(tx *Tx) error {
			return tx.put(bucketUser, crossSigningKey(user, UsageMaster), append(appendString(nil, "PHONE"), `{}`...))
		}},
		{"a signature about nobody", func(tx *Tx) error {
			return tx.put(bucketUser, append(signaturePrefix(user, 999, "M"), "ed25519:U"...), []byte("s"))
		}},
		{"a signature of the future", func(tx *Tx) error {
			return tx.put(bucketUser, signedAtKey(user, tx.Position()+1), appendU32(nil, uint32(user)))
		}},
		{"a backup that miscounts", func(tx *Tx) error {
			return tx.putBackup(user, Backup{Version: 1, Algorithm: "m.test", AuthData: jsontext.Value(`{}`), Count: 2})
		}},
		{"keys of a backup that never was", func(tx *Tx) error {
			return tx.put(bucketUser, roomKeyAt(user, 9, tx.RoomNum("!r"), "s"), packRoomKey(roomKey("r", "s", true, 0, 0)))
		}},
		{"a message that is not counted", func(tx *Tx) error {
			return tx.put(bucketUser, toDeviceKey(user, "PHONE", tx.Position()), []byte(`{}`))
		}},
		{"messages without a count", func(tx *Tx) error {
			return tx.delete(bucketUser, toDeviceKey(user, "PHONE", toDeviceEnd))
		}},
		{"a ring of transactions under no device", func(tx *Tx) error {
			return tx.put(bucketUser, appendPart(keyOf(uint32(user), userTxn), "NONE"), appendU64(nil, 1))
		}},
		{"a device list that is not in the index", func(tx *Tx) error {
			return tx.put(bucketUser, keyOf(uint32(user), userDevicesLatest), appendU64(nil, 1<<40))
		}},
	}
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			s := openDir(t, t.TempDir())
			defer closeStore(t, s)
			user = addDevices(t, s, alice, "PHONE")
			update(t, s, func(tx *Tx) error {
				_, err := tx.AppendToDevice(user, "PHONE", deviceMessage(1))
				version, backupErr := tx.CreateBackup(user, "m.test", jsontext.Value(`{}`))
				_, keysErr := tx.PutRoomKeys(user, version, []RoomKey{roomKey("r", "s", true, 0, 0)})
				return errors.Join(err, backupErr, keysErr,
					tx.PutDeviceKeys(user, "PHONE", jsontext.Value(`{}`)),
					tx.AddOneTimeKeys(user, "PHONE", oneTimeKeys(0, 3)),
					tx.PutCrossSigningKeys(user, map[Usage]CrossSigningKey{UsageMaster: crossKey("M")}),
				)
			})
			checkStore(t, s)
			update(t, s, d.deed)
			faults := 0
			if err := s.Check(context.Background(), func(string) { faults++ }); err != nil {
				t.Fatal(err)
			}
			if faults == 0 {
				t.Error("Check finds nothing")
			}
		})
	}
}
